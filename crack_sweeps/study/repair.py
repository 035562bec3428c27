"""Finds and repairs what a crash left between a study's store, its ledger and its runs; twice is once, nothing goes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import Timeout

from crack_sweeps.errors import StudyError
from crack_sweeps.runs.directory import RunDirectory, all_runs
from crack_sweeps.runs.events import EventLog, read_events
from crack_sweeps.specs.study_loading import Arm, ResolvedStudy
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import Trial
from crack_sweeps.study.ledger import OUTSIDE, Ledger, lost_outside, read_rows, row_of, trial_name
from crack_sweeps.study.outcome import ended, outcome_of
from crack_sweeps.study.store import Store, own_url

LOST = "it is neither in the ledger nor has it a run"
_FACTS = (
    "run",
    "seed",
    "repeat_of",
    "imported_from",
    "finalist_of",
    "selected_trial",
    "epoch_cap",
    "fingerprint",
    "shape",
    "forecast_bytes",
    "needed_bytes",
    "reason",
)


@dataclass(frozen=True)
class Flaw:
    """Something that does not agree, about one trial or a whole study."""

    subject: str
    text: str


def repair(folder: StudyFolder, url: str, *, outputs: Path, write: bool) -> Iterator[Flaw]:
    """What does not agree in a study that nobody coordinates.

    Args:
        folder: The study's.
        url: Where its trials are stored.
        outputs: Folder of all runs.
        write: Repair each flaw before it is yielded; otherwise only look.

    Raises:
        StudyError: A coordinator is at work.
        StoreError: The store cannot be opened, or has the trials of another study of this name.
    """
    if not write and url.startswith("sqlite") and not _file_of(url).is_file():
        yield Flaw(f"study {folder.name}", f"its database {_file_of(url)} is gone")
        return
    study = folder.read_study()
    if write and folder.read_facts().get("storage") is None:
        own_url(folder)  # which makes the folder of a file that is gone
    try:
        lock = folder.lock().acquire(blocking=False)
    except Timeout:
        raise StudyError(
            f"study {folder.typed} is being searched", hint=f"`sweeps stop {folder.typed}` first"
        ) from None
    with lock, closing(_store(folder, study, url, make=write)) as store:
        for arm in study.all_arms:
            yield from _missing_in_store(folder, study, arm, store, outputs, write=write)
            yield from _untold(folder, study, arm, store, outputs, write=write)
        yield from _outside(folder, write=write)


def _store(folder: StudyFolder, study: ResolvedStudy, url: str, *, make: bool) -> Store:
    return Store(url, folder.name, study.all_arms, study.spec.objective, owner=folder, make=make, patience_s=0)


def _missing_in_store(
    folder: StudyFolder, study: ResolvedStudy, arm: Arm, store: Store, outputs: Path, *, write: bool
) -> Iterator[Flaw]:
    """Trials that the ledger or a run directory knows and the store does not: its file was lost, or is an old copy."""
    num_stored = len(store.trials(arm.name))
    rows = {row["number"]: row for row in read_rows(folder) if row["arm"] == arm.name}
    runs = _runs_of(folder, arm, outputs)
    for number in range(num_stored, max([*rows, *runs], default=-1) + 1):
        row = rows.get(number)
        if number in runs:
            trial = _from_run(runs[number], arm, number, study.spec.objective.metric)
            if row is not None:  # a run knows not that its trial was given up
                trial = replace(ended(trial, row["outcome"], row["reason"]), value=row["value"])
            else:
                trial = outcome_of(trial, outputs=outputs, objective=study.spec.objective) or trial
        elif row is not None:
            trial = _from_row(row, arm, number)
        else:
            trial = ended(Trial(arm.name, number, {}, "running"), "failed", LOST)
        if write:
            store.add(trial)
        yield Flaw(_name(folder, study, trial), f"{trial.outcome}, but not in the store")


def _untold(
    folder: StudyFolder, study: ResolvedStudy, arm: Arm, store: Store, outputs: Path, *, write: bool
) -> Iterator[Flaw]:
    """Trials whose run has ended and whose coordinator died before it said so; rows that the ledger lacks."""
    with closing(Ledger(folder)) as ledger:
        for trial in store.trials(arm.name):
            over: Trial | None = trial
            if trial.outcome == "running":
                over = outcome_of(trial, outputs=outputs, objective=study.spec.objective)
                if over is not None:
                    reported = _reported(RunDirectory(outputs / trial.facts["run"]), study.spec.objective.metric)
                    over = replace(over, intermediate={**reported, **trial.intermediate})
                    if write:
                        for epoch in sorted(reported.keys() - trial.intermediate.keys()):
                            store.report(trial, epoch, reported[epoch])
                        store.finish(over)
                    yield Flaw(_name(folder, study, trial), f"its run is over ({over.outcome}), the store says running")
            if over is not None and (over.arm, over.number) not in ledger:
                if write:
                    ledger.add(row_of(over, name=_name(folder, study, over), outputs=outputs))
                yield Flaw(_name(folder, study, over), f"{over.outcome}, but not in the ledger")


def _outside(folder: StudyFolder, *, write: bool) -> Iterator[Flaw]:
    """Outside entries that went with a ledger that was lost; their files stayed."""
    for entry in list(lost_outside(folder)):
        if write:
            with closing(EventLog(folder.ledger)) as log:
                log.append(OUTSIDE, **entry)
        yield Flaw(f"study {folder.name}", f"outside entry {entry['name']} ({entry['split']}), but not in the ledger")


def _runs_of(folder: StudyFolder, arm: Arm, outputs: Path) -> dict[int, tuple[RunDirectory, Mapping[str, Any]]]:
    found: dict[int, tuple[RunDirectory, Mapping[str, Any]]] = {}
    began = datetime.strptime(folder.read_facts()["began"], "%Y-%m-%dT%H:%M:%S%z")
    began_ms = 1000 * int(began.timestamp())
    for run in all_runs(outputs=outputs):
        belongs = run.read_environment().get("study")
        if belongs is None or (belongs["name"], belongs["arm"]) != (folder.name, arm.name):
            continue
        if _began_ms(run) >= began_ms:  # an older one is of a folder of this name that was deleted
            found[belongs["number"]] = run, belongs
    return found


def _from_run(found: tuple[RunDirectory, Mapping[str, Any]], arm: Arm, number: int, metric: str) -> Trial:
    run, belongs = found
    return Trial(
        arm=arm.name,
        number=number,
        suggestion=belongs["suggestion"],
        outcome="running",
        intermediate=_reported(run, metric),
        excess=belongs["excess"],
        facts=belongs["facts"],
    )


def _began_ms(run: RunDirectory) -> int:
    first = next(read_events(run.events), None)
    return int(first["time_ms"]) if first is not None else 0


def _reported(run: RunDirectory, metric: str) -> dict[int, float]:
    """The objective by epoch, as the run itself wrote it down; what is no number was never kept."""
    epochs = (event for event in read_events(run.events) if event["kind"] == "epoch")
    told = {event["epoch"]: event["metrics"].get(metric) for event in epochs}
    return {epoch: value for epoch, value in told.items() if value is not None and math.isfinite(value)}


def _from_row(row: Mapping[str, Any], arm: Arm, number: int) -> Trial:
    facts = {key: row[key] for key in _FACTS if row.get(key) is not None}
    if row.get("top_up"):  # how many it might have trained, the row does not say
        facts["epoch_cap"] = row["num_epochs"]
    return Trial(
        arm=arm.name,
        number=number,
        suggestion=row["suggestion"],
        outcome=row["outcome"],
        value=row["value"],
        intermediate={row["num_epochs"]: row["last_value"]} if row["last_value"] is not None else {},
        excess=row["excess"],
        facts=facts,
    )


def _name(folder: StudyFolder, study: ResolvedStudy, trial: Trial) -> str:
    return trial_name(folder, study.arms[0].name, trial.arm, trial.number)


def _file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))
