"""What needs no learning: two classic rules that a model must beat, scored by the same counts."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.evaluation.evaluate import each_photo, gather
from crack_sweeps.evaluation.scores import score
from crack_sweeps.evaluation.tiles import Predict

# Wider than the widest common crack (p90 of the public sets: 13 px), so that a closing fills it.
_CLOSING_PX = 21
# Standard deviation in px; takes the grain of the surface out of the ranking (CrackForest: IoU .14 without, .24 with).
_SMOOTHING_PX = 2.0
# Cracks cover .3 .. 10 % of a photo, median 2 to 4.
_CRACK_SHARE = 0.05


def otsu(image_HW3: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W"]:
    """1 on the darker of the two classes that best split the photo's grey levels (Otsu 1979), else 0."""
    grey_HW = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)
    _, dark_HW = cv2.threshold(grey_HW, 0, 1, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    return np.asarray(dark_HW, dtype=np.float32)


def black_hat(image_HW3: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W"]:
    """1 on the up to 5 % of pixels that are darkest against their surroundings (closing minus photo), else 0."""
    grey_HW = cv2.GaussianBlur(cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY), (0, 0), _SMOOTHING_PX)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_CLOSING_PX, _CLOSING_PX))
    depth_HW = cv2.morphologyEx(grey_HW, cv2.MORPH_BLACKHAT, disc)
    num_as_deep = np.cumsum(np.bincount(depth_HW.ravel(), minlength=256)[::-1])[::-1]
    few_enough = np.flatnonzero(num_as_deep <= _CRACK_SHARE * depth_HW.size)
    if not len(few_enough):
        return np.zeros(depth_HW.shape, dtype=np.float32)
    level = max(1, int(few_enough[0]))  # at depth 0 a pixel is no darker than what is around it
    return np.asarray(depth_HW >= level, dtype=np.float32)


FLOORS: dict[str, Predict] = {"otsu": otsu, "black_hat": black_hat}


def floors(photos: Sequence[Photo], rule: ResolvedMaskRule) -> dict[str, dict[str, float]]:
    """The scores of each floor over the photos, keyed as a model's; their outputs are 0 or 1, so any threshold does."""
    return {name: score(gather(each_photo(predict, photos, rule)), 0.5) for name, predict in FLOORS.items()}
