"""Scores against cases computed by hand, the rules for empty masks, and the choice of a threshold."""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from crack_sweeps.evaluation.counts import PixelCounts, count_pixels, stack
from crack_sweeps.evaluation.scores import (
    HEADLINE,
    Evaluation,
    choose_threshold,
    per_image,
    pooled,
    score,
    score_table,
)


def image(probability: list[float], mask: list[int]) -> PixelCounts:
    return count_pixels(np.array([probability], np.float32), np.array([mask], np.uint8))


def evaluation(*images: PixelCounts) -> Evaluation:
    names = tuple(f"photo{i}" for i in range(len(images)))
    return Evaluation(names=names, groups=tuple(f"of-{name}" for name in names), counts=stack(images))


# Image A at .5: TP 2, FP 1, FN 1, TN 1. Image B: TP 1, FP 0, FN 0, TN 4.
A = image([0.9, 0.8, 0.7, 0.2, 0.1], [1, 1, 0, 1, 0])
B = image([0.9, 0.1, 0.1, 0.1, 0.1], [1, 0, 0, 0, 0])


def test_pooled_and_per_image_scores_equal_those_computed_by_hand() -> None:
    figures = score(evaluation(A, B), 0.5)
    # Pooled: TP 3, FP 1, FN 1, TN 5.
    assert figures["crack_iou"] == pytest.approx(3 / 5)
    assert figures["crack_f1"] == pytest.approx(6 / 8)
    assert figures["precision"] == pytest.approx(3 / 4)
    assert figures["recall"] == pytest.approx(3 / 4)
    assert figures["two_class_miou"] == pytest.approx((3 / 5 + 5 / 7) / 2)
    assert figures["crack_iou_image"] == pytest.approx((2 / 4 + 1) / 2)
    assert figures["crack_f1_image"] == pytest.approx((4 / 6 + 1) / 2)
    assert figures["precision_image"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["recall_image"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["two_class_miou_image"] == pytest.approx(((2 / 4 + 1 / 3) / 2 + 1) / 2)
    assert figures["num_images"] == 2


def test_the_headline_comes_first_and_every_figure_is_a_plain_float() -> None:
    figures = score(evaluation(A, B), 0.5)
    assert tuple(figures)[: len(HEADLINE)] == HEADLINE
    assert all(type(value) is float for value in figures.values())


@pytest.mark.parametrize(
    ("probability", "mask", "expected"),
    [
        ([0.1, 0.1], [0, 0], {"crack_iou": 1, "crack_f1": 1, "precision": 1, "recall": 1, "two_class_miou": 1}),
        ([0.9, 0.1], [0, 0], {"crack_iou": 0, "crack_f1": 0, "precision": 0, "recall": 0, "two_class_miou": 0.25}),
        ([0.1, 0.1], [1, 0], {"crack_iou": 0, "crack_f1": 0, "precision": 0, "recall": 0, "two_class_miou": 0.25}),
        ([0.9, 0.9], [1, 1], {"crack_iou": 1, "crack_f1": 1, "precision": 1, "recall": 1, "two_class_miou": 1}),
        ([0.1, 0.1], [1, 1], {"crack_iou": 0, "crack_f1": 0, "precision": 0, "recall": 0, "two_class_miou": 0}),
    ],
    ids=["nothing-there-nothing-said", "false-alarm", "missed", "all-crack-found", "all-crack-missed"],
)
def test_empty_masks_and_predictions_score_by_the_stated_rule(
    probability: list[float], mask: list[int], expected: dict[str, float]
) -> None:
    assert pooled(image(probability, mask), 0.5) == expected
    assert {name: float(value[0]) for name, value in per_image(image(probability, mask), 0.5).items()} == expected


def test_empty_images_are_counted_and_not_hidden() -> None:
    quiet, alarm, missed = image([0.1], [0]), image([0.9], [0]), image([0.1], [1])
    figures = score(evaluation(quiet, alarm, missed, B), 0.5)
    assert figures["num_images"] == 4
    assert figures["num_empty_masks"] == 2
    assert figures["num_false_alarms"] == 1
    assert figures["num_missed"] == 1
    assert figures["crack_iou_image"] == pytest.approx((1 + 0 + 0 + 1) / 4)


def test_no_image_has_no_score() -> None:
    with pytest.raises(ValueError, match="no image"):
        score(evaluation(), 0.5)


def naive_scores(probability: np.ndarray, mask: np.ndarray, threshold: float) -> dict[str, float]:
    """IoU and F1 by sets of pixels, without a histogram."""
    said = {i for i, p in enumerate(probability) if p >= np.float32(threshold)}
    true = {i for i, m in enumerate(mask) if m}
    if not said and not true:
        return {"crack_iou": 1.0, "crack_f1": 1.0, "precision": 1.0, "recall": 1.0}
    both = said & true
    return {
        "crack_iou": len(both) / len(said | true),
        "crack_f1": 2 * len(both) / (len(said) + len(true)),
        "precision": len(both) / len(said) if said else 0.0,
        "recall": len(both) / len(true) if true else 0.0,
    }


pixels = st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 1)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(pixels, min_size=1, max_size=4), st.integers(1, 99))
def test_scores_equal_those_of_plain_sets_of_pixels(images: list[list[tuple[float, int]]], k: int) -> None:
    maps = [np.array([p for p, _ in image], np.float32) for image in images]
    masks = [np.array([m for _, m in image], np.uint8) for image in images]
    counted = [count_pixels(p[None], m[None]) for p, m in zip(maps, masks, strict=True)]
    figures = score(evaluation(*counted), k / 100)
    whole = naive_scores(np.concatenate(maps), np.concatenate(masks), k / 100)
    each = [naive_scores(p, m, k / 100) for p, m in zip(maps, masks, strict=True)]
    for name, value in whole.items():
        assert figures[name] == pytest.approx(value)
        assert figures[f"{name}_image"] == pytest.approx(np.mean([one[name] for one in each]))


