"""How many trainings of an arm's present winner have a score: those of an earlier winner are history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crack_sweeps.specs.study import Objective
from crack_sweeps.specs.study_loading import Arm
from crack_sweeps.study.history import Trial
from crack_sweeps.study.ledger import Row
from crack_sweeps.study.schedule import FINAL_SEEDS_FROM, best_settings


def complete_trial(row: Row) -> Trial | None:
    """What decides who wins, from a row of the ledger; None for a trial that is not complete."""
    if row["value"] is None:
        return None
    facts = {"fingerprint": row.get("fingerprint"), "seed": row.get("seed")}
    return Trial(row["arm"], row["number"], row["suggestion"], row["outcome"], row["value"], facts=facts)


def winner_of(complete: Sequence[Trial], objective: Objective) -> str | None:
    """Fingerprint of the settings that an arm's finalist trains as far as is known; None if no trial is complete."""
    best = best_settings(complete, objective)
    return None if best is None else best.facts["fingerprint"]


def num_scored(arm: Arm, winner: str | None, finals: Iterable[Mapping[str, Any]], *, num_trials: int, most: int) -> int:
    """Seeds that the finalist's settings have been trained with to the end.

    Args:
        arm: The searched arm.
        winner: Of it.
        finals: Rows or facts of complete trainings of its finalists: `fingerprint`, `seed`, `selected_trial`.
        num_trials: Trials of its search; 0 where its settings stand as shipped.
        most: Seeds that are wanted.
    """
    first = arm.base.training.seed + FINAL_SEEDS_FROM
    if num_trials:
        seeds = {row["seed"] for row in finals if row.get("fingerprint") == winner and row["seed"] >= first}
    else:
        seeds = {row["seed"] for row in finals if row.get("selected_trial") is None}
    return min(len(seeds), most)
