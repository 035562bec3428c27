"""The next suggestion, a pure function of a study's history: Optuna's samplers over a read-only view of it.

The same arguments give the same answer in any process, so a coordinator may die between any two lines. Random numbers
derive from (study seed, arm, number of the trial, draw, parameter), so no draw moves another one.

What each sampler is told of a trial:

| outcome       | tpe                            | gp                               | cmaes              |
|---------------|--------------------------------|----------------------------------|--------------------|
| complete      | its value                      | its value                        | its rank           |
| pruned        | PRUNED with its best value     | complete with its best value     | its best's rank    |
| rejected, out | PRUNED, violated constraint    | complete with the mean value,    | behind all others, |
| of memory,    |                                | violated constraint              | by excess          |
| invalid       |                                |                                  |                    |
| running       | RUNNING (constant liar)        | RUNNING (constant liar)          | nothing            |
| failed        | nothing                        | nothing                          | nothing            |
"""

from __future__ import annotations

import hashlib
import heapq
import logging
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from statistics import fmean
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from crack_sweeps.errors import UserError
from crack_sweeps.specs.study import Choices, Objective, Parameter, Range, Sampler, exists
from crack_sweeps.study.distributions import Axis, axis
from crack_sweeps.study.history import Trial

Fits = Callable[[Mapping[str, Any]], bool | None]

MAX_DRAWS = 8  # tries to avoid what is known not to fit
MODELLED_DRAWS = 2  # of them; TPE insists on its choices, so later ones take theirs at random (ranges are still TPE's)
CLEARLY_OVER = 0.22  # log of the estimated need over the budget, a quarter: less is for the forecast to say
NUM_FORECASTS = 100  # newest, that the estimate is made of
RIDGE = 0.3  # regularisation of that estimate; .1 to 1 gave as many rejections
OUT_OF_MEMORY_EXCESS = 0.1  # what a trial is taken to have needed over the budget when smaller batches did not help
INVALID_EXCESS = 1.0  # settings of which nothing can be built are told as needing twice the budget: clearly over it
CONSTRAINT = "memory"  # the one key of the constraint: GP refuses trials that differ in theirs

# How much of a long history a sampler sees: the best, which TPE's good half is taken from (25 at most, by its gamma),
# and the newest, which weigh most in its other half. Fewer for GP, which takes most of a second for 70 all the same;
# for CMA-ES the best are where the replay of the newest starts.
NUM_BEST = {"tpe": 30, "gp": 40, "cmaes": 10, "random": 0}
NUM_NEWEST = {"tpe": 100, "gp": 60, "cmaes": 300, "random": 0}


def suggest(
    space: Mapping[str, Parameter],
    past: Sequence[Trial],
    *,
    number: int,
    sampler: Sampler,
    objective: Objective,
    seed: int,
    arm: str,
    fits: Fits | None = None,
) -> dict[str, Any]:
    """The settings to try next.

    Args:
        space: Dotted key to parameter, each after those that its condition names.
        past: What is known so far, in any order; trials of other arms are not looked at.
        number: Number of the trial that is asked for.
        sampler: How it is found.
        objective: Which way is better.
        seed: The study's seed.
        arm: The arm that is asked for.
        fits: Says of a suggestion that is known already whether it fits, None of any other: what is known to be too
            large or invalid is not suggested, unless nothing else turns up in a few draws.

    Returns:
        Dotted key to plain value, in the order of the space; a key whose condition is not met is absent.

    Raises:
        UserError: The sampler needs a package that is not installed.
    """
    known = sorted(
        (trial for trial in past if trial.arm == arm and trial.number != number and trial.outcome != "failed"),
        key=lambda trial: trial.number,
    )
    model = sampler.name
    if sum(trial.outcome != "running" for trial in known) < sampler.startup_trials:
        model = "random"
    asked = _Asked(
        {key: axis(parameter) for key, parameter in space.items()},
        tuple(_bounded(known, model, objective)),
        model,
        objective,
        number,
        sampler.startup_trials,
    )
    # GP models the constraint itself; random stays random. Rejections during TPE's random start are saved too.
    need = _need(asked.axes, known) if sampler.name in ("tpe", "cmaes") else None
    with _quiet():
        for draw in range(MAX_DRAWS):
            derived = partial(_derived, seed, arm, number, draw)
            suggestion = _drawn(space, asked, derived, free_choices=draw >= MODELLED_DRAWS)
            too_large = fits is not None and fits(suggestion) is False
            if not too_large and (need is None or need(suggestion) <= CLEARLY_OVER):
                break
    return suggestion


