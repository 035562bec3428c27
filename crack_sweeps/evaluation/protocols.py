"""Rules of scoring by name, and how predictions are scored by one: image after image, nothing held but sums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import pyarrow as pa
from jaxtyping import Float32, UInt8

from crack_sweeps.evaluation.counts import PixelCounts, count_pixels, stack
from crack_sweeps.evaluation.oracle import mean_of_images, oracle_figures
from crack_sweeps.evaluation.scores import Evaluation, best_threshold, choose_threshold, score, score_table
from crack_sweeps.evaluation.shapes import ShapeRow, compare_shapes, shape_columns, shape_figures, shape_scores
from crack_sweeps.evaluation.spool import Spool
from crack_sweeps.evaluation.thresholds import crack_pixels, threshold_index

ProtocolName = Literal["ours", "resize512-oracle"]
MetricSet = Literal["headline", "all"]
ThresholdOrigin = Literal["validation", "given", "oracle"]
# Name and group of an image, the probability of crack at each of its pixels, and its mask of 0 and 1.
NamedMap = tuple[str, str, Float32[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]
Figures = dict[str, float | None]


@dataclass(frozen=True)
class Protocol:
    """A rule of scoring.

    Args:
        words: What it does, for people.
        side_px: Maps and masks are resized to a square of this side first; None scores them as they are.
        oracle_by: What the threshold is best at, where it is chosen on the scored images themselves.
        always_oracle: It is always chosen so.
        has_oracle: ODS, OIS and AP belong to these sets of metrics.
        has_shapes: What needs whole images (tolerances, skeletons, sizes) belongs to these.
    """

    words: str
    side_px: int | None
    oracle_by: Literal["crack_iou", "two_class_miou_image"]
    always_oracle: bool
    has_oracle: frozenset[MetricSet]
    has_shapes: frozenset[MetricSet]


PROTOCOLS: dict[ProtocolName, Protocol] = {
    "ours": Protocol(
        words="native resolution, crack class, one threshold",
        side_px=None,
        oracle_by="crack_iou",
        always_oracle=False,
        has_oracle=frozenset({"all"}),
        has_shapes=frozenset({"all"}),
    ),
    # As SCSegamba (Liu et al. 2025) and the tables that compare with it: eval/evaluate.py of its code.
    "resize512-oracle": Protocol(
        words="resized to 512x512, threshold of the best two-class mIoU on the scored images",
        side_px=512,
        oracle_by="two_class_miou_image",
        always_oracle=True,
        has_oracle=frozenset({"headline", "all"}),
        has_shapes=frozenset(),
    ),
}


@dataclass(frozen=True, eq=False)
class ImagePart:
    """One image that has been scored; its sums of shapes only where the protocol asks for them."""

    name: str
    group: str
    counts: PixelCounts
    shape: ShapeRow | None = None


@dataclass(frozen=True, eq=False)
class Scoring:
    """The scores of a set of predictions.

    Args:
        protocol: The rule.
        threshold: Probability from which a pixel counts as crack.
        threshold_origin: Where the threshold comes from: chosen on validation, given, or on the scored images.
        figures: Flat, by the names of SCORES.md: pooled by plain name, means of images as ``..._image``, what is chosen
            on the scored images as ``oracle/...``; None where there is nothing to measure.
        evaluation: Names, groups and pixel counts, from which figures at any threshold can be had.
        table: One row per image: the columns of `score_table`, and with shapes the scores of these.
    """

    protocol: ProtocolName
    threshold: float
    threshold_origin: ThresholdOrigin
    figures: Figures
    evaluation: Evaluation
    table: pa.Table


def score_maps(
    maps: Iterable[NamedMap],
    *,
    threshold: float | None,
    threshold_origin: ThresholdOrigin = "given",
    protocol: ProtocolName = "ours",
    metrics: MetricSet = "all",
) -> Scoring:
    """Score maps that arrive one by one, each looked at once; between two of them nothing is held but sums.

    Args:
        maps: Name, group, probability of crack (H, W) in [0, 1] and mask (H, W) of 0 and 1 of each image.
        threshold: One of .01 .. .99; None chooses it on these images (oracle). Until it is known, shapes cannot be
            compared, so maps wait in a temporary file meanwhile, by bins of the 99 thresholds, which loses nothing.
        threshold_origin: Where a threshold that is given comes from; where it is None, that is found out here.
        protocol: The rule.
        metrics: `headline` is pixels alone, `all` everything that the protocol knows.

    Raises:
        ValueError: There is no image, a map does not fit its mask, or the threshold is none of the 99.
    """
    rule = PROTOCOLS[protocol]
    if rule.always_oracle and threshold is not None:
        raise ValueError(f"protocol {protocol} chooses its threshold itself")
    if threshold is not None:
        threshold_index(threshold)
    with_shapes = metrics in rule.has_shapes
    parts: list[ImagePart] = []
    with Spool() as waiting:
        for name, group, probability_HW, mask_HW in maps:
            if rule.side_px is not None:
                probability_HW, mask_HW = resized(probability_HW, mask_HW, rule.side_px)
            shape = None
            if with_shapes and threshold is not None:
                shape = shape_at(threshold, probability_HW, mask_HW)
            elif with_shapes:
                waiting.add(probability_HW, mask_HW)
            parts.append(ImagePart(name, group, count_pixels(probability_HW, mask_HW), shape))
        if threshold is None:
            threshold, threshold_origin = choose_here(stack([part.counts for part in parts]), protocol)
            rows = [compare_shapes(predicted, true) for predicted, true in waiting.at(threshold)]
            if with_shapes:
                parts = [replace(part, shape=row) for part, row in zip(parts, rows, strict=True)]
    return conclude(parts, threshold=threshold, threshold_origin=threshold_origin, protocol=protocol, metrics=metrics)


def conclude(
    parts: Sequence[ImagePart],
    *,
    threshold: float,
    threshold_origin: ThresholdOrigin,
    protocol: ProtocolName,
    metrics: MetricSet,
) -> Scoring:
    """The figures of images that were scored one by one, here or in other processes.

    Raises:
        ValueError: There is no image.
    """
    rule = PROTOCOLS[protocol]
    evaluation = Evaluation(
        names=tuple(part.name for part in parts),
        groups=tuple(part.group for part in parts),
        counts=stack([part.counts for part in parts]),
    )
    figures: Figures = {**score(evaluation, threshold)}
    table = score_table(evaluation, threshold)
    if metrics in rule.has_oracle:
        figures |= oracle_figures(evaluation.counts)
    if metrics in rule.has_shapes:
        columns = shape_columns([part.shape for part in parts if part.shape is not None])
        figures |= shape_figures(columns)
        for name, scores_N in shape_scores(columns).items():
            table = table.append_column(name, pa.array(scores_N, from_pandas=True))  # NaN is null
    return Scoring(protocol, threshold, threshold_origin, figures, evaluation, table)


def choose_here(counts: PixelCounts, protocol: ProtocolName) -> tuple[float, ThresholdOrigin]:
    """The threshold that suits these images best, by what the protocol looks at, and that it is an oracle's.

    Where it makes no difference, because the maps are 0 and 1, whoever made them gave the threshold.
    """
    if PROTOCOLS[protocol].oracle_by == "crack_iou":
        threshold = choose_threshold(counts)
    else:
        threshold = best_threshold(mean_of_images(counts, "two_class_miou"))
    return threshold, "given" if is_binary(counts) else "oracle"


def is_binary(counts: PixelCounts) -> bool:
    """Whether all 99 thresholds make the same masks of these maps."""
    return not (counts.crack_NK[:, 1:-1].any() or counts.background_NK[:, 1:-1].any())


def shape_at(
    threshold: float, probability_HW: Float32[np.ndarray, "H W"], mask_HW: UInt8[np.ndarray, "H W"]
) -> ShapeRow:
    """The sums of one image's shapes, where a threshold makes a mask of its map."""
    return compare_shapes(crack_pixels(probability_HW, threshold), mask_HW == 1)


def resized(
    probability_HW: Float32[np.ndarray, "H W"], mask_HW: UInt8[np.ndarray, "H W"], side_px: int
) -> tuple[Float32[np.ndarray, "S S"], UInt8[np.ndarray, "S S"]]:
    """Map and mask as squares, whatever their shape: maps linearly, masks by cubic splines cut at one half.

    The latter is how the tables that do so read their labels (`crack_dataset.py` of SCSegamba and MixerCSeg).
    """
    size = (side_px, side_px)
    probability_SS = cv2.resize(probability_HW, size, interpolation=cv2.INTER_LINEAR)
    grey_SS = cv2.resize(mask_HW * np.uint8(255), size, interpolation=cv2.INTER_CUBIC)
    return np.clip(probability_SS, 0.0, 1.0), (grey_SS > 127).astype(np.uint8)
