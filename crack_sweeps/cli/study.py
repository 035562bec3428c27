"""`sweeps study`: a search from where it stands to the end of its budget."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crack_sweeps.cli.interrupts import Interrupts, interrupts
from crack_sweeps.errors import UserError

if TYPE_CHECKING:
    from crack_sweeps.cli.study_board import StudyBoard
    from crack_sweeps.search import StudyRecord
    from crack_sweeps.specs.study_loading import ResolvedStudy
    from crack_sweeps.study.updates import StudyBegan

SOME_FAILED = 3
STOPPED = 143  # on request of `sweeps stop`: as by SIGTERM, its quieter sister


def study(
    study: Annotated[
        str | None,
        typer.Argument(
            help="A shipped study, one of ./studies, or a YAML file; swinv2_hybrid if none.", show_default=False
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the base experiment, such as training.epochs=10."),
    ] = None,
    config_override: Annotated[
        list[str] | None, typer.Option("--config-override", metavar="KEY=VALUE", help="The same thing spelled out.")
    ] = None,
    trials: Annotated[
        str | None, typer.Option(metavar="N", help="Trials that train, in all; those rejected do not count.")
    ] = None,
    baseline_trials: Annotated[
        str | None,
        typer.Option(metavar="N", help="The same for each baseline; as many if not typed, 0: as shipped, once."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N", help="Trainings of each arm's best settings, scored on test; 3 if none.")
    ] = None,
    jobs: Annotated[str | None, typer.Option(metavar="N|auto", help="Trials at once; auto is as many as fit.")] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Database of the trials; SQLite in the study's folder if none.")
    ] = None,
    vram_budget: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory that a trial may need, such as 8GiB, or auto.")
    ] = None,
    gpu_hours: Annotated[
        str | None, typer.Option(metavar="H", help="Hours of training, after which no trial begins; finalists do.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of photos and masks, or an imported set; else the built-in photos.")
    ] = None,
    profile: Annotated[str, typer.Option(help="auto, cpu, gpu-8gb, gpu-24gb or gpu-80gb.")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done; train and write nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Search for the best settings; the same command again goes on."""
    from crack_sweeps import console

    settings = [*(overrides or ()), *(config_override or ())]
    if study is not None and "=" in study and not Path(study).exists():  # no study was named, so this is a setting
        study, settings = None, [study, *settings]
    flags: dict[str, Any] = {
        "overrides": settings,
        "data": data,
        "profile": profile,
        "trials": _whole("--trials", trials),
        "baseline_trials": _whole("--baseline-trials", baseline_trials, least=0),
        "seeds": _whole("--seeds", seeds, least=0),
        "jobs": jobs if jobs == "auto" else _whole("--jobs", jobs, or_auto=True),
        "gpu_hours": _hours(gpu_hours),
        "vram_budget": vram_budget,
        "storage": storage,
    }
    resolved = _resolved(study, flags)  # most mistakes are in here, and are told before anything large is loaded
    console.say("loading optuna and friends ...")
    from crack_sweeps import search

    if dry_run:
        plan = search.plan_study(study, notify=console.say, **flags)
        _print(plan.as_dict(), plan.rows(), as_json=json)
        console.say("\ndry run: nothing was trained, nothing was written")
        return
    with interrupts() as caught:
        record = _watch(study, resolved, flags, caught)
    from crack_sweeps.cli.study_words import record_rows

    _print(record.as_dict(), record_rows(record, resolved.spec.objective.metric), as_json=json)
    if record.best is not None:
        best = record.best["trial"]
        board = f"  sweeps leaderboard {record.study}  # who wins, and is it real"
        page = f"  {record.folder}/report.html  # the same and more, in a browser"
        told = [board, page] if record.status == "FINISHED" else []
        told.append(f"  sweeps explain {best}  # how the best trial went")
        told.append(f"  sweeps run --trial {best}  # train its settings again")
        console.say("\n".join(["\nnext:", *told, "  sweeps ui  # compare trials in MLflow"]))
    if record.status == "KILLED":
        console.say(f"go on with: {_typed(study, flags)}")
        raise typer.Exit(128 + caught.number if caught.number is not None else STOPPED)
    if record.num_failed:
        raise typer.Exit(SOME_FAILED)