@dataclass(frozen=True)
class _Asked:
    """What stays the same over the draws for one suggestion."""

    axes: Mapping[str, Axis]
    trials: Sequence[Trial]
    model: str
    objective: Objective
    number: int
    startup_trials: int


Derived = Callable[[str], int]


def _drawn(space: Mapping[str, Parameter], asked: _Asked, derived: Derived, *, free_choices: bool) -> dict[str, Any]:
    """One suggestion: parameters that exist under the same condition are drawn together."""
    suggestion: dict[str, Any] = {}
    for keys in _groups(space):
        if not exists(space[keys[0]], suggestion):
            continue
        open_ = [key for key in keys if not asked.axes[key].distribution.single()]
        if free_choices:
            open_ = [key for key in open_ if isinstance(space[key], Range)]
        values = _modelled(open_, asked, derived) if asked.model != "random" and open_ else {}
        for key in keys:
            along = asked.axes[key]
            value = values[key] if key in values else _at_random(along, derived(key))
            suggestion[key] = along.decoded(value)
    return {key: suggestion[key] for key in space if key in suggestion}


def _groups(space: Mapping[str, Parameter]) -> list[list[str]]:
    """Keys by condition, so that whatever is drawn together exists together; a gate's group comes before its own."""
    groups: dict[str, list[str]] = {}
    for key, parameter in space.items():
        groups.setdefault(repr(parameter.when), []).append(key)
    return list(groups.values())


