"""From sums of shapes to figures: pooled and per image by hand, empty masks by the stated rule, sums that add up."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crack_sweeps.evaluation.relaxed import RADII_PX
from crack_sweeps.evaluation.shapes import compare_shapes, shape_columns, shape_figures, shape_scores

SHARES = (
    *(f"relaxed_{what}_{radius}px" for radius in RADII_PX for what in ("precision", "recall", "f1")),
    *("boundary_f1_2px", "cldice", "cliou_4px"),
)
ERRORS = ("area_error", "length_error", "width_error")


def line(num_px: int, *, row: int = 5) -> np.ndarray:
    """A line one pixel wide from the left edge, 11x40 px."""
    mask = np.zeros((11, 40), dtype=bool)
    mask[row, :num_px] = True
    return mask


def figures_of(*images: tuple[np.ndarray, np.ndarray]) -> dict[str, float | None]:
    return shape_figures(shape_columns([compare_shapes(predicted, true) for predicted, true in images]))


NONE = line(0)
SHORT = (line(10), line(20))  # half of it found
WHOLE = (line(40), line(40))
FAR = (line(20, row=0), line(20, row=10))  # found where it is not


def test_pooled_and_per_image_figures_equal_those_computed_by_hand() -> None:
    figures = figures_of(SHORT, WHOLE, FAR)
    assert set(figures) >= {*SHARES, *(f"{name}_image" for name in SHARES)}
    # Pixels at 0 px: predicted 10 + 40 + 20, right 10 + 40; true 20 + 40 + 20.
    assert figures["relaxed_precision_0px"] == pytest.approx(50 / 70)
    assert figures["relaxed_recall_0px"] == pytest.approx(50 / 80)
    assert figures["relaxed_f1_0px"] == pytest.approx(100 / 150)
    assert figures["relaxed_precision_0px_image"] == pytest.approx((1 + 1 + 0) / 3)
    assert figures["relaxed_recall_0px_image"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert figures["relaxed_f1_0px_image"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    # With 2 px of tolerance two more true pixels are near the end of the short line; its F1 is 2 * .6 / 1.6.
    assert figures["relaxed_recall_2px"] == pytest.approx(52 / 80)
    assert figures["relaxed_f1_2px_image"] == pytest.approx((0.75 + 1 + 0) / 3)
    # A line one pixel wide is all rim and all skeleton.
    assert figures["boundary_f1_2px"] == figures["relaxed_f1_2px"]
    assert figures["cldice"] == figures["relaxed_f1_0px"]
    # Within 4 px: TP 14 + 40 of the true lines, FN 6 + 20, FP 20.
    assert figures["cliou_4px"] == pytest.approx(54 / (54 + 26 + 20))
    assert figures["cliou_4px_image"] == pytest.approx((14 / 20 + 1 + 0) / 3)
    # Area and length 70 for 80; per image 10 for 20, 40 for 40, 20 for 20.
    for size in ("area", "length"):
        assert figures[f"{size}_ratio"] == pytest.approx(70 / 80)
        assert figures[f"{size}_error"] == pytest.approx(10 / 80)
        assert figures[f"{size}_error_image"] == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert figures["width_error"] == figures["width_error_image"] == 0.0
    assert figures["fragmentation"] == figures["fragmentation_image"] == 1.0
    assert figures["fragmentation_error_image"] == 0.0
    assert figures["num_crack_images"] == 3


def test_pieces_and_width_by_hand() -> None:
    broken = line(40)
    broken[:, 10:12] = broken[:, 30:32] = False
    wide = np.zeros((11, 40), dtype=bool)
    wide[4:8] = True
    figures = figures_of((broken, line(40)), (line(40), line(40) | line(40, row=0)), (wide, line(40)))
    assert figures["fragmentation"] == pytest.approx((3 + 1 + 1) / (1 + 2 + 1))
    assert figures["fragmentation_image"] == pytest.approx((3 + 1 / 2 + 1) / 3)
    assert figures["fragmentation_error_image"] == pytest.approx((2 + 1 + 0) / 3)
    assert figures_of((wide, line(40)))["width_ratio"] == pytest.approx(2, abs=0.15)  # 4 px against 2


@pytest.mark.parametrize(
    ("predicted", "true", "score"),
    [(NONE, NONE, 1.0), (line(9), NONE, 0.0), (NONE, line(9), 0.0), (line(9), line(9), 1.0)],
    ids=["nothing-there-nothing-said", "false-alarm", "missed", "found"],
)
def test_every_share_follows_the_rule_for_empty_masks(predicted: np.ndarray, true: np.ndarray, score: float) -> None:
    figures = figures_of((predicted, true))
    for name in SHARES:
        assert figures[name] == figures[f"{name}_image"] == score, name


def test_sizes_are_compared_where_there_is_a_crack_and_a_missed_one_is_wrong_by_all_of_it() -> None:
    figures = figures_of((NONE, NONE), (line(9), NONE), (NONE, line(20)), (line(20), line(20)))
    assert figures["num_crack_images"] == 2
    for name in ERRORS:
        assert figures[f"{name}_image"] == pytest.approx((1 + 0) / 2), name
    assert figures["area_error"] == pytest.approx(abs(29 - 40) / 40)  # pooled, a false alarm has a size too
    assert figures["fragmentation_image"] == pytest.approx((0 + 1) / 2)
    assert figures["fragmentation_error_image"] == pytest.approx((0 + 1 + 1 + 0) / 4)  # counts need no crack


def test_where_no_image_has_a_crack_sizes_are_not_there_and_no_score_is_made_up() -> None:
    figures = figures_of((NONE, NONE), (line(9), NONE))
    missing = {name for name, value in figures.items() if value is None}
    assert missing == {
        *ERRORS,
        *(f"{name}_image" for name in ERRORS),
        *("area_ratio", "length_ratio", "width_ratio", "fragmentation", "fragmentation_image"),
    }


def test_no_image_has_no_score() -> None:
    with pytest.raises(ValueError, match="no image"):
        shape_columns([])


images = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape))
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=15, deadline=None)
@given(images, st.randoms(use_true_random=False))
def test_no_figure_depends_on_the_order_of_images_and_all_shares_are_shares(drawn: list, random: object) -> None:
    shuffled = list(drawn)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    figures, again = figures_of(*drawn), figures_of(*shuffled)
    assert {name: pytest.approx(value) for name, value in figures.items()} == again
    assert all(0 <= figures[name] <= 1 and 0 <= figures[f"{name}_image"] <= 1 for name in SHARES)


@settings(max_examples=15, deadline=None)
@given(images)
def test_at_no_tolerance_the_relaxed_scores_are_the_plain_ones_and_more_tolerance_never_hurts(drawn: list) -> None:
    figures = figures_of(*drawn)
    predicted, true = (np.concatenate([image[side].ravel() for image in drawn]) for side in (0, 1))
    if predicted.any() or true.any():
        assert figures["relaxed_f1_0px"] == pytest.approx(2 * np.sum(predicted & true) / (predicted.sum() + true.sum()))
    for nearer, farther in itertools.pairwise(RADII_PX):
        for what in ("precision", "recall", "f1"):
            assert figures[f"relaxed_{what}_{nearer}px"] <= figures[f"relaxed_{what}_{farther}px"] + 1e-12


@settings(max_examples=15, deadline=None)
@given(images)
def test_the_pooled_scores_of_one_image_are_its_own(drawn: list) -> None:
    for predicted, true in drawn:
        columns = shape_columns([compare_shapes(predicted, true)])
        figures = shape_figures(columns)
        for name, score in shape_scores(columns).items():
            if f"{name}_image" in figures and name in figures and figures[name] is not None:
                assert figures[name] == figures[f"{name}_image"] == pytest.approx(float(score[0]))
