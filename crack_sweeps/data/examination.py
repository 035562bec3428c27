"""Look at one photo and its mask, and say what is there: facts, never an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from crack_sweeps.data.digests import file_digest
from crack_sweeps.data.images import as_rgb, image_size, load_upright
from crack_sweeps.data.mask_files import GreyValues, as_values, read_mat
from crack_sweeps.data.mask_kinds import Oddity, colour_oddity, oddity_of
from crack_sweeps.data.mask_remedies import colour_remedy, describe
from crack_sweeps.data.masks import count_colours, count_values, value_table
from crack_sweeps.data.photos import ResolvedMaskRule
from crack_sweeps.data.widths import crack_widths_px
from crack_sweeps.errors import DataError

THUMB_PX = 32
# The ring around a crack that it is compared with: near enough to be lit alike, and clear of a crack drawn too thin.
_NEAR_PX, _FAR_PX = 5, 31
_MATLAB = "MATLAB"
_MOST_KEPT = 256
_MOST_LABELS = 8  # more values are shades, and no class of their own


class Size(NamedTuple):
    """Of a picture, upright."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a file cannot be read, and what to do about it."""

    cause: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A photo that can be read.

    Args:
        size: As people see it, upright.
        mode: As Pillow names it: L, RGB, RGBA, P, 1, I;16, CMYK ...
        on_its_side: The EXIF tag turns it by a quarter.
        digest: SHA-256 of the file.
        thumb: The photo in grey, 32x32 px, row by row.
    """

    size: Size
    mode: str
    on_its_side: bool
    digest: str
    thumb: bytes


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """A mask that can be decoded.

    Args:
        size: As people see it, upright.
        mode: As Pillow names it, or MATLAB.
        digest: SHA-256 of the file.
        counts: Pixels by value, of the commonest 256; empty for a mask in colour that no channel was chosen for.
        oddity: What is wrong with it.
        share: Share of crack; None where the rule does not read it.
        widths_px: Pixels of the centre line by the crack's width there; empty where widths were not measured.
    """

    size: Size
    mode: str
    digest: str
    counts: Counter[int]
    oddity: Oddity | None
    share: float | None
    widths_px: Counter[float]


@dataclass(frozen=True, slots=True)
class PairFacts:
    """A photo and its mask.

    Args:
        darker: Share of the surroundings of the crack that is brighter than the crack's median; .5 is what a mask of
            another photo gets. None without a crack, or where photo and mask do not fit.
        darker_of: The same of what each value of the mask marks, where nobody knows yet which means crack.
    """

    image: ImageFacts | Trouble
    mask: MaskFacts | Trouble
    darker: float | None = None
    darker_of: Mapping[int, float] = field(default_factory=dict)


def examine(image: Path, mask: Path, rule: ResolvedMaskRule | None, *, widths: bool = True) -> PairFacts:
    """Decode both files to their last byte and measure them.

    Args:
        rule: How masks of the set are read; None where nobody knows yet.
        widths: Measure how wide the cracks are too, which takes as long as all the rest.
    """
    grey_HW: UInt8[np.ndarray, "H W"] | None = None
    values_HW: GreyValues | None = None
    image_facts: ImageFacts | Trouble
    mask_facts: MaskFacts | Trouble
    try:
        image_facts, grey_HW = _look_at_image(image)
    except DataError as error:
        image_facts = trouble(error, image)
    try:
        mask_facts, values_HW = _look_at_mask(mask, rule, widths=widths)
    except DataError as error:
        mask_facts = trouble(error, mask)
    if grey_HW is None or values_HW is None or grey_HW.shape != values_HW.shape:
        return PairFacts(image_facts, mask_facts)
    if rule is None:
        return PairFacts(image_facts, mask_facts, darker_of=_darker_of_each(grey_HW, values_HW))
    return PairFacts(image_facts, mask_facts, _darker(grey_HW, value_table(rule)[values_HW]))


def trouble(error: DataError, path: Path) -> Trouble:
    """An error about a file, without the file's name."""
    return Trouble(error.message.removeprefix(f"{path}: "), error.hint or "")


def _look_at_image(path: Path) -> tuple[ImageFacts, UInt8[np.ndarray, "H W"]]:
    (height, width), on_its_side = image_size(path)
    upright = load_upright(path)
    grey_HW: UInt8[np.ndarray, "H W"] = cv2.cvtColor(as_rgb(upright, path), cv2.COLOR_RGB2GRAY)
    thumb = cv2.resize(grey_HW, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA)
    facts = ImageFacts(Size(width, height), upright.mode, on_its_side, file_digest(path), thumb.tobytes())
    return facts, grey_HW


def _look_at_mask(path: Path, rule: ResolvedMaskRule | None, *, widths: bool) -> tuple[MaskFacts, GreyValues | None]:
    """A mask's facts, and its values where they tell something of the photo."""
    channel = rule.channel if rule is not None else None
    if path.suffix.lower() == ".mat":
        mode, values = _MATLAB, read_mat(path)
    else:
        upright = load_upright(path)
        mode, values = upright.mode, as_values(upright, path, channel)
    size, digest = Size(values.shape[1], values.shape[0]), file_digest(path)
    if values.ndim == 3:
        coloured = colour_oddity(describe(count_colours(values)), colour_remedy([values]))
        return MaskFacts(size, mode, digest, Counter(), coloured, None, Counter()), None
    counts = count_values(values)
    kept = Counter(dict(counts.most_common(_MOST_KEPT)))  # the facts of all masks are held in memory together
    if rule is None:
        return MaskFacts(size, mode, digest, kept, None, None, Counter()), values
    odd = oddity_of(counts, rule)
    if odd is not None:
        return MaskFacts(size, mode, digest, kept, odd, None, Counter()), None
    crack_HW: UInt8[np.ndarray, "H W"] = value_table(rule)[values]
    widths_px = _count_widths(crack_HW) if widths else Counter[float]()
    return MaskFacts(size, mode, digest, kept, None, float(crack_HW.mean()), widths_px), values


def _count_widths(crack_HW: UInt8[np.ndarray, "H W"]) -> Counter[float]:
    found, numbers = np.unique(crack_widths_px(crack_HW), return_counts=True)
    return Counter({round(width, 2): number for width, number in zip(found.tolist(), numbers.tolist(), strict=True)})


def _darker(grey_HW: UInt8[np.ndarray, "H W"], crack_HW: UInt8[np.ndarray, "H W"]) -> float | None:
    near_HW = cv2.dilate(crack_HW, np.ones((_NEAR_PX, _NEAR_PX), np.uint8))
    ring_HW = (cv2.dilate(crack_HW, np.ones((_FAR_PX, _FAR_PX), np.uint8)) > 0) & (near_HW == 0)
    if not crack_HW.any() or not ring_HW.any():
        return None
    return float((grey_HW[ring_HW] > np.median(grey_HW[crack_HW > 0])).mean())


def _darker_of_each(grey_HW: UInt8[np.ndarray, "H W"], values_HW: GreyValues) -> dict[int, float]:
    counts = count_values(values_HW)
    if len(counts) > _MOST_LABELS:
        return {}
    background = counts.most_common(1)[0][0]
    found = {value: _darker(grey_HW, (values_HW == value).astype(np.uint8)) for value in counts if value != background}
    return {value: darker for value, darker in found.items() if darker is not None}
