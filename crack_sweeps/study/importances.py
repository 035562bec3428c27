"""What mattered in a search: how much each parameter tells the best trials from all of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from crack_sweeps.specs.study import Parameter
from crack_sweeps.study.distributions import encoded_suggestion
from crack_sweeps.study.store import quiet_optuna

FEWEST_FOR_IMPORTANCES = 8  # complete trials; the parameters are compared between the best of them and all
# PED-ANOVA compares the best tenth with all; its authors want five trials in it (Watanabe et al. 2023).
TOP_SHARE, TOP_TRIALS = 0.1, 5


@dataclass(frozen=True)
class Importances:
    """How much each parameter mattered.

    Args:
        shares: Dotted key to share of the whole, the largest first.
        num_top: The best trials, which are told from all.
        num_complete: All that were looked at.
    """

    shares: Mapping[str, float]
    num_top: int
    num_complete: int

    @property
    def caveat(self) -> str:
        """What to say beside them where the trials are few; empty where they are enough."""
        enough = TOP_TRIALS / TOP_SHARE
        return f"a hint and no more: {enough:.0f} complete trials would be enough" if self.num_complete < enough else ""


def find_importances(
    space: Mapping[str, Parameter], tried: Sequence[tuple[Mapping[str, Any], float]], *, maximize: bool
) -> Importances | None:
    """Importances of the parameters in complete trials; None where there are too few, or nothing mattered.

    Args:
        space: What was searched.
        tried: Suggestion and objective of each trial.
        maximize: Whether more is better.
    """
    if len(tried) < FEWEST_FOR_IMPORTANCES:
        return None
    share = min(0.5, max(TOP_SHARE, TOP_TRIALS / len(tried)))
    with quiet_optuna(), warnings.catch_warnings():  # Optuna warns of few trials; the caveat says it
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction="maximize" if maximize else "minimize")
        for suggestion, value in tried:
            params, distributions = encoded_suggestion(space, suggestion)
            study.add_trial(create_trial(params=params, distributions=distributions, value=value))
        found = PedAnovaImportanceEvaluator(target_quantile=share).evaluate(study)
    parts = {key: value for key, value in found.items() if key in space and math.isfinite(value)}
    total = sum(parts.values())
    if total <= 0:
        return None
    ordered = sorted(parts, key=lambda key: (-parts[key], key))
    return Importances(
        shares={key: parts[key] / total for key in ordered},
        num_top=max(1, math.ceil(share * len(tried))),
        num_complete=len(tried),
    )
