"""The disk that a study needs, and whether there is room for another trial."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crack_sweeps.training.footprint import MemoryForecast

RESERVE_BYTES = 5_000_000_000  # DESIGN 5: below it, nothing is launched
RUN_FILES_BYTES = 5_000_000  # beside checkpoints: 2 to 3 MB of overlays, curves, events and scores were measured


@dataclass(frozen=True)
class DiskPlan:
    """Bytes that a study takes.

    Args:
        peak_bytes: At most, when the last trials are still running.
        final_bytes: When it is done, until somebody deletes a run.
    """

    peak_bytes: int
    final_bytes: int


def checkpoint_bytes(forecast: MemoryForecast) -> tuple[int, int]:
    """Of the files that a training writes: weights alone, and the whole state with optimizer and averaged weights."""
    weights = forecast.parameters_bytes
    return weights, weights + forecast.optimizer_bytes + forecast.ema_bytes


def running_bytes(weights_bytes: int, state_bytes: int) -> int:
    """What a trial holds while it runs: the latest state, the one before, the one being written; the best weights."""
    return 3 * state_bytes + weights_bytes + RUN_FILES_BYTES


def ended_bytes(weights_bytes: int) -> int:
    """What a trial leaves: its best and its last weights."""
    return 2 * weights_bytes + RUN_FILES_BYTES


def study_disk(weights_bytes: int, state_bytes: int, trials: int, jobs: int) -> DiskPlan:
    """The plan of a study whose largest trial writes files of these sizes.

    Args:
        weights_bytes: Of a file of weights alone.
        state_bytes: Of a checkpoint to resume from.
        trials: Trainings in all.
        jobs: Trainings at once.
    """
    at_once = min(jobs, trials)
    # A trial that ends writes its last weights while its states are still there.
    most = at_once * max(running_bytes(weights_bytes, state_bytes), ended_bytes(weights_bytes))
    ended = ended_bytes(weights_bytes)
    return DiskPlan(peak_bytes=(trials - at_once) * ended + most, final_bytes=trials * ended)


def disk_shortage(
    folder: Path,
    needed_bytes: int = 0,
    *,
    reserve_bytes: int = RESERVE_BYTES,
    free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
) -> str | None:
    """Why no further trial may be launched, in a sentence; None if it may.

    Args:
        folder: Where runs are written; it need not exist yet.
        needed_bytes: What the launch will write, and running trials have still to write.
        reserve_bytes: What must stay free beside that.
        free: Asks the system for the free bytes of a folder that exists.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free_bytes = free(there)
    if free_bytes >= needed_bytes + reserve_bytes:
        return None
    wanted = f"{_gb(reserve_bytes)} must stay free"
    if needed_bytes:
        wanted = f"{_gb(needed_bytes)} are needed and {wanted}"
    return f"the disk that holds {folder} has {_gb(free_bytes)} free, but {wanted}"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
