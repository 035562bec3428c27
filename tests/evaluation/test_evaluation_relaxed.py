"""Tolerance and rims: cases on squared paper, and scipy's distance transform on random masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from crack_sweeps.evaluation.relaxed import RADII_PX, grown, matched_pixels, rim

shapes = st.tuples(st.integers(1, 14), st.integers(1, 14))
pairs = shapes.flatmap(lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape)))


def drawn(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def test_a_line_beside_the_true_one_is_all_wrong_at_0_px_and_all_right_at_1() -> None:
    true = drawn(".....", "#####", ".....")
    predicted = drawn("#####", ".....", ".....")
    assert matched_pixels(predicted, true, 0) == (5, 0, 5, 0)
    assert matched_pixels(predicted, true, 1) == (5, 5, 5, 5)


def test_precision_and_recall_look_for_partners_on_their_own_side() -> None:
    true = drawn("#####......")
    predicted = drawn("##........#")
    # Of 3 predicted pixels the last is 6 px from the crack; of 5 true ones the third is 1 px from a predicted one.
    assert matched_pixels(predicted, true, 1) == (3, 2, 5, 3)
    assert matched_pixels(predicted, true, 5) == (3, 2, 5, 5)


def test_distances_are_straight_ones_between_centres() -> None:
    point = np.zeros((7, 7), dtype=bool)
    point[3, 3] = True
    y, x = np.mgrid[-3:4, -3:4]
    for radius in (1, 2, 3):
        np.testing.assert_array_equal(grown(point, radius), np.hypot(y, x) <= radius)


@settings(max_examples=80, deadline=None)
@given(pairs, st.sampled_from([*RADII_PX, 4]))
def test_matches_are_those_of_scipys_distance_transform(pair: tuple[np.ndarray, np.ndarray], radius: int) -> None:
    predicted, true = pair

    def near(mask: np.ndarray) -> np.ndarray:
        return ndimage.distance_transform_edt(~mask) <= radius if mask.any() else np.zeros_like(mask)

    expected = (predicted.sum(), (predicted & near(true)).sum(), true.sum(), (true & near(predicted)).sum())
    assert matched_pixels(predicted, true, radius) == expected


def test_the_rim_of_a_square_is_what_a_step_in_any_direction_leaves() -> None:
    square = drawn(".....", ".###.", ".###.", ".###.", ".....")
    np.testing.assert_array_equal(rim(square), drawn(".....", ".###.", ".#.#.", ".###.", "....."))


def test_beyond_the_pictures_edge_is_outside() -> None:
    np.testing.assert_array_equal(rim(drawn("###", "###", "###")), drawn("###", "#.#", "###"))


@settings(max_examples=80, deadline=None)
@given(hnp.arrays(np.bool_, shapes))
def test_rims_are_those_of_scipys_erosion(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(rim(mask), mask & ~ndimage.binary_erosion(mask, np.ones((3, 3))))


@pytest.mark.parametrize("radius", RADII_PX)
def test_an_empty_mask_matches_nothing_and_nobody_complains(radius: int) -> None:
    nothing = np.zeros((4, 5), dtype=bool)
    assert matched_pixels(nothing, nothing, radius) == (0, 0, 0, 0)
    assert matched_pixels(nothing, ~nothing, radius) == (0, 0, 20, 0)
    assert matched_pixels(~nothing, nothing, radius) == (20, 0, 0, 0)
