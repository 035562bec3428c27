"""What a study has on file, read once: its ledger, its data's facts, its looks at test. No run is opened here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from crack_sweeps.errors import UserError
from crack_sweeps.runs.events import Event, read_events
from crack_sweeps.specs.study_loading import ResolvedStudy
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.ledger import OUTSIDE, TRIAL, Row
from crack_sweeps.study.missing import read_begun


@dataclass(frozen=True)
class Records:
    """A study's files.

    Args:
        folder: The study's.
        study: As it was resolved; its main arm comes first.
        trials: Rows of the ledger in the order in which trials ended, finalists' trainings among them.
        outside: Outside entries: of each name and split the one that was added last.
        data: What is known of the photos (data.json); empty for a study that began before it was written.
        looks: Looks at test other than the finalists' own (test_looks.jsonl), in order.
    """

    folder: StudyFolder
    study: ResolvedStudy
    trials: tuple[Row, ...]
    outside: tuple[Row, ...]
    data: Mapping[str, Any]
    looks: tuple[Mapping[str, Any], ...]

    @cached_property
    def _searches(self) -> Mapping[str, list[Row]]:
        """Trials by the arm that was searched, of which there may be thousands."""
        found: dict[str, list[Row]] = {arm.name: [] for arm in self.study.arms}
        for row in self.trials:
            if row.get("finalist_of") is None:
                found.setdefault(row["arm"], []).append(row)
        return found

    @cached_property
    def finals(self) -> Sequence[Row]:
        """Trainings of finalists, those that failed among them."""
        return [row for row in self.trials if row.get("finalist_of") is not None]

    def searched(self, arm: str) -> Sequence[Row]:
        """Trials of an arm's search."""
        return self._searches[arm]

    def finalists(self, arm: str) -> list[Row]:
        """Complete trainings of an arm's finalist, those of an earlier finalist among them."""
        return [row for row in self.finals if row["finalist_of"] == arm and row["outcome"] == "complete"]


def read_records(folder: StudyFolder) -> Records:
    """A study's files.

    Raises:
        UserError: One of them is damaged.
    """
    trials: list[Row] = []
    outside: dict[tuple[str, str], Row] = {}
    for event in _ledger(folder):
        if event["kind"] == TRIAL:
            trials.append(event)
        elif event["kind"] == OUTSIDE:
            outside[event["name"], event["split"]] = event
    return Records(
        folder=folder,
        study=read_begun(folder),
        trials=tuple(trials),
        outside=tuple(outside.values()),
        data=_data(folder.path / "data.json"),
        looks=tuple(_lines(folder.path / "test_looks.jsonl")),
    )


def _ledger(folder: StudyFolder) -> Iterator[Event]:
    try:
        yield from read_events(folder.ledger)
    except ValueError as error:
        raise UserError(
            f"{folder.ledger}: cannot be read ({error})",
            hint="move it aside; `sweeps doctor --fix` writes it anew from the store and the runs",
        ) from error


def _data(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({error})", hint="the study writes it anew when it goes on") from error
    return content


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}: line {number} cannot be read ({error})", hint="it is one JSON object") from error
