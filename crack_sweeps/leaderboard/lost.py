"""Trainings whose scores of each image are lost: they are left out of the table, and their row says so."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from crack_sweeps.leaderboard.entries import Entry
from crack_sweeps.leaderboard.images import Lost, Scored, read_those_left
from crack_sweeps.study.ledger import Row


def read_entry(entry: Entry, *, without: Collection[str] = ()) -> tuple[Entry, Scored | None]:
    """An entry as far as its scores can be read, and these scores; None where all of them are lost.

    A training that is left out is in no figure, interval or comparison of the entry, which has one seed fewer; a note
    of the entry names it. An entry without any scores keeps its rows of the ledger: what is known beside its score.

    Args:
        without: Names of images to leave out.

    Raises:
        UserError: Its trainings were scored on different images, or no image is left.
    """
    scored, lost = read_those_left(entry.files, without=without)
    notes = tuple(_notes(entry, lost))
    if scored is None:
        return replace(entry, notes=(*entry.notes, *notes)), None
    kept = [number for number, path in enumerate(entry.files) if path in scored.files]
    rows = tuple(entry.rows[number] for number in kept) if entry.rows else ()
    return replace(entry, files=scored.files, rows=rows, notes=(*entry.notes, *notes)), scored


def _notes(entry: Entry, lost: Sequence[Lost]) -> Iterator[str]:
    if not entry.rows:  # a floor or an outside entry: one file
        yield from (f"no score: {one}" for one in lost)
        return
    if len(lost) == len(entry.files):
        yield "no score: " + ("its training has" if len(lost) == 1 else f"all {len(lost)} trainings have") + " lost it"
    by_file = dict(zip(entry.files, entry.rows, strict=True))
    yield from (f"{_seed(by_file[one.path])} is left out: {one}" for one in lost)


def _seed(row: Row) -> str:
    return f"seed {row['seed']} of run {row['run']}"
