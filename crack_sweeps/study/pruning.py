"""Go on or stop: what each epoch's figure means for a trial, a pure function of what all trials have reported.

Asked twice with the same arguments it answers the same, so a coordinator that died repeats its verdicts. With one trial
at a time the others are those with smaller numbers, and the verdict depends on nothing else.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from crack_sweeps.specs.study import Objective, Pruner
from crack_sweeps.study.history import Trial

LEAST_AT_A_RUNG = 5  # with fewer, the best third of a rung would be the best one, and a lucky first trial stops all
SHARES = {2: "half", 3: "third", 4: "quarter", 5: "fifth"}


@dataclass(frozen=True)
class Verdict:
    """Whether a trial goes on; where it stops, a sentence that says why."""

    go_on: bool
    reason: str | None = None


GO_ON = Verdict(True)


def judge(
    trial: Trial, others: Sequence[Trial], *, pruner: Pruner, objective: Objective, num_epochs: int, seed: int
) -> Verdict:
    """The verdict on a trial after the last epoch that it has reported.

    Args:
        trial: The trial with its figures so far.
        others: Trials to compare it with, whatever became of them; those of other arms and itself are not looked at.
        pruner: By which rule.
        objective: Which way is better.
        num_epochs: Epochs of a whole training, after which nothing is left to stop.
        seed: The study's seed, by which trials are dealt to brackets.
    """
    if pruner.name == "none" or not trial.intermediate or max(trial.intermediate) >= num_epochs:
        return GO_ON
    peers = [other for other in others if other.arm == trial.arm and other.number != trial.number]
    if pruner.name == "median":
        return _by_median(trial, peers, pruner, objective)
    return _by_hyperband(trial, peers, pruner, objective, num_epochs, seed)


def rungs(pruner: Pruner, num_epochs: int) -> list[int]:
    """Epochs at which Hyperband looks: whole trainings divided by powers of the factor (R / eta^k), ascending.

    Counted down from the whole, as in the paper, not up from the least: no rung then lies just before the end, where
    stopping saves nothing.
    """
    epochs: list[int] = []
    length = num_epochs / pruner.reduction_factor
    while (epoch := round(length)) >= pruner.min_epochs and epoch < num_epochs and epoch not in epochs:
        epochs.append(epoch)
        length /= pruner.reduction_factor
    return epochs[::-1]


def bracket(number: int, num_brackets: int, *, seed: int, arm: str) -> int:
    """The bracket that a trial is dealt to, from 0, where every rung counts, to the last, where none does.

    All are as likely. The paper gives each as many epochs, so that most trials are in bracket 0. On the benchmark of
    the search, the best of 30 trials was .734 so (13 whole trainings), .740 with even brackets (20), .724 with bracket
    0 alone (9) and .740 where nothing was stopped (30): first epochs say too little about last ones.
    """
    digest = hashlib.sha256(repr(("bracket", seed, arm, number)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % num_brackets


def _by_hyperband(
    trial: Trial, peers: Sequence[Trial], pruner: Pruner, objective: Objective, num_epochs: int, seed: int
) -> Verdict:
    """Asynchronous successive halving (Li et al. 2018 and 2020): at a rung, the best 1 / factor so far go on.

    Brackets differ in the first rung that counts. What is compared at a rung are all trials that came as far, of any
    bracket: more figures, and the same question.
    """
    every = rungs(pruner, num_epochs)
    counting = every[bracket(trial.number, len(every) + 1, seed=seed, arm=trial.arm) :]
    last = max(trial.intermediate)
    before = max((epoch for epoch in trial.intermediate if epoch < last), default=0)
    reached = [rung for rung in counting if before < rung <= last]  # figures may come less often than every epoch
    if not reached:
        return GO_ON
    own = _best(trial, last, objective)
    assert own is not None
    field = [own, *(best for peer in peers if (best := _best(peer, last, objective)) is not None)]
    if len(field) < LEAST_AT_A_RUNG:
        return GO_ON
    up = objective.direction == "maximize"
    bar = sorted(field, reverse=up)[max(1, len(field) // pruner.reduction_factor) - 1]
    if own == bar or (own > bar) == up:
        return GO_ON
    share = SHARES.get(pruner.reduction_factor, f"1/{pruner.reduction_factor}")
    rule = f"the best {share} ({bar:.4g}) of {len(field)} trials at this rung"
    return Verdict(False, f"{own:.4g} is {'below' if up else 'above'} {rule}")


def _by_median(trial: Trial, peers: Sequence[Trial], pruner: Pruner, objective: Objective) -> Verdict:
    """Stops a trial whose best so far is worse than the median of the others' at that epoch."""
    last = max(trial.intermediate)
    ended = [peer for peer in peers if peer.outcome in ("complete", "pruned")]
    if last < pruner.min_epochs or len(ended) < pruner.startup_trials:
        return GO_ON
    field = [best for peer in ended if (best := _best(peer, last, objective)) is not None]
    own = _best(trial, last, objective)
    if not field or own is None:
        return GO_ON
    middle = statistics.median(field)
    up = objective.direction == "maximize"
    if own == middle or (own > middle) == up:
        return GO_ON
    rule = f"the median ({middle:.4g}) of {len(field)} trials at this epoch"
    return Verdict(False, f"{own:.4g} is {'below' if up else 'above'} {rule}")


def _best(trial: Trial, epoch: int, objective: Objective) -> float | None:
    """The best figure up to the epoch, of a trial that came as far: less noisy than the last, and what is kept."""
    if not trial.intermediate or max(trial.intermediate) < epoch:
        return None
    figures = [figure for at, figure in trial.intermediate.items() if at <= epoch]
    if not figures:
        return None
    return max(figures) if objective.direction == "maximize" else min(figures)
