"""Protocols: one pass, a threshold known or not, resized or native; the table of images; nothing but sums is held."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import get_args

import cv2
import numpy as np
import pytest

from crack_sweeps.evaluation.protocols import (
    PROTOCOLS,
    MetricSet,
    NamedMap,
    ProtocolName,
    conclude,
    resized,
    score_maps,
)
from crack_sweeps.evaluation.scores import score, score_table


def maps(num_images: int = 4, size: tuple[int, int] = (30, 40)) -> Iterator[NamedMap]:
    """Images with a crooked line each (the first without one), predicted with some doubt."""
    for number in range(num_images):
        rng = np.random.default_rng(number)
        mask = np.zeros(size, dtype=np.uint8)
        if number:
            cv2.line(mask, (0, 3 + 2 * number), (size[1] - 1, size[0] - 5), 1, 2)
        doubt = cv2.GaussianBlur(rng.random(size, dtype=np.float32), (0, 0), 1.5)
        yield f"photo{number}", f"group{number // 2}", np.clip(0.4 * mask + doubt, 0, 1).astype(np.float32), mask


def test_the_names_in_the_type_are_those_in_the_table() -> None:
    assert set(get_args(ProtocolName)) == set(PROTOCOLS)


def test_at_a_given_threshold_the_pixels_score_as_ever_and_the_table_is_that_of_scores() -> None:
    scored = score_maps(maps(), threshold=0.6, metrics="headline")
    assert (scored.threshold, scored.threshold_origin, scored.protocol) == (0.6, "given", "ours")
    assert scored.figures == score(scored.evaluation, 0.6)
    assert scored.table.equals(score_table(scored.evaluation, 0.6))
    assert scored.evaluation.names == ("photo0", "photo1", "photo2", "photo3")
    assert scored.evaluation.groups == ("group0", "group0", "group1", "group1")


def test_everything_adds_shapes_and_oracles_and_a_column_for_each_score_of_an_image() -> None:
    scored = score_maps(maps(), threshold=0.6, threshold_origin="validation")
    assert scored.threshold_origin == "validation"
    assert {"cldice", "oracle/ods_f1", "relaxed_f1_2px_image", "num_crack_images"} <= set(scored.figures)
    plain = score_table(scored.evaluation, 0.6)
    assert scored.table.column_names[: plain.num_columns] == plain.column_names
    assert scored.table.schema.metadata == plain.schema.metadata
    assert np.mean(scored.table.column("cldice").to_pylist()) == pytest.approx(scored.figures["cldice_image"])
    assert scored.table.column("width_error").to_pylist()[0] is None  # the first image has no crack to measure


def test_a_threshold_chosen_here_is_an_oracles_and_gives_what_it_would_give_if_it_were_typed() -> None:
    chosen = score_maps(maps(), threshold=None)
    assert chosen.threshold_origin == "oracle"
    typed = score_maps(maps(), threshold=chosen.threshold)
    assert chosen.figures == typed.figures
    assert chosen.table.equals(typed.table)
    others = [score_maps(maps(), threshold=k / 100, metrics="headline").figures["crack_iou"] for k in range(1, 100)]
    assert chosen.figures["crack_iou"] == max(others)


def test_maps_of_0_and_1_leave_nothing_to_choose() -> None:
    binary = [(name, group, (p > 0.6).astype(np.float32), mask) for name, group, p, mask in maps()]
    scored = score_maps(binary, threshold=None)
    assert (scored.threshold, scored.threshold_origin) == (0.5, "given")


def published(squares: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """What eval/evaluate.py of SCSegamba computes (cal_mIoU_metrics, cal_ODS_metrics, cal_OIS_metrics), at p >= t."""
    miou, f1 = [], []
    for k in range(1, 100):
        said = [(probability >= np.float32(k / 100), mask == 1) for probability, mask in squares]
        tp, fp, fn, tn = (
            np.array([np.sum((p == is_crack) & (m == is_true)) for p, m in said], dtype=float)
            for is_crack, is_true in ((True, True), (True, False), (False, True), (False, False))
        )
        precision = np.where(tp + fp == 0, 1.0, tp / np.maximum(tp + fp, 1))
        recall = tp / (tp + fn)
        f1.append(np.where(precision + recall == 0, 0.0, 2 * precision * recall / np.maximum(precision + recall, 1e-9)))
        miou.append((tp / (fn + fp + tp) + tn / (fn + fp + tn)) / 2)
    return {
        "oracle/ods_two_class_miou_image": np.mean(miou, axis=1).max(),
        "oracle/ods_f1_image": np.mean(f1, axis=1).max(),
        "oracle/ois_f1_image": np.max(f1, axis=0).mean(),
    }


def test_the_looser_protocol_is_what_the_published_code_computes_on_resized_images() -> None:
    cracked = list(maps())[1:]  # an image without a crack scores 0 there whatever is predicted; by our rule 1 or 0
    scored = score_maps(cracked, threshold=None, protocol="resize512-oracle")
    squares = [resized(probability, mask, 512) for _, _, probability, mask in cracked]
    assert {name: scored.figures[name] for name in published(squares)} == pytest.approx(published(squares))
    assert scored.threshold_origin == "oracle"
    assert scored.figures["two_class_miou_image"] == scored.figures["oracle/ods_two_class_miou_image"]
    assert "cldice" not in scored.figures


def test_resizing_cuts_masks_at_one_half_and_keeps_probabilities() -> None:
    probability = np.array([[0.0, 1.0]], dtype=np.float32)
    mask = np.array([[0, 1]], dtype=np.uint8)
    wide, square_mask = resized(probability, mask, 8)
    assert wide.shape == square_mask.shape == (8, 8)
    assert wide[0].tolist() == sorted(wide[0].tolist())
    assert (wide[0, 0], wide[0, -1]) == (0.0, 1.0)
    assert square_mask[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("metrics", get_args(MetricSet))
@pytest.mark.parametrize("protocol", get_args(ProtocolName))
def test_every_protocol_gives_plain_floats_or_none(protocol: ProtocolName, metrics: MetricSet) -> None:
    figures = score_maps(maps(), threshold=None, protocol=protocol, metrics=metrics).figures
    assert all(value is None or type(value) is float for value in figures.values())
    assert not any(value is not None and np.isnan(value) for value in figures.values())


def test_an_oracle_protocol_takes_no_threshold() -> None:
    with pytest.raises(ValueError, match="chooses its threshold itself"):
        score_maps(maps(), threshold=0.5, protocol="resize512-oracle")


@pytest.mark.parametrize("threshold", [0.5, None])
def test_no_image_has_no_score(threshold: float | None) -> None:
    with pytest.raises(ValueError, match="no image"):
        score_maps([], threshold=threshold)


def test_a_threshold_that_is_not_counted_is_refused_before_a_map_is_asked_for() -> None:
    def never() -> Iterator[NamedMap]:
        raise AssertionError("asked for a map")
        yield

    with pytest.raises(ValueError, match="none of"):
        score_maps(never(), threshold=1.5)


def test_images_scored_elsewhere_are_concluded_the_same_in_any_order_of_arrival() -> None:
    from crack_sweeps.evaluation.counts import count_pixels
    from crack_sweeps.evaluation.protocols import ImagePart, shape_at

    parts = [ImagePart(n, g, count_pixels(p, m), shape_at(0.6, p, m)) for n, g, p, m in maps()]
    again = conclude(parts, threshold=0.6, threshold_origin="given", protocol="ours", metrics="all")
    assert again.figures == score_maps(maps(), threshold=0.6).figures


@pytest.mark.parametrize("threshold", [0.5, None])
def test_memory_does_not_grow_with_the_number_of_images(threshold: float | None) -> None:
    def peak(num_images: int) -> int:
        tracemalloc.start()
        try:
            score_maps(maps(num_images, (200, 300)), threshold=threshold)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(3), peak(13)
    # Sums take 4 kB an image, and one that waits for its threshold is packed and soon on disk; a map is 240 kB.
    assert many - few < 10 * 80_000
