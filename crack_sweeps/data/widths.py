"""How wide the cracks of a mask are, in px, along their centre lines."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8


def crack_widths_px(mask_HW: UInt8[np.ndarray, "H W"]) -> Float32[np.ndarray, " N"]:
    """The width at each pixel of the skeleton (Zhang and Suen 1984): twice its distance to the nearest background.

    Distances are between centres of pixels, so an even width comes out right and an odd one 1 px too wide. Beyond the
    picture's edge there is no crack. `evaluation` measures predictions by the same rule.

    Args:
        mask_HW: 1 on crack, 0 elsewhere.
    """
    from skimage.morphology import skeletonize  # takes half a second to load

    left, top, width, height = cv2.boundingRect(mask_HW)
    crack_HW = mask_HW[top : top + height, left : left + width]  # the rest is background, and takes time too
    if crack_HW.size == 0:
        return np.empty(0, dtype=np.float32)
    framed = cv2.copyMakeBorder(crack_HW, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance_HW = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    widths_N: Float32[np.ndarray, " N"] = 2 * distance_HW[skeletonize(crack_HW > 0)]
    return widths_N
