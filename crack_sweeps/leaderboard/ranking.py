"""Ranks the rows above the line: each compared with the leader, and what cannot be told from it shares its rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import combinations

from crack_sweeps.leaderboard.budget import ArmBudget
from crack_sweeps.leaderboard.corrections import Pair, corrected
from crack_sweeps.leaderboard.entries import Entry, Split
from crack_sweeps.leaderboard.images import Scored
from crack_sweeps.leaderboard.records import Records
from crack_sweeps.leaderboard.rows import BoardRow, entry_row
from crack_sweeps.leaderboard.statistics import Comparison, Figure, compare, estimate

ALPHA = 0.05


def ranked(
    records: Records,
    rivals: Sequence[tuple[Entry, Scored]],
    split: Split,
    sort: Figure,
    spent: Sequence[ArmBudget],
) -> list[BoardRow]:
    """The rows above the line, in the order of their figures; equal ones stay in the order of arms."""
    values = [estimate(scored.counts, sort).value for _, scored in rivals]
    order = sorted(range(len(rivals)), key=lambda number: -values[number])
    placed = [rivals[number] for number in order]
    pairs = {
        (a, b): compare(placed[a][1].counts, placed[b][1].counts, sort) for a, b in combinations(range(len(placed)), 2)
    }
    p_values = corrected({pair: comparison.p_value for pair, comparison in pairs.items()})
    by_arm = {budget.arm: budget for budget in spent}
    rows = []
    for place, (entry, scored) in enumerate(placed):
        row = entry_row(records, entry, scored, split, budget=by_arm.get(entry.arm), notes=_seed_notes(placed, place))
        rows.append(_against_leader(row, place, pairs, p_values, [values[number] for number in order]))
    return rows


def _against_leader(
    row: BoardRow,
    place: int,
    pairs: Mapping[Pair, Comparison],
    p_values: Mapping[Pair, float | None],
    values: Sequence[float],
) -> BoardRow:
    if place == 0:
        return dataclasses.replace(row, rank=1, tied_with_leader=False)
    comparison, p_value = pairs[0, place], p_values[0, place]
    tied = p_value is None or p_value >= ALPHA
    return dataclasses.replace(
        row,
        rank=1 if tied else 1 + sum(value > values[place] for value in values),
        tied_with_leader=tied,
        difference=comparison.difference,
        difference_low=comparison.low,
        difference_high=comparison.high,
        p_value=p_value,
    )


def _seed_notes(placed: Sequence[tuple[Entry, Scored]], place: int) -> tuple[str, ...]:
    """What one seed means for a row's interval and for its comparison with the leader."""
    seeds, leaders = placed[place][1].counts.num_seeds, placed[0][1].counts.num_seeds
    notes = ["one seed: its interval is over images alone"] if seeds == 1 else []
    if place and seeds == leaders == 1:
        notes.append("one seed each tells nothing of other seeds: not told from the leader")
    elif place and min(seeds, leaders) == 1:
        notes.append("compared as if the one with a single seed scattered over seeds as the other does")
    return tuple(notes)