def _derived(*parts: object) -> int:
    """A seed of 32 bits from what identifies a draw; never from hash(), which differs between processes."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _at_random(along: Axis, seed: int) -> Any:
    """Any value of the parameter, all as likely (by magnitude, where it is searched so)."""
    share = seed / 2**32  # in [0, 1)
    parameter = along.parameter
    if isinstance(parameter, Choices):
        texts = list(along.texts.values())
        return texts[int(share * len(texts))]
    step = _step(parameter)
    if step is None or parameter.log:
        return _from_unit(along, share)
    num_values = round((parameter.high - parameter.low) / step) + 1
    return parameter.low + int(share * num_values) * step


# --- what is learned from -------------------------------------------------------------------------


def _bounded(trials: Sequence[Trial], model: str, objective: Objective) -> list[Trial]:
    """As much of the history as the sampler can weigh in time, in its order: what runs, the best, the newest."""
    newest, best = NUM_NEWEST[model], NUM_BEST[model]
    if len(trials) <= newest + best:
        return list(trials)
    split = len(trials) - newest
    sign = _sign(objective)
    scored = [(sign * trial.value, -trial.number) for trial in trials[:split] if trial.value is not None]
    chosen = {-number for _, number in heapq.nlargest(best, scored)}
    return [t for t in trials[:split] if t.number in chosen or t.outcome == "running"] + list(trials[split:])


def _sign(objective: Objective) -> float:
    return 1.0 if objective.direction == "maximize" else -1.0


def _score(trial: Trial, objective: Objective) -> float | None:
    """The value of a trial that is complete, the best so far of one that was pruned."""
    if trial.outcome == "complete":
        return trial.value
    if trial.outcome == "pruned" and trial.intermediate:
        return (max if objective.direction == "maximize" else min)(trial.intermediate.values())
    return None


def _excess(trial: Trial) -> float | None:
    if trial.outcome == "out_of_memory":
        return max(trial.excess or 0.0, OUT_OF_MEMORY_EXCESS)
    if trial.outcome == "invalid":
        return INVALID_EXCESS
    return trial.excess


def _too_large(trial: Trial) -> bool:
    return trial.outcome in ("rejected", "invalid", "out_of_memory")


# --- Optuna ---------------------------------------------------------------------------------------


def _modelled(keys: Sequence[str], asked: _Asked, derived: Derived) -> Mapping[str, Any]:
    """What the sampler makes of the trials that have all these parameters; nothing where there is no such trial."""
    if asked.model == "gp":
        return _by_gp(keys, asked, derived)
    if asked.model == "cmaes":
        ranges = [key for key in keys if isinstance(asked.axes[key].parameter, Range)]
        choices = [key for key in keys if key not in ranges]  # CMA-ES knows none: TPE draws them
        return {**_by_cmaes(ranges, asked, derived), **_by_tpe(choices, asked, derived)}
    return _by_tpe(keys, asked, derived)


def _by_tpe(keys: Sequence[str], asked: _Asked, derived: Derived) -> dict[str, Any]:
    """Each parameter on its own.

    Optuna's default draws all together. On the benchmark of the search (12 parameters, 16 seeds, nothing stopped) the
    best of 60 trials was .740 so and .743 to .746 each on its own, and random search's best was met after .62 and .25
    of its epochs.
    """
    study = _study(keys, asked)
    values: dict[str, Any] = {}
    if study is None:
        return values
    for key in keys:
        sampler = TPESampler(seed=derived(key), n_startup_trials=0)
        values |= sampler.sample_relative(study, _asking(asked.number), {key: asked.axes[key].distribution})
    return values


def _by_gp(keys: Sequence[str], asked: _Asked, derived: Derived) -> dict[str, Any]:
    study = _study(keys, asked, pruned_is_complete=True)
    if study is None:
        return {}
    distributions = {key: asked.axes[key].distribution for key in keys}
    sampler = GPSampler(seed=derived(" ".join(sorted(keys))), n_startup_trials=0)
    return sampler.sample_relative(study, _asking(asked.number), distributions)


def _study(keys: Sequence[str], asked: _Asked, *, pruned_is_complete: bool = False) -> Study | None:
    """The history as an Optuna study of these parameters; None where nothing in it has ended with them."""
    trials = _told({key: asked.axes[key].distribution for key in keys}, asked, pruned_is_complete=pruned_is_complete)
    if not keys or not any(trial.state.is_finished() for trial in trials):
        return None
    direction = StudyDirection.MAXIMIZE if _sign(asked.objective) > 0 else StudyDirection.MINIMIZE
    return Study("view", _View(trials, direction), RandomSampler(seed=0))


def _asking(number: int) -> FrozenTrial:
    return _frozen(number, TrialState.RUNNING, params={}, distributions={}, reported={})


def _told(
    distributions: Mapping[str, BaseDistribution], asked: _Asked, *, pruned_is_complete: bool
) -> tuple[FrozenTrial, ...]:
    """The history in Optuna's words, as far as trials have these parameters with values that they may still take."""
    scores = [score for trial in asked.trials if (score := _score(trial, asked.objective)) is not None]
    neutral = fmean(scores) if scores else 0.0
    constrained = any(_excess(trial) is not None for trial in asked.trials)
    told = []
    for trial in asked.trials:
        params = {
            key: asked.axes[key].encoded(trial.suggestion[key]) for key in distributions if key in trial.suggestion
        }
        if len(params) < len(distributions) or None in params.values():
            continue
        score = _score(trial, asked.objective)
        state, value, reported = TrialState.RUNNING, None, {}
        if trial.outcome == "complete" or (pruned_is_complete and trial.outcome != "running"):
            state, value = TrialState.COMPLETE, neutral if score is None else score
        elif trial.outcome != "running":
            state = TrialState.PRUNED
            reported = {} if score is None else {max(trial.intermediate): score}
        frozen = _frozen(
            trial.number, state, value=value, params=params, distributions=distributions, reported=reported
        )
        excess = _excess(trial) or 0.0  # where it is not known, it did fit
        if excess > 0.0 or (constrained and pruned_is_complete):  # GP wants them all, TPE reads each again and again
            frozen.set_constraint(CONSTRAINT, excess)
        told.append(frozen)
    return tuple(told)


def _frozen(
    number: int,
    state: TrialState,
    *,
    value: float | None = None,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    reported: Mapping[int, float],
) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=value,
        datetime_start=None,
        datetime_complete=None,
        params=dict(params),
        distributions=dict(distributions),
        user_attrs={},
        system_attrs={},
        intermediate_values=dict(reported),
    )


