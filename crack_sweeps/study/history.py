"""What is known of a study's trials: plain data that suggestions and verdicts are functions of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["running", "complete", "pruned", "rejected", "invalid", "failed", "out_of_memory"]
UNUSABLE: frozenset[Outcome] = frozenset({"rejected", "invalid"})  # never launched: over the budget, or not to be built
TRAINED: frozenset[Outcome] = frozenset({"complete", "pruned", "failed", "out_of_memory"})  # they cost a training


@dataclass(frozen=True)
class Trial:
    """One trial, as far as it has come.

    Args:
        arm: The arm that it belongs to.
        number: Its number within the arm, from 0.
        suggestion: Dotted key to plain value; keys whose condition is not met are absent.
        outcome: How it stands, or ended.
        value: The objective of a complete trial, else None: a missing figure is a reason, never a score.
        intermediate: Epoch, from 1, to the objective after it.
        excess: Forecast peak memory over the budget, minus 1: above 0 it does not fit; None if it was not forecast.
        facts: What else is known: `run`, `seed`, `fingerprint`, `repeat_of`, `reason`, `stop` and the like.
    """

    arm: str
    number: int
    suggestion: Mapping[str, Any]
    outcome: Outcome
    value: float | None = None
    intermediate: Mapping[int, float] = field(default_factory=dict)
    excess: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
