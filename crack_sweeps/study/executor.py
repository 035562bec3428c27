"""What trials run on, as the coordinator sees it: a few calls, and plain messages in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from crack_sweeps.data.photos import PhotoSet
from crack_sweeps.errors import CheckpointError, DiskFull, OutOfMemory, SweepsError, UserError
from crack_sweeps.specs.experiment import Experiment

Key = tuple[str, int]  # arm and number


@dataclass(frozen=True)
class Order:
    """All that a trial's process is told; plain data, so that it can travel to another machine.

    Args:
        key: Arm and number.
        run_name: The run's directory under `outputs`, reserved for this trial; if it is there, it is gone on with.
        experiment: What to train.
        origin: Where the settings came from, as `runs.preparation.Origin` has it.
        suggestion: What must be found again in the experiment before the training starts.
        membership: Where the run belongs, as `runs.training_run.Membership` has it.
        photos: Opened and checked by the coordinator.
        forecast: The parts of its memory forecast, as `MemoryForecast` has them.
        gpu: What CUDA_VISIBLE_DEVICES is set to; None hides every card.
        memory_fraction: Share of the card's memory that torch may take; None is not capped.
        threads: Of torch on the processor.
        score_test: Whether the test photos are scored at the end: finalists only.
        log_model: Whether the trackers are given the model at the end.
    """

    key: Key
    run_name: str
    outputs: Path
    experiment: Experiment
    origin: Mapping[str, Any]
    suggestion: Mapping[str, Any]
    membership: Mapping[str, Any]
    photos: PhotoSet
    forecast: Mapping[str, int]
    gpu: str | None
    memory_fraction: float | None
    threads: int
    score_test: bool = False
    log_model: bool = False


# --- from a trial --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Began:
    """The training is under way."""

    key: Key
    total_epochs: int
    resumed_from_step: int | None


@dataclass(frozen=True)
class Reported:
    """An epoch is complete and stored; the trial waits for the verdict."""

    key: Key
    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Lives:
    """It is at work: said at a step now and then, so that one that hangs can be told from one that is slow."""

    key: Key


@dataclass(frozen=True)
class Told:
    """Something that a person should know; the trial goes on."""

    key: Key
    text: str


@dataclass(frozen=True)
class RunEnded:
    """The run has its record; the process is about to leave."""

    key: Key


@dataclass(frozen=True)
class Refused:
    """The trial ended with an error that is its own, such as a loss that is not finite.

    Args:
        out_of_memory: Not even the smallest micro-batch fits.
        mistake: The person's to put right (missing weights, photos that changed): no trial can run.
        disk_full: A file could not be written; the trial's last checkpoint is whole, and it can go on from there.
    """

    key: Key
    message: str
    hint: str | None
    out_of_memory: bool
    mistake: bool
    disk_full: bool = False

    @classmethod
    def by(cls, key: Key, error: SweepsError) -> Refused:
        """What an error means for the study. A damaged checkpoint is one trial's, whoever has to put it right."""
        return cls(
            key,
            error.message,
            error.hint,
            out_of_memory=isinstance(error, OutOfMemory),
            mistake=isinstance(error, UserError) and not isinstance(error, CheckpointError),
            disk_full=isinstance(error, DiskFull),
        )


@dataclass(frozen=True)
class Gone:
    """The process is no more. What it left on disk tells how far it came."""

    key: Key
    exit_code: int | None


Message = Began | Lives | Reported | Told | RunEnded | Refused | Gone

# --- to a trial ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class GoOn:
    """The verdict: train the next epoch."""


@dataclass(frozen=True)
class Prune:
    """The verdict: end here, for good."""

    reason: str


@dataclass(frozen=True)
class Leave:
    """Store a checkpoint and end for now."""

    reason: str


Answer = GoOn | Prune | Leave


class Executor(Protocol):
    """Runs trials somewhere. Each key has one process at a time; the last message of each is `Gone`."""

    def launch(self, order: Order) -> None:
        """Start a trial. Returns at once."""

    def wait(self, timeout_s: float) -> Sequence[Message]:
        """What came in, waiting for it so long at most; messages of one trial in their order."""

    def answer(self, key: Key, answer: Answer) -> None:
        """Tell a trial. One that is gone in the meantime is told by its `Gone`."""

    def end(self, key: Key) -> None:
        """End one trial at once, and whatever it started; its `Gone` follows."""

    def kill(self) -> None:
        """End all trials at once."""

    def close(self) -> None:
        """Give everything back; all trials must be gone."""
