"""Simulated studies whose truth is known, many of them: what intervals hold, who is named a winner, what is found."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from simulated_studies import World

from crack_sweeps.leaderboard.ranking import standings
from crack_sweeps.leaderboard.statistics import Figure, ImageCounts, compare, estimate

pytestmark = pytest.mark.slow

POOLED, PER_IMAGE = "crack_iou", "crack_iou_image"
BOTH: tuple[Figure, ...] = (POOLED, PER_IMAGE)
SIZES, SEED_SPREADS, EFFECTS = (50, 200), (0.005, 0.015), (0.0, 0.01, 0.03)


@dataclass(frozen=True)
class Shares:
    """Of the simulated studies, for one figure.

    Args:
        held: The first arm's interval held its true figure.
        held_difference: The interval of the first arm against the second held the true difference.
        false_winner: The table said that the leader beats a row which it does not beat.
        found: The first arm led, and the table said that it beats the second.
    """

    held: float
    held_difference: float
    false_winner: float
    found: float


def watched(world: World, figure: Figure, num_studies: int) -> Shares:
    truth = world.truth(figure)
    rng = np.random.default_rng([world.num_images, int(1000 * world.seed_spread), len(figure)])
    seen: Counter[str] = Counter()
    for _ in range(num_studies):
        arms = world.draw(rng)
        own, against = estimate(arms[0], figure), compare(arms[0], arms[1], figure)
        placed = standings(arms, figure)
        leader, beaten = placed[0].rival, [standing.rival for standing in placed[1:] if not standing.tied]
        assert own.low is not None
        assert own.high is not None
        assert against.low is not None
        assert against.high is not None
        seen["held"] += own.low <= truth[0] <= own.high
        seen["held_difference"] += against.low <= truth[0] - truth[1] <= against.high
        seen["false_winner"] += any(world.effects[leader] <= world.effects[rival] for rival in beaten)
        seen["found"] += leader == 0 and 1 in beaten
    shares = Shares(**{name: seen[name] / num_studies for name in Shares.__annotations__})
    print(f"\n{world} {figure} {shares}")
    return shares


@pytest.mark.parametrize("figure", BOTH)
@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("seed_spread", SEED_SPREADS)
@pytest.mark.parametrize("num_images", SIZES)
def test_intervals_hold_the_truth_in_92_to_98_of_100_studies_and_false_winners_are_5_at_most(
    num_images: int, seed_spread: float, effect: float, figure: Figure
) -> None:
    num_studies = 6000 if effect == 0 else 1500
    shares = watched(World(num_images, (effect, 0.0, 0.0), seed_spread), figure, num_studies)
    assert 0.92 <= shares.held <= 0.98
    assert 0.92 <= shares.held_difference <= 0.98
    assert shares.false_winner <= 0.05


@pytest.mark.parametrize(
    ("figure", "size_spread"),
    [(PER_IMAGE, 0.69), (POOLED, 0.0)],
    ids=["mean of images", "pooled over cracks of one size"],
)
def test_three_points_are_found_in_80_of_100_studies_of_200_images(figure: Figure, size_spread: float) -> None:
    """Where cracks are of many sizes the pooled figure is made by few images: it has less to go by."""
    world = World(200, (0.03, 0.0, 0.0), 0.005, size_spread=size_spread)
    assert watched(world, figure, 1000).found >= 0.80


@pytest.mark.parametrize("figure", BOTH)
def test_five_equal_arms_have_a_false_winner_in_5_of_100_studies_at_most(figure: Figure) -> None:
    assert watched(World(200, (0.0,) * 5, 0.015), figure, 3000).false_winner <= 0.05


def test_where_seeds_are_all_that_matters_intervals_still_hold() -> None:
    shares = watched(World(200, (0.0, 0.0, 0.0), 0.06), PER_IMAGE, 2000)
    assert 0.92 <= shares.held <= 0.98
    assert 0.92 <= shares.held_difference <= 0.98
    assert shares.false_winner <= 0.05


def test_crops_of_one_photograph_need_to_be_known_as_such() -> None:
    world = World(200, (0.0,), 0.005, per_photograph=4)
    truth, rng, num_studies = world.truth(PER_IMAGE)[0], np.random.default_rng(8), 1500
    held: Counter[str] = Counter()
    for _ in range(num_studies):
        arm = world.draw(rng)[0]
        for name, counts in (("photographs", arm), ("crops", replace(arm, groups=arm.names))):
            found = estimate(counts, PER_IMAGE)
            assert found.low is not None
            assert found.high is not None
            held[name] += found.low <= truth <= found.high
    assert 0.92 <= held["photographs"] / num_studies <= 0.98
    assert held["crops"] / num_studies < 0.80


def test_a_bootstrap_of_three_seeds_is_too_sure_of_itself() -> None:
    """The alternative: images and seeds drawn with replacement, 95 % of what comes out. Of a variance it sees 2/3."""
    world = World(200, (0.0, 0.0), 0.03)
    rng, num_studies = np.random.default_rng(9), 1000
    held: Counter[str] = Counter()
    for _ in range(num_studies):
        a, b = world.draw(rng)
        image_BI = rng.multinomial(200, np.full(200, 1 / 200), size=1000)
        drawn_B = _resampled(a, image_BI, rng) - _resampled(b, image_BI, rng)
        low, high = np.quantile(drawn_B, [0.025, 0.975])
        held["bootstrap"] += low <= 0 <= high
        ours = compare(a, b, POOLED)
        assert ours.low is not None
        assert ours.high is not None
        held["ours"] += ours.low <= 0 <= ours.high
    print(f"\n{held}")
    assert held["bootstrap"] / num_studies == pytest.approx(0.85, abs=0.02)  # as statistics.py says
    assert held["ours"] / num_studies == pytest.approx(0.96, abs=0.02)


def _resampled(arm: ImageCounts, image_BI: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The pooled IoU of each resample."""
    iou_BS = (image_BI @ arm.tp_IS) / (image_BI @ (arm.tp_IS + arm.fp_IS + arm.fn_IS))
    seeds_B3 = rng.integers(0, arm.num_seeds, (len(image_BI), arm.num_seeds))
    mean_B: np.ndarray = np.take_along_axis(iou_BS, seeds_B3, axis=1).mean(axis=1)
    return mean_B
