"""Who trains next: arms in turns until all have trained as long, then each arm's finalist. Pure functions of the past.

Asked twice with the same trials they answer the same, so a coordinator may die between any two lines.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from crack_sweeps.specs.fingerprint import fingerprint
from crack_sweeps.specs.study import Objective
from crack_sweeps.specs.study_arms import Arm, settle
from crack_sweeps.specs.study_loading import ResolvedStudy
from crack_sweeps.study.history import TRAINED, Trial

EVEN_SHARE = 0.9  # an arm with fewer of the largest arm's epochs trains more
MOST_IN_VAIN = 3  # trials in a row without an epoch, after which an arm is left as it is
MAX_ATTEMPTS = 3  # of one training of a finalist, each in a sitting of its own: what fails as often fails by itself
FINAL_SEEDS_FROM = 1000  # above every seed that repeats of a suggestion take, so that no finalist's training is old
NUM_SEEDS = 1 << 32

Trials = Mapping[str, Sequence[Trial]]


@dataclass(frozen=True)
class Search:
    """A trial of the search comes next.

    Args:
        arm: Whose.
        epoch_cap: Epochs after which it is stopped because its arm has then trained as long as the others; None for
            one of the arm's own trials.
    """

    arm: Arm
    epoch_cap: int | None = None


@dataclass(frozen=True)
class Final:
    """A training of an arm's finalist comes next.

    Args:
        arm: The finalist's arm.
        suggestion: The winner's settings; empty for an arm whose settings stand as shipped.
        seed: Of this training.
        selected: Number of the trial that won, in the arm that was searched; None where nothing was.
    """

    arm: Arm
    suggestion: Mapping[str, Any]
    seed: int
    selected: int | None


def next_search(study: ResolvedStudy, trials: Trials) -> Search | None:
    """The next trial of the search; None where there is none, or none before trials under way have ended.

    Arms take turns by the share of their trials that have begun, so that a search that is cut short was cut fairly.
    When all have begun theirs, an arm that trained less than 90 % of the largest arm's epochs (its trials were
    stopped earlier) gets more, each up to what is missing.
    """
    begun = {arm.name: sum(_began(trial) for trial in trials[arm.name]) for arm in study.arms}
    behind = [arm for arm in study.arms if begun[arm.name] < study.num_trials(arm)]
    if behind:
        return Search(min(behind, key=lambda arm: begun[arm.name] / study.num_trials(arm)))
    return _evening(study, trials)


def _evening(study: ResolvedStudy, trials: Trials) -> Search | None:
    arms = [arm for arm in study.arms if study.num_trials(arm) == study.num_trials(study.arms[0])]
    under_way = [trial for arm in arms for trial in trials[arm.name] if trial.outcome == "running"]
    if any(trial.facts.get("epoch_cap") is None for trial in under_way):
        return None  # nobody knows yet which arm will have trained most
    most = max(num_epochs(trials[arm.name]) for arm in arms)
    waiting = [
        arm
        for arm in arms
        if num_epochs(trials[arm.name]) < EVEN_SHARE * most
        and not any(trial.arm == arm.name for trial in under_way)
        and not _in_vain(trials[arm.name])
    ]
    if not waiting:
        return None
    arm = min(waiting, key=lambda arm: num_epochs(trials[arm.name]))
    return Search(arm, epoch_cap=most - num_epochs(trials[arm.name]))


def num_epochs(trials: Sequence[Trial]) -> int:
    """Epochs that these trials have trained, whatever became of them."""
    return sum(max(trial.intermediate, default=0) for trial in trials)


def _began(trial: Trial) -> bool:
    return trial.outcome in TRAINED or trial.outcome == "running"


def _in_vain(trials: Sequence[Trial]) -> bool:
    last = [trial for trial in trials if trial.facts.get("epoch_cap") is not None][-MOST_IN_VAIN:]
    return len(last) == MOST_IN_VAIN and not any(trial.intermediate for trial in last)


# --- finalists -----------------------------------------------------------------------------------


def next_untuned(study: ResolvedStudy, trials: Trials) -> Final | None:
    """A baseline that is not searched trains its shipped settings once, early: it is then there if the search is cut.

    That training is its finalist's first.
    """
    if not any(_began(trial) for trial in trials[study.arms[0].name]):
        return None
    untuned = [arm for arm in study.arms if not study.num_trials(arm) and not trials[arm.final().name]]
    return _finals(study, untuned[0], trials)[0] if untuned else None


def next_final(
    study: ResolvedStudy,
    trials: Trials,
    *,
    earlier: Collection[tuple[str, int]] = frozenset(),
    budget_bytes: int = 0,
) -> Final | None:
    """The next training of a finalist, arms in turns; None where none is due. For when the search is over.

    Args:
        study: Its arms, and how many seeds.
        trials: All so far.
        earlier: Arm and number of those that had ended before this coordinator began. What failed then is tried
            again; what fails now waits for the next sitting, when the disk may have room.
        budget_bytes: What a trial may need now: what was rejected when there was less is weighed anew.
    """
    due = [
        (turn, final)
        for arm in study.arms
        for turn, final in enumerate(_finals(study, arm, trials))
        if _is_due(_attempts(final, trials), earlier, budget_bytes)
    ]
    return min(due, key=lambda turn_and_final: turn_and_final[0])[1] if due else None


def missing_finals(study: ResolvedStudy, trials: Trials) -> list[tuple[Final, Sequence[Trial]]]:
    """Trainings of finalists that were tried and have no score, with all attempts."""
    tried = [(final, _attempts(final, trials)) for arm in study.arms for final in _finals(study, arm, trials)]
    return [(final, attempts) for final, attempts in tried if attempts and not _is_done(attempts)]


def num_failures(attempts: Sequence[Trial]) -> int:
    """Attempts that trained in vain."""
    return sum(trial.outcome in TRAINED and trial.outcome != "complete" for trial in attempts)


def _attempts(final: Final, trials: Trials) -> list[Trial]:
    mark = fingerprint(settle(final.arm, final.suggestion))
    past = trials[final.arm.name]
    return [t for t in past if (t.facts.get("fingerprint"), t.facts.get("seed")) == (mark, final.seed)]


def _is_done(attempts: Sequence[Trial]) -> bool:
    return any(trial.outcome in ("running", "complete") for trial in attempts)


def _is_due(attempts: Sequence[Trial], earlier: Collection[tuple[str, int]], budget_bytes: int) -> bool:
    if not attempts:
        return True
    if _is_done(attempts) or num_failures(attempts) >= MAX_ATTEMPTS:
        return False
    last = attempts[-1]
    if last.outcome == "rejected":
        return bool(last.facts.get("needed_bytes", 0) <= budget_bytes)
    return (last.arm, last.number) in earlier


def nth_seed(first: int, number: int) -> int:
    """The seed so many after the first one; the largest that torch and numpy both take is followed by 0."""
    return (first + number) % NUM_SEEDS


def _finals(study: ResolvedStudy, arm: Arm, trials: Trials) -> list[Final]:
    """All trainings of an arm's finalist; none where no trial of it is complete."""
    first = arm.base.training.seed
    fresh = [nth_seed(first, FINAL_SEEDS_FROM + turn) for turn in range(study.num_finals(arm))]
    if not study.num_trials(arm):  # never chosen by its score, so its first score is as good as any
        return [Final(arm.final(), {}, seed, None) for seed in (first, *fresh[1:])]
    winner = best_settings(trials[arm.name], study.spec.objective)
    if winner is None:
        return []
    return [Final(arm.final(), winner.suggestion, seed, winner.number) for seed in fresh]


def best_settings(trials: Sequence[Trial], objective: Objective) -> Trial | None:
    """The first complete trial of the settings that are best on average over their seeds; None if none is complete."""
    alike: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.value is not None:
            alike.setdefault(trial.facts["fingerprint"], []).append(trial)
    if not alike:
        return None
    sign = 1 if objective.direction == "maximize" else -1
    best = max(alike.values(), key=lambda group: sign * fmean(_value(trial) for trial in group))
    return min(best, key=lambda trial: trial.number)


def _value(trial: Trial) -> float:
    assert trial.value is not None, "it is complete"
    return trial.value