class _View(InMemoryStorage):
    """A storage that holds prepared trials and copies none: adding 1,000 to Optuna's own takes .35 s."""

    def __init__(self, trials: Sequence[FrozenTrial], direction: StudyDirection) -> None:
        super().__init__()
        self.trials = trials
        self.direction = direction

    def get_study_id_from_name(self, study_name: str) -> int:  # noqa: ARG002
        return 0

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:  # noqa: ARG002
        return [self.direction]

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002
        deepcopy: bool = True,  # noqa: ARG002
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return [trial for trial in self.trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """What a sampler would share with other processes that ask: there are none."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says nothing meanwhile, such as that another package would make GP faster."""
    logger = logging.getLogger("optuna")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


# --- CMA-ES ---------------------------------------------------------------------------------------


def _by_cmaes(keys: Sequence[str], asked: _Asked, derived: Derived) -> dict[str, Any]:
    """CMA-ES replayed over the history: Optuna's keeps its state in trials, ours has none but the history.

    It starts at the best of the random ones, and is told the others by rank, a generation at a time.
    """
    try:
        cmaes = import_module("cmaes")
    except ImportError:
        raise UserError(
            "the sampler cmaes needs the package cmaes, which is not installed", hint="uv pip install cmaes"
        ) from None
    points, order = [], []
    for trial in asked.trials:
        at = [_unit(asked.axes[key], trial.suggestion.get(key)) for key in keys]
        score = _score(trial, asked.objective)
        if None in at or (score is None and not _too_large(trial)):
            continue
        points.append(np.array(at, dtype=float))
        # Lower is better: what fits by its score, behind it what does not by how far it is from fitting.
        order.append((0, -_sign(asked.objective) * score) if score is not None else (1, _excess(trial) or 0.0))
    if not keys or not points:
        return {}
    ranks = {number: rank for rank, number in enumerate(sorted(range(len(order)), key=order.__getitem__))}
    num_first = min(len(points), asked.startup_trials)
    bounds = np.tile([0.0, 1.0], (len(keys), 1))
    mean = points[min(range(num_first), key=ranks.__getitem__)]
    optimiser = cmaes.CMA(mean=mean, sigma=0.2, bounds=bounds, seed=derived(" ".join(sorted(keys))))
    size = optimiser.population_size
    for start in range(num_first, len(points) - size + 1, size):
        optimiser.tell([(points[i], float(ranks[i])) for i in range(start, start + size)])
    return {key: _from_unit(asked.axes[key], share) for key, share in zip(keys, optimiser.ask(), strict=True)}


def _unit(along: Axis, value: Any) -> float | None:
    """Where a number lies between the parameter's low, 0, and high, 1; None for what is no value of it."""
    number = along.encoded(value)
    parameter = along.parameter
    if number is None or isinstance(number, str) or not isinstance(parameter, Range):
        return None
    low, high = parameter.low, parameter.high
    if parameter.log:
        return float(np.log(number / low) / np.log(high / low))
    return float((number - low) / (high - low))


def _from_unit(along: Axis, share: float) -> float:
    parameter = along.parameter
    assert isinstance(parameter, Range)
    low, high = float(parameter.low), float(parameter.high)
    value = low * (high / low) ** share if parameter.log else low + share * (high - low)
    step = _step(parameter)
    return value if step is None else low + round((value - low) / step) * step


def _step(parameter: Range) -> float | None:
    return 1 if parameter.step is None and parameter.whole else parameter.step


# --- memory ---------------------------------------------------------------------------------------


def _need(axes: Mapping[str, Axis], trials: Sequence[Trial]) -> Callable[[Mapping[str, Any]], float] | None:
    """Estimates log(need / budget) of a suggestion from the forecasts so far, additive over the parameters.

    TPE keeps away from what was rejected only when it has learned the objective as well; this rough estimate spares
    it the clear cases. None where nothing was too large so far: then there is nothing to keep away from.
    """
    forecast = [(trial, excess) for trial in trials[-NUM_FORECASTS:] if (excess := _excess(trial)) is not None]
    if all(excess <= 0 for _, excess in forecast):
        return None
    features = np.array([_features(axes, trial.suggestion) for trial, _ in forecast])
    logs = np.log(np.maximum(1e-3, 1.0 + np.array([excess for _, excess in forecast])))
    middle, level = features.mean(axis=0), float(logs.mean())
    centred = features - middle
    dual = np.linalg.solve(centred @ centred.T + RIDGE * np.eye(len(centred)), logs - level)
    weights = centred.T @ dual
    return lambda suggestion: level + float((np.array(_features(axes, suggestion)) - middle) @ weights)


def _features(axes: Mapping[str, Axis], suggestion: Mapping[str, Any]) -> list[float]:
    features: list[float] = []
    for key, along in axes.items():
        value = suggestion.get(key)
        if isinstance(along.parameter, Choices):
            text = along.encoded(value) if key in suggestion else None
            features.extend(float(text == choice) for choice in along.texts.values())
        else:
            share = _unit(along, value)
            features.append(0.5 if share is None else share)
    return features
