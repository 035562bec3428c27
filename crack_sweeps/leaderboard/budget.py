"""What each arm was given: trials, epochs, hours; an arm that got less than the others is said to be under-tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from crack_sweeps.leaderboard.records import Records
from crack_sweeps.study.history import TRAINED

Note = Literal["as much as the others", "under-tuned", "untuned"]
ENOUGH = 0.9  # of the largest arm's epochs


@dataclass(frozen=True)
class ArmBudget:
    """What an arm has spent.

    Args:
        arm: Its name.
        num_trials: Trials of its search that trained; rejections before launch cost nothing and are not among them.
        num_epochs: Of the search.
        search_s: Seconds of the search.
        num_finalists: Complete trainings of finalists.
        finalist_s: Seconds of the finalists' trainings, those that failed too.
        note: Whether its search was as long as the others', counted in epochs; None where there is one arm.
    """

    arm: str
    num_trials: int
    num_epochs: int
    search_s: float
    num_finalists: int
    finalist_s: float
    note: Note | None = None

    @property
    def gpu_hours(self) -> float:
        """Hours of training: search and finalists."""
        return (self.search_s + self.finalist_s) / 3600


def budgets(records: Records) -> tuple[ArmBudget, ...]:
    """What each arm of the study has spent, the main one first."""
    spent = [_spent(records, arm.name) for arm in records.study.arms]
    largest = max(budget.num_epochs for budget in spent)
    return tuple(replace(budget, note=_note(budget, spent, largest)) for budget in spent)


def _spent(records: Records, arm: str) -> ArmBudget:
    search = records.searched(arm)
    finals = [row for row in records.finals if row["finalist_of"] == arm]
    return ArmBudget(
        arm=arm,
        num_trials=sum(row["outcome"] in TRAINED for row in search),
        num_epochs=sum(row["num_epochs"] for row in search),
        search_s=sum(row["duration_s"] for row in search),
        num_finalists=sum(row["outcome"] == "complete" for row in finals),
        finalist_s=sum(row["duration_s"] for row in finals),
    )


def _note(budget: ArmBudget, spent: Sequence[ArmBudget], largest: int) -> Note | None:
    if len(spent) == 1:
        return None
    if budget.num_trials <= 1 and any(other.num_trials > 1 for other in spent):
        return "untuned"  # as shipped: one training chooses nothing
    return "as much as the others" if budget.num_epochs >= ENOUGH * largest else "under-tuned"