@settings(max_examples=15, deadline=None)
@given(pixels, st.integers(1, 99))
def test_scores_are_those_of_scikit_learn(image_pixels: list[tuple[float, int]], k: int) -> None:
    mask = np.array([m for _, m in image_pixels])
    said = np.array([p for p, _ in image_pixels], np.float32) >= np.float32(k / 100)
    figures = pooled(image([p for p, _ in image_pixels], mask.tolist()), k / 100)
    nothing = 1.0 if not mask.any() and not said.any() else 0.0
    classes = [jaccard_score(mask, said, pos_label=label, zero_division=1.0) for label in (1, 0)]
    assert figures == {
        "crack_iou": pytest.approx(classes[0]),
        "crack_f1": pytest.approx(f1_score(mask, said, zero_division=1.0)),
        "precision": pytest.approx(precision_score(mask, said, zero_division=nothing)),
        "recall": pytest.approx(recall_score(mask, said, zero_division=nothing)),
        "two_class_miou": pytest.approx(np.mean(classes)),
    }


@settings(max_examples=60, deadline=None)
@given(pixels)
def test_no_threshold_is_better_than_the_chosen_one(image_pixels: list[tuple[float, int]]) -> None:
    probability = np.array([p for p, _ in image_pixels], np.float32)
    mask = np.array([m for _, m in image_pixels], np.uint8)
    counts = count_pixels(probability[None], mask[None])
    best = max(naive_scores(probability, mask, k / 100)["crack_iou"] for k in range(1, 100))
    assert naive_scores(probability, mask, choose_threshold(counts))["crack_iou"] == pytest.approx(best)


def test_the_threshold_is_the_middle_of_the_best_stretch() -> None:
    # Right for .21 <= t <= .80, which is 60 thresholds: the lower middle is .50.
    assert choose_threshold(image([0.8, 0.205], [1, 0])) == 0.5
    # Right for .41 <= t <= .43.
    assert choose_threshold(image([0.43, 0.405], [1, 0])) == 0.42


def test_of_two_equally_good_stretches_the_longer_one_is_taken() -> None:
    # IoU 1/2 up to .10 (TP 2 FP 2), 1/3 to .50 (TP 1, FP 1, FN 1 or so), then 1/2 up to .90 (TP 1, FN 1).
    counts = image([0.9, 0.5, 0.1, 0.1], [1, 0, 1, 0])
    iou = [pooled(counts, k / 100)["crack_iou"] for k in range(1, 100)]
    assert iou[:10] == [0.5] * 10
    assert iou[10:50] == [pytest.approx(1 / 3)] * 40
    assert iou[50:90] == [0.5] * 40
    assert choose_threshold(counts) == 0.7


def test_of_two_equally_long_stretches_the_first_is_taken() -> None:
    # IoU 1/2 up to .10 and from .90 on up to .99: both of ten thresholds.
    counts = image([1.0, 0.895, 0.1, 0.1], [1, 0, 1, 0])
    iou = [pooled(counts, k / 100)["crack_iou"] for k in range(1, 100)]
    assert [i for i, value in enumerate(iou) if value == max(iou)] == [*range(10), *range(89, 99)]
    assert choose_threshold(counts) == 0.05


def test_where_all_thresholds_are_alike_the_choice_is_one_half() -> None:
    assert choose_threshold(image([1.0, 0.0], [1, 0])) == 0.5
    assert choose_threshold(image([1.0, 0.0], [0, 0])) == 0.5


def test_a_pooled_threshold_is_chosen_over_the_pixels_of_all_images() -> None:
    large = image([0.6] * 8 + [0.3] * 2, [1] * 8 + [0] * 2)
    small = image([0.2, 0.1], [1, 0])
    assert 0.31 <= choose_threshold(stack([large, small])) <= 0.6


def test_the_table_has_a_row_per_image_and_survives_parquet() -> None:
    table = score_table(evaluation(A, image([0.1], [0])), 0.5)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    read = pyarrow.parquet.read_table(buffer)
    assert read.equals(table)
    assert read.schema.metadata[b"threshold"] == b"0.50"
    first, second = read.to_pylist()
    assert {key: first[key] for key in ("name", "group", "tp", "fp", "fn", "tn")} == {
        "name": "photo0",
        "group": "of-photo0",
        "tp": 2,
        "fp": 1,
        "fn": 1,
        "tn": 1,
    }
    assert first["crack_iou"] == pytest.approx(0.5)
    assert (first["empty_mask"], first["empty_prediction"]) == (False, False)
    assert (second["empty_mask"], second["empty_prediction"], second["crack_f1"]) == (True, True, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(pixels, min_size=1, max_size=4), st.integers(1, 99))
def test_the_pooled_score_can_be_rebuilt_from_the_table(images: list[list[tuple[float, int]]], k: int) -> None:
    counted = [image([p for p, _ in one], [m for _, m in one]) for one in images]
    table = score_table(evaluation(*counted), k / 100)
    tp, fp, fn = (sum(table[name].to_pylist()) for name in ("tp", "fp", "fn"))
    expected = tp / (tp + fp + fn) if tp + fp + fn else 1.0
    assert score(evaluation(*counted), k / 100)["crack_iou"] == pytest.approx(expected)
