"""All that a report is made of, read once from a study's files and from the directories of its runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from crack_sweeps.errors import UserError
from crack_sweeps.leaderboard.board import Board, board
from crack_sweeps.leaderboard.budget import ArmBudget, budgets
from crack_sweeps.leaderboard.records import Records, read_records
from crack_sweeps.leaderboard.report.plots import PALETTE
from crack_sweeps.leaderboard.rows import BoardRow
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.specs.study_loading import Arm
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.ledger import Row
from crack_sweeps.study.standing import Standing, StudyReader

METRICS = {"val/crack_iou": "crack IoU (validation)", "val/crack_f1": "crack F1 (validation)"}


@dataclass(frozen=True)
class Findings:
    """A study as far as it has come.

    Args:
        records: Its ledger and data.
        standing: Whether it is over, and what runs.
        board: Its leaderboard on the default split; None where there is nothing to rank.
        no_board: Why there is none.
        without_leaks: The same board without leaked test images; None where none leaked.
    """

    records: Records
    standing: Standing
    board: Board | None
    no_board: UserError | None
    without_leaks: Board | None

    @property
    def name(self) -> str:
        """The study's, with its version."""
        return self.records.folder.name

    @property
    def arms(self) -> Sequence[Arm]:
        """The main one first."""
        return self.records.study.arms

    @cached_property
    def budgets(self) -> Sequence[ArmBudget]:
        """What each arm has spent."""
        return budgets(self.records)

    @property
    def metric(self) -> str:
        """The objective in words."""
        name = self.records.study.spec.objective.metric
        return METRICS.get(name, name)

    @property
    def sign(self) -> int:
        """1 where more of the objective is better, else -1."""
        return 1 if self.records.study.spec.objective.direction == "maximize" else -1

    @property
    def all_trained(self) -> bool:
        """Nothing runs, and every arm has its finalists: the report is written just before a study ends."""
        finals = [row.get("finalist_of") for row in self.records.trials]
        seeds = self.records.study.spec.finalists.seeds
        return not self.standing.running and all(finals.count(arm.name) >= max(1, seeds) for arm in self.arms)

    @property
    def quick_look(self) -> bool:
        """The profile shrank the work."""
        return self.records.study.quick_look

    def colour(self, arm: str) -> str:
        """The arm's, the same in all figures; grey for what was not trained here."""
        names = [known.name for known in self.arms]
        return PALETTE[names.index(arm) % len(PALETTE)] if arm in names else "#777777"

    def complete(self, arm: str) -> list[Row]:
        """Complete trials of an arm's search, in the order in which they ended."""
        return [row for row in self.records.searched(arm) if row["outcome"] == "complete" and row["value"] is not None]

    def best(self, arm: str) -> Row | None:
        """The first of an arm's best complete trials."""
        return max(self.complete(arm), key=lambda row: self.sign * row["value"], default=None)

    @cached_property
    def chosen(self) -> Mapping[str, Sequence[RunDirectory]]:
        """The trainings that stand for each arm: those of its row on the leaderboard, else its best trial's."""
        rows: Sequence[BoardRow] = self.board.ranked if self.board is not None else ()
        found = {row.arm: [RunDirectory(Path(run)) for run in row.run_dirs] for row in rows if row.run_dirs}
        for arm in self.arms:
            best = self.best(arm.name)
            if arm.name not in found and best is not None and best["run_dir"] is not None:
                found[arm.name] = [RunDirectory(Path(best["run_dir"]))]
        order = [arm.name for arm in self.arms]
        return {arm: found[arm] for arm in sorted(found, key=lambda arm: order.index(arm) if arm in order else 99)}

    @cached_property
    def environments(self) -> Sequence[Mapping[str, Any]]:
        """What is known of the machines of all runs, in the order of the ledger; a run that is gone has none."""
        return list(_environments(self.records.trials))


def read_findings(folder: StudyFolder, *, at_end: bool = False) -> Findings:
    """Everything of a study that a report needs.

    Args:
        at_end: The study ends with this report, although its files do not say so yet.

    Raises:
        UserError: A file of the study is damaged.
    """
    records = read_records(folder)
    standing = StudyReader(folder).read()
    found: Board | None = None
    missing: UserError | None = None
    try:
        found = board(folder, records=records, standing=standing, at_end=at_end)
    except UserError as error:  # the report says it in the leaderboard's place
        missing = error
    leaked = found is not None and found.split == "test" and records.data.get("leaked_test")
    without = board(folder, records=records, standing=standing, drop_leaked=True) if leaked else None
    return Findings(records, standing, found, missing, without)


def _environments(rows: Sequence[Row]) -> Iterator[Mapping[str, Any]]:
    for row in rows:
        path = RunDirectory(Path(row["run_dir"])).environment if row["run_dir"] is not None else None
        if path is not None and path.is_file():
            try:
                yield {"run": row["run"], "arm": row["arm"], **json.loads(path.read_bytes())}
            except ValueError as error:
                raise UserError(f"{path}: cannot be read ({error})") from error