def _resolved(study: str | None, flags: Mapping[str, Any]) -> ResolvedStudy:
    from crack_sweeps.specs.study_loading import resolve_study
    from crack_sweeps.training.nvml import detect_machine

    return resolve_study(
        study,
        overrides=flags["overrides"],
        profile=flags["profile"],
        machine=detect_machine(),
        data=flags["data"],
        trials=flags["trials"],
        baseline_trials=flags["baseline_trials"],
        seeds=flags["seeds"],
        jobs=flags["jobs"],
        gpu_hours=flags["gpu_hours"],
        memory_budget=flags["vram_budget"],
    )


def _watch(study: str | None, resolved: ResolvedStudy, flags: Mapping[str, Any], caught: Interrupts) -> StudyRecord:
    """Run the search and show how it goes: a table on a terminal, elsewhere a line for each thing that happens."""
    from crack_sweeps import console, search
    from crack_sweeps.cli.study_board import StudyBoard
    from crack_sweeps.study.updates import Notice, StudyBegan, StudyEnded

    board, on_terminal = StudyBoard(), sys.stderr.isatty()
    updates = search.searching(study, stop=caught.reason, notify=console.say, **flags)
    with closing(updates), console.live(board.view) if on_terminal else nullcontext():
        for update in updates:
            match update:
                case StudyBegan():
                    caught.checkpoint_first()
                    _begin(board, update, resolved)
                case Notice():
                    console.warn(update.text)
                case StudyEnded():
                    return search.record_of(update)
                case _:
                    shown_in_table = on_terminal and board.has_begun
                    line = board.hear(update)
                    if line is not None and not shown_in_table:
                        console.say(line)
    raise AssertionError("a study ends with a record or an error")


def _begin(board: StudyBoard, update: StudyBegan, resolved: ResolvedStudy) -> None:
    from crack_sweeps import console
    from crack_sweeps.study.standing import StudyReader

    keys = dict.fromkeys(key for arm in resolved.arms for key in arm.space)  # arms share many
    board.began(StudyReader(update.folder).read(), keys)
    adopted = f", {update.num_adopted} to be gone on with" if update.num_adopted else ""
    console.say(
        f"{update.num_trained} of {update.num_trials} trials trained so far{adopted}; at most {update.jobs} at once"
    )


def _whole(flag: str, text: str | None, *, least: int = 1, or_auto: bool = False) -> int | None:
    """A number as typed, or None where nothing was."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", text) is None or int(text) < least:
        raise UserError(
            f"{flag} {text}: not a whole number from {least}",
            hint=f"type {flag} auto" if or_auto else f"type {flag} 4, say",
        )
    return int(text)


def _hours(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not (0 < hours < math.inf):
        raise UserError(f"--gpu-hours {text}: not a number above 0", hint="type --gpu-hours 8, or 0.5")
    return hours


def _typed(study: str | None, flags: Mapping[str, Any]) -> str:
    """The command again, without the password of an address."""
    from crack_sweeps.tracking.location import mask

    words = ["sweeps", "study", *([study] if study is not None else []), *flags["overrides"]]
    for name, value in flags.items():
        if name != "overrides" and value is not None and (name, value) != ("profile", "auto"):
            words += [f"--{name.replace('_', '-')}", mask(str(value)) if name == "storage" else str(value)]
    return shlex.join(words)


def _print(content: Mapping[str, Any], rows: list[tuple[str, str]], *, as_json: bool) -> None:
    """One JSON object, or rows for people."""
    if as_json:
        from json import dumps

        print(dumps(content, indent=2, allow_nan=False))
    else:
        from crack_sweeps import console

        console.print_rows(rows)
