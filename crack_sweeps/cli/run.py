"""`sweeps run`: one training from start to record."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from crack_sweeps.cli.rows import plan_rows, record_rows

if TYPE_CHECKING:
    from crack_sweeps.runs.plan import Plan
    from crack_sweeps.runs.record import RunRecord
    from crack_sweeps.runs.training_run import Halt
    from crack_sweeps.training.loop import EpochReport

Record = TypeVar("Record", "RunRecord", "Plan")
_CATCHABLE = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # those that this system has


def run(
    experiment: Annotated[
        str | None,
        typer.Argument(help="A shipped experiment, one of ./experiments, or a YAML file.", show_default=False),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as training.epochs=10.")
    ] = None,
    config_override: Annotated[
        list[str] | None, typer.Option("--config-override", metavar="KEY=VALUE", help="The same thing spelled out.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of photos and masks; without it, the built-in set.")] = None,
    profile: Annotated[str, typer.Option(help="auto, cpu, gpu-8gb, gpu-24gb or gpu-80gb.")] = "auto",
    seed: Annotated[str | None, typer.Option(metavar="N", help="Seed of weights, order, crops, augmentation.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done; train and write nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest unfinished run of this experiment, seed and data.")
    ] = False,
    resume_from: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with this run, exactly as it was.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Train one model, evaluate it honestly, and keep everything."""
    from crack_sweeps import console
    from crack_sweeps.errors import UserError

    settings = [*(overrides or ()), *(config_override or ())]
    if seed is not None and not seed.isdecimal():
        raise UserError(f"--seed {seed}: not a whole number from 0", hint="type --seed 1, say")
    number = int(seed) if seed is not None else None
    if experiment is None and resume_from is None:
        raise UserError("which experiment?", hint="`sweeps spec list` shows them; try `sweeps run swinv2_hybrid`")
    if experiment is not None and resume_from is not None:
        raise UserError(
            f"--resume-from {resume_from} names the run to go on with, so `{experiment}` cannot be given too",
            hint=f"type `sweeps run --resume-from {resume_from}`, or `sweeps run {experiment} --resume`",
        )
    if dry_run and (resume or resume_from is not None):
        raise UserError("--dry-run plans a new run, and resuming goes on with an old one", hint="leave one of them out")
    if experiment is not None:  # most mistakes are in here, and are told before torch is loaded
        from crack_sweeps.specs.loading import resolve
        from crack_sweeps.training.nvml import detect_machine

        resolve(experiment, overrides=settings, profile=profile, machine=detect_machine(), data=data, seed=number)
    console.say("loading torch and friends ...")
    from crack_sweeps import api

    if dry_run:
        assert experiment is not None, "refused above"
        plan = api.plan(experiment, overrides=settings, data=data, profile=profile, seed=number)
        _print(plan, plan_rows, as_json=json)
        for warning in plan.data.get("warnings", ()):
            console.warn(warning)
        console.say("\ndry run: nothing was trained, nothing was written")
        return
    with _interrupts() as interrupts:
        record = _watch(
            experiment,
            settings,
            data=data,
            profile=profile,
            seed=number,
            resume=resume,
            resume_from=resume_from,
            interrupts=interrupts,
        )
    _print(record, record_rows, as_json=json)
    if record.status == "FINISHED":
        console.say(f"\nnext:\n  sweeps ui  # compare runs in MLflow\n  ls {record.run_dir}/predictions")
    if interrupts.number is not None and record.status == "KILLED":
        console.say(f"go on with: sweeps run --resume-from {record.run}")
        raise typer.Exit(128 + interrupts.number)


def _watch(
    experiment: str | None,
    settings: list[str],
    *,
    data: Path | None,
    profile: str,
    seed: int | None,
    resume: bool,
    resume_from: str | None,
    interrupts: Interrupts,
) -> RunRecord:
    """Run the training and show how it goes."""
    from crack_sweeps import api, console
    from crack_sweeps.runs.training_run import Began, Ended, Scoring
    from crack_sweeps.training.loop import EpochReport, Notice, StepReport

    updates = api.training(
        experiment,
        overrides=settings,
        data=data,
        profile=profile,
        seed=seed,
        resume=resume,
        resume_from=resume_from,
        stop=interrupts.halt,
        notify=console.say,
    )
    total_steps, total_epochs = 0, 0
    with closing(updates), console.progress_bar() as bar:
        for update in updates:
            match update:
                case Began():
                    interrupts.checkpoint_first()
                    total_steps, total_epochs = update.total_steps, update.total_epochs
                    where = f", from step {update.resumed_from_step}" if update.resumed_from_step is not None else ""
                    console.say(f"training {update.run.name} in {update.run.path}{where}")
                case StepReport():
                    bar.update(f"epoch {update.epoch}/{total_epochs}, loss {update.loss:.4f}", update.step, total_steps)
                case EpochReport():
                    console.say(_epoch_line(update, total_epochs))
                case Notice():
                    console.warn(update.text)
                case Scoring():
                    bar.update("scoring all validation photos", update.done, update.total)
                case Ended():
                    return update.record
    raise AssertionError("a training ends with a record or an error")


def _epoch_line(report: EpochReport, total_epochs: int) -> str:
    metrics = report.metrics
    return (
        f"epoch {report.epoch:>3}/{total_epochs}  loss {metrics['train/loss']:.4f}  "
        f"val crack IoU {metrics['val/crack_iou']:.3f}  F1 {metrics['val/crack_f1']:.3f}  "
        f"{metrics['images_per_s']:.1f} images/s  {metrics['epoch_s']:.0f} s{'  best' if report.is_best else ''}"
    )


class Interrupts:
    """Signals of this process: the first asks for a checkpoint and a clean stop, the second kills."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._may_checkpoint = False

    def checkpoint_first(self) -> None:
        """From now on there is something to store; before, a signal ends the process at once."""
        self._may_checkpoint = True

    def halt(self) -> Halt | None:
        """Why to stop, if a signal came."""
        from crack_sweeps.runs.training_run import Halt

        return None if self.number is None else Halt("KILLED", signal.Signals(self.number).name)

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Called by Python when a signal arrives. The system's own handling, raised anew, ends the process at once."""
        if self.number is not None or not self._may_checkpoint:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number
        sys.stderr.write(
            f"\n{signal.Signals(number).name}: storing a checkpoint, then stopping; once more kills at once\n"
        )
        sys.stderr.flush()


@contextmanager
def _interrupts() -> Iterator[Interrupts]:
    """Handle signals inside the block, and put the old handlers back after it."""
    interrupts = Interrupts()
    numbers = [getattr(signal, name) for name in _CATCHABLE if hasattr(signal, name)]
    before = {number: signal.signal(number, interrupts.handle) for number in numbers}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(what: Record, rows_of: Callable[[Record], list[tuple[str, str]]], *, as_json: bool) -> None:
    """One JSON object, or rows for people."""
    if as_json:
        from json import dumps

        print(dumps(what.as_dict(), indent=2, allow_nan=False))
    else:
        from crack_sweeps import console

        console.print_rows(rows_of(what))
