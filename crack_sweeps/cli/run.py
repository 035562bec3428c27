"""`sweeps run`: one training from start to record."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from crack_sweeps.cli.interrupts import Interrupts, interrupts
from crack_sweeps.cli.rows import plan_rows, record_rows

if TYPE_CHECKING:
    from crack_sweeps.runs.directory import RunDirectory
    from crack_sweeps.runs.plan import Plan
    from crack_sweeps.runs.record import RunRecord
    from crack_sweeps.runs.training_run import Update
    from crack_sweeps.training.loop import EpochReport

Record = TypeVar("Record", "RunRecord", "Plan")


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
    data: Annotated[
        Path | None, typer.Option(help="Folder of photos and masks, or an imported set; else the built-in photos.")
    ] = None,
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
    trial: Annotated[
        str | None, typer.Option(metavar="STUDY/N", help="Train this trial's settings; another --seed, if any.")
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
    if trial is not None:
        beside = [*([experiment] if experiment is not None else []), *settings]
        flags = {"--data": data is not None, "--profile": profile != "auto", "--resume": resume}
        flags["--resume-from"] = resume_from is not None
        _check_trial(trial, [*beside, *(flag for flag, typed in flags.items() if typed)], number)
    else:
        _check_named(experiment, resume, resume_from, dry_run)
    if experiment is not None:  # most mistakes are in here, and are told before torch is loaded
        from crack_sweeps.specs.loading import resolve
        from crack_sweeps.training.nvml import detect_machine

        resolve(experiment, overrides=settings, profile=profile, machine=detect_machine(), data=data, seed=number)
    console.say("loading torch and friends ...")
    from crack_sweeps import api

    if dry_run:
        plan = api.plan(experiment, overrides=settings, data=data, profile=profile, seed=number, trial=trial)
        _print(plan, plan_rows, as_json=json)
        for warning in plan.data.get("warnings", ()):
            console.warn(warning)
        console.say("\ndry run: nothing was trained, nothing was written")
        return
    with interrupts() as caught:
        record = _watch(
            experiment,
            settings,
            data=data,
            profile=profile,
            seed=number,
            resume=resume,
            resume_from=resume_from,
            trial=trial,
            caught=caught,
            as_json=json,
        )
    _print(record, record_rows, as_json=json)
    if record.status == "FINISHED":
        console.say(f"\nnext:\n  sweeps ui  # compare runs in MLflow\n  ls {record.run_dir}/predictions")
    if caught.number is not None and record.status == "KILLED":
        console.say(f"go on with: sweeps run --resume-from {record.run}")
        raise typer.Exit(128 + caught.number)


def _check_named(experiment: str | None, resume: bool, resume_from: str | None, dry_run: bool) -> None:
    """There is one thing to train, and it is clear which."""
    from crack_sweeps.errors import UserError

    if experiment is None and resume_from is None:
        raise UserError("which experiment?", hint="`sweeps spec list` shows them; try `sweeps run swinv2_hybrid`")
    if experiment is not None and resume_from is not None:
        raise UserError(
            f"--resume-from {resume_from} names the run to go on with, so `{experiment}` cannot be given too",
            hint=f"type `sweeps run --resume-from {resume_from}`: it goes on with its own settings"
            if "=" in experiment
            else f"type `sweeps run --resume-from {resume_from}`, or `sweeps run {experiment} --resume`",
        )
    if dry_run and (resume or resume_from is not None):
        raise UserError("--dry-run plans a new run, and resuming goes on with an old one", hint="leave one of them out")


def _check_trial(trial: str, beside: list[str], seed: int | None) -> None:
    """A trial is trained as it was; only its seed may be another. A wrong name is told before torch is loaded."""
    from crack_sweeps.errors import UserError
    from crack_sweeps.study.naming import trial_settings

    source = trial_settings(trial, seed=seed).source
    if beside:
        raise UserError(
            f"--trial {trial} trains that trial's settings as they are, so `{beside[0]}` cannot be given too",
            hint=f"leave it out, or change settings with `sweeps run {source} KEY=VALUE --profile none`"
            if source.name == "config.yaml"
            else "leave it out",
        )


def _watch(
    experiment: str | None,
    settings: list[str],
    *,
    data: Path | None,
    profile: str,
    seed: int | None,
    resume: bool,
    resume_from: str | None,
    trial: str | None,
    caught: Interrupts,
    as_json: bool,
) -> RunRecord:
    """Run the training and show how it goes."""
    from crack_sweeps import api, console
    from crack_sweeps.runs.training_run import Began, Ended, Halt, Scoring
    from crack_sweeps.training.loop import EpochReport, Notice, StepReport

    def halt() -> Halt | None:
        reason = caught.reason()
        return None if reason is None else Halt("KILLED", reason)

    updates = api.training(
        experiment,
        overrides=settings,
        data=data,
        profile=profile,
        seed=seed,
        resume=resume,
        resume_from=resume_from,
        trial=trial,
        stop=halt,
        notify=console.say,
    )
    total_steps, total_epochs = 0, 0
    if as_json:
        updates = _print_failed(updates)
    with closing(updates), console.progress_bar() as bar:
        for update in updates:
            match update:
                case Began():
                    caught.checkpoint_first()
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


def _print_failed(updates: Generator[Update, None, None]) -> Generator[Update, None, None]:
    """Pass on; of a training that fails print the record, as of every other that ends. Its error goes on its way."""
    from crack_sweeps.runs.record import read_record
    from crack_sweeps.runs.training_run import Locked

    run: RunDirectory | None = None
    with closing(updates):
        try:
            for update in updates:
                if isinstance(update, Locked):
                    run = update.run
                yield update
        except Exception:
            if run is not None and run.status() == "FAILED":
                _print(read_record(run), record_rows, as_json=True)
            raise


def _epoch_line(report: EpochReport, total_epochs: int) -> str:
    metrics = report.metrics
    return (
        f"epoch {report.epoch:>3}/{total_epochs}  loss {metrics['train/loss']:.4f}  "
        f"val crack IoU {metrics['val/crack_iou']:.3f}  F1 {metrics['val/crack_f1']:.3f}  "
        f"{metrics['images_per_s']:.1f} images/s  {metrics['epoch_s']:.0f} s{'  best' if report.is_best else ''}"
    )


def _print(what: Record, rows_of: Callable[[Record], list[tuple[str, str]]], *, as_json: bool) -> None:
    """One JSON object, or rows for people."""
    if as_json:
        from json import dumps

        print(dumps(what.as_dict(), indent=2, allow_nan=False))
    else:
        from crack_sweeps import console

        console.print_rows(rows_of(what))
