"""ODS, OIS and AP: by hand, and by scikit-learn at each of the 99 thresholds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from crack_sweeps.evaluation.counts import PixelCounts, count_pixels, stack
from crack_sweeps.evaluation.oracle import average_precision, oracle_figures
from crack_sweeps.evaluation.thresholds import THRESHOLDS, bins

Image = tuple[np.ndarray, np.ndarray]


def counted(*images: Image) -> PixelCounts:
    return stack([count_pixels(np.array([p], np.float32), np.array([m], np.uint8)) for p, m in images])


# Best at .31 .. .60, where all is right; at .61 .. .90 half is missed.
EARLY = (np.array([0.9, 0.6, 0.3]), np.array([1, 1, 0]))
# Best at .81 .. .90.
LATE = (np.array([0.9, 0.8, 0.7]), np.array([1, 0, 0]))


def test_ods_has_one_threshold_and_ois_one_for_each_image() -> None:
    figures = oracle_figures(counted(EARLY, LATE))
    # At .81 .. .90: TP 1 + 1, FN 1, FP 0: pooled F1 4/5, per image 2/3 and 1. At .31 .. .60: TP 2 + 1, FP 2: 6/8, and
    # per image 1 and 1/2.
    assert figures["oracle/ods_f1"] == pytest.approx(4 / 5)
    assert figures["oracle/ods_iou"] == pytest.approx(2 / 3)
    assert figures["oracle/ods_f1_image"] == pytest.approx((2 / 3 + 1) / 2)
    assert 0.81 <= figures["oracle/ods_threshold"] <= 0.9
    assert 0.81 <= figures["oracle/ods_threshold_image"] <= 0.9
    assert figures["oracle/ois_f1"] == figures["oracle/ois_f1_image"] == figures["oracle/ois_iou_image"] == 1.0


def test_average_precision_adds_up_steps_by_hand() -> None:
    # From the top: .9 right (precision 1, recall 1/2), .6 wrong (1/2), .3 right (2/3, recall 1).
    counts = counted((np.array([0.9, 0.6, 0.3]), np.array([1, 0, 1])))
    assert average_precision(counts)[0] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_what_no_threshold_reaches_adds_nothing() -> None:
    counts = counted((np.array([0.9, 0.005, 0.0]), np.array([1, 1, 0])))
    assert average_precision(counts)[0] == pytest.approx(1 / 2)


def test_an_image_without_a_crack_scores_1_only_if_no_threshold_sees_one() -> None:
    quiet, alarmed = (np.array([0.005, 0.0]), np.array([0, 0])), (np.array([0.02, 0.0]), np.array([0, 0]))
    assert average_precision(counted(quiet, alarmed)).tolist() == [1.0, 0.0]
    figures = oracle_figures(counted(quiet, alarmed))
    # From .03 on nothing is claimed in either.
    assert figures["oracle/ods_f1_image"] == figures["oracle/ois_f1_image"] == 1.0


def test_of_equally_good_thresholds_an_image_takes_the_one_that_claims_least() -> None:
    # Nothing can be found in the first image, at any threshold; pooled, its false alarms would be counted.
    hopeless = (np.array([0.9, 0.0]), np.array([0, 1]))
    found = (np.array([0.5, 0.0]), np.array([1, 0]))
    # At .99 the first claims nothing: TP 0 + 1, FP 0, FN 1.
    assert oracle_figures(counted(hopeless, found))["oracle/ois_f1"] == pytest.approx(2 / 3)


def test_no_image_has_no_score() -> None:
    with pytest.raises(ValueError, match="no image"):
        oracle_figures(stack([]))


# Probabilities in tenths, so that ten thresholds make all the masks that 99 do; scikit-learn is slow.
pixels = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 1)), min_size=2, max_size=12)
TENTHS = np.array([0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95], np.float32)


@settings(max_examples=6, deadline=None)
@given(st.lists(pixels, min_size=1, max_size=3))
def test_all_are_those_of_scikit_learn_at_each_threshold(drawn: list[list[tuple[int, int]]]) -> None:
    images = [
        (np.array([p for p, _ in image], np.float32) / np.float32(10), np.array([m for _, m in image]))
        for image in drawn
    ]
    figures = oracle_figures(counted(*images))
    score = {"zero_division": 1.0}  # nothing there and nothing predicted
    f1 = np.array([[f1_score(m, p >= t, **score) for p, m in images] for t in TENTHS])
    iou = np.array([[jaccard_score(m, p >= t, **score) for p, m in images] for t in TENTHS])
    everywhere = np.concatenate([p for p, _ in images]), np.concatenate([m for _, m in images])
    pooled_f1 = [f1_score(everywhere[1], everywhere[0] >= t, **score) for t in TENTHS]
    assert figures["oracle/ods_f1"] == pytest.approx(max(pooled_f1))
    assert figures["oracle/ods_f1_image"] == pytest.approx(f1.mean(axis=1).max())
    assert figures["oracle/ods_iou_image"] == pytest.approx(iou.mean(axis=1).max())
    assert figures["oracle/ois_f1_image"] == pytest.approx(f1.max(axis=0).mean())
    assert figures["oracle/ois_iou_image"] == pytest.approx(iou.max(axis=0).mean())
    best = len(TENTHS) - 1 - f1[::-1].argmax(axis=0)
    at_best = np.concatenate([p >= TENTHS[k] for (p, _), k in zip(images, best, strict=True)])
    assert figures["oracle/ois_f1"] == pytest.approx(f1_score(everywhere[1], at_best, **score))


@settings(max_examples=60, deadline=None)
@given(pixels)
def test_average_precision_is_scikit_learns_but_for_what_no_threshold_reaches(image: list[tuple[int, int]]) -> None:
    probability, mask = (np.array(values) for values in zip(*image, strict=True))
    if not mask.any():
        return
    probability = probability.astype(np.float32) / np.float32(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = average_precision_score(mask, bins(probability[None])[0])
    # Theirs goes on to a threshold of 0, where everything is called crack.
    missed = mask[probability < THRESHOLDS[0]].sum() / mask.sum()
    assert average_precision(counted((probability, mask)))[0] == pytest.approx(theirs - missed * mask.mean())
