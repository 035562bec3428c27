"""Pictures of the best, median and worst images: photo, truth, probability and errors, with their scores above."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import matplotlib
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from crack_sweeps.data.masks import read_pair
from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.evaluation.counts import count_pixels
from crack_sweeps.evaluation.overlay_panels import KEY, NAMES
from crack_sweeps.evaluation.scores import Evaluation, metrics
from crack_sweeps.evaluation.thresholds import crack_pixels
from crack_sweeps.evaluation.tiles import Predict

Colour = tuple[int, int, int]

# Okabe and Ito's palette for all kinds of colour vision (2008): black where the net is right, so that errors stand out.
FOUND: Colour = (0, 0, 0)
FALSE_ALARM: Colour = (213, 94, 0)
MISSED: Colour = (0, 114, 178)
_LEGEND = (("found", FOUND), ("false alarm", FALSE_ALARM), ("missed", MISSED))

_PAPER: Colour = (255, 255, 255)
_INK: Colour = (25, 25, 25)
_GREY: Colour = (110, 110, 110)
_FADE = 0.62  # share of white in the photo behind the errors: black, orange and blue all stand out from it

# All in px. A panel is enlarged until captions fit on it, and shrunk until four of them fit on a screen.
_MIN_PANEL = 320
_MAX_PANEL = 896
_MAX_WIDTH = 1840
_MARGIN = 12
_LABEL_HEIGHT = 24
_CAPTION_HEIGHT = 56
_CONTACT_WIDTH = 1200


@dataclass(frozen=True)
class Pick:
    """An image worth looking at: the `rank`-th of `of` images picked as best, median or worst.

    Args:
        kind: Why it was picked.
        rank: From 1; the best of the best and the worst of the worst come first.
        of: How many of this kind were picked.
        index: Its place in the evaluation.
    """

    kind: Literal["best", "median", "worst"]
    rank: int
    of: int
    index: int


def pick_images(evaluation: Evaluation, threshold: float, num_each: int) -> list[Pick]:
    """Up to `num_each` of the best, of the median and of the worst images by crack IoU; none is picked twice.

    Images without a crack on which none was predicted score 1, and there is nothing to see on them: they are passed
    over, unless there are no others.
    """
    confusion = evaluation.counts.at(threshold)
    iou = metrics(confusion)["crack_iou"]
    something = confusion.tp + confusion.fp + confusion.fn > 0
    candidates = np.flatnonzero(something) if something.any() else np.arange(len(iou))
    ranked = sorted(candidates.tolist(), key=lambda index: (-iou[index], evaluation.names[index]))
    num_each = min(num_each, max(1, len(ranked) // 3))
    middle = (len(ranked) - num_each) // 2
    chosen: dict[Literal["best", "median", "worst"], list[int]] = {
        "best": ranked[:num_each],
        "worst": ranked[::-1][:num_each],
        "median": ranked[middle : middle + num_each],
    }
    picks: list[Pick] = []
    for kind, indexes in chosen.items():
        taken = {pick.index for pick in picks}
        new = [index for index in indexes if index not in taken]
        picks += [Pick(kind, rank, len(new), index) for rank, index in enumerate(new, start=1)]
    return picks


def write_overlays(
    predict: Predict,
    photos: Sequence[Photo],
    rule: ResolvedMaskRule,
    evaluation: Evaluation,
    threshold: float,
    folder: Path,
    *,
    num_each: int,
) -> list[Path]:
    """Predict the picked images once more and write a PNG of each, such as `worst-01-NAME.png`.

    Args:
        predict: What gave the evaluation.
        photos: At least those of the evaluation.
        rule: How their masks are read.
        evaluation: What the pictures are picked by.
        threshold: Where probability becomes crack.
        folder: Made where it is missing.
        num_each: Pictures of each of best, median and worst; 0 is none.
    """
    by_name = {photo.name: photo for photo in photos}
    picks = pick_images(evaluation, threshold, num_each) if num_each else []
    titled = [
        (by_name[evaluation.names[p.index]], p.kind, p.rank, f"{p.kind} {p.rank} of {p.of}" if p.of > 1 else p.kind)
        for p in picks
    ]
    return [_write_overlay(predict, rule, threshold, folder, *each) for each in titled]


def write_shared_overlays(
    predict: Predict, photos: Iterable[Photo], rule: ResolvedMaskRule, threshold: float, folder: Path
) -> list[Path]:
    """The same pictures of given photos, such as `shared-01-NAME.png`: what one training drew, another drew too.

    Args:
        predict: What is to be seen.
        photos: Chosen by nothing that a training could influence.
        rule: How their masks are read.
        threshold: Where probability becomes crack.
        folder: Made where it is missing.
    """
    return [
        _write_overlay(predict, rule, threshold, folder, photo, "shared", rank, "drawn of every finalist")
        for rank, photo in enumerate(photos, start=1)
    ]


def _write_overlay(
    predict: Predict,
    rule: ResolvedMaskRule,
    threshold: float,
    folder: Path,
    photo: Photo,
    kind: str,
    rank: int,
    why: str,
) -> Path:
    image_HW3, mask_HW = read_pair(photo, rule)
    picture = draw_overlay(image_HW3, mask_HW, predict(image_HW3), threshold, title=f"{photo.name}   ({why})")
    # 60 characters are at most 240 bytes, so the whole is a file name on every file system.
    path = folder / f"{kind}-{rank:02d}-{photo.name[:60]}.png"
    folder.mkdir(parents=True, exist_ok=True)
    sheet = _Sheet.of(*image_HW3.shape[:2])
    said = PngInfo()
    said.add_itxt(KEY, json.dumps({"photo": photo.name, "panels": [sheet.box(place) for place in range(len(NAMES))]}))
    Image.fromarray(picture).save(path, pnginfo=said)
    return path


def write_contact_sheet(pictures: Sequence[Path], path: Path) -> Path:
    """Several pictures of photos one below the other, in one JPEG: what a tracker shows beside that of another run.

    Args:
        pictures: Files that `write_overlays` or `write_shared_overlays` wrote; at least one.
        path: The file to write.
    """
    images = []
    for picture in pictures:
        with Image.open(picture) as opened:
            height = round(opened.height * _CONTACT_WIDTH / opened.width)
            images.append(opened.convert("RGB").resize((_CONTACT_WIDTH, height), Image.Resampling.LANCZOS))
    sheet = Image.new("RGB", (_CONTACT_WIDTH, sum(image.height for image in images)), _PAPER)
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    sheet.save(path, quality=85, subsampling=0)  # coloured lines of one pixel stay coloured
    return path


def draw_overlay(
    image_HW3: UInt8[np.ndarray, "H W 3"],
    mask_HW: UInt8[np.ndarray, "H W"],
    probability_HW: Float32[np.ndarray, "H W"],
    threshold: float,
    *,
    title: str,
) -> UInt8[np.ndarray, "height width 3"]:
    """Four panels with labels under a caption: in a row where that fits on a screen, else two by two."""
    panels = [
        _fit(image_HW3),
        _fit(np.repeat((mask_HW * np.uint8(255))[..., None], 3, axis=2)),
        _fit(_heat(probability_HW)),
        _fit(draw_errors(image_HW3, mask_HW, probability_HW, threshold)),
    ]
    layout = _Sheet.of(*image_HW3.shape[:2])
    sheet = Image.new("RGB", layout.size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_caption(draw, sheet.width - 2 * _MARGIN, title, _scores(mask_HW, probability_HW, threshold))
    size = f"{image_HW3.shape[1]}x{image_HW3.shape[0]} px, shown at {panels[0].shape[1] / image_HW3.shape[1]:.0%}"
    for place, (name, panel) in enumerate(zip(NAMES, panels, strict=True)):
        left, top, _, _ = layout.box(place)
        label = f"{name}: {size}" if place == 0 else name
        _draw_label(draw, label, left, top - _LABEL_HEIGHT, layout.cell_width, threshold)
        sheet.paste(Image.fromarray(panel), (left, top))
    return np.asarray(sheet)


@dataclass(frozen=True)
class _Sheet:
    """Where the panels of one photo stand: in a row where that fits on a screen, else two by two. All in px."""

    panel_width: int
    panel_height: int

    @classmethod
    def of(cls, height: int, width: int) -> _Sheet:
        """Of a photo of this size."""
        panel_height, panel_width = _fitted(height, width)
        return cls(panel_width, panel_height)

    @property
    def cell_width(self) -> int:
        return max(self.panel_width, _MIN_PANEL)

    @property
    def num_columns(self) -> int:
        num_panels = len(NAMES)
        return num_panels if num_panels * (self.cell_width + _MARGIN) + _MARGIN <= _MAX_WIDTH else num_panels // 2

    @property
    def size(self) -> tuple[int, int]:
        num_rows = len(NAMES) // self.num_columns
        width = _MARGIN + self.num_columns * (self.cell_width + _MARGIN)
        return width, _CAPTION_HEIGHT + num_rows * (_LABEL_HEIGHT + self.panel_height + _MARGIN)

    def box(self, place: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a panel, without its label."""
        row, column = divmod(place, self.num_columns)
        left = _MARGIN + column * (self.cell_width + _MARGIN)
        top = _CAPTION_HEIGHT + row * (_LABEL_HEIGHT + self.panel_height + _MARGIN) + _LABEL_HEIGHT
        return left, top, left + self.panel_width, top + self.panel_height


