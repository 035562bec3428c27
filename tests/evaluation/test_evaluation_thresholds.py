"""The 99 thresholds: bins agree with the plain comparison p >= t at every float32, edges above all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crack_sweeps.evaluation.thresholds import THRESHOLDS, bins, crack_pixels, threshold_index

EDGES = np.array([k / 100 for k in range(1, 100)], dtype=np.float32)


def naive_bins(probability: np.ndarray) -> np.ndarray:
    """How many thresholds are reached, one comparison after the other."""
    return np.array([[sum(bool(p >= edge) for edge in EDGES) for p in row] for row in probability])


def test_the_thresholds_are_the_hundredths_as_float32_writes_them() -> None:
    assert THRESHOLDS.dtype == np.float32
    assert [round(float(t), 2) for t in THRESHOLDS] == [k / 100 for k in range(1, 100)]
    np.testing.assert_array_equal(THRESHOLDS, EDGES)


def test_nobody_can_change_the_thresholds() -> None:
    with pytest.raises(ValueError, match="read-only"):
        THRESHOLDS[0] = 0.5


def test_bins_are_exact_at_every_edge_and_at_its_neighbours_on_both_sides() -> None:
    near = [EDGES]
    for direction in (0.0, 1.0):
        step = EDGES
        for _ in range(4):
            step = np.nextafter(step, np.float32(direction))
            near.append(step)
    probability = np.stack(near)
    np.testing.assert_array_equal(bins(probability), naive_bins(probability))


def test_bins_hold_the_ends_of_the_unit_interval() -> None:
    tiny = np.float32(1e-45)
    ends = np.array([[0.0, -0.0, tiny, np.nextafter(np.float32(1), np.float32(0)), 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(bins(ends), [[0, 0, 0, 99, 99]])


def test_truncating_alone_would_be_wrong_so_the_correction_is_needed() -> None:
    beside = np.concatenate([EDGES, np.nextafter(EDGES, np.float32(0))])[None]
    truncated = (beside * np.float32(100)).astype(np.uint8)
    assert np.sum(truncated != bins(beside)) == 12


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (3, 5), elements=st.floats(0, 1, width=32)))
def test_bins_agree_with_comparing_one_by_one(probability: np.ndarray) -> None:
    np.testing.assert_array_equal(bins(probability), naive_bins(probability))


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, (4, 4), elements=st.one_of(st.floats(0, 1, width=32), st.sampled_from(EDGES.tolist()))),
    st.integers(1, 99),
)
def test_a_bin_reaches_its_threshold_exactly_where_the_pixel_is_called_crack(probability: np.ndarray, k: int) -> None:
    np.testing.assert_array_equal(bins(probability) >= threshold_index(k / 100), crack_pixels(probability, k / 100))


def test_a_pixel_at_the_threshold_itself_is_crack_although_float64_would_disagree() -> None:
    seventy = np.array([[0.7]], dtype=np.float32)
    assert not (seventy.astype(np.float64) >= 0.7).any()
    assert crack_pixels(seventy, 0.7).all()
    assert bins(seventy)[0, 0] == 70


@pytest.mark.parametrize("threshold", [0.0, 1.0, 0.005, 0.555, -0.5, 7.0])
def test_a_threshold_that_was_not_counted_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"none of 0\.01, 0\.02"):
        threshold_index(threshold)


def test_a_threshold_that_went_through_float32_is_still_known() -> None:
    assert [threshold_index(float(t)) for t in THRESHOLDS] == list(range(1, 100))
