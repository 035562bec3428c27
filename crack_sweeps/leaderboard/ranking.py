"""Ranks the rows above the line: each compared with the leader, and what cannot be told from it shares its rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from crack_sweeps.leaderboard.budget import ArmBudget
from crack_sweeps.leaderboard.corrections import corrected
from crack_sweeps.leaderboard.entries import Entry, Split
from crack_sweeps.leaderboard.images import Scored
from crack_sweeps.leaderboard.records import Records
from crack_sweeps.leaderboard.rows import BoardRow, entry_row
from crack_sweeps.leaderboard.statistics import Comparison, Figure, ImageCounts, compare_values, pseudo_values

ALPHA = 0.05


@dataclass(frozen=True)
class Standing:
    """Where one of several rivals stands.

    Args:
        rival: Its number among them, from 0.
        value: Its figure.
        rank: 1 for the leader and for whoever cannot be told from it; of the others 1 and the number of rivals with a
            better figure: its place.
        tied: It cannot be told from the leader; False for the leader itself.
        ahead: What the leader has ahead of it; None for the leader.
        p_value: Of that, corrected for all pairs; None where nothing can be said, which is a tie.
    """

    rival: int
    value: float
    rank: int
    tied: bool
    ahead: Comparison | None
    p_value: float | None


def standings(rivals: Sequence[ImageCounts], figure: Figure) -> list[Standing]:
    """The rivals in the order of their figures, the best first; equal ones stay in the order that they came in.

    Args:
        rivals: Counts of the same images, in the same order.
        figure: That ranks; more of it is better.
    """
    tables = [pseudo_values(counts, figure) for counts in rivals]
    values = [table.value for table in tables]
    leader, *others = sorted(range(len(rivals)), key=lambda number: -values[number])
    pairs = {(a, b): compare_values(tables[a], tables[b]) for a, b in combinations(range(len(rivals)), 2)}
    p_values = corrected({pair: comparison.p_value for pair, comparison in pairs.items()})
    found = [Standing(leader, values[leader], rank=1, tied=False, ahead=None, p_value=None)]
    for number in others:
        pair = min(leader, number), max(leader, number)
        ahead = pairs[pair] if pair[0] == leader else pairs[pair].reversed()
        p_value = p_values[pair]
        tied = p_value is None or p_value >= ALPHA
        rank = 1 if tied else 1 + sum(value > values[number] for value in values)
        found.append(Standing(number, values[number], rank, tied, ahead, p_value))
    return found


def ranked(
    records: Records,
    rivals: Sequence[tuple[Entry, Scored]],
    split: Split,
    sort: Figure,
    spent: Mapping[str, ArmBudget],
) -> list[BoardRow]:
    """The rows above the line, in the order of their figures."""
    placed = standings([scored.counts for _, scored in rivals], sort)
    leader = rivals[placed[0].rival][1]
    rows = []
    for standing in placed:
        entry, scored = rivals[standing.rival]
        notes = _seed_notes(scored, None if scored is leader else leader)
        row = entry_row(records, entry, scored, split, budget=spent.get(entry.arm), notes=notes)
        ahead = standing.ahead
        rows.append(
            dataclasses.replace(
                row,
                rank=standing.rank,
                tied_with_leader=standing.tied,
                difference=ahead.difference if ahead is not None else None,
                difference_low=ahead.low if ahead is not None else None,
                difference_high=ahead.high if ahead is not None else None,
                p_value=standing.p_value,
            )
        )
    return rows


def _seed_notes(scored: Scored, leader: Scored | None) -> tuple[str, ...]:
    """What one seed means for a row's interval and for its comparison with the leader; None for the leader itself."""
    seeds, has_spread = scored.counts.num_seeds, scored.counts.num_units > 1
    notes = ["one seed: its interval is over images alone"] if seeds == 1 and has_spread else []
    if leader is None:
        return tuple(notes)
    if not has_spread:
        notes.append("one photograph tells nothing of others: not told from the leader")
    elif seeds == leader.counts.num_seeds == 1:
        notes.append("one seed each tells nothing of other seeds: not told from the leader")
    elif min(seeds, leader.counts.num_seeds) == 1:
        notes.append("compared as if the one with a single seed scattered over seeds as the other does")
    return tuple(notes)