def draw_errors(
    image_HW3: UInt8[np.ndarray, "H W 3"],
    mask_HW: UInt8[np.ndarray, "H W"],
    probability_HW: Float32[np.ndarray, "H W"],
    threshold: float,
) -> UInt8[np.ndarray, "H W 3"]:
    """The photo faded to light grey, with found, falsely claimed and missed crack pixels painted over it."""
    grey_HW = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32)
    faded_HW = (255 * _FADE + grey_HW * (1 - _FADE)).astype(np.uint8)
    painted_HW3 = np.repeat(faded_HW[..., None], 3, axis=2)
    said_HW, true_HW = crack_pixels(probability_HW, threshold), mask_HW == 1
    painted_HW3[said_HW & true_HW] = FOUND
    painted_HW3[said_HW & ~true_HW] = FALSE_ALARM
    painted_HW3[~said_HW & true_HW] = MISSED
    return painted_HW3


def _scores(mask_HW: UInt8[np.ndarray, "H W"], probability_HW: Float32[np.ndarray, "H W"], threshold: float) -> str:
    """The line of figures under the title."""
    values = {
        name: float(value[0]) for name, value in metrics(count_pixels(probability_HW, mask_HW).at(threshold)).items()
    }
    figures = f"crack IoU {values['crack_iou']:.3f}    F1 {values['crack_f1']:.3f}    "
    figures += f"precision {values['precision']:.3f}    recall {values['recall']:.3f}    at threshold {threshold:.2f}"
    return figures


