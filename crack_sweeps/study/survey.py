"""What the suggestions of a space need: drawn at random, settled, and forecast as far as patience goes."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from crack_sweeps.errors import SpecError, StudyError, SweepsError
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.study import Choices, Parameter, exists, identified, unfrozen
from crack_sweeps.specs.study_loading import Arm, settle
from crack_sweeps.study.calibration import Calibration
from crack_sweeps.study.distributions import axis
from crack_sweeps.study.forecasts import shape_key
from crack_sweeps.training.footprint import DeviceType, MemoryForecast

NUM_DRAWN = 400  # random suggestions that stand for the space; each takes 2 ms
MAX_SHAPES = 24  # forecast for a plan; one takes up to 2 s
MOST = 0.9  # of a value's suggestions, those that must have been forecast to judge it

Peak = Callable[[Experiment], MemoryForecast]


@dataclass(frozen=True)
class RejectedValue:
    """A value of the space that the memory budget speaks against.

    Args:
        key: Of the parameter.
        value: Of the parameter.
        share: Of the suggestions with this value that would be rejected; 1.0 is all.
    """

    key: str
    value: Any
    share: float


@dataclass(frozen=True)
class MemoryPlan:
    """What trials of an arm need, context and libraries included.

    Args:
        base: Forecast of the allocator's peak at the base's settings, by what it is for.
        base_bytes: What a trial at the base's settings needs.
        num_shapes: Different needs among the drawn suggestions: those that change no size are alike.
        num_forecast: Of these, how many were forecast for this plan.
        lowest_bytes: Least that one of them needs; None if none was forecast.
        highest_bytes: Most that one of them needs.
        rejected_share: Of random suggestions, those over the budget, as far as they were forecast.
        rejected_values: Values that are over the budget always or often.
        failed: What cannot be built, in a sentence each.
    """

    base: dict[str, int]
    base_bytes: int
    num_shapes: int
    num_forecast: int
    lowest_bytes: int | None
    highest_bytes: int | None
    rejected_share: float
    rejected_values: tuple[RejectedValue, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class Drawn:
    """A random suggestion, settled; its forecast and need where its shape was traced."""

    suggestion: Mapping[str, Any]
    experiment: Experiment
    shape: str
    forecast: MemoryForecast | None = None
    need: int | None = None


@dataclass(frozen=True)
class Survey:
    """What was drawn of an arm's space, and what it needs."""

    memory: MemoryPlan
    drawn: Sequence[Drawn]

    def fitting(self, budget: int) -> list[Drawn]:
        """What was forecast and fits."""
        return [one for one in self.drawn if one.need is not None and one.need <= budget]

    def needs(self, budget: int) -> list[int]:
        """The needs of what fits, in bytes."""
        return [one.need for one in self.fitting(budget) if one.need is not None]


def draw_suggestion(space: Mapping[str, Parameter], rng: random.Random) -> dict[str, Any]:
    """A suggestion in which every value of a parameter is as likely."""
    suggestion: dict[str, Any] = {}
    for key, parameter in space.items():
        if not exists(parameter, suggestion):
            continue
        if isinstance(parameter, Choices):
            suggestion[key] = unfrozen(rng.choice(parameter.choices))
            continue
        low, high = parameter.low, parameter.high
        if parameter.log:
            value = math.exp(rng.uniform(math.log(low), math.log(high)))
        elif parameter.step is not None or parameter.whole:
            step = parameter.step or 1
            value = low + step * rng.randint(0, round((high - low) / step))
        else:
            value = rng.uniform(low, high)
        suggestion[key] = axis(parameter).decoded(round(value) if parameter.whole else value)
    return suggestion


def survey_arm(
    arm: Arm, on: DeviceType, peak: Peak, calibration: Calibration, budget: int, patience_s: float
) -> Survey:
    """Draw from the space; forecast the base, then the shapes that were drawn most often."""
    drawn = list(_draw(arm, on))
    base = peak(arm.base)
    began = time.monotonic()  # after the base, for which the forecaster's process has started and imported torch
    often = [shape for shape, _ in Counter(one.shape for one in drawn).most_common()]
    forecasts: dict[str, MemoryForecast] = {shape_key(arm.base, on): base}
    failed: dict[str, str] = {}
    for shape in often[:MAX_SHAPES]:
        if shape in forecasts or time.monotonic() - began > patience_s:
            continue
        one = next(one for one in drawn if one.shape == shape)
        try:
            forecasts[shape] = peak(one.experiment)
        except StudyError:  # the forecaster itself is in trouble
            raise
        except SweepsError as error:
            failed[shape] = error.message
    drawn = [
        replace(one, forecast=found, need=calibration.peak(found)) if (found := forecasts.get(one.shape)) else one
        for one in drawn
    ]
    known = [one for one in drawn if one.need is not None]
    needs = [one.need for one in known if one.need is not None]
    over = sum(need > budget for need in needs)
    memory = MemoryPlan(
        base={name: value for name, value in asdict(base).items() if value},
        base_bytes=calibration.peak(base),
        num_shapes=len(often),
        num_forecast=sum(shape in forecasts for shape in often),
        lowest_bytes=min(needs, default=None),
        highest_bytes=max(needs, default=None),
        rejected_share=over / len(needs) if needs else 0.0,
        rejected_values=_rejected_values(arm.space, drawn, budget) if over else (),
        failed=tuple(sorted(set(failed.values()))),
    )
    if not known:  # the base stands for all
        drawn = [Drawn({}, arm.base, shape_key(arm.base, on), base, calibration.peak(base))]
    return Survey(memory, drawn)


def _draw(arm: Arm, on: DeviceType) -> Iterator[Drawn]:
    rng = random.Random(0)  # the same plan each time
    for _ in range(NUM_DRAWN):
        suggestion = draw_suggestion(arm.space, rng)
        try:
            experiment = settle(arm, suggestion)
        except SpecError:  # two values that do not go together, such as a batch and its crops
            continue
        yield Drawn(suggestion, experiment, shape_key(experiment, on))


def _rejected_values(space: Mapping[str, Parameter], drawn: Sequence[Drawn], budget: int) -> tuple[RejectedValue, ...]:
    """Values of choices and of short ranges of whole numbers that are rejected more often than all values together."""
    overall = statistics.fmean(_over(one, budget) for one in drawn if one.need is not None)
    found: list[RejectedValue] = []
    for key in space:
        by_value: dict[Any, list[Drawn]] = {}
        for one in drawn:
            if key in one.suggestion:
                by_value.setdefault(identified(one.suggestion[key]), []).append(one)
        if not 1 < len(by_value) <= MAX_SHAPES:
            continue
        for alike in by_value.values():
            known = [one for one in alike if one.need is not None]
            if len(known) < MOST * len(alike):  # too few shapes were forecast to say anything of this value
                continue
            share = statistics.fmean(_over(one, budget) for one in known)
            # Chance makes shares of values that matter nothing differ: by less than this in 99 of 100 cases.
            if share == 1 or share > overall + 2.6 * math.sqrt(overall * (1 - overall) / len(known)):
                found.append(RejectedValue(key, alike[0].suggestion[key], share))
    return tuple(sorted(found, key=lambda value: -value.share))


def _over(one: Drawn, budget: int) -> bool:
    return one.need is not None and one.need > budget
