"""Say what masks hold and which setting reads them, as lines that can be pasted behind `sweeps run NAME`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from crack_sweeps.data.mask_files import Colours, pick_channel
from crack_sweeps.specs.experiment import MaskRule

_SHOWN = 6
# More values than this are shades (antialiasing, JPEG), not labels; the largest label set met had 5.
_MOST_LABELS = 8
_CHANNELS: tuple[Literal["max", "red", "green", "blue"], ...] = ("max", "red", "green", "blue")
_CUSTOMARY = 128  # half of 255: a pixel is crack where at least half of it is covered


def describe(counts: Counter[int] | Counter[str]) -> str:
    """Values with their shares, the commonest first: ``0 (97.1 %), 255 (2.1 %), 204 (0.8 %)``."""
    total = counts.total()
    shown = [f"{value} ({_percent(number / total)})" for value, number in counts.most_common(_SHOWN)]
    more = len(counts) - _SHOWN
    return ", ".join(shown) + (f" and {more} more values" if more > 0 else "")


def setting(rule: MaskRule) -> str:
    """A rule as it is typed behind a command: ``data.mask.channel=max data.mask.threshold=128``."""
    parts = []
    if rule.channel is not None:
        parts.append(f"data.mask.channel={rule.channel}")
    if rule.crack_values is not None:
        parts.append(f"data.mask.crack_values=[{','.join(map(str, rule.crack_values))}]")
    if rule.threshold is not None:
        parts.append(f"data.mask.threshold={rule.threshold}")
    if rule.invert:
        parts.append("data.mask.invert=true")
    return " ".join(parts)


def value_remedy(counts: Counter[int], *, explain_binary: bool = False) -> str:
    """The setting that reads masks of these values.

    Args:
        counts: Pixels by value.
        explain_binary: Name the setting for 0 and one other value too, which need none unless another rule was given.
    """
    values = sorted(counts)
    if len(values) == 1:
        return "look at the masks: they hold no crack"
    if len(values) == 2 and values[0] == 0 and explain_binary:
        return f"`data.mask.crack_values=[{values[1]}]`, or no rule at all, reads 0 and one other value"
    return _either(suggestions(counts)) + _explanation(counts)


def suggestions(counts: Counter[int]) -> list[MaskRule]:
    """The rules that could be meant, the likeliest first; several where only a person can know."""
    values = sorted(counts)
    background = counts.most_common(1)[0][0]
    if len(values) == 2:
        return [MaskRule(crack_values=(values[0] if background == values[1] else values[1],))]
    if not are_labels(values):
        threshold = _between(counts)
        above = sum(number for value, number in counts.items() if value >= threshold)
        return [MaskRule(threshold=threshold, invert=above > counts.total() / 2)]
    return [MaskRule(crack_values=(value,)) for value in values if value != background]


def colour_remedy(masks: Sequence[Colours]) -> str:
    """The channel, and the threshold where needed, that reads masks in colour."""
    rules, counts = colour_suggestions(masks)
    if not rules:
        return "look at the masks: each channel is one flat value"
    return _either(rules) + ("" if _is_plain(counts) else _explanation(counts))


def colour_suggestions(masks: Sequence[Colours]) -> tuple[list[MaskRule], Counter[int]]:
    """The rules that could be meant, and the values of the channel that they read; none where no channel varies."""
    for channel in _CHANNELS:
        counts = Counter[int]()
        for colours_HW3 in masks:
            found, numbers = np.unique(pick_channel(colours_HW3, channel), return_counts=True)
            counts.update(dict(zip(found.tolist(), numbers.tolist(), strict=True)))
        if len(counts) == 1:  # the same on crack and background
            continue
        if _is_plain(counts):
            return [MaskRule(channel=channel, invert=counts[max(counts)] > counts[0])], counts
        return [
            MaskRule(channel=channel, crack_values=rule.crack_values, threshold=rule.threshold, invert=rule.invert)
            for rule in suggestions(counts)
        ], counts
    return [], Counter()


def _is_plain(counts: Counter[int]) -> bool:
    """0 and one other value, which no rule need explain."""
    return len(counts) == 2 and 0 in counts


def _either(rules: Sequence[MaskRule]) -> str:
    return " or ".join(f"`{setting(rule)}`" for rule in rules)


def inverted_remedy(given: MaskRule) -> str:
    """What turns masks round that are crack for the most part."""
    if given.invert:
        return "`data.mask.invert=false`: these masks are not inverted"
    return "`data.mask.invert=true` swaps crack and background"


def _explanation(counts: Counter[int]) -> str:
    values = sorted(counts)
    if len(values) > 2 and are_labels(values):
        return ", whichever value means crack; several go together as [1,2]"
    return ""


def are_labels(values: Sequence[int]) -> bool:
    """Whether values name classes, where they are not the shades of a smoothed edge or of JPEG."""
    if len(values) > _MOST_LABELS:
        return False
    low, high = values[0], values[-1]
    near_an_end = all(min(value - low, high - value) <= (high - low) // 16 for value in values)
    return not (high - low >= _CUSTOMARY and near_an_end and len(values) > 2)


def _between(counts: Counter[int]) -> int:
    """The value that best parts dark from bright (Otsu 1979); half of 255 where that is about as good."""
    values = np.array(sorted(counts), dtype=np.float64)
    weights = np.array([counts[int(value)] for value in values], dtype=np.float64) / counts.total()
    below = np.cumsum(weights)[:-1]
    mean_below = np.cumsum(weights * values)[:-1] / below
    mean_above = (np.sum(weights * values) - below * mean_below) / (1.0 - below)
    best = int(np.argmax(below * (1.0 - below) * (mean_above - mean_below) ** 2))
    middle = int(np.ceil((values[best] + values[best + 1]) / 2))
    return _CUSTOMARY if values[-1] == 255 and _CUSTOMARY // 2 <= middle <= _CUSTOMARY * 3 // 2 else middle


def _percent(share: float) -> str:
    if 0.9995 <= share < 1.0:
        return "> 99.9 %"
    if share >= 0.0005:
        return f"{share * 100:.1f} %"
    return f"{share * 100:.2g} %"
