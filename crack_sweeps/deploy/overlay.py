"""A photo with the cracks that were found in it: outlined, so that what was found stays visible inside."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

# No surface, paint, rust or plant has this pink; to all kinds of colour vision it differs from grey.
OUTLINE = (255, 0, 170)
# The line grows with the photo, so that it is seen when the whole photo is looked at on a screen.
_PX_PER_LINE = 1000


def paint_cracks(image_HW3: UInt8[np.ndarray, "H W 3"], crack_HW: Bool[np.ndarray, "H W"]) -> None:
    """Draw a line around each crack, into the photo itself: a large photo is not to be held twice."""
    line_px = max(1, round(max(crack_HW.shape) / _PX_PER_LINE))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * line_px + 1, 2 * line_px + 1))
    crack_u8_HW = crack_HW.view(np.uint8)
    around_HW = (cv2.dilate(crack_u8_HW, kernel) ^ crack_u8_HW).view(np.bool_)
    for channel, value in enumerate(OUTLINE):
        np.copyto(image_HW3[..., channel], np.uint8(value), where=around_HW)
