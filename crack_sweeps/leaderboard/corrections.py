"""Many comparisons at once: p-values corrected so that a winner that is none is named in 5 of 100 tables at most."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

Pair = tuple[int, int]


def corrected(p_values: Mapping[Pair, float | None]) -> dict[Pair, float | None]:
    """Holm's step-down over all pairs of rows, as Shaffer (1986) sharpened it for pairs.

    All pairs count although the table shows those with the leader alone, for the leader was made by looking at all of
    them: corrected for its own pairs only, a leader among three equal rows is a false winner in 6 to 7 of 100 tables.
    Shaffer's point is that the pairs are tied to each other: if A and B differ, C cannot equal both, so of three pairs
    one more at most can still be equal.

    Args:
        p_values: Of every pair of rows; None where a pair cannot be compared. It counts, and stays None.
    """
    num_rows = len({row for pair in p_values for row in pair})
    possible = _possible_numbers_of_equal_pairs(num_rows)
    told = {pair: p for pair, p in p_values.items() if p is not None}
    adjusted: dict[Pair, float | None] = dict.fromkeys(p_values)
    highest = 0.0
    for num_before, pair in enumerate(sorted(told, key=lambda pair: (told[pair], pair))):
        still_equal = max(number for number in possible if number <= len(p_values) - num_before)
        highest = max(highest, min(1.0, still_equal * told[pair]))
        adjusted[pair] = highest
    return adjusted


@cache
def _possible_numbers_of_equal_pairs(num_rows: int) -> frozenset[int]:
    """How many of all pairs can be equal at once: rows fall into classes of equals, whose pairs add up."""
    if num_rows < 2:
        return frozenset({0})
    return frozenset(
        size * (size - 1) // 2 + others
        for size in range(1, num_rows + 1)
        for others in _possible_numbers_of_equal_pairs(num_rows - size)
    )
