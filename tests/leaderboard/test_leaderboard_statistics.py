"""Intervals and comparisons: small cases by hand, then simulated studies whose truth is known."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from simulated_studies import World

from crack_sweeps.leaderboard.corrections import corrected
from crack_sweeps.leaderboard.ranking import standings
from crack_sweeps.leaderboard.statistics import FIGURES, ImageCounts, compare, estimate

# Quantiles .975 of Student's t, from a printed table.
T1, T2, T4 = 12.7062, 4.30265, 2.77645


def counts(iou: Any, *, crack_px: Any = 1000, groups: tuple[str, ...] | None = None) -> ImageCounts:
    """Images of these IoU (rows) by seed (columns): nothing is found that is not there, the rest is missed."""
    iou_IS = np.atleast_2d(np.asarray(iou, dtype=np.float64))
    crack_I1 = np.broadcast_to(crack_px, len(iou_IS)).astype(np.int64)[:, None]
    tp_IS = np.round(iou_IS * crack_I1).astype(np.int64)
    names = tuple(f"image-{number}" for number in range(len(iou_IS)))
    nothing_IS = np.zeros_like(tp_IS)
    return ImageCounts(names, groups or names, tp_IS, nothing_IS, crack_I1 - tp_IS, nothing_IS + 90_000)


def test_one_seed_of_equal_images_has_the_interval_of_the_textbook() -> None:
    found = estimate(counts([[0.45], [0.5], [0.55]]), "crack_iou_image")
    margin = T2 * 0.05 / 3**0.5
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((0.5 - margin, 0.5 + margin), abs=1e-5)
    pooled = estimate(counts([[0.45], [0.5], [0.55]]), "crack_iou")
    assert (pooled.value, pooled.low) == pytest.approx((found.value, found.low)), "of one size, so pooled is the mean"


def test_seeds_that_all_images_agree_on_have_the_interval_of_the_seeds_alone() -> None:
    found = estimate(counts([[0.5, 0.6, 0.7]] * 5), "crack_iou_image")
    margin = T2 * 0.1 / 3**0.5  # three seeds, two degrees of freedom
    assert (found.value, found.low, found.high) == pytest.approx((0.6, 0.6 - margin, 0.6 + margin), abs=1e-5)


def test_images_and_seeds_both_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    images, seeds = rng.normal(0, 0.05, (40, 1)), rng.normal(0, 0.02, (1, 3))

    def width(iou: Any) -> float:
        found = estimate(counts(iou, crack_px=10_000), "crack_iou_image")
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    few, many = 0.1 * seeds, 5 * seeds
    for scatter in (few, seeds, many):
        alone = max(width(0.5 + images + 0 * scatter), width(0.5 + 0 * images + scatter))
        assert width(0.5 + images + scatter) >= alone * (1 - 1e-3)


def test_a_pooled_figure_has_the_jackknife_interval() -> None:
    iou, sizes = np.array([0.4, 0.5, 0.55, 0.6]), np.array([3000, 1000, 1000, 1000])
    found = estimate(counts(iou[:, None], crack_px=sizes), "crack_iou")
    whole = (iou * sizes).sum() / sizes.sum()
    left_out = np.array([(iou * sizes)[keep].sum() / sizes[keep].sum() for keep in ~np.eye(4, dtype=bool)])
    spread = (3 / 4 * ((left_out - left_out.mean()) ** 2).sum()) ** 0.5
    assert found.value == pytest.approx(whole)
    # These four speak as three of equal size would: (3 + 1 + 1 + 1)^2 / (9 + 1 + 1 + 1). So 2 degrees of freedom.
    assert found.low == pytest.approx(whole - T2 * spread, abs=1e-5)


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_is_the_mean_over_seeds_and_lies_in_its_interval(figure: Any) -> None:
    arm = World(30, (0.0,), 0.01).draw(np.random.default_rng(1))[0]
    twice = 2 if figure.startswith("crack_f1") else 1
    part, whole = twice * arm.tp_IS, twice * arm.tp_IS + arm.fp_IS + arm.fn_IS
    by_seed = (part / whole).mean(axis=0) if figure.endswith("_image") else part.sum(axis=0) / whole.sum(axis=0)
    found = estimate(arm, figure)
    assert found.value == pytest.approx(by_seed.mean())
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < found.value < found.high <= 1


def test_an_interval_stays_within_what_a_figure_can_be() -> None:
    low, high = estimate(counts([[0.0], [0.5]]), "crack_iou"), estimate(counts([[0.5], [1.0]]), "crack_iou")
    assert (low.low, high.high) == (0.0, 1.0)


def test_one_image_or_one_photograph_tells_nothing_of_others() -> None:
    one = estimate(counts([[0.4, 0.5, 0.6]]), "crack_iou")
    assert (one.value, one.low, one.high) == (pytest.approx(0.5), None, None)
    photo = counts([[0.4, 0.5], [0.6, 0.7]], groups=("p", "p"))
    assert estimate(photo, "crack_iou_image").low is None
    assert compare(photo, photo, "crack_iou").p_value is None
    empty = counts([[0.4], [0.0]], crack_px=[1000, 0])  # an image without crack, in which none was found
    assert estimate(empty, "crack_iou").low is None, "pooled, one image has all pixels that count"
    assert estimate(empty, "crack_iou_image").value == pytest.approx(0.7), "its own score is 1: nothing, and none found"


def test_where_there_is_no_crack_and_none_was_found_the_figure_is_one() -> None:
    nothing = counts([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], crack_px=0)
    for figure in FIGURES:
        assert estimate(nothing, figure).value == 1.0


def test_crops_of_one_photograph_are_one_witness() -> None:
    iou = np.array([[0.4], [0.5], [0.7]])
    photos = counts(iou)
    crops = counts(np.repeat(iou, 4, axis=0), groups=tuple(name for name in "abc" for _ in range(4)))
    for figure in FIGURES:
        alone, many = estimate(photos, figure), estimate(crops, figure)
        assert (many.value, many.low, many.high) == pytest.approx((alone.value, alone.low, alone.high)), figure
    naive = estimate(replace(crops, groups=crops.names), "crack_iou")
    assert naive.low is not None
    assert alone.low is not None
    assert naive.low > alone.low


def test_the_order_of_images_and_of_seeds_changes_nothing() -> None:
    arm, other = World(20, (0.0, 0.02), 0.01).draw(np.random.default_rng(2))
    order, seeds = np.random.default_rng(3).permutation(20), [2, 0, 1]

    def shuffled(c: ImageCounts) -> ImageCounts:
        names = tuple(c.names[image] for image in order)
        pixels = (x[order][:, seeds] for x in (c.tp_IS, c.fp_IS, c.fn_IS, c.tn_IS))
        return ImageCounts(names, names, *pixels)

    one, again = compare(arm, other, "crack_iou"), compare(shuffled(arm), shuffled(other), "crack_iou")
    assert (again.difference, again.low, again.p_value) == pytest.approx((one.difference, one.low, one.p_value))


# --- comparisons ---------------------------------------------------------------------------------


def test_what_all_images_share_does_not_hide_a_difference() -> None:
    hard = np.linspace(0.2, 0.8, 30)[:, None]
    wiggle = np.tile([0.004, -0.004], 15)[:, None]
    seeds = np.array([-0.001, 0, 0.001])
    a, b = counts(hard + 0.02 + wiggle + seeds), counts(hard + seeds)
    ahead = compare(a, b, "crack_iou_image")
    assert ahead.difference == pytest.approx(0.02, abs=1e-3)
    assert ahead.p_value is not None
    assert ahead.p_value < 1e-4
    wide = estimate(a, "crack_iou_image")
    assert wide.low is not None
    assert wide.low < estimate(b, "crack_iou_image").value, "their intervals overlap all the same"


def test_seeds_alone_compare_with_the_freedom_of_both_arms() -> None:
    a, b = counts([[0.6, 0.7, 0.8]] * 6), counts([[0.5, 0.6, 0.7]] * 6)
    ahead = compare(a, b, "crack_iou_image")
    margin = T4 * (2 * 0.1**2 / 3) ** 0.5  # two variances of a mean of three; 2 + 2 degrees of freedom
    assert (ahead.low, ahead.high) == pytest.approx((0.1 - margin, 0.1 + margin), abs=1e-5)


def test_a_comparison_turned_round_says_the_same() -> None:
    a, b = World(25, (0.0, 0.03), 0.01).draw(np.random.default_rng(4))
    one, other = compare(a, b, "crack_f1"), compare(b, a, "crack_f1")
    turned = one.reversed()
    assert (other.difference, other.low, other.high) == pytest.approx((turned.difference, turned.low, turned.high))
    assert (turned.low, turned.p_value) == (-one.high, one.p_value)  # type: ignore[operator]


def test_identical_rows_do_not_differ_and_a_difference_without_any_spread_is_one() -> None:
    a = counts([[0.5, 0.6, 0.7], [0.4, 0.5, 0.6]])
    same = compare(a, a, "crack_iou")
    assert (same.difference, same.p_value) == (0.0, 1.0)
    flat, above = counts([[0.5] * 3] * 4), counts([[0.6] * 3] * 4)
    assert compare(flat, flat, "crack_iou").p_value == 1.0
    sure = compare(above, flat, "crack_iou")
    assert (sure.difference, sure.low, sure.p_value) == (pytest.approx(0.1), pytest.approx(0.1), 0.0)


def test_one_seed_each_tells_nothing_and_one_against_three_scatters_as_they_do() -> None:
    one, many = counts([[0.5], [0.6], [0.7]]), counts([[0.4, 0.5, 0.6], [0.5, 0.6, 0.7], [0.6, 0.7, 0.8]])
    assert compare(one, one, "crack_iou").p_value is None
    ahead = compare(one, many, "crack_iou_image")
    margin = T2 * (0.1**2 / 3 + 0.1**2) ** 0.5  # of a mean of three seeds and of one; two degrees of freedom
    assert ahead.high == pytest.approx(min(1.0, margin), abs=1e-5)


def test_rows_of_different_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same images"):
        compare(counts([[0.5], [0.6]]), counts([[0.5], [0.6], [0.7]]), "crack_iou")


# --- many comparisons ----------------------------------------------------------------------------


def test_three_pairs_are_corrected_as_holm_and_shaffer_do() -> None:
    adjusted = corrected({(0, 1): 0.01, (0, 2): 0.02, (1, 2): 0.5})
    assert adjusted == pytest.approx({(0, 1): 0.03, (0, 2): 0.03, (1, 2): 0.5})
    # One rejected, so of the two pairs left one at most is equal: neither is multiplied.
    assert corrected({(0, 1): 0.001, (0, 2): 0.04, (1, 2): 0.9})[0, 2] == pytest.approx(0.04)


def test_six_pairs_of_four_rows_go_down_by_six_three_three_three_two_one() -> None:
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    values = [0.001, 0.002, 0.003, 0.004, 0.006, 0.02]
    assert list(corrected(dict(zip(pairs, values, strict=True))).values()) == pytest.approx(
        [0.006, 0.006, 0.009, 0.012, 0.012, 0.02]
    )


def test_a_pair_that_cannot_be_compared_counts_and_stays_unknown() -> None:
    adjusted = corrected({(0, 1): 0.01, (0, 2): None, (1, 2): None})
    assert adjusted == {(0, 1): pytest.approx(0.03), (0, 2): None, (1, 2): None}


def test_a_corrected_p_value_is_at_most_one_and_two_rows_need_no_correction() -> None:
    assert corrected({(0, 1): 0.7, (0, 2): 0.8, (1, 2): 0.9}) == {(0, 1): 1.0, (0, 2): 1.0, (1, 2): 1.0}
    assert corrected({(0, 1): 0.04}) == {(0, 1): 0.04}
    assert corrected({}) == {}


# --- ranks ---------------------------------------------------------------------------------------


def test_rows_that_cannot_be_told_from_the_leader_share_its_rank_and_others_have_their_place() -> None:
    rng = np.random.default_rng(5)
    hard = rng.uniform(0.3, 0.6, (40, 1))
    seeds = np.array([-0.002, 0.0, 0.002])

    def arm(ahead: float, wiggle: float) -> ImageCounts:
        return counts(hard + ahead + rng.normal(0, wiggle, (40, 1)) + seeds)

    far, best, close, middle = arm(-0.2, 0.01), arm(0.1, 0.01), arm(0.099, 0.01), arm(0.0, 0.01)
    placed = standings([far, best, close, middle], "crack_iou")
    assert sorted(standing.rival for standing in placed[:2]) == [1, 2]
    assert [standing.rank for standing in placed] == [1, 1, 3, 4]
    assert [standing.tied for standing in placed] == [False, True, False, False]
    assert [standing.rival for standing in placed[2:]] == [3, 0]
    assert placed[0].ahead is None
    assert all(standing.ahead is not None and standing.ahead.difference >= 0 for standing in placed[1:])


def test_an_uncertain_row_ties_below_a_beaten_one_whose_rank_is_its_place() -> None:
    rng = np.random.default_rng(6)
    hard, seeds = rng.uniform(0.4, 0.5, (30, 1)), np.array([-0.001, 0.0, 0.001])
    leader, sure = counts(hard + 0.1 + seeds, crack_px=9000), counts(hard + 0.08 + seeds, crack_px=9000)
    noisy = counts(hard + 0.06 + np.tile([0.2, -0.2], 15)[:, None] + seeds, crack_px=9000)
    assert [(s.rival, s.rank, s.tied) for s in standings([leader, sure, noisy], "crack_iou_image")] == [
        (0, 1, False),
        (1, 2, False),
        (2, 1, True),
    ]


def test_one_row_leads_and_equal_rows_stay_in_the_order_of_arms() -> None:
    a = counts([[0.5, 0.6], [0.4, 0.6]])
    [alone] = standings([a], "crack_iou")
    assert (alone.rank, alone.tied, alone.p_value) == (1, False, None)
    assert [(s.rival, s.rank, s.tied) for s in standings([a, a, a], "crack_iou")] == [
        (0, 1, False),
        (1, 1, True),
        (2, 1, True),
    ]


# --- against truth, a small version of the slow test --------------------------------------------


def test_in_simulated_studies_intervals_hold_the_truth_and_false_winners_are_rare() -> None:
    rng, num_studies = np.random.default_rng(7), 200
    world = World(50, (0.0, 0.0, 0.0), seed_spread=0.005)
    truth = world.truth("crack_iou", num_draws=10)[0]
    held = false = 0
    widest = 0.0
    for _ in range(num_studies):
        arms = world.draw(rng)
        found = estimate(arms[0], "crack_iou")
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
        widest = max(widest, found.high - found.low)
        false += any(not standing.tied for standing in standings(arms, "crack_iou")[1:])
    assert 0.91 <= held / num_studies <= 0.985
    assert false / num_studies <= 0.08
    assert widest < 0.25, "seeds that hardly differ must not be taken for a variance nobody knows"