def _heat(probability_HW: Float32[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Black at 0 through violet and orange to pale yellow at 1; lightness alone tells the order."""
    levels_HW = np.rint(probability_HW * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels_HW, cv2.COLORMAP_INFERNO)[..., ::-1])


def _fit(panel_HW3: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """A panel at native resolution where that is legible; small ones have pixels repeated, large ones averaged."""
    height, width = panel_HW3.shape[:2]
    fitted_height, fitted_width = _fitted(height, width)
    if fitted_height < height or fitted_width < width:
        size = (fitted_width, fitted_height)
        return np.asarray(cv2.resize(panel_HW3, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    enlarge = fitted_width // width
    return panel_HW3.repeat(enlarge, axis=0).repeat(enlarge, axis=1)


def _fitted(height: int, width: int) -> tuple[int, int]:
    """The size that a panel is shown in."""
    if max(height, width) > _MAX_PANEL:
        scale = _MAX_PANEL / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    enlarge = max(1, min(-(-_MIN_PANEL // width), _MAX_PANEL // height))
    return height * enlarge, width * enlarge


@functools.cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and writes most alphabets; Pillow's own font has 113 characters."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size_px)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or as much of it as fits."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _draw_caption(draw: ImageDraw.ImageDraw, width: int, title: str, scores: str) -> None:
    draw.text((_MARGIN, 8), _shortened(title, _font(18), width), fill=_INK, font=_font(18))
    draw.text((_MARGIN, 32), _shortened(scores, _font(14), width), fill=_INK, font=_font(14))


def _draw_label(draw: ImageDraw.ImageDraw, name: str, left: int, top: int, width: int, threshold: float) -> None:
    """The words above a panel, and the key to its colours."""
    font = _font(13)
    baseline = top + 4
    draw.text((left, baseline), name, fill=_GREY, font=font)
    if name == "probability":
        _draw_scale(draw, left + width, baseline, threshold)
    if name == "errors":
        x = left + width
        for word, colour in reversed(_LEGEND):
            x -= round(font.getlength(word))
            draw.text((x, baseline), word, fill=_INK, font=font)
            x -= 17
            draw.rectangle((x, baseline + 2, x + 12, baseline + 14), fill=colour)
            x -= 12


def _draw_scale(draw: ImageDraw.ImageDraw, right: int, top: int, threshold: float) -> None:
    """The colours from 0 to 1 as a bar that ends at `right`, with a notch at the threshold."""
    font, length = _font(13), 120
    begin = right - length - 14
    draw.text((begin - 14, top), "0", fill=_INK, font=font)
    draw.text((right - 9, top), "1", fill=_INK, font=font)
    colours = _heat(np.linspace(0, 1, length, dtype=np.float32)[None])[0]
    for offset, colour in enumerate(colours.tolist()):
        draw.line((begin + offset, top + 3, begin + offset, top + 13), fill=tuple(colour))
    notch = begin + round(threshold * (length - 1))
    draw.rectangle((notch - 2, top + 2, notch + 2, top + 14), fill=_PAPER)
    draw.rectangle((notch - 1, top, notch + 1, top + 16), fill=_INK)
