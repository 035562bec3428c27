"""The 99 thresholds .01 .. .99: what a pixel's probability counts as at each of them, exactly as float32 compares."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, UInt8

# Two decimals are what the field sweeps (99 thresholds); a finer choice would be noise on a validation split.
NUM_THRESHOLDS = 99
NUM_BINS = NUM_THRESHOLDS + 1
THRESHOLDS: Float32[np.ndarray, " 99"] = (np.arange(1, NUM_BINS) / 100).astype(np.float32)
THRESHOLDS.setflags(write=False)

# Bin k holds the probabilities p with LOWER[k] <= p < UPPER[k]. One entry more than there are bins, because p = 1.0
# times 100 is 100: it looks up an edge that nothing reaches and falls back to bin 99.
_EDGES = np.concatenate([[-np.inf], THRESHOLDS, [np.inf, np.inf]]).astype(np.float32)
_LOWER, _UPPER = _EDGES[:-1], _EDGES[1:]


def threshold_index(threshold: float) -> int:
    """The bin, 1..99, from which on a probability counts as crack.

    Raises:
        ValueError: It is none of .01, .02 .. .99, for which alone pixels are counted.
    """
    index = round(threshold * 100)
    if not 1 <= index <= NUM_THRESHOLDS or abs(threshold - index / 100) > 1e-6:
        raise ValueError(f"threshold {threshold} is none of 0.01, 0.02 .. 0.99, at which pixels are counted")
    return index


def crack_pixels(probability_HW: Float32[np.ndarray, "H W"], threshold: float) -> Bool[np.ndarray, "H W"]:
    """Where a map says crack: p >= t with both in float32 (against a float64 .7, a float32 .7 would lose)."""
    return probability_HW >= np.float32(threshold)


def bins(probability_HW: Float32[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """How many of the 99 thresholds each probability reaches: p >= k/100 in float32 exactly when its bin >= k.

    Truncating 100 p misses by one bin at twelve of the edges, because float32 rounds the product; two comparisons
    against the edges themselves mend that, at a seventh of the time of a binary search.
    """
    guess = (probability_HW * np.float32(100)).astype(np.uint8)
    return guess + (probability_HW >= _UPPER.take(guess)) - (probability_HW < _LOWER.take(guess))
