"""What a model reaches at thresholds chosen on the scored images themselves: ODS, OIS and AP. An upper bound only."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from crack_sweeps.evaluation.counts import Confusion, PixelCounts
from crack_sweeps.evaluation.scores import best_threshold, metrics, share
from crack_sweeps.evaluation.thresholds import THRESHOLDS

# The names under which three of the metrics are known in tables of ODS and OIS.
_ODS = {"f1": "crack_f1", "iou": "crack_iou", "two_class_miou": "two_class_miou"}
_OIS = ("f1", "iou")
ORACLE = "oracle/"


def oracle_figures(counts: PixelCounts) -> dict[str, float]:
    """Scores over the 99 thresholds, each pooled and, as ``..._image``, as the mean of images.

    ``ods_...`` is at the single threshold that suits the set best, each metric at its own; ``ois_...`` is with the
    threshold that suits each image best by its F1 (of equal ones the highest, which claims least); ``ap`` is the area
    under the steps of precision over recall. ``ods_threshold`` and ``ods_threshold_image`` are those of F1.

    Raises:
        ValueError: There is no image.
    """
    if not len(counts):
        raise ValueError("there is no image to score")
    pooled_T, images_TN = metrics(counts.sweep()), _by_threshold(counts)
    figures: dict[str, float] = {}
    for short, name in _ODS.items():
        figures[f"ods_{short}"] = float(pooled_T[name].max())
        figures[f"ods_{short}_image"] = float(images_TN[name].mean(axis=1).max())
    figures["ods_threshold"] = best_threshold(pooled_T["crack_f1"])
    figures["ods_threshold_image"] = best_threshold(images_TN["crack_f1"].mean(axis=1))
    each_best = metrics(_at_own_threshold(counts, _highest_of_best(images_TN["crack_f1"])))
    all_best = metrics(_at_own_threshold(counts, _highest_of_best(images_TN["crack_f1"])).pooled())
    for short in _OIS:
        figures[f"ois_{short}"] = float(all_best[_ODS[short]][0])
        figures[f"ois_{short}_image"] = float(each_best[_ODS[short]].mean())
    summed = PixelCounts(counts.crack_NK.sum(axis=0, keepdims=True), counts.background_NK.sum(axis=0, keepdims=True))
    figures["ap"] = float(average_precision(summed)[0])
    figures["ap_image"] = float(average_precision(counts).mean())
    return {f"{ORACLE}{name}": value for name, value in figures.items()}


def mean_of_images(counts: PixelCounts, name: str) -> Float64[np.ndarray, " 99"]:
    """A metric's mean of images at each of the 99 thresholds."""
    return np.array([metrics(counts.at(float(threshold)))[name].mean() for threshold in THRESHOLDS])


def average_precision(counts: PixelCounts) -> Float64[np.ndarray, " N"]:
    """Per image: the sum over the thresholds, from .99 down, of precision times what recall gained.

    Recall that even .01 does not reach adds nothing. An image without a crack scores 1 if no pixel reaches .01, else 0.
    """
    claimed_NT = _reached(counts.crack_NK) + _reached(counts.background_NK)
    found_NT = _reached(counts.crack_NK)
    num_crack_N = counts.crack_NK.sum(axis=1)
    precision_NT = np.divide(found_NT, claimed_NT, out=np.zeros(found_NT.shape), where=claimed_NT > 0)
    gained_NT = -np.diff(found_NT, axis=1, append=0)
    area_N = share((gained_NT * precision_NT).sum(axis=1), num_crack_N)
    return np.where(num_crack_N > 0, area_N, np.where(claimed_NT[:, 0] == 0, 1.0, 0.0))


def _reached(pixels_NK: Int64[np.ndarray, "N 100"]) -> Int64[np.ndarray, "N 99"]:
    """How many pixels are at or above each threshold."""
    from_top_NK: Int64[np.ndarray, "N 100"] = np.cumsum(pixels_NK[:, ::-1], axis=1)[:, ::-1]
    return from_top_NK[:, 1:]


def _by_threshold(counts: PixelCounts) -> dict[str, Float64[np.ndarray, "99 N"]]:
    each = [metrics(counts.at(float(threshold))) for threshold in THRESHOLDS]
    return {name: np.stack([scores[name] for scores in each]) for name in _ODS.values()}


def _highest_of_best(score_TN: Float64[np.ndarray, "99 N"]) -> Int64[np.ndarray, " N"]:
    """Per image the bin from which on a pixel counts as crack, at the highest of its best thresholds."""
    best_N: Int64[np.ndarray, " N"] = len(score_TN) - np.argmax(score_TN[::-1], axis=0)
    return best_N


def _at_own_threshold(counts: PixelCounts, crack_from_N: Int64[np.ndarray, " N"]) -> Confusion:
    """Each image at a threshold of its own."""
    index_N1 = crack_from_N[:, None] - 1
    tp = np.take_along_axis(_reached(counts.crack_NK), index_N1, axis=1)[:, 0]
    fp = np.take_along_axis(_reached(counts.background_NK), index_N1, axis=1)[:, 0]
    return Confusion(tp=tp, fp=fp, fn=counts.crack_NK.sum(axis=1) - tp, tn=counts.background_NK.sum(axis=1) - fp)
