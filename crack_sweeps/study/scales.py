"""Where values of a parameter stand on an axis, what they are called there, and how well they order the trials."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crack_sweeps.specs.study import Choices, Parameter, Range, identified, unfrozen
from crack_sweeps.specs.words import shown

FEWEST = 3  # trials below which a picture says nothing


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """The shortest ends of dotted keys that still tell them apart."""
    keys = list(keys)

    def end(key: str, num_parts: int) -> str:
        return ".".join(key.split(".")[-num_parts:])

    names = {}
    for key in keys:
        lengths = range(1, key.count(".") + 2)
        names[key] = next(end(key, n) for n in lengths if sum(end(other, n) == end(key, n) for other in keys) == 1)
    return names


def choice_labels(choices: Sequence[Any]) -> tuple[list[str], str]:
    """Labels of choices, and a note with what all of them have in common, which the labels then leave out.

    `swinv2_tiny_window8` and `swinv2_base_window8` are `tiny` and `base`, with the note `swinv2_*_window8`.
    """
    labels = [_label(choice) for choice in choices]
    if len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
        return labels, ""
    words = [label.split("_") for label in labels]
    fewest = min(map(len, words))
    first = _num_common(words, fewest - 1)
    last = _num_common([word[::-1] for word in words], fewest - 1 - first)
    if first + last == 0:
        return labels, ""
    middle = ["_".join(word[first : len(word) - last]) for word in words]
    return middle, "_".join([*words[0][:first], "*", *words[0][len(words[0]) - last :]])


def _num_common(words: Sequence[Sequence[str]], most: int) -> int:
    return next((n for n in range(most) if len({word[n] for word in words}) > 1), max(0, most))


def _label(value: Any) -> str:
    plain = unfrozen(value)
    if isinstance(plain, list):
        return "[" + ", ".join(_label(item) for item in plain) + "]"
    return plain if isinstance(plain, str) else shown(plain)


@dataclass(frozen=True)
class Scale:
    """Where values of a parameter stand on an axis; choices stand at 0, 1, 2 ... in the order of the space."""

    parameter: Parameter
    labels: Sequence[str]  # of choices
    note: str
    positions: Mapping[Any, int]

    @classmethod
    def of(cls, parameter: Parameter) -> Scale:
        if isinstance(parameter, Range):
            return cls(parameter, (), "", {})
        labels, common = choice_labels(parameter.choices)
        note = f"\n{common}" if common else ""
        return cls(parameter, labels, note, {identified(c): i for i, c in enumerate(parameter.choices)})

    def place(self, value: Any) -> float | None:
        """On the axis; None for a value that the space does not hold."""
        if isinstance(self.parameter, Choices):
            at = self.positions.get(identified(value))
            return None if at is None else float(at)
        return float(value) if isinstance(value, (int, float)) else None

    def share(self, value: Any) -> float | None:
        """From 0 at the low end of the axis to 1 at the high end."""
        at = self.place(value)
        if at is None:
            return None
        if isinstance(self.parameter, Choices):
            return (at + 0.5) / len(self.labels)
        low, high = float(self.parameter.low), float(self.parameter.high)
        if self.parameter.log:
            return math.log(at / low) / math.log(high / low)
        return (at - low) / (high - low)

    def marks(self) -> list[tuple[float, str]]:
        """Labels along the axis, with their places from 0 to 1."""
        if isinstance(self.parameter, Choices):
            return [((i + 0.5) / len(self.labels), label) for i, label in enumerate(self.labels)]
        low, high = float(self.parameter.low), float(self.parameter.high)
        middle = math.sqrt(low * high) if self.parameter.log else (low + high) / 2
        return [(0.0, f"{low:g}"), (0.5, f"{middle:.2g}"), (1.0, f"{high:g}")]


def spread(places: Sequence[float | None], width: float = 0.4) -> list[Any]:
    """Places that fall together, drawn apart evenly over a width, in their order; None stays None."""
    together = Counter(places)
    seen: Counter[float | None] = Counter()
    apart: list[float | None] = []
    for place in places:
        seen[place] += 1
        share = (seen[place] - 0.5) / together[place] - 0.5
        apart.append(None if place is None else place + width * share)
    return apart


def agreement(scale: Scale, tried: Sequence[tuple[Any, float]]) -> float:
    """How well a parameter orders trials: a correlation of ranks, of group means for choices; from 0 to 1.

    Args:
        scale: The parameter's.
        tried: Its value in each trial, and how good that was.
    """
    pairs = [(at, score) for value, score in tried if (at := scale.share(value)) is not None]
    if len(pairs) < FEWEST:
        return 0.0
    scores = np.argsort(np.argsort([score for _, score in pairs])).astype(float)
    if scale.labels:
        groups = {at: scores[[other == at for other, _ in pairs]].mean() for at, _ in pairs}
        places = np.array([groups[at] for at, _ in pairs])
    else:
        places = np.argsort(np.argsort([at for at, _ in pairs])).astype(float)
    if places.std() == 0 or scores.std() == 0:
        return 0.0
    return abs(float(np.corrcoef(places, scores)[0, 1]))


def broken(name: str, width: int = 15) -> list[str]:
    """A key on several lines, broken after its dots and underscores."""
    lines, line = [], ""
    for part in name.replace("_", "_ ").replace(".", ". ").split(" "):
        if line and len(line) + len(part) > width:
            lines.append(line)
            line = ""
        line += part
    return [*lines, line]
