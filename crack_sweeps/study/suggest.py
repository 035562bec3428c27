"""The next suggestion, a pure function of a study's history: Optuna's samplers over a read-only view of it.

The same arguments give the same answer in any process, so a coordinator may die between any two lines. Random numbers
derive from (study seed, arm, number of the trial, draw, parameter), so that no draw moves another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from crack_sweeps.errors import UserError
from crack_sweeps.specs.study import Choices, Objective, Parameter, Sampler, exists
from crack_sweeps.study.distributions import Axis, axis
from crack_sweeps.study.history import Outcome, Trial

Fits = Callable[[Mapping[str, Any]], bool | None]

MAX_DRAWS = 8
OOM_EXCESS = 0.1
MEMORY = "memory"


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
    LIKELY=True,
    COUNT_REJ=True,
) -> dict[str, Any]:
    past = [trial for trial in past if trial.arm == arm and trial.number != number]
    told = _bounded(past, sampler.name, objective)
    learned = [t for t in told if t.outcome in ("complete", "pruned") or (COUNT_REJ and t.outcome in ("rejected", "out_of_memory"))]
    axes = {key: axis(parameter) for key, parameter in space.items()}
    model = "random" if len(learned) < sampler.startup_trials else sampler.name
    likely = _Memory.of(axes, past) if LIKELY else None
    best = None
    for draw in range(MAX_DRAWS):
        candidate = _draw(space, axes, told, model, objective, number, lambda k: _derived(seed, arm, number, draw, k))
        if fits is not None and fits(candidate) is False:
            continue
        if likely is None or likely.excess(candidate) <= MARGIN:
            return candidate
        best = candidate
    return best or candidate


def _draw(space, axes, told, model, objective, number, derived):
    suggestion: dict[str, Any] = {}
    for keys in _groups(space):
        if not exists(space[keys[0]], suggestion):
            continue
        for key in keys:
            pass
        free = {key: axes[key].distribution for key in keys if not axes[key].distribution.single()}
        values = _sampled(free, axes, told, model, objective, number, derived) if model != "random" else {}
        for key in keys:
            dist = axes[key].distribution
            if key in values:
                v = values[key]
            else:
                v = RandomSampler(seed=derived(key)).sample_independent(None, None, key, dist)
            suggestion[key] = axes[key].decoded(v)
    return {key: suggestion[key] for key in space if key in suggestion}


def _sampled(dists, axes, told, model, objective, number, derived):
    if not dists:
        return {}
    trials = _translated(told, axes, dists, model, objective)
    if not any(t.state.is_finished() for t in trials):
        return {}
    group = " ".join(dists)
    s = TPESampler(seed=derived(group), n_startup_trials=0) if model == "tpe" else GPSampler(seed=derived(group), n_startup_trials=0)
    view = _View(trials, StudyDirection.MAXIMIZE if objective.direction == "maximize" else StudyDirection.MINIMIZE)
    asking = FrozenTrial(number=number, trial_id=number, state=TrialState.RUNNING, value=None, datetime_start=None, datetime_complete=None, params={}, distributions={}, user_attrs={}, system_attrs={}, intermediate_values={})
    return s.sample_relative(Study("view", view, sampler=s), asking, dists)


def _translated(told, axes, dists, model, objective):
    best = max if objective.direction == "maximize" else min
    values = [v for t in told if (v := _value(t, best)) is not None]
    neutral = float(np.mean(values)) if values else 0.0
    any_excess = any(t.excess is not None or t.outcome == "out_of_memory" for t in told)
    out = []
    for t in told:
        params = {k: axes[k].encoded(t.suggestion[k]) for k in dists if k in t.suggestion}
        if len(params) < len(dists) or None in params.values():
            continue
        value = _value(t, best)
        inter = {}
        state = TrialState.RUNNING
        if t.outcome == "complete":
            state = TrialState.COMPLETE
        elif t.outcome != "running":
            if model == "gp":
                state = TrialState.COMPLETE
                value = neutral if value is None or t.outcome != "pruned" else value
            else:
                state = TrialState.PRUNED
                inter = {max(t.intermediate): value} if t.outcome == "pruned" and t.intermediate else {}
                value = None
        else:
            value = None
        f = FrozenTrial(number=t.number, trial_id=t.number, state=state, value=value, datetime_start=None, datetime_complete=None, params=params, distributions=dists, user_attrs={}, system_attrs={}, intermediate_values=inter)
        if any_excess:
            f.set_constraint(MEMORY, _excess(t))
        out.append(f)
    return out


def _excess(t):
    if t.outcome == "out_of_memory":
        return max(t.excess or 0.0, OOM_EXCESS)
    return t.excess if t.excess is not None else 0.0


def _value(t, best):
    if t.value is not None:
        return t.value
    return best(t.intermediate.values()) if t.intermediate else None


N_BEST, N_NEW = {"tpe": 100, "gp": 40, "random": 0}, {"tpe": 300, "gp": 60, "random": 10}


def _bounded(past, name, objective):
    return [t for t in past if t.outcome != "failed"][-400:]


def _groups(space):
    groups: dict[str, list[str]] = {}
    for key, parameter in space.items():
        groups.setdefault(repr(parameter.when), []).append(key)
    return list(groups.values())


def _derived(*parts):
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class _View(InMemoryStorage):
    def __init__(self, trials, direction):
        super().__init__()
        self.trials, self.direction = trials, direction

    def get_study_id_from_name(self, study_name):
        return 0

    def get_study_directions(self, study_id):
        return [self.direction]

    def get_all_trials(self, study_id, deepcopy=True, states=None):
        return [t for t in self.trials if states is None or t.state in states]

    def set_trial_system_attr(self, trial_id, key, value):
        pass


class _Memory:
    """Ridge regression of log(1+excess) on one-hot."""
    @classmethod
    def of(cls, axes, past):
        rows = [(t.suggestion, _excess(t)) for t in past if t.excess is not None or t.outcome == "out_of_memory"][-300:]
        if not rows or all(e <= 0 for _, e in rows):
            return None
        self = cls()
        self.axes = axes
        X = np.array([self.features(s) for s, _ in rows])
        y = np.log(np.maximum(1e-3, 1 + np.array([e for _, e in rows])))
        self.mean = y.mean(); 
        self.xm = X.mean(0)
        Xc = X - self.xm
        self.w = Xc.T @ np.linalg.solve(Xc @ Xc.T + LAM * np.eye(len(X)), y - self.mean)
        return self

    def features(self, s):
        out = []
        for key, a in self.axes.items():
            if isinstance(a.parameter, Choices):
                got = a.encoded(s[key]) if key in s else None
                out += [float(got == text) for text in a.texts.values()]
            else:
                lo, hi, v = a.parameter.low, a.parameter.high, s.get(key)
                out.append(0.5 if v is None else (np.log(v / lo) / np.log(hi / lo) if a.parameter.log else (v - lo) / (hi - lo)))
        return out

    def excess(self, s):
        return float(self.mean + (np.array(self.features(s)) - self.xm) @ self.w)

LAM = 0.3
MARGIN = 0.0
