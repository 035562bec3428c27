"""Say what masks hold and which setting reads them, as lines that can be pasted behind `sweeps run NAME`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from crack_sweeps.data.mask_files import Colours, pick_channel
from crack_sweeps.specs.experiment import MaskRule

_SHOWN = 6
# More values than this are shades (antialiasing, JPEG), not labels; the largest label set met had 5.
_MOST_LABELS = 8
_CUSTOMARY = 128  # half of 255: a pixel is crack where at least half of it is covered


def describe(counts: Counter[int] | Counter[str]) -> str:
    """Values with their shares, the commonest first: ``0 (97.1 %), 255 (2.1 %), 204 (0.8 %)``."""
    total = counts.total()
    shown = [f"{value} ({_percent(number / total)})" for value, number in counts.most_common(_SHOWN)]
    more = len(counts) - _SHOWN
    return ", ".join(shown) + (f" and {more} more values" if more > 0 else "")


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
    return " or ".join(f"`{setting}`" for setting in settings(counts)) + _explanation(counts)


def settings(counts: Counter[int]) -> list[str]:
    """The settings that could be meant, the likeliest first; several where only a person can know."""
    values = sorted(counts)
    background = counts.most_common(1)[0][0]
    if len(values) == 2:
        return [f"data.mask.crack_values=[{values[0] if background == values[1] else values[1]}]"]
    if not _are_labels(values):
        threshold = _between(counts)
        above = sum(number for value, number in counts.items() if value >= threshold)
        inverted = above > counts.total() / 2
        return [f"data.mask.threshold={threshold}" + (" data.mask.invert=true" if inverted else "")]
    return [f"data.mask.crack_values=[{value}]" for value in values if value != background]


def colour_remedy(masks: Sequence[Colours]) -> str:
    """The channel, and the threshold where needed, that reads masks in colour."""
    for channel in ("max", "red", "green", "blue"):
        counts = Counter[int]()
        for colours_HW3 in masks:
            found, numbers = np.unique(pick_channel(colours_HW3, channel), return_counts=True)
            counts.update(dict(zip(found.tolist(), numbers.tolist(), strict=True)))
        values = sorted(counts)
        if len(values) == 1:  # the same on crack and background
            continue
        line = f"data.mask.channel={channel}"
        if len(values) == 2 and values[0] == 0:
            return f"`{line}{' data.mask.invert=true' if counts[values[1]] > counts[0] else ''}`"
        return " or ".join(f"`{line} {setting}`" for setting in settings(counts)) + _explanation(counts)
    return "look at the masks: each channel is one flat value"


def inverted_remedy(given: MaskRule) -> str:
    """What turns masks round that are crack for the most part."""
    if given.invert:
        return "`data.mask.invert=false`: these masks are not inverted"
    return "`data.mask.invert=true` swaps crack and background"


def _explanation(counts: Counter[int]) -> str:
    values = sorted(counts)
    if len(values) > 2 and _are_labels(values):
        return ", whichever value means crack; several go together as [1,2]"
    return ""


def _are_labels(values: Sequence[int]) -> bool:
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
