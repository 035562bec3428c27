"""Skeletons, clDice, clIoU and pieces: cases on squared paper, and other libraries on random masks."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.morphology import disk, skeletonize
from sklearn.metrics import jaccard_score

from crack_sweeps.evaluation.matches import Matches
from crack_sweeps.evaluation.topology import lines_in_masks, lines_near_lines, num_pieces, skeleton

EIGHT = np.ones((3, 3))
shapes = st.tuples(st.integers(1, 16), st.integers(1, 16))
pairs = shapes.flatmap(lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape)))


def drawn(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def as_matches(counts: tuple[int, int, int, int]) -> Matches:
    return Matches(*(np.array([count], dtype=np.float64) for count in counts))


def test_a_thin_line_is_its_own_skeleton() -> None:
    line = drawn(".......", "#######", ".......")
    np.testing.assert_array_equal(skeleton(line), line)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.bool_, shapes))
def test_a_skeleton_lies_in_its_mask_and_leaves_no_piece_out(mask: np.ndarray) -> None:
    line = skeleton(mask)
    assert not (line & ~mask).any()
    labels, num_labels = ndimage.label(mask, EIGHT)
    assert set(labels[line]) == set(range(1, num_labels + 1))


def test_pieces_touch_at_corners() -> None:
    assert num_pieces(drawn("#..", ".#.", "...")) == 1
    assert num_pieces(drawn("#.#", "...", "#..")) == 3
    assert num_pieces(drawn("...")) == 0


@settings(max_examples=80, deadline=None)
@given(hnp.arrays(np.bool_, shapes))
def test_pieces_are_those_of_scipy(mask: np.ndarray) -> None:
    assert num_pieces(mask) == ndimage.label(mask, EIGHT)[1]


def test_cldice_of_half_a_line_by_hand() -> None:
    true = drawn("..........", "##########", "..........")
    predicted = drawn("..........", "#####.....", "..........")
    counts = lines_in_masks(predicted, skeleton(predicted), true, skeleton(true))
    assert counts == (5, 5, 10, 5)
    # Precision 5/5, sensitivity 5/10: harmonic mean 2/3.
    assert as_matches(counts).f1()[0] == 2 / 3


@settings(max_examples=80, deadline=None)
@given(pairs)
def test_cldice_is_that_of_its_authors_formula(pair: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, true = pair
    assume(predicted.any() and true.any())

    def cl_score(mask: np.ndarray, line: np.ndarray) -> float:  # as in the paper's repository, jocpae/clDice
        return float(np.sum(mask * line) / np.sum(line))

    precision, sensitivity = cl_score(true, skeletonize(predicted)), cl_score(predicted, skeletonize(true))
    expected = 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0
    found = as_matches(lines_in_masks(predicted, skeleton(predicted), true, skeleton(true))).f1()[0]
    np.testing.assert_allclose(found, expected)


def test_cliou_by_hand() -> None:
    true, predicted = np.zeros((12, 20), dtype=bool), np.zeros((12, 20), dtype=bool)
    true[2, :] = True
    predicted[6, :10] = True  # 4 px off: still a match
    predicted[11, 10:] = True  # 9 px off
    counts = lines_near_lines(predicted, true)
    # Columns 0 to 9 of the true line are matched, straight up; column 10 is sqrt(1 + 16) > 4 away.
    assert counts == (20, 10, 20, 10)
    # TP 10 of the true line, FN 10, FP 10.
    assert as_matches(counts).iou()[0] == 10 / 30


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_cliou_is_that_of_omnicrack30ks_own_evaluation(pair: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, true = (skeleton(mask) for mask in pair)
    assume(predicted.any() or true.any())
    # What evaluation.py of ben-z-original/omnicrack30k computes, step by step, at its tolerance of 4.
    near_true, near_predicted = (cv2.dilate(line.astype(np.uint8), disk(4)) for line in (true, predicted))
    tp = true & (near_predicted == 1)
    fp = predicted & (near_true == 0)
    theirs_true, theirs_predicted = true, tp | fp
    keep = theirs_true | theirs_predicted
    expected = jaccard_score(theirs_true[keep], theirs_predicted[keep])
    np.testing.assert_allclose(as_matches(lines_near_lines(predicted, true)).iou()[0], expected)
