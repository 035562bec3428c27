"""Read masks as 0 and 1: find the rule that a set's masks follow, and hold every mask to it when it is read."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from crack_sweeps.data.images import read_image
from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.errors import DataError


def read_mask(photo: Photo, rule: ResolvedMaskRule) -> UInt8[np.ndarray, "H W"]:
    """A mask as 0 (background) and 1 (crack)."""
    raise DataError("in the making")


def read_pair(photo: Photo, rule: ResolvedMaskRule) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """Photo and mask, of one size."""
    return read_image(photo.image), read_mask(photo, rule)
