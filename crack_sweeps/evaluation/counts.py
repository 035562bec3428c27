"""Count pixels once, score at any threshold: crack and background pixels of each image by probability bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from crack_sweeps.evaluation.thresholds import NUM_BINS, bins, threshold_index


@dataclass(frozen=True, eq=False)
class Confusion:
    """True and false, crack and background pixels, one entry per image (or per threshold, or one for a whole set)."""

    tp: Int64[np.ndarray, " N"]
    fp: Int64[np.ndarray, " N"]
    fn: Int64[np.ndarray, " N"]
    tn: Int64[np.ndarray, " N"]

    def pooled(self) -> Confusion:
        """All entries added up into one."""
        return Confusion(*(np.sum(count, keepdims=True) for count in (self.tp, self.fp, self.fn, self.tn)))


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """Pixels of N images by true class and by probability bin; adds up over the parts of an image.

    Args:
        crack_NK: Pixels that are crack, in each of the 100 bins of `thresholds.bins`.
        background_NK: Pixels that are not.
    """

    crack_NK: Int64[np.ndarray, "N 100"]
    background_NK: Int64[np.ndarray, "N 100"]

    def __add__(self, other: PixelCounts) -> PixelCounts:
        """The same images with more of their pixels seen, image by image."""
        if len(self) != len(other):
            raise ValueError(f"counts of {len(self)} and of {len(other)} images do not add up")
        return PixelCounts(self.crack_NK + other.crack_NK, self.background_NK + other.background_NK)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.crack_NK)

    def at(self, threshold: float) -> Confusion:
        """Per image, at one of the 99 thresholds."""
        crack_from = threshold_index(threshold)
        return Confusion(
            tp=self.crack_NK[:, crack_from:].sum(axis=1),
            fp=self.background_NK[:, crack_from:].sum(axis=1),
            fn=self.crack_NK[:, :crack_from].sum(axis=1),
            tn=self.background_NK[:, :crack_from].sum(axis=1),
        )

    def sweep(self) -> Confusion:
        """Pooled over the images, at each of the 99 thresholds in rising order."""
        crack_K, background_K = self.crack_NK.sum(axis=0), self.background_NK.sum(axis=0)
        below_crack_T, below_background_T = np.cumsum(crack_K)[:-1], np.cumsum(background_K)[:-1]
        return Confusion(
            tp=crack_K.sum() - below_crack_T,
            fp=background_K.sum() - below_background_T,
            fn=below_crack_T,
            tn=below_background_T,
        )


def count_pixels(probability_HW: Float32[np.ndarray, "H W"], mask_HW: UInt8[np.ndarray, "H W"]) -> PixelCounts:
    """The counts of one image, in one pass.

    Args:
        probability_HW: Of crack, in [0, 1].
        mask_HW: 1 on crack, 0 elsewhere.

    Raises:
        ValueError: The two differ in size, or hold something else.
    """
    if probability_HW.shape != mask_HW.shape:
        raise ValueError(f"a map of {probability_HW.shape} pixels cannot be counted against a mask of {mask_HW.shape}")
    if probability_HW.size and not (probability_HW.min() >= 0 and probability_HW.max() <= 1):  # false for NaN too
        raise ValueError("a probability is not in [0, 1]")
    if mask_HW.size and mask_HW.max() > 1:
        raise ValueError("a mask holds a value that is neither 0 nor 1")
    cells = bins(probability_HW) + np.uint8(NUM_BINS) * mask_HW  # 0..99 background, 100..199 crack: fits in uint8
    histogram = np.bincount(cells.ravel(), minlength=2 * NUM_BINS).astype(np.int64, copy=False)
    return PixelCounts(crack_NK=histogram[None, NUM_BINS:], background_NK=histogram[None, :NUM_BINS])


def stack(parts: Sequence[PixelCounts]) -> PixelCounts:
    """The counts of many images, one below the other."""
    none = np.zeros((0, NUM_BINS), dtype=np.int64)
    return PixelCounts(
        crack_NK=np.concatenate([none, *(part.crack_NK for part in parts)]),
        background_NK=np.concatenate([none, *(part.background_NK for part in parts)]),
    )
