"""What may stand on a leaderboard: finalists or best trials of the arms, floors, outside entries; from the records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from crack_sweeps.leaderboard.records import Records
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.study.ledger import Row

Split = Literal["val", "test"]
Kind = Literal["finalist", "trial", "floor", "outside"]
FLOORS = {"otsu": "Otsu", "black_hat": "black-hat"}  # as their files are named, and as people know them
MAIN_FIGURE = "crack_iou"


@dataclass(frozen=True)
class Entry:
    """Something with a figure, before anything of it was read but the ledger.

    Args:
        name: A trial's name, or that of a floor or an outside entry.
        arm: The arm that it belongs to, `floor` or `outside`.
        kind: What it is.
        files: Scores of each image, one file per training.
        rows: Rows of the ledger, one per training; none where nothing was trained here.
        threshold_origin: validation, given or oracle; None where there is no threshold to choose.
        data_digest: Of the photos, where nothing was trained here.
        command: That made an outside entry.
        notes: What a reader should know of its row, in words.
    """

    name: str
    arm: str
    kind: Kind
    files: tuple[Path, ...]
    rows: tuple[Row, ...] = ()
    threshold_origin: str | None = "validation"
    data_digest: str | None = None
    command: str | None = None
    notes: tuple[str, ...] = ()


def default_split(records: Records) -> Split:
    """Test once an arm has a test score and no other still waits for its finalist; before that, validation."""
    arms = [arm.name for arm in records.study.arms]
    finals = {row["finalist_of"] for row in records.finals}  # a finalist that failed is not waited for
    waiting = [arm for arm in arms if arm not in finals and best_trial(records, arm)]
    return "test" if not waiting and any(finalist(records, arm, "test") for arm in arms) else "val"


def arm_entry(records: Records, arm: str, split: Split) -> Entry | None:
    """The arm's row: its finalist; on validation, before there is one, its best trial."""
    rows = finalist(records, arm, split)
    if rows:
        name = rows[0].get("selected_trial") or rows[0]["trial"]  # as shipped: no trial was selected
        return Entry(name, arm, "finalist", _files(rows, split), tuple(rows))
    best = best_trial(records, arm) if split == "val" else []
    if not best:
        return None
    return Entry(best[0]["trial"], arm, "trial", _files(best, split), tuple(best))


def finalist(records: Records, arm: str, split: Split) -> list[Row]:
    """Trainings, with figures of this split, of the finalist that the search as it stands selects.

    Until those have ended it is the newest finalist of before: more trials may have brought another winner.
    """
    scored = [row for row in records.finalists(arm) if f"{split}/{MAIN_FIGURE}" in row["metrics"]]
    selected = [row["fingerprint"] for row in best_trial(records, arm)[:1]]
    newest = [row["fingerprint"] for row in reversed(scored)]
    mark = next((mark for mark in [*selected, *newest] if mark in newest), None)
    return [row for row in scored if row["fingerprint"] == mark]


def best_trial(records: Records, arm: str) -> list[Row]:
    """The best complete trial of the arm's search with its repeats under other seeds; their mean counts."""
    settings: dict[str, list[Row]] = {}
    for row in records.searched(arm):
        if row["outcome"] == "complete" and row["value"] is not None and row["run_dir"] is not None:
            settings.setdefault(row["fingerprint"] or row["trial"], []).append(row)
    if not settings:
        return []
    sign = 1 if records.study.spec.objective.direction == "maximize" else -1
    return max(settings.values(), key=lambda rows: sign * fmean(row["value"] for row in rows))


def floors(records: Records, split: Split) -> Iterator[Entry]:
    """Rules that learn nothing, where the study has scored them."""
    for file, name in FLOORS.items():
        path = records.folder.path / "floors" / f"{file}-{split}.parquet"
        if path.is_file():
            yield Entry(name, "floor", "floor", (path,), threshold_origin=None)


def outside(records: Records, split: Split) -> Iterator[Entry]:
    """Somebody else's predictions, scored by our rules."""
    for row in records.outside:
        if row["split"] == split:
            yield Entry(
                row["name"],
                "outside",
                "outside",
                (records.folder.path / row["scores"],),
                threshold_origin=row["threshold_origin"],
                data_digest=row.get("data_digest"),
                command=row.get("command"),
            )


def _files(rows: Sequence[Row], split: Split) -> tuple[Path, ...]:
    runs = [RunDirectory(Path(row["run_dir"])) for row in rows]
    return tuple(run.scores if split == "val" else run.test_scores for run in runs)
