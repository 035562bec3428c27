"""Length, width and area: figures whose size is known, and scipy's distances on random masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.draw import line as pixels_between
from skimage.morphology import skeletonize

from crack_sweeps.evaluation.geometry import length_px, measure, widths_px

masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14)))


def drawn(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def test_a_row_of_pixels_is_as_long_as_it_has_pixels_and_a_single_pixel_is_1() -> None:
    assert length_px(drawn(".....", "#####", ".....")) == 5.0
    assert length_px(drawn("...", ".#.", "...")) == 1.0
    assert length_px(drawn("...")) == 0.0


def test_a_step_to_a_corner_is_longer_than_one_to_a_side() -> None:
    assert length_px(drawn("#...", ".#..", "..#.", "...#")) == pytest.approx(1 + 3 * math.sqrt(2))
    # Two steps right, one down: the corner is no short cut where the way leads around it.
    assert length_px(drawn("###", "..#")) == 4.0


def test_pieces_are_added_up() -> None:
    assert length_px(drawn("###.###", ".......", "#######")) == 3 + 3 + 7


@pytest.mark.parametrize("degrees", range(0, 180, 15))
def test_a_straight_line_in_any_direction_is_measured_to_9_percent(degrees: int) -> None:
    across = np.zeros((230, 230), dtype=bool)
    end = np.rint(100 * np.array([math.sin(math.radians(degrees)), math.cos(math.radians(degrees))])).astype(int)
    across[pixels_between(115 - end[0], 115 - end[1], 115 + end[0], 115 + end[1])] = True
    assert 1.0 <= length_px(across) / 201 <= 1.09 or length_px(across) == pytest.approx(201, rel=0.01)
    num_pixels = np.count_nonzero(across)
    assert num_pixels <= 202 if degrees % 90 == 0 else num_pixels < 199  # counting pixels falls short


@settings(max_examples=80, deadline=None)
@given(masks)
def test_lengths_are_those_of_looking_at_every_pair_of_neighbours(mask: np.ndarray) -> None:
    line = skeletonize(mask)
    pixels = {(int(y), int(x)) for y, x in np.argwhere(line)}
    expected = float(ndimage.label(line, np.ones((3, 3)))[1])
    for y, x in pixels:
        expected += ((y + 1, x) in pixels) + ((y, x + 1) in pixels)
        for side in (-1, 1):
            between = {(y, x + side), (y + 1, x)}
            expected += math.sqrt(2) * ((y + 1, x + side) in pixels and not between & pixels)
    assert length_px(line) == pytest.approx(expected)


@pytest.mark.parametrize(("width", "expected"), [(1, 2), (2, 2), (3, 4), (4, 4), (5, 6)])
def test_an_even_width_is_exact_and_an_odd_one_1_px_too_wide(width: int, expected: int) -> None:
    band = np.zeros((21, 61), dtype=bool)
    band[8 : 8 + width] = True
    line = skeletonize(band)
    line[:, :10] = line[:, -10:] = False  # at the ends the picture's edge is nearer than the band's sides
    assert set(widths_px(band, line).tolist()) == {float(expected)}


@settings(max_examples=80, deadline=None)
@given(masks)
def test_widths_are_twice_scipys_distance_with_nothing_beyond_the_edge(mask: np.ndarray) -> None:
    line = skeletonize(mask)
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    np.testing.assert_allclose(widths_px(mask, line), 2 * distance[line], rtol=1e-6)


def test_a_bar_is_measured_by_hand() -> None:
    bar = np.zeros((8, 30), dtype=bool)
    bar[3:5, 5:25] = True
    measures = measure(bar)
    assert measures.area_px == 40
    assert measures.mean_width_px == pytest.approx(2.0)
    assert measures.length_px == pytest.approx(20, abs=1.5)


def test_nothing_has_no_size() -> None:
    measures = measure(np.zeros((4, 4), dtype=bool))
    assert (measures.area_px, measures.length_px, measures.mean_width_px) == (0, 0.0, 0.0)


def test_a_picture_that_is_all_crack_has_a_width() -> None:
    assert 0 < measure(np.ones((10, 30), dtype=bool)).mean_width_px <= 10
