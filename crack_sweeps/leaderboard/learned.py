"""Whether an arm has learned anything: a floor learns nothing, and an arm below the best of them knows less than it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from crack_sweeps.leaderboard.rows import BoardRow
from crack_sweeps.leaderboard.statistics import FIGURE_NAMES, Figure


def best_floor(rows: Sequence[BoardRow], figure: Figure) -> BoardRow | None:
    """The floor with the highest figure; None where no floor has it."""
    floors = [row for row in rows if row.kind == "floor" and row.figure(figure) is not None]
    return max(floors, key=lambda row: row.value(figure), default=None)


def is_below(row: BoardRow, floor: BoardRow | None, figure: Figure) -> bool:
    """Whether a ranked row has less of the figure than the floor, in numbers: no test of it is made."""
    return floor is not None and row.value(figure) < floor.value(figure)


def with_floor_notes(ranked: Sequence[BoardRow], below: Sequence[BoardRow], figure: Figure) -> tuple[BoardRow, ...]:
    """The ranked rows; those below the best floor with a note that says so."""
    floor = best_floor(below, figure)
    if floor is None:
        return tuple(ranked)
    note = f"{floor.name}, which learns nothing, has {floor.value(figure):.3f}"
    return tuple(
        replace(row, notes=(f"below the floor: {FIGURE_NAMES[figure]} {row.value(figure):.3f}; {note}", *row.notes))
        if is_below(row, floor, figure)
        else row
        for row in ranked
    )
