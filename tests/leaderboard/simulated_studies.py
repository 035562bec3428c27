"""Studies whose truth is known: arms that score simulated images under simulated seeds, as pixel counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from crack_sweeps.leaderboard.statistics import Figure, ImageCounts, estimate

NUM_SEEDS = 3
IMAGE_PX = 200_000
MEDIAN_CRACK_PX = 6_000  # DeepCrack's test photos: median 6,200 px of 209,000, spread of the logarithm .69
SIZE_SPREAD = 0.69


@dataclass(frozen=True)
class World:
    """How scores come about: an image's IoU is the sum of all of this, cut off at .01 and .99.

    Args:
        num_images: Of a study.
        effects: What each arm has ahead of a plain one.
        seed_spread: Standard deviation of an arm's seeds, over all images alike.
        paired_spread: Standard deviation, over images, of what one arm has ahead of another.
        size_spread: Standard deviation of the logarithm of the images' crack pixels.
        difficulty_spread: Standard deviation of what all arms find equally hard in an image.
        residual_spread: Standard deviation of what is left to image, arm and seed.
        per_photograph: Images that were cut from each photograph, and share its difficulty for all and for each arm.
    """

    num_images: int
    effects: Sequence[float]
    seed_spread: float
    paired_spread: float = 0.10
    size_spread: float = SIZE_SPREAD
    difficulty_spread: float = 0.10
    residual_spread: float = 0.03
    per_photograph: int = 1

    def draw(self, rng: np.random.Generator, *, num_seeds: int = NUM_SEEDS) -> list[ImageCounts]:
        """One study: the counts of each arm over the same images."""
        num_photographs = self.num_images // self.per_photograph
        photograph_I = np.repeat(np.arange(num_photographs), self.per_photograph)
        log_size_I = rng.normal(0, self.size_spread, self.num_images)
        crack_I1 = np.maximum(50, np.round(MEDIAN_CRACK_PX * np.exp(log_size_I))).astype(np.int64)[:, None]
        # Thin cracks are harder: five points of IoU for each factor of e.
        level_I = 0.6 + 0.05 * log_size_I + rng.normal(0, self.difficulty_spread, num_photographs)[photograph_I]
        names = tuple(f"{number:06d}" for number in range(self.num_images))
        groups = tuple(f"{number:06d}" for number in photograph_I)
        arms = []
        for effect in self.effects:
            own_I = rng.normal(0, self.paired_spread / np.sqrt(2), num_photographs)[photograph_I]
            seed_S = rng.normal(0, self.seed_spread, num_seeds)
            rest_IS = rng.normal(0, self.residual_spread, (self.num_images, num_seeds))
            iou_IS = np.clip((level_I + effect + own_I)[:, None] + seed_S + rest_IS, 0.01, 0.99)
            arms.append(_counts(iou_IS, crack_I1, names, groups))
        return arms

    def truth(self, figure: Figure, *, num_draws: int = 60) -> list[float]:
        """Each arm's figure over very many images and seeds; arms of the same effect have the same."""
        rng = np.random.default_rng(12345)
        many = replace(self, num_images=20_000 * self.per_photograph, effects=(0.0,))
        found: dict[float, float] = {}
        for effect in dict.fromkeys(self.effects):
            world = replace(many, effects=(effect,))
            drawn = [estimate(world.draw(rng)[0], figure).value for _ in range(num_draws)]
            found[effect] = float(np.mean(drawn))
        return [found[effect] for effect in self.effects]


def _counts(
    iou_IS: Float64[np.ndarray, "I S"], crack_I1: np.ndarray, names: tuple[str, ...], groups: tuple[str, ...]
) -> ImageCounts:
    """As many false as missed pixels, so that precision is recall: both are the F1 that belongs to the IoU."""
    found_IS = np.round(2 * iou_IS / (1 + iou_IS) * crack_I1).astype(np.int64)
    wrong_IS = crack_I1 - found_IS
    return ImageCounts(names, groups, found_IS, wrong_IS, wrong_IS, IMAGE_PX - crack_I1 - wrong_IS)
