"""Read masks as 0 and 1: find the rule that a set's masks follow, and hold every mask to it when it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
from jaxtyping import UInt8

from crack_sweeps.data.images import read_image
from crack_sweeps.data.mask_files import Colours, GreyValues, read_values
from crack_sweeps.data.mask_remedies import colour_remedy, describe, inverted_remedy, value_remedy
from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.errors import DataError
from crack_sweeps.specs.experiment import MaskRule

# Enough to meet every value of the eight public sets that were opened, and 0.2 s of reading.
SAMPLED_MASKS = 24
# No public set has more than 10 % crack; a set above half is written the other way round.
INVERTED_ABOVE = 0.5
SUSPICIOUS_ABOVE = 0.2
# CrackForest's labels: 1 background, 2 crack, 3 background that cracks enclose, 4 other (Shi et al. 2016).
CRACKFOREST_LABELS = (1, 2, 3, 4)
CRACKFOREST_CRACK = 2
REFUSED = 2


def read_mask(photo: Photo, rule: ResolvedMaskRule) -> UInt8[np.ndarray, "H W"]:
    """A mask as 0 (background) and 1 (crack).

    Args:
        rule: Of the photo's set; a photo of several sets has its own, which is used in its place.

    Raises:
        DataError: The file is damaged, or holds values that the rule does not know.
    """
    rule = photo.rule or rule
    values = read_values(photo.mask, rule.channel)
    if values.ndim == 3:
        raise DataError(
            f"{photo.mask}: a mask in colour, {describe(count_colours(values))}", hint=colour_remedy([values])
        )
    mask_HW: UInt8[np.ndarray, "H W"] = value_table(rule)[values]
    if rule.allowed is not None and int(mask_HW.max()) == REFUSED:
        counts = count_values(values)
        raise DataError(
            f"{photo.mask}: holds {describe(counts)}; the other masks hold {' and '.join(map(str, rule.allowed))}",
            hint=value_remedy(counts),
        )
    return mask_HW


def read_pair(photo: Photo, rule: ResolvedMaskRule) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """Photo and mask, of one size.

    Raises:
        DataError: Either cannot be read, or they differ in size.
    """
    image_HW3, mask_HW = read_image(photo.image), read_mask(photo, rule)
    if image_HW3.shape[:2] != mask_HW.shape:
        raise DataError(
            f"{photo.image} is {image_HW3.shape[1]}x{image_HW3.shape[0]} px, "
            f"its mask {photo.mask} {mask_HW.shape[1]}x{mask_HW.shape[0]}",
            hint="bring the mask that was drawn on this photo, at the photo's size",
        )
    return image_HW3, mask_HW


def decide_rule(masks: Sequence[Path], given: MaskRule, *, seed: int = 0) -> tuple[ResolvedMaskRule, tuple[str, ...]]:
    """The rule that reads these masks, found from a seeded sample of them, and what is odd about it.

    With nothing given, masks must hold 0 and one other value, the same in all of them.

    Raises:
        DataError: The masks hold something else, hold no crack at all, or are crack for the most part. The message
            shows the values with their shares, the hint the setting that reads them.
    """
    if not masks:
        raise DataError("no masks to read", hint="give a folder of photos and masks")
    order = Random(seed).sample(sorted(masks), len(masks))
    sampled, rest = order[:SAMPLED_MASKS], order[SAMPLED_MASKS:]
    per_mask = [_grey_counts(path, values) for path, values in _read(sampled, given)]
    where = f"{masks[0].parent}: {len(sampled)} of {len(masks)} masks read"
    rule = given_rule(given) or _found_rule(sampled, per_mask, given, where, rest)
    counts = sum(per_mask, Counter[int]())
    share = crack_share(counts, rule)
    if share == 0.0:
        _require_crack(rest, given, rule, counts, masks)
    if share > INVERTED_ABOVE:
        raise DataError(
            f"{where}, {share:.1%} of their pixels would be crack: {describe(counts)}", hint=inverted_remedy(given)
        )
    if share > SUSPICIOUS_ABOVE:
        return rule, (
            f"crack covers {share:.0%} of the masks' pixels (rule: {rule}; values: {describe(counts)}); "
            "public sets have 0.3 to 10 %, so look whether the rule means crack",
        )
    return rule, ()


def count_values(values: GreyValues) -> Counter[int]:
    """How many pixels hold each value."""
    counts = np.bincount(values.ravel())
    return Counter({int(value): int(counts[value]) for value in np.flatnonzero(counts)})


def _read(paths: Sequence[Path], given: MaskRule) -> Iterator[tuple[Path, GreyValues]]:
    """Masks in grey; coloured ones without a channel are an error that counts them and says how to read them."""
    coloured: list[tuple[Path, Colours]] = []
    for path in paths:
        values = read_values(path, given.channel)
        if values.ndim == 2:
            yield path, values
        else:
            coloured.append((path, values))
            if len(coloured) == 4:  # enough to suggest a threshold, and bounded however large the masks are
                break
    if coloured:
        colours = sum((count_colours(values) for _, values in coloured), Counter[str]())
        raise DataError(
            f"{coloured[0][0]}: a mask in colour, {describe(colours)}",
            hint=colour_remedy([values for _, values in coloured]),
        )


def _grey_counts(path: Path, values: GreyValues) -> Counter[int]:
    if values.size == 0:
        raise DataError(f"{path}: an empty mask", hint="bring the mask that belongs to this photo")
    return count_values(values)


def given_rule(given: MaskRule) -> ResolvedMaskRule | None:
    """The rule that a person gave; None where values are to be found by looking."""
    if given.crack_values is None and given.threshold is None:
        return None
    return ResolvedMaskRule(
        crack_values=None if given.crack_values is None else tuple(sorted(set(given.crack_values))),
        threshold=given.threshold,
        invert=given.invert,
        channel=given.channel,
    )


def _found_rule(
    sampled: Sequence[Path], per_mask: Sequence[Counter[int]], given: MaskRule, where: str, rest: Sequence[Path]
) -> ResolvedMaskRule:
    counts = sum(per_mask, Counter[int]())
    if set(counts) == {0}:  # a sample of photos without a crack
        for path, values in _read(rest, given):
            counts = counts + _grey_counts(path, values)
            if set(counts) != {0}:
                break
    found = sorted(counts)
    if len(found) == 2 and found[0] == 0:
        return ResolvedMaskRule(
            crack_values=(found[1],), invert=given.invert, channel=given.channel, allowed=(0, found[1])
        )
    matlab = all(path.suffix.lower() == ".mat" for path in sampled)
    if matlab and CRACKFOREST_CRACK in found and set(found) <= set(CRACKFOREST_LABELS):
        return ResolvedMaskRule(crack_values=(CRACKFOREST_CRACK,), invert=given.invert, allowed=CRACKFOREST_LABELS)
    if len(found) == 1:
        raise DataError(
            f"{where}, every pixel is {found[0]}: there is no crack to learn",
            hint="masks need two values, 0 and one other: bring the masks that show the cracks",
        )
    differ = 0 in counts and all(len(single) == 1 or (len(single) == 2 and 0 in single) for single in per_mask)
    raise DataError(
        f"{where}, they hold {describe(counts)}, not 0 and one other value",
        hint="each has 0 and one other value, but not the same: `data.mask.threshold=1` reads all of them"
        if differ
        else value_remedy(counts),
    )


def _require_crack(
    rest: Sequence[Path], given: MaskRule, rule: ResolvedMaskRule, counts: Counter[int], masks: Sequence[Path]
) -> None:
    """Looks through the masks outside the sample until one has crack."""
    seen = Counter(counts)
    for path, values in _read(rest, given):
        single = _grey_counts(path, values)
        if crack_share(single, rule) > 0.0:
            return
        seen += single
    raise DataError(
        f"{masks[0].parent}: none of {len(masks)} masks holds crack by the rule {rule}; they hold {describe(seen)}",
        hint=value_remedy(seen, explain_binary=True),
    )


def crack_share(counts: Counter[int], rule: ResolvedMaskRule) -> float:
    """Share of the counted pixels that the rule calls crack."""
    table = value_table(rule)
    return sum(number for value, number in counts.items() if table[value] == 1) / counts.total()


@lru_cache(maxsize=16)
def value_table(rule: ResolvedMaskRule) -> UInt8[np.ndarray, "values=65536"]:
    """For every value: 0 background, 1 crack, 2 not a value of this set."""
    values = np.arange(65536)
    crack = np.isin(values, rule.crack_values) if rule.crack_values is not None else values >= _threshold(rule)
    table = (crack ^ rule.invert).astype(np.uint8)
    if rule.allowed is not None:
        table[~np.isin(values, rule.allowed)] = REFUSED
    table.setflags(write=False)
    return table


def _threshold(rule: ResolvedMaskRule) -> int:
    assert rule.threshold is not None, "a resolved rule has crack_values or a threshold"
    return rule.threshold


def count_colours(colours_HW3: Colours) -> Counter[str]:
    """How many pixels have each colour, written as (red, green, blue)."""
    packed = colours_HW3.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
    found, numbers = np.unique(packed, return_counts=True)
    return Counter(
        {f"({c >> 16}, {c >> 8 & 255}, {c & 255})": int(n) for c, n in zip(found.tolist(), numbers, strict=True)}
    )
