"""Pixel counts: one histogram answers for all thresholds, adds up over parts, and is quick."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crack_sweeps.evaluation.counts import count_pixels, stack

shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))
maps_with_masks = shapes.flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32)),
        hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)),
    )
)


def naive_confusion(probability: np.ndarray, mask: np.ndarray, threshold: float) -> tuple[int, int, int, int]:
    """TP, FP, FN, TN by looking at one pixel after the other."""
    counts = {(False, False): 0, (False, True): 0, (True, False): 0, (True, True): 0}
    for p, truth in zip(probability.ravel(), mask.ravel(), strict=True):
        counts[bool(p >= np.float32(threshold)), bool(truth)] += 1
    return counts[True, True], counts[True, False], counts[False, True], counts[False, False]


@settings(max_examples=60, deadline=None)
@given(maps_with_masks)
def test_counts_equal_those_of_looking_at_every_pixel_at_each_of_the_99_thresholds(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    probability, mask = pair
    counts = count_pixels(probability, mask)
    sweep = counts.sweep()
    for k in range(1, 100):
        expected = naive_confusion(probability, mask, k / 100)
        at = counts.at(k / 100)
        assert (at.tp[0], at.fp[0], at.fn[0], at.tn[0]) == expected
        assert (sweep.tp[k - 1], sweep.fp[k - 1], sweep.fn[k - 1], sweep.tn[k - 1]) == expected


@settings(max_examples=60, deadline=None)
@given(maps_with_masks, st.integers(0, 6))
def test_the_parts_of_an_image_add_up_to_the_image(pair: tuple[np.ndarray, np.ndarray], cut: int) -> None:
    probability, mask = pair
    parts = count_pixels(probability[:cut], mask[:cut]) + count_pixels(probability[cut:], mask[cut:])
    whole = count_pixels(probability, mask)
    np.testing.assert_array_equal(parts.crack_NK, whole.crack_NK)
    np.testing.assert_array_equal(parts.background_NK, whole.background_NK)


@settings(max_examples=40, deadline=None)
@given(maps_with_masks, st.integers(1, 4), st.integers(1, 4))
def test_tiles_of_any_size_change_no_count(pair: tuple[np.ndarray, np.ndarray], height: int, width: int) -> None:
    probability, mask = pair
    whole = count_pixels(probability, mask)
    tiled = None
    for y in range(0, mask.shape[0], height):
        for x in range(0, mask.shape[1], width):
            tile = np.s_[y : y + height, x : x + width]
            part = count_pixels(probability[tile], mask[tile])
            tiled = part if tiled is None else tiled + part
    assert tiled is not None
    np.testing.assert_array_equal(tiled.crack_NK, whole.crack_NK)
    np.testing.assert_array_equal(tiled.background_NK, whole.background_NK)


def test_stacked_images_keep_their_own_counts_and_the_sweep_pools_them() -> None:
    one = count_pixels(np.array([[0.9, 0.1]], np.float32), np.array([[1, 0]], np.uint8))
    two = count_pixels(np.array([[0.9, 0.1]], np.float32), np.array([[0, 1]], np.uint8))
    both = stack([one, two])
    assert len(both) == 2
    assert both.at(0.5).tp.tolist() == [1, 0]
    assert both.at(0.5).fp.tolist() == [0, 1]
    sweep = both.sweep()
    assert (sweep.tp[49], sweep.fp[49], sweep.fn[49], sweep.tn[49]) == (1, 1, 1, 1)


def test_counts_of_different_numbers_of_images_do_not_add_up() -> None:
    one = count_pixels(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.uint8))
    with pytest.raises(ValueError, match="1 and of 2 images"):
        one + stack([one, one])


@pytest.mark.parametrize("value", [np.nan, -0.001, 1.001, np.inf])
def test_a_probability_outside_the_unit_interval_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"not in \[0, 1\]"):
        count_pixels(np.array([[0.5, value]], np.float32), np.zeros((1, 2), np.uint8))


def test_a_mask_of_0_and_255_is_refused() -> None:
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        count_pixels(np.zeros((1, 2), np.float32), np.array([[0, 255]], np.uint8))


def test_nothing_stacked_has_no_image() -> None:
    assert len(stack([])) == 0


def test_a_deepcrack_photo_is_counted_at_all_thresholds_within_5_ms() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((384, 544), dtype=np.float32)
    mask = (rng.random((384, 544)) < 0.04).astype(np.uint8)
    seconds = []
    for _ in range(20):
        begin = time.thread_time()
        count_pixels(probability, mask)
        seconds.append(time.thread_time() - begin)
    assert min(seconds) <= 0.005
