"""A run's pixels by probability, all images together, as a small JSON file: precision against recall without maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from crack_sweeps import durable
from crack_sweeps.errors import DataError
from crack_sweeps.evaluation.counts import PixelCounts
from crack_sweeps.evaluation.thresholds import NUM_BINS, threshold_index


def write_curve(counts: PixelCounts, threshold: float, path: Path) -> None:
    """Store the pooled counts of a split.

    Args:
        counts: Of its images.
        threshold: The one that was chosen, to be marked on the curve.
        path: The file; its folder must exist.
    """
    content = {
        "threshold": threshold,
        "crack": counts.crack_NK.sum(axis=0).tolist(),
        "background": counts.background_NK.sum(axis=0).tolist(),
    }
    durable.write_text(path, json.dumps(content) + "\n")


def read_curve(path: Path) -> tuple[PixelCounts, float]:
    """The pooled counts, as those of one large image, and the threshold.

    Raises:
        DataError: The file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
        crack_K, background_K = (np.array(content[key], dtype=np.int64) for key in ("crack", "background"))
        threshold = float(content["threshold"])
        threshold_index(threshold)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if crack_K.shape != (NUM_BINS,) or background_K.shape != (NUM_BINS,):
        raise DataError(f"{path}: holds {crack_K.size} and {background_K.size} counts, must be {NUM_BINS} of each")
    return PixelCounts(crack_NK=crack_K[None], background_NK=background_K[None]), threshold
