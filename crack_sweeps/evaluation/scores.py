"""From pixel counts to scores: crack IoU and F1, pooled and per image, the choice of threshold, the table of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from crack_sweeps.evaluation.counts import Confusion, PixelCounts
from crack_sweeps.evaluation.thresholds import THRESHOLDS

METRICS = ("crack_iou", "crack_f1", "precision", "recall", "two_class_miou")
# The order in which figures are shown to people: what the run is judged by first.
HEADLINE = ("crack_iou", "crack_f1", "crack_iou_image", "crack_f1_image")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What scoring needs to know of a set of images: no pixels, no maps, 1.6 kB an image.

    Args:
        names: Of the photos.
        groups: The photograph that each was cut from.
        counts: Their pixels, in the same order.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    counts: PixelCounts


def share(
    part: Int64[np.ndarray, " N"] | Float64[np.ndarray, " N"],
    whole: Int64[np.ndarray, " N"] | Float64[np.ndarray, " N"],
) -> Float64[np.ndarray, " N"]:
    """Part of whole, and 0 of nothing."""
    fraction: Float64[np.ndarray, " N"] = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return fraction


def metrics(confusion: Confusion) -> dict[str, Float64[np.ndarray, " N"]]:
    """Every metric of every entry.

    A class that is neither there nor predicted scores 1 in all of its metrics: there was nothing to find and nothing
    was claimed. Any other fraction of nothing is 0: a crack claimed where there is none, or a crack all missed.
    """
    tp, fp, fn, tn = confusion.tp, confusion.fp, confusion.fn, confusion.tn
    no_crack = tp + fp + fn == 0
    no_background = tn + fp + fn == 0
    crack_iou = np.where(no_crack, 1.0, share(tp, tp + fp + fn))
    background_iou = np.where(no_background, 1.0, share(tn, tn + fp + fn))
    return {
        "crack_iou": crack_iou,
        "crack_f1": np.where(no_crack, 1.0, share(2 * tp, 2 * tp + fp + fn)),
        "precision": np.where(no_crack, 1.0, share(tp, tp + fp)),
        "recall": np.where(no_crack, 1.0, share(tp, tp + fn)),
        "two_class_miou": (crack_iou + background_iou) / 2,
    }


def pooled(counts: PixelCounts, threshold: float) -> dict[str, float]:
    """Scores of all images' pixels thrown together: a large crack weighs more than a small one."""
    return {name: float(value[0]) for name, value in metrics(counts.at(threshold).pooled()).items()}


def per_image(counts: PixelCounts, threshold: float) -> dict[str, Float64[np.ndarray, " N"]]:
    """Scores of each image by itself."""
    return metrics(counts.at(threshold))


def choose_threshold(counts: PixelCounts) -> float:
    """The threshold of the best pooled crack IoU: to be chosen on validation, never on test."""
    return best_threshold(metrics(counts.sweep())["crack_iou"])


def best_threshold(score_T: Float64[np.ndarray, " 99"]) -> float:
    """The threshold of the highest of 99 scores, which stand in rising order of their thresholds.

    Where several are equally good, the middle of their longest unbroken stretch (the first of equal ones; of an even
    number the lower middle): the choice that small changes of the model hurt least.
    """
    best_T = np.concatenate([[False], score_T == score_T.max(), [False]])
    changes = np.flatnonzero(np.diff(best_T))
    begins, ends = changes[::2], changes[1::2]
    longest = int(np.argmax(ends - begins))
    middle = int(begins[longest] + ends[longest] - 1) // 2
    return round(float(THRESHOLDS[middle]), 2)


def score(evaluation: Evaluation, threshold: float) -> dict[str, float]:
    """All figures of a split: pooled ones by their plain name, means of images as ``..._image``, then what was counted.

    ``num_empty_masks`` images have no crack; ``num_false_alarms`` of these had some predicted (each scores 0), the
    others score 1. ``num_missed`` images have a crack, and none was predicted.

    Raises:
        ValueError: There is no image.
    """
    if not len(evaluation.counts):
        raise ValueError("there is no image to score")
    confusion = evaluation.counts.at(threshold)
    whole = pooled(evaluation.counts, threshold)
    means = {f"{name}_image": float(values.mean()) for name, values in metrics(confusion).items()}
    empty_mask, empty_prediction = confusion.tp + confusion.fn == 0, confusion.tp + confusion.fp == 0
    figures = {**whole, **means}
    return {
        **{name: figures[name] for name in HEADLINE},
        **{name: value for name, value in figures.items() if name not in HEADLINE},
        "num_images": float(len(evaluation.counts)),
        "num_empty_masks": float(np.sum(empty_mask)),
        "num_false_alarms": float(np.sum(empty_mask & ~empty_prediction)),
        "num_missed": float(np.sum(~empty_mask & empty_prediction)),
    }


def score_table(evaluation: Evaluation, threshold: float) -> pa.Table:
    """One row per image: name, group, pixel counts, scores, what was empty. The threshold stands in the metadata."""
    confusion = evaluation.counts.at(threshold)
    columns = {
        "name": pa.array(evaluation.names, pa.string()),
        "group": pa.array(evaluation.groups, pa.string()),
        "tp": confusion.tp,
        "fp": confusion.fp,
        "fn": confusion.fn,
        "tn": confusion.tn,
        **metrics(confusion),
        "empty_mask": confusion.tp + confusion.fn == 0,
        "empty_prediction": confusion.tp + confusion.fp == 0,
    }
    return pa.table(columns).replace_schema_metadata({"threshold": f"{threshold:.2f}"})
