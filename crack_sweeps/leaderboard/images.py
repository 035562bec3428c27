"""Reads the per-image scores of several trainings into one table of counts: the same images, in the order of names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from crack_sweeps.errors import UserError
from crack_sweeps.leaderboard.statistics import ImageCounts

BRING_BACK = "bring the run's directory back, or train it again: intervals are made of these scores"
_COLUMNS = ("name", "group", "tp", "fp", "fn", "tn")


@dataclass(frozen=True, eq=False)
class Scored:
    """What was counted, and where.

    Args:
        counts: Of the images, by training.
        thresholds: Of each training; None where its file names none.
        files: They were read from, in the same order.
        num_left_out: Images that were in the files and are not in the counts.
    """

    counts: ImageCounts
    thresholds: tuple[float | None, ...]
    files: tuple[Path, ...]
    num_left_out: int


@dataclass(frozen=True)
class Lost:
    """A table of scores that cannot be read.

    Args:
        path: Of it.
        why: In words that follow its name.
    """

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def read_scores(files: Sequence[Path], *, without: Collection[str] = ()) -> Scored:
    """The counts of some images under several trainings of one model.

    Args:
        files: A table of images each, as `crack_sweeps.evaluation.scores.score_table` makes it.
        without: Names of images to leave out.

    Raises:
        UserError: A file is missing or damaged, or two of them speak of different images or masks.
    """
    scored, lost = read_those_left(files, without=without)
    if scored is None or lost:
        raise UserError(str(lost[0]), hint=BRING_BACK)
    return scored


def read_those_left(files: Sequence[Path], *, without: Collection[str] = ()) -> tuple[Scored | None, tuple[Lost, ...]]:
    """The same of the files that can be read, None if there is none; and those that cannot.

    Raises:
        UserError: Two of them speak of different images or masks, or no image is left.
    """
    read = {path: _read(path) for path in files}
    lost = tuple(found for found in read.values() if isinstance(found, Lost))
    left = {path: found for path, found in read.items() if not isinstance(found, Lost)}
    return (_scored(left, without) if left else None), lost


def _scored(read: Mapping[Path, pa.Table], without: Collection[str]) -> Scored:
    files, tables = list(read), list(read.values())
    counts = [_counts(table, path, without) for table, path in zip(tables, files, strict=True)]
    for one, path in zip(counts[1:], files[1:], strict=True):
        disagreement = differ(counts[0], one)
        if disagreement is not None:
            raise UserError(
                f"{files[0]} and {path} disagree: {disagreement}", hint="scores of the same photos alone are compared"
            )
    stacked = [
        np.concatenate([getattr(one, name) for one in counts], axis=1) for name in ("tp_IS", "fp_IS", "fn_IS", "tn_IS")
    ]
    return Scored(
        counts=ImageCounts(counts[0].names, counts[0].groups, *stacked),
        thresholds=tuple(_threshold(table) for table in tables),
        files=tuple(files),
        num_left_out=len(tables[0]) - len(counts[0].names),
    )


def differ(one: ImageCounts, other: ImageCounts) -> str | None:
    """In what two sets of images differ, in words; None if they are the same photos with the same masks."""
    if len(one.names) != len(other.names):
        return f"{len(one.names)} images and {len(other.names)}"
    if one.names != other.names:
        ours, theirs = next(pair for pair in zip(one.names, other.names, strict=True) if pair[0] != pair[1])
        return f"{ours} stands where the other has {theirs}"
    if one.groups != other.groups:
        return "their images are cut from other photographs"
    crack_I, other_crack_I = ((counts.tp_IS + counts.fn_IS)[:, 0] for counts in (one, other))
    if (crack_I != other_crack_I).any():
        first = int(np.flatnonzero(crack_I != other_crack_I)[0])
        return f"the mask of {one.names[first]} has {crack_I[first]} crack pixels and {other_crack_I[first]}"
    return None


def _read(path: Path) -> pa.Table | Lost:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:  # `read_table` would load pandas for the same
            table = file.read()
    except FileNotFoundError:
        return Lost(path, "no such file")
    except (OSError, pa.ArrowException) as error:
        return Lost(path, f"not a table of scores that can be read ({_first_line(error)})")
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        return Lost(path, f"not a table of scores: it lacks the column `{missing[0]}`")
    return table


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _counts(table: pa.Table, path: Path, without: Collection[str]) -> ImageCounts:
    names: list[str] = table.column("name").to_pylist()
    kept = sorted((name, row) for row, name in enumerate(names) if name not in without)
    if not kept:
        raise UserError(f"{path}: no image is left", hint="keep some images: every one would be left out")
    rows = np.array([row for _, row in kept])
    groups: list[str] = table.column("group").to_pylist()
    # By way of Python numbers: `to_numpy` would load pandas.
    pixels = [np.array(table.column(name).to_pylist(), np.int64)[rows, None] for name in ("tp", "fp", "fn", "tn")]
    return ImageCounts(tuple(name for name, _ in kept), tuple(groups[row] for row in rows), *pixels)


def _threshold(table: pa.Table) -> float | None:
    metadata: dict[bytes, Any] = table.schema.metadata or {}
    return float(metadata[b"threshold"]) if b"threshold" in metadata else None
