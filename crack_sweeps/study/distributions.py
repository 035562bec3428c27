"""A parameter of the space as Optuna knows it: its distribution, and values there and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from crack_sweeps.specs.study import Choices, Parameter, exists, identified, unfrozen

SIGNIFICANT_DIGITS = 4  # of a number between two others: short enough to type, finer than a training can tell


@dataclass(frozen=True)
class Axis:
    """One parameter, its distribution, and the text that stands for each choice, because Optuna knows no lists."""

    parameter: Parameter
    distribution: BaseDistribution
    texts: Mapping[Any, str]

    def encoded(self, value: Any) -> str | int | float | None:
        """The value as Optuna holds it, or None where the parameter has no such value (any more)."""
        parameter = self.parameter
        if isinstance(parameter, Choices):
            return self.texts.get(identified(value))
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if not parameter.low <= value <= parameter.high:
            return None
        if not parameter.whole:
            return float(value)
        return int(value) if value == int(value) else None

    def decoded(self, value: Any) -> Any:
        """The plain value of what Optuna gave: the same after a way through JSON, short enough to type."""
        parameter = self.parameter
        if isinstance(parameter, Choices):
            return json.loads(value)
        if parameter.whole:
            return int(value)
        low, high = float(parameter.low), float(parameter.high)
        if parameter.step is None:
            return min(max(_shortened(value, None if parameter.log else high - low), low), high)
        step = Decimal(str(parameter.step))  # in decimals, because .1 + 2 * .1 is .30000000000000004
        return float(Decimal(str(low)) + round((value - low) / float(step)) * step)


def _shortened(value: float, span: float | None) -> float:
    """Four significant digits, and where a narrow span wants more (.999 to .9999), four of the span."""
    digits = Decimal(f"{value:.{SIGNIFICANT_DIGITS}g}")
    if span is None or not span:
        return float(digits)
    decimals = SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(span))
    exponent = digits.as_tuple().exponent
    assert isinstance(exponent, int), "a value is finite"
    return float(digits) if -exponent >= decimals else round(value, decimals)


def axis(parameter: Parameter) -> Axis:
    """The parameter as Optuna knows it."""
    if isinstance(parameter, Choices):
        texts = {identified(choice): json.dumps(unfrozen(choice)) for choice in parameter.choices}
        return Axis(parameter, CategoricalDistribution(list(texts.values())), texts)
    low, high, log, step = parameter.low, parameter.high, parameter.log, parameter.step
    if parameter.whole:
        return Axis(parameter, IntDistribution(int(low), int(high), log=log, step=int(step or 1)), {})
    continuous = FloatDistribution(float(low), float(high), log=log, step=None if step is None else float(step))
    return Axis(parameter, continuous, {})


def encoded_suggestion(
    space: Mapping[str, Parameter], suggestion: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """What Optuna stores of a suggestion: parameters and their distributions, as far as this space (still) has them."""
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for key, parameter in space.items():
        if key not in suggestion or not exists(parameter, suggestion):
            continue
        along = axis(parameter)
        value = along.encoded(suggestion[key])
        if value is not None:
            params[key], distributions[key] = value, along.distribution
    return params, distributions
