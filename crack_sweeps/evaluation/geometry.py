"""What an engineer measures of a crack, in px: area, length along its centre line, and width across it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from crack_sweeps.evaluation.relaxed import Mask
from crack_sweeps.evaluation.topology import num_pieces, skeleton


@dataclass(frozen=True)
class Measures:
    """All cracks of one mask together; adds up over images.

    Args:
        area_px: Pixels of crack.
        length_px: Of the centre line.
        summed_width_px: Over the pixels of the centre line.
        line_px: Pixels of the centre line.
    """

    area_px: int
    length_px: float
    summed_width_px: float
    line_px: int

    @property
    def mean_width_px(self) -> float:
        """Along the centre line; 0 where there is no crack."""
        return self.summed_width_px / self.line_px if self.line_px else 0.0


def measure(mask_HW: Mask, line_HW: Mask | None = None) -> Measures:
    """Measure a mask.

    Args:
        mask_HW: True on crack.
        line_HW: Its skeleton, where it is known already.
    """
    line_HW = skeleton(mask_HW) if line_HW is None else line_HW
    return Measures(
        area_px=int(np.count_nonzero(mask_HW)),
        length_px=length_px(line_HW),
        summed_width_px=float(widths_px(mask_HW, line_HW).sum(dtype=np.float64)),
        line_px=int(np.count_nonzero(line_HW)),
    )


def length_px(line_HW: Mask) -> float:
    """Length of a skeleton: 1 for each step to a neighbour at a side, sqrt 2 for one at a corner, and 1 per piece.

    Steps join the centres of pixels, so a row of n pixels has n - 1 of them and is n px long; a single pixel is 1.
    Counting pixels, as is common too, makes a crack at 45 degrees 29 % too short; steps make none 9 % too long.
    """
    upper_left, upper_right = line_HW[:-1, :-1], line_HW[:-1, 1:]
    lower_left, lower_right = line_HW[1:, :-1], line_HW[1:, 1:]
    # Two pixels that meet at a corner are a step apart only where no third one leads from one to the other.
    falling = upper_left & lower_right & ~upper_right & ~lower_left
    rising = upper_right & lower_left & ~upper_left & ~lower_right
    num_at_sides = np.count_nonzero(line_HW[:, 1:] & line_HW[:, :-1]) + np.count_nonzero(line_HW[1:] & line_HW[:-1])
    num_at_corners = np.count_nonzero(falling) + np.count_nonzero(rising)
    return float(num_at_sides + math.sqrt(2) * num_at_corners + num_pieces(line_HW))


def widths_px(mask_HW: Mask, line_HW: Mask) -> np.ndarray:
    """The width at each pixel of the skeleton: twice its distance to the nearest pixel that is no crack.

    Distances are between centres of pixels, so an even width comes out right and an odd one 1 px too wide. Beyond the
    picture's edge there is no crack.
    """
    framed = cv2.copyMakeBorder(mask_HW.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance_HW = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    widths: np.ndarray = 2 * distance_HW[line_HW]
    return widths
