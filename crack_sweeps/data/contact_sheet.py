"""One picture of a few pairs of a set: each photo, and beside it the same photo with its mask painted on."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from crack_sweeps.data.check import Examined
from crack_sweeps.data.examination import ImageFacts, MaskFacts
from crack_sweeps.data.images import read_image
from crack_sweeps.data.mask_files import read_values
from crack_sweeps.data.masks import value_table
from crack_sweeps.data.photos import ResolvedMaskRule
from crack_sweeps.errors import DataError, UserError

NUM_PAIRS = 8  # four rows of two: a screen and a half
_NUM_DOUBTFUL = 2
_PAINT = (213, 94, 0)  # vermilion of Okabe and Ito (2008): stands out from asphalt, concrete and brick
_PAPER, _INK, _GREY = (255, 255, 255), (25, 25, 25), (110, 110, 110)
_PANEL_WIDTH, _PANEL_HEIGHT = 340, 255  # px
_MARGIN, _CAPTION, _COLUMNS = 12, 40, 2


def write_preview(seen: Examined, path: Path) -> list[str]:
    """Write a PNG of up to eight pairs, from those with the least crack to those with the most, doubtful ones last.

    Returns:
        The photos on it.

    Raises:
        UserError: The file cannot be written.
        DataError: No pair can be shown.
    """
    places = _chosen(seen)
    if not places:
        raise DataError(f"{seen.root}: no pair can be shown", hint="see what is said of its files")
    rows = -(-len(places) // _COLUMNS)
    cell_width, cell_height = 2 * _PANEL_WIDTH + _MARGIN, _CAPTION + _PANEL_HEIGHT + _MARGIN
    size = (_MARGIN + _COLUMNS * (cell_width + 2 * _MARGIN), _MARGIN + rows * cell_height)
    sheet = Image.new("RGB", size, _PAPER)
    for number, place in enumerate(places):
        row, column = divmod(number, _COLUMNS)
        left, top = _MARGIN + column * (cell_width + 2 * _MARGIN), _MARGIN + row * cell_height
        _draw_cell(sheet, seen, place, left, top, cell_width)
    try:
        sheet.save(path, format="PNG")
    except OSError as error:
        raise UserError(
            f"--preview {path}: cannot be written ({error.strerror or error})",
            hint="name a file in a folder that exists",
        ) from error
    return [seen.label(seen.pairs[place].image) for place in places]


def _chosen(seen: Examined) -> list[int]:
    """Places of pairs evenly spread over the crack shares; the last two are those whose masks fit least."""
    shown: list[tuple[float, int]] = []
    doubtful: list[tuple[float, int]] = []
    for place, facts in enumerate(seen.facts):
        if not isinstance(facts.image, ImageFacts) or not isinstance(facts.mask, MaskFacts):
            continue
        if facts.image.size != facts.mask.size or facts.mask.oddity is not None:
            continue
        shown.append((facts.mask.share or 0.0, place))
        if facts.darker is not None:
            doubtful.append((facts.darker, place))
    last = [place for _, place in sorted(doubtful)[:_NUM_DOUBTFUL]] if len(shown) > NUM_PAIRS else []
    order = [place for _, place in sorted(shown) if place not in last]
    number = min(NUM_PAIRS - len(last), len(order))
    spread = [order[round(step * (len(order) - 1) / max(number - 1, 1))] for step in range(number)]
    return spread + last


def _draw_cell(sheet: Image.Image, seen: Examined, place: int, left: int, top: int, width: int) -> None:
    pair, facts = seen.pairs[place], seen.facts[place]
    assert isinstance(facts.mask, MaskFacts)
    image_HW3 = read_image(pair.image)
    rule = seen.reading.rule
    values = read_values(pair.mask, rule.channel if rule is not None else None)
    said = f"{facts.mask.size} px"
    if rule is None or facts.mask.share is None:
        beside, said = _fit(_as_it_is(values)), f"{said}, mask as it is"
    else:
        beside, said = _painted(image_HW3, values, rule), f"{said}, crack {facts.mask.share:.2%}"
    if facts.darker is not None:
        said += f", {facts.darker:.0%} of what is around it is brighter"
    draw = ImageDraw.Draw(sheet)
    split = f"{pair.split}: " if pair.split is not None else ""
    draw.text((left, top), _shortened(split + seen.label(pair.image), 14, width), fill=_INK, font=_font(14))
    draw.text((left, top + 18), _shortened(said, 12, width), fill=_GREY, font=_font(12))
    sheet.paste(Image.fromarray(_fit(image_HW3)), (left, top + _CAPTION))
    sheet.paste(Image.fromarray(beside), (left + _PANEL_WIDTH + _MARGIN, top + _CAPTION))


def _painted(
    image_HW3: UInt8[np.ndarray, "H W 3"], values_HW: np.ndarray, rule: ResolvedMaskRule
) -> UInt8[np.ndarray, "h w 3"]:
    """The photo at the size of a panel with its crack painted on; where the photo shrinks, thin cracks stay."""
    panel_HW3 = _fit(image_HW3).copy()
    crack_HW = (value_table(rule)[values_HW] == 1).astype(np.uint8)
    shrinks = crack_HW.shape[0] / panel_HW3.shape[0]
    if shrinks > 1:
        side = int(np.ceil(shrinks))
        crack_HW = cv2.dilate(crack_HW, np.ones((side, side), np.uint8))
    size = (panel_HW3.shape[1], panel_HW3.shape[0])
    panel_HW3[cv2.resize(crack_HW, size, interpolation=cv2.INTER_NEAREST) == 1] = _PAINT
    return panel_HW3


def _as_it_is(values: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    """A mask in its own colours, or its values as greys from black to white."""
    if values.ndim == 3:
        return values
    grey_HW = (values.astype(np.float32) * (255 / max(int(values.max()), 1))).astype(np.uint8)
    return np.repeat(grey_HW[:, :, None], 3, axis=2)


def _fit(picture_HW3: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """As large as a panel allows: averaged where it shrinks, its pixels repeated where it grows."""
    height, width = picture_HW3.shape[:2]
    scale = min(_PANEL_WIDTH / width, _PANEL_HEIGHT / height)
    if scale >= 2:
        return picture_HW3.repeat(int(scale), axis=0).repeat(int(scale), axis=1)
    size = (max(1, round(width * min(scale, 1.0))), max(1, round(height * min(scale, 1.0))))
    fitted: UInt8[np.ndarray, "h w 3"] = cv2.resize(picture_HW3, size, interpolation=cv2.INTER_AREA)
    return fitted


def _shortened(text: str, size_px: int, width: int) -> str:
    font = _font(size_px)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


@functools.cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and writes most alphabets; Pillow's own font has 113 characters."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size_px)
