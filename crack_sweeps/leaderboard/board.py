"""The leaderboard of a study: its rows in order, and what a reader should know. Records in, one table out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from crack_sweeps.errors import UserError
from crack_sweeps.leaderboard.budget import ArmBudget, budgets
from crack_sweeps.leaderboard.comparable import refuse_mixtures, refuse_other_images, why_not_ranked
from crack_sweeps.leaderboard.entries import (
    Entry,
    Split,
    arm_entry,
    default_split,
    floors,
    outside,
)
from crack_sweeps.leaderboard.images import BRING_BACK, read_those_left
from crack_sweeps.leaderboard.learned import with_floor_notes
from crack_sweeps.leaderboard.lost import read_entry
from crack_sweeps.leaderboard.ranking import ranked
from crack_sweeps.leaderboard.records import Records, read_records
from crack_sweeps.leaderboard.rows import BoardRow, entry_row, num_test_looks, recorded_floor_rows, trial_row
from crack_sweeps.leaderboard.statistics import FIGURES, Figure
from crack_sweeps.leaderboard.unfinished import unfinished, what_is_missing
from crack_sweeps.specs.words import listed, nearest
from crack_sweeps.study.folder import StudyFolder, find_study
from crack_sweeps.study.standing import Standing

SPLITS: tuple[Split, ...] = ("val", "test")


@dataclass(frozen=True)
class Board:
    """A study's leaderboard.

    Args:
        study: The study's name with its version.
        split: That the ranked rows' figures are of.
        sort: The figure that ranks.
        ranked: Rows above the line by figure, the leader first.
        below: Arms whose scores are lost, outside entries that cannot be ranked, floors.
        trials: All trials, unranked, where they were asked for.
        arms: What each arm was given, the main one first.
        quick_look: The rows are quick looks: no results.
        data: Name of the photos; None for a study that began before it was written down.
        num_images: That the ranked rows were scored on.
        num_photographs: That these were cut from.
        num_dropped: Leaked images that were left out on request; None where nobody asked.
        warnings: What a reader should know before trusting the table.
        unfinished: How far the study is, where it has not ended; the first of the warnings.
    """

    study: str
    split: Split
    sort: Figure
    ranked: tuple[BoardRow, ...]
    below: tuple[BoardRow, ...]
    trials: tuple[BoardRow, ...]
    arms: tuple[ArmBudget, ...]
    quick_look: bool
    data: str | None
    num_images: int
    num_photographs: int
    num_dropped: int | None
    warnings: tuple[str, ...] = field(default=())
    unfinished: str | None = None

    @property
    def rows(self) -> tuple[BoardRow, ...]:
        """The ranked ones; then those below the line; then trials."""
        return (*self.ranked, *self.below, *self.trials)

    def as_list(self) -> list[dict[str, Any]]:
        """Plain values, as `--json` prints them."""
        return [row.as_dict() for row in self.rows]


def board(
    folder: StudyFolder,
    *,
    split: str | None = None,
    sort: str = "crack_iou",
    all_trials: bool = False,
    drop_leaked: bool = False,
    records: Records | None = None,
    standing: Standing | None = None,
    at_end: bool = False,
) -> Board:
    """The leaderboard of a study.

    Args:
        folder: The study's.
        split: `val` or `test`; None: test once the finalists of all arms have it, else validation.
        sort: The figure that ranks: one of FIGURES.
        all_trials: List every trial too, below the line.
        drop_leaked: Leave out test images that were cut from photos of train or validation.
        records: The study's files, where they were read already.
        standing: How the study stands, where that is known already.
        at_end: The study ends with this table, although its files do not say so yet.

    Raises:
        UserError: There is nothing to rank, for nothing is trained or all scores are lost; a file of the study is
            damaged, or the rows cannot be compared.
    """
    sort_by = _figure(sort)
    records = records if records is not None else read_records(folder)
    on = _split(records, split)
    entries = [entry for arm in records.study.arms if (entry := arm_entry(records, arm.name, on)) is not None]
    if not entries:
        raise _nothing_to_rank(records, on)
    refuse_mixtures(entries)
    without = _leaked(records, on) if drop_leaked else frozenset[str]()
    read = [read_entry(entry, without=without) for entry in entries]
    rivals = [(entry, scored) for entry, scored in read if scored is not None]
    if not rivals:
        raise _all_lost(records, entries, on)
    reference = rivals[0][1]
    refuse_other_images(rivals)
    num_dropped = reference.num_left_out if drop_leaked else None
    spent = {budget.arm: budget for budget in budgets(records)}
    below = [entry_row(records, entry, None, on, budget=spent[entry.arm]) for entry, scored in read if scored is None]
    for unread in (*outside(records, on), *floors(records, on)):
        entry, scored = read_entry(unread, without=without)
        reason = why_not_ranked(entry, scored, reference, entries[0]) if scored is not None else ""
        if scored is not None and reason is None:
            rivals.append((entry, scored))
        else:
            below.append(entry_row(records, entry, scored, on, notes=(reason,) if reason else ()))
    if on == "val" and not any(row.kind == "floor" for row in below):
        below += recorded_floor_rows(entries[0])
    so_far = None
    if not at_end:
        so_far = unfinished(standing) if standing is not None else what_is_missing(folder)
    warnings = _warnings(records, on, num_dropped)
    trials = [trial_row(row) for row in records.trials if row.get("finalist_of") is None] if all_trials else []
    return Board(
        study=folder.name,
        split=on,
        sort=sort_by,
        ranked=with_floor_notes(ranked(records, rivals, on, sort_by, spent), below, sort_by),
        below=tuple(below),
        trials=tuple(trials),
        arms=tuple(spent.values()),
        quick_look=bool(entries[0].rows[0]["quick_look"]),
        data=records.data.get("name"),
        num_images=len(reference.counts.names),
        num_photographs=reference.counts.num_units,
        num_dropped=num_dropped,
        warnings=(*([so_far] if so_far is not None else ()), *warnings),
        unfinished=so_far,
    )


def read_leaderboard(
    study: str | None = None,
    *,
    split: str | None = None,
    sort: str = "crack_iou",
    all_trials: bool = False,
    drop_leaked: bool = False,
) -> list[dict[str, Any]]:
    """What `sweeps leaderboard --json` prints: a row for each finalist, floor and outside entry, the leader first.

    Args:
        study: Its name, with its version or without; the newest if None.
        split: As `board` has it, and so are the others.
    """
    found = board(find_study(study), split=split, sort=sort, all_trials=all_trials, drop_leaked=drop_leaked)
    return found.as_list()


# --- what is asked for ---------------------------------------------------------------------------


def _figure(sort: str) -> Figure:
    for figure in FIGURES:
        if figure == sort:
            return figure
    close = nearest(sort, FIGURES)
    raise UserError(
        f"--sort {sort}: must be {listed(FIGURES)}", hint=f"did you mean {close}?" if close else "crack_iou is usual"
    )


def _split(records: Records, split: str | None) -> Split:
    if split is None:
        return default_split(records)
    for known in SPLITS:
        if known == split:
            return known
    raise UserError(f"--split {split}: must be val or test", hint="test is what the finalists were scored on, once")


def _nothing_to_rank(records: Records, split: Split) -> UserError:
    name = records.folder.name
    if not records.trials:
        return UserError(
            f"study {name}: no trial has ended yet, so there is nothing to rank",
            hint=f"`sweeps status {name}` tells how it stands; `sweeps doctor --fix` writes a lost ledger anew",
        )
    if split == "test" and any(row["outcome"] == "complete" for row in records.trials):
        return UserError(
            f"study {name}: no finalist has been scored on test",
            hint=f"`sweeps leaderboard {name} --split val` ranks what there is on validation",
        )
    outcomes = Counter(row["outcome"] for row in records.trials)
    told = listed([f"{number} {outcome.replace('_', ' ')}" for outcome, number in outcomes.items()], "and")
    return UserError(
        f"study {name}: no trial is complete ({told}), so there is nothing to rank",
        hint=f"`sweeps explain {records.trials[-1]['trial']}` says why the last one is not",
    )


def _all_lost(records: Records, entries: Sequence[Entry], split: Split) -> UserError:
    name, num_files = records.folder.name, sum(len(entry.files) for entry in entries)
    _, (lost, *_) = read_those_left(entries[0].files)
    whose = "the scores of its one training are" if num_files == 1 else f"the scores of all {num_files} trainings are"
    on_validation = [arm_entry(records, entry.arm, "val") for entry in entries] if split == "test" else []
    left = any(path.is_file() for entry in on_validation if entry is not None for path in entry.files)
    ranks = f"; `sweeps leaderboard {name} --split val` ranks on validation meanwhile" if left else ""
    return UserError(f"study {name}: {whose} lost, so there is nothing to rank ({lost})", hint=BRING_BACK + ranks)


def _leaked(records: Records, split: Split) -> frozenset[str]:
    """Names of the images to leave out. Validation has none: what shares a photo with train was moved there."""
    if split == "val":
        return frozenset()
    if "leaked_test" not in records.data:
        raise UserError(
            f"{records.folder.path / 'data.json'}: does not say which test images leaked",
            hint=f"study {records.folder.name} began before that was written down; go without --drop-leaked",
        )
    return frozenset(records.data["leaked_test"])


# --- what a reader should know -------------------------------------------------------------------


def _warnings(records: Records, split: Split, num_dropped: int | None) -> list[str]:
    told = [str(warning) for warning in records.data.get("warnings", ())]
    if split == "test" and records.data.get("leaked_test") and num_dropped is None:
        told.append(f"`--drop-leaked` ranks without the {len(records.data['leaked_test'])} leaked test images")
    elif num_dropped:
        told.append(f"the {num_dropped} leaked test images are left out of this table")
    for arm in records.study.arms:
        if arm_entry(records, arm.name, split) is None:
            lacks = "finalist with a test score" if split == "test" else "complete trial"
            told.append(f"{arm.name} has no {lacks}: it is not on the table")
        looks = num_test_looks(records, arm.name)
        if split == "test" and looks > 1:
            told.append(f"{arm.name} was looked at on test {looks} times: what is chosen after a look is flattered")
    return told
