"""`sweeps status`, `watch`, `stop`, `explain` and `diff`: how studies stand and why their trials went as they did."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crack_sweeps.study.folder import StudyFolder
    from crack_sweeps.study.standing import Standing, StudyReader

REFRESH_S = 2.0
STOP_PATIENCE_S = 60.0
_STUDY = typer.Argument(
    help="A study's name, its newest version unless one is typed (NAME@1); the newest of all if none.",
    show_default=False,
)
_JSON = typer.Option("--json", help="Print one JSON object on stdout.")
_EITHER = typer.Argument(help="STUDY/21, STUDY/ARM/21, or a run's name or unique prefix.")


def status(study: Annotated[str | None, _STUDY] = None, json: Annotated[bool, _JSON] = False) -> None:
    """Say how a study stands: what runs, what ended, what is best, until when."""
    reader = _reader(study)
    standing = reader.read()
    if json:
        _print_json(standing.as_dict())
    else:
        _print_standing(standing)


def watch(study: Annotated[str | None, _STUDY] = None) -> None:
    """Show how a study goes on until it ends; Ctrl-C leaves it alone."""
    reader = _reader(study)
    try:
        standing = _watch_table(reader) if sys.stderr.isatty() else _watch_lines(reader)
    except KeyboardInterrupt:
        return
    _print_standing(standing)


def stop(
    study: Annotated[str | None, _STUDY] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Ask, and do not wait until it has stopped.")] = False,
) -> None:
    """Stop a study cleanly: its trials store checkpoints, and the same command goes on with them."""
    from crack_sweeps import console

    reader = _reader(study)
    before = reader.read()
    name = before.study
    if before.state != "running":
        console.say(f"study {name} is not running; nothing to stop")
        for other in _running_versions(reader.folder):
            console.say(f"another version of it is: `sweeps stop {other}` stops it")
        return
    reader.folder.stop_request.touch()
    console.say(f"study {name} is asked to stop: its trials store checkpoints")
    if no_wait:
        return
    deadline = time.monotonic() + STOP_PATIENCE_S
    while (standing := reader.read()).state == "running":
        if time.monotonic() > deadline:
            console.say(f"it has not stopped after {STOP_PATIENCE_S:.0f} s; the request stands, `sweeps status` tells")
            raise typer.Exit(1)
        time.sleep(0.2)
    _print_standing(standing)


def explain(
    trial: Annotated[str, typer.Argument(help="STUDY/21, STUDY/ARM/21, or the name of its run.")],
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Say why a trial was pruned, rejected or failed, or how it went."""
    from crack_sweeps import console
    from crack_sweeps.cli.study_words import explanation_rows
    from crack_sweeps.study import comparison

    why = comparison.explain(trial)
    if json:
        _print_json(why.as_dict())
    else:
        console.print_rows(explanation_rows(why))


def diff(a: Annotated[str, _EITHER], b: Annotated[str, _EITHER], json: Annotated[bool, _JSON] = False) -> None:
    """Show in what two trials or runs differ: settings, figures, environment."""
    from crack_sweeps import console
    from crack_sweeps.cli.study_words import difference_tables
    from crack_sweeps.study import comparison

    difference = comparison.diff(a, b)
    if json:
        _print_json(difference.as_dict())
        return
    for note in difference.notes:
        console.warn(f"{note}; its figures are those of the ledger, its environment is not known")
    if not difference.settings:
        console.say("their settings are the same")
    for number, table in enumerate(difference_tables(difference)):
        if number:
            print()
        console.print_table(table)


# --- parts ---------------------------------------------------------------------------------------


def _reader(study: str | None) -> StudyReader:
    from crack_sweeps.study.folder import find_study
    from crack_sweeps.study.standing import StudyReader

    return StudyReader(find_study(study))


def _running_versions(folder: StudyFolder) -> Iterator[str]:
    """Other versions of a study that a coordinator is at work on, by the names that are typed."""
    from crack_sweeps.study.folder import all_studies

    for other in all_studies():
        if other.plain_name == folder.plain_name and other != folder and other.is_running():
            yield other.typed


def _watch_table(reader: StudyReader) -> Standing:
    from crack_sweeps import console
    from crack_sweeps.cli.study_words import standing_view

    seen = [reader.read()]
    with console.live(lambda: standing_view(seen[-1]), per_second=1 / REFRESH_S):
        while seen[-1].state == "running":
            time.sleep(REFRESH_S)
            seen[:] = [reader.read()]
    return seen[-1]


def _watch_lines(reader: StudyReader) -> Standing:
    standing = reader.read()
    if standing.state == "running":  # one at rest is printed once, at the end
        _print_standing(standing)
    while standing.state == "running":
        time.sleep(REFRESH_S)
        before, standing = standing, reader.read()
        for line in _changes(before, standing, reader):
            print(line, flush=True)
    return standing


def _changes(before: Standing, after: Standing, reader: StudyReader) -> Iterator[str]:
    """A line for each trial that began, came further or ended between two readings."""
    from crack_sweeps.cli.study_words import ended_line, figure

    epochs = {trial.trial: trial.epoch for trial in before.running}
    for row in reader.news:
        yield ended_line(row, is_best=row == after.best)
    for trial in after.running:
        if trial.trial not in epochs:
            yield f"{trial.trial} begins"
        elif trial.epoch > epochs[trial.trial]:
            of_all = f"/{trial.total_epochs}" if trial.total_epochs is not None else ""
            yield f"{trial.trial} epoch {trial.epoch}{of_all}  {after.objective} {figure(trial.value)}"


def _print_standing(standing: Standing) -> None:
    from crack_sweeps import console
    from crack_sweeps.cli.study_words import running_table, standing_rows

    console.print_rows(standing_rows(standing))
    if standing.running:
        print()
        console.print_table(running_table(standing))


def _print_json(content: dict[str, object]) -> None:
    from json import dumps

    print(dumps(content, indent=2, allow_nan=False))
