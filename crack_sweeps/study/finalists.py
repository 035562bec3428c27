"""How many trainings of an arm's present winner are over: those of an earlier winner are history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from crack_sweeps.specs.study import Objective
from crack_sweeps.specs.study_loading import Arm
from crack_sweeps.study.history import TRAINED, Trial
from crack_sweeps.study.ledger import Row
from crack_sweeps.study.schedule import FINAL_SEEDS_FROM, MAX_ATTEMPTS, best_settings


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


def num_over(arm: Arm, winner: str | None, finals: Iterable[Row], *, num_trials: int, most: int) -> int:
    """Seeds that the finalist's settings need not be trained with any more: it was done, or failed too often.

    Args:
        arm: The searched arm.
        winner: Of it.
        finals: Rows of the trainings of its finalists that ended.
        num_trials: Trials of its search; 0 where its settings stand as shipped.
        most: Seeds that are wanted.
    """
    first = arm.base.training.seed + FINAL_SEEDS_FROM
    attempts: defaultdict[int, list[bool]] = defaultdict(list)
    for row in finals:
        chosen = row.get("fingerprint") == winner and row["seed"] >= first
        if row["outcome"] in TRAINED and (chosen if num_trials else row.get("selected_trial") is None):
            attempts[row["seed"]].append(row["value"] is not None)
    over = [seed for seed, complete in attempts.items() if any(complete) or len(complete) >= MAX_ATTEMPTS]
    return min(len(over), most)
