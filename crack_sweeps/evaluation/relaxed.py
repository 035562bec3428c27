"""Matching with a tolerance in px: crack pixels near a crack pixel of the other mask, and rims near rims."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

# 0 is the plain count; a hand-drawn mask is good to a pixel or two (DeepCrack's shifted by one: IoU .898).
RADII_PX = (0, 1, 2, 3, 5)
BOUNDARY_PX = 2
Mask = Bool[np.ndarray, "H W"]
# Predicted, of these matched, true, of these matched.
MatchedPixels = tuple[int, int, int, int]


def grown(mask_HW: Mask, radius_px: int) -> Mask:
    """All pixels whose centre is at most the radius from the centre of a pixel of the mask (Euclidean)."""
    if radius_px == 0:
        return mask_HW
    grown_HW: UInt8[np.ndarray, "H W"] = cv2.dilate(mask_HW.view(np.uint8), _disc(radius_px))
    return grown_HW.view(np.bool_)


def matched_pixels(predicted_HW: Mask, true_HW: Mask, radius_px: int) -> MatchedPixels:
    """Pixels of each mask, and how many of them lie within the radius of one of the other."""
    return (
        int(np.count_nonzero(predicted_HW)),
        int(np.count_nonzero(predicted_HW & grown(true_HW, radius_px))),
        int(np.count_nonzero(true_HW)),
        int(np.count_nonzero(true_HW & grown(predicted_HW, radius_px))),
    )


def rim(mask_HW: Mask) -> Mask:
    """Pixels of a mask with a pixel outside it among their eight neighbours; beyond the picture's edge is outside."""
    kernel = np.ones((3, 3), dtype=np.uint8)
    inside = cv2.erode(mask_HW.view(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    outer_HW: Mask = mask_HW & (inside == 0)
    return outer_HW


@lru_cache(maxsize=8)
def _disc(radius_px: int) -> UInt8[np.ndarray, "D D"]:
    """OpenCV's own ellipse is not one: at radius 2 it lacks four of the pixels within that distance."""
    y, x = np.ogrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    disc: UInt8[np.ndarray, "D D"] = (x**2 + y**2 <= radius_px**2).astype(np.uint8)
    disc.setflags(write=False)
    return disc
