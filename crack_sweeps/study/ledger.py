"""The ledger: a row for each trial that ended, appended once, and outside entries; what leaderboard and report read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import Timeout

from crack_sweeps import durable
from crack_sweeps.errors import StudyError, UserError
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.events import EventLog, read_events
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import Trial

Row = dict[str, Any]
TRIAL, OUTSIDE = "trial", "outside"
LEDGER = "ledger.jsonl"


def trial_name(folder: StudyFolder, main_arm: str, arm: str, number: int) -> str:
    """How people name a trial: `STUDY/21`, and `STUDY/ARM/21` outside the main arm."""
    return f"{folder.name}/{number}" if arm == main_arm else f"{folder.name}/{arm}/{number}"


class Ledger:
    """Appends rows; a trial that has one already gets no second."""

    def __init__(self, folder: StudyFolder) -> None:
        self._log = EventLog(folder.ledger)
        self._seconds: dict[tuple[str, int], float] = {}
        for row in read_rows(folder):
            self._seconds[row["arm"], row["number"]] = row["duration_s"]

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._seconds

    @property
    def seconds(self) -> float:
        """Of training, over all trials that ended."""
        return sum(self._seconds.values())

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row, unless the trial has one."""
        key = (row["arm"], row["number"])
        if key not in self._seconds:
            self._log.append(TRIAL, **row)
            self._seconds[key] = row["duration_s"]

    def close(self) -> None:
        """Close the file; the rows are on disk already."""
        self._log.close()


@contextlib.contextmanager
def undamaged(log: Path) -> Iterator[None]:
    """Tell a line of a study's own log that is no event as what happened to that file.

    Args:
        log: Its ledger.jsonl or events.jsonl, which is read inside.

    Raises:
        UserError: Somebody edited it.
    """
    try:
        yield
    except ValueError as error:
        hint = "move it aside; `sweeps doctor --fix` writes it anew from the store and the runs"
        raise UserError(
            f"{log}: is damaged ({str(error).removeprefix(f'{log}: ')})",
            hint=hint if log.name == LEDGER else "it is written by the study alone: put it back as it was",
        ) from error


def read_rows(folder: StudyFolder) -> Iterator[Row]:
    """Rows in the order in which trials ended, with names as people type them now."""
    typed = folder.typed
    yield from (as_typed(event, folder, typed) for event in read_events(folder.ledger) if event["kind"] == TRIAL)


def as_typed(row: Row, folder: StudyFolder, typed: str) -> Row:
    """The row with the names that reach its trials now: since it was written a newer version may have begun.

    Args:
        row: As it stands in the file.
        folder: Of its study.
        typed: `folder.typed`, which is asked for once for all rows.
    """
    if typed == folder.name:
        return row
    names = {key: typed + row[key].removeprefix(folder.name) for key in ("trial", "selected_trial") if row.get(key)}
    return {**row, **names}


def add_outside(folder: StudyFolder, entry: Mapping[str, Any]) -> None:
    """Keep the scores of somebody else's predictions beside the trials; they stand on the leaderboard.

    Args:
        folder: Of the study.
        entry: `name`, `split`, `threshold`, `threshold_origin` (validation, given or oracle), `protocol`, `metrics`
            by plain name, `scores` (its table of images, relative to the folder), `data_digest` and `command`.

    Raises:
        StudyError: A coordinator is at work: the ledger has one writer at a time.
    """
    try:
        with folder.lock().acquire(blocking=False), closing(EventLog(folder.ledger)) as log:
            kept = folder.path / "outside" / f"{entry['name']}-{entry['split']}.json"
            kept.parent.mkdir(exist_ok=True)
            durable.write_text(kept, json.dumps(dict(entry), indent=1) + "\n")  # what a lost ledger is made from
            log.append(OUTSIDE, **entry)
    except Timeout:
        raise StudyError(
            f"study {folder.name} is being searched", hint="add the entry when it has ended, or stop it first"
        ) from None


def lost_outside(folder: StudyFolder) -> Iterator[Row]:
    """Outside entries that have their files, and no line in the ledger."""
    known = {(entry["name"], entry["split"]) for entry in read_outside(folder)}
    for path in sorted((folder.path / "outside").glob("*.json")):
        entry: Row = json.loads(path.read_bytes())
        if (entry["name"], entry["split"]) not in known:
            yield entry


def read_outside(folder: StudyFolder) -> Iterator[Row]:
    """Outside entries: of each name and split the one that was added last."""
    newest = {(e["name"], e["split"]): e for e in read_events(folder.ledger) if e["kind"] == OUTSIDE}
    yield from newest.values()


def row_of(trial: Trial, *, name: str, outputs: Path) -> Row:
    """What is kept of a trial that has ended, with the figures of its run's record if it got that far."""
    run = trial.facts.get("run")
    record = _record(outputs / run) if run is not None else {}
    vram = record.get("vram", {})
    peaks = {key: value for key, value in vram.items() if key.endswith("_bytes")}
    return {
        "trial": name,
        "arm": trial.arm,
        "number": trial.number,
        "outcome": trial.outcome,
        "reason": trial.facts.get("reason"),
        "suggestion": dict(trial.suggestion),
        "value": trial.value,
        "last_value": trial.intermediate[max(trial.intermediate)] if trial.intermediate else None,
        "num_epochs": max(trial.intermediate, default=0),
        "best_epoch": record.get("best_epoch"),
        "seed": trial.facts.get("seed"),
        "repeat_of": trial.facts.get("repeat_of"),
        "imported_from": trial.facts.get("imported_from"),
        "finalist_of": trial.facts.get("finalist_of"),
        "selected_trial": trial.facts.get("selected_trial"),
        "top_up": trial.facts.get("epoch_cap") is not None,
        "run": run,
        "run_dir": str(outputs / run) if run is not None else None,
        "fingerprint": trial.facts.get("fingerprint"),
        "shape": trial.facts.get("shape"),
        "forecast_bytes": trial.facts.get("forecast_bytes"),
        "needed_bytes": trial.facts.get("needed_bytes"),
        "excess": trial.excess,
        "peaks": peaks,
        "memory_source": vram.get("source"),
        "duration_s": record.get("duration_s", trial.facts.get("duration_s", 0.0)),
        "metrics": record.get("metrics", {}),
        "threshold": record.get("threshold"),
        "images_per_s": record.get("images_per_s"),
        "num_params": record.get("num_params"),
        "quick_look": record.get("quick_look"),
        "data_digest": record.get("data_digest"),
        "commit": record.get("commit"),
    }


def _record(run_dir: Path) -> dict[str, Any]:
    path = RunDirectory(run_dir).metrics
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    return content
