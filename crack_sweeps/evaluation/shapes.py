"""Everything that needs whole images and two masks: one row of sums per image, and the scores of many rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from crack_sweeps.evaluation.geometry import measure
from crack_sweeps.evaluation.matches import Matches
from crack_sweeps.evaluation.relaxed import BOUNDARY_PX, RADII_PX, Mask, MatchedPixels, matched_pixels, rim
from crack_sweeps.evaluation.scores import share
from crack_sweeps.evaluation.topology import CLIOU_PX, lines_in_masks, lines_near_lines, num_pieces, skeleton

ShapeRow = dict[str, float]  # sums of one image by name; rows add up over images
Columns = Mapping[str, Float64[np.ndarray, " N"]]
Scores = dict[str, Float64[np.ndarray, " N"]]
_COUNTS = ("predicted", "predicted_matched", "true", "true_matched")
_RELAXED = {radius: f"relaxed_{radius}px" for radius in RADII_PX}
_BOUNDARY, _LINE, _NEAR_LINE = f"boundary_{BOUNDARY_PX}px", "line_in_mask", f"line_{CLIOU_PX}px"
_SIZES = ("area", "length", "width")
# Means of these are over images with a crack, those of everything else over all images.
OVER_CRACK_IMAGES = frozenset({"fragmentation", *(f"{size}_error" for size in _SIZES)})
_MEASURES = ("area_px", "length_px", "summed_width_px", "line_px")


def compare_shapes(predicted_HW: Mask, true_HW: Mask) -> ShapeRow:
    """The sums of one image.

    Args:
        predicted_HW: True where the map reaches the threshold.
        true_HW: True on crack.
    """
    predicted_line_HW, true_line_HW = skeleton(predicted_HW), skeleton(true_HW)
    matched: dict[str, MatchedPixels] = {
        **{name: matched_pixels(predicted_HW, true_HW, radius) for radius, name in _RELAXED.items()},
        _BOUNDARY: matched_pixels(rim(predicted_HW), rim(true_HW), BOUNDARY_PX),
        _LINE: lines_in_masks(predicted_HW, predicted_line_HW, true_HW, true_line_HW),
        _NEAR_LINE: lines_near_lines(predicted_line_HW, true_line_HW),
    }
    row = {
        f"{name}_{what}": float(n) for name, counts in matched.items() for what, n in zip(_COUNTS, counts, strict=True)
    }
    for side, mask_HW, line_HW in (
        ("predicted", predicted_HW, predicted_line_HW),
        ("true", true_HW, true_line_HW),
    ):
        measures = measure(mask_HW, line_HW)
        row |= {f"{side}_{name}": float(getattr(measures, name)) for name in _MEASURES}
        row[f"{side}_pieces"] = float(num_pieces(mask_HW))
    return row


def shape_columns(rows: Sequence[ShapeRow]) -> Columns:
    """The rows of many images, one column per sum.

    Raises:
        ValueError: There is no image.
    """
    if not rows:
        raise ValueError("there is no image to score")
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}


def shape_scores(columns: Columns) -> Scores:
    """What every image scores; NaN where it has no crack that could be measured."""
    errors = {f"{size}_error": np.abs(ratio_N - 1) for size, ratio_N in _ratios(columns).items()}
    return {
        **_matched(columns),
        "fragmentation": _fragmentation(columns),
        "fragmentation_error": np.abs(columns["predicted_pieces"] - columns["true_pieces"]),
        **errors,
    }


def shape_figures(columns: Columns) -> dict[str, float | None]:
    """Pooled figures by their plain name, means of images as ``..._image``.

    ``num_crack_images`` have a crack: errors of size and ``fragmentation_image`` are means over these and None where
    there are none; every other mean is over all images.
    """
    summed = {name: column.sum(keepdims=True) for name, column in columns.items()}
    pooled = shape_scores(summed)
    del pooled["fragmentation_error"]  # pieces too many in one image would make up for pieces too few in another
    figures: dict[str, float | None] = {}
    for name, scores_N in shape_scores(columns).items():
        if name in pooled:
            figures[name] = _number(pooled[name][0])
        known_N = scores_N[~np.isnan(scores_N)]
        figures[f"{name}_image"] = float(known_N.mean()) if len(known_N) else None
    figures |= {f"{size}_ratio": _number(ratio[0]) for size, ratio in _ratios(summed).items()}
    return {**figures, "num_crack_images": float(np.count_nonzero(columns["true_area_px"]))}


def _matched(columns: Columns) -> Scores:
    scores: Scores = {}
    for radius, name in _RELAXED.items():
        matches = _matches(columns, name)
        scores[f"relaxed_precision_{radius}px"] = matches.precision()
        scores[f"relaxed_recall_{radius}px"] = matches.recall()
        scores[f"relaxed_f1_{radius}px"] = matches.f1()
    scores[f"boundary_f1_{BOUNDARY_PX}px"] = _matches(columns, _BOUNDARY).f1()
    scores["cldice"] = _matches(columns, _LINE).f1()
    scores[f"cliou_{CLIOU_PX}px"] = _matches(columns, _NEAR_LINE).iou()
    return scores


def _matches(columns: Columns, name: str) -> Matches:
    return Matches(*(columns[f"{name}_{what}"] for what in _COUNTS))


def _fragmentation(columns: Columns) -> Float64[np.ndarray, " N"]:
    """Predicted pieces for one true piece."""
    return _of_true(columns["predicted_pieces"], columns["true_pieces"])


def _ratios(columns: Columns) -> Scores:
    """Predicted size over true size, the width being the mean along the centre line."""
    sizes = {
        side: {
            "area": columns[f"{side}_area_px"],
            "length": columns[f"{side}_length_px"],
            "width": share(columns[f"{side}_summed_width_px"], columns[f"{side}_line_px"]),
        }
        for side in ("predicted", "true")
    }
    return {size: _of_true(sizes["predicted"][size], sizes["true"][size]) for size in _SIZES}


def _of_true(predicted_N: Float64[np.ndarray, " N"], true_N: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """NaN where the true one is nothing."""
    ratio_N: Float64[np.ndarray, " N"] = np.divide(
        predicted_N, true_N, out=np.full(len(true_N), np.nan), where=true_N > 0
    )
    return ratio_N


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
