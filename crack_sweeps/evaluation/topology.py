"""Lines, not areas: skeletons, how much of one lies in or near the other crack (clDice, clIoU), and loose pieces."""

from __future__ import annotations

import cv2
import numpy as np

from crack_sweeps.evaluation.relaxed import Mask, MatchedPixels, matched_pixels

# OmniCrack30k (Benz and Rodehorst 2024) scores centrelines with this tolerance.
CLIOU_PX = 4


def skeleton(mask_HW: Mask) -> Mask:
    """The centre line of a mask, one pixel wide (Zhang and Suen 1984); as many pieces as the mask has."""
    from skimage.morphology import skeletonize  # a second of imports, which pixels alone need not wait for

    line_HW: Mask = skeletonize(mask_HW)
    return line_HW


def lines_in_masks(predicted_HW: Mask, predicted_line_HW: Mask, true_HW: Mask, true_line_HW: Mask) -> MatchedPixels:
    """Pixels of the two skeletons, and how many lie inside the other mask: for clDice (Shit et al. 2021)."""
    return (
        int(np.count_nonzero(predicted_line_HW)),
        int(np.count_nonzero(predicted_line_HW & true_HW)),
        int(np.count_nonzero(true_line_HW)),
        int(np.count_nonzero(true_line_HW & predicted_HW)),
    )


def lines_near_lines(predicted_line_HW: Mask, true_line_HW: Mask) -> MatchedPixels:
    """Pixels of the two skeletons, and how many lie within 4 px of the other: for clIoU."""
    return matched_pixels(predicted_line_HW, true_line_HW, CLIOU_PX)


def num_pieces(mask_HW: Mask) -> int:
    """Connected pieces of a mask; pixels that touch at a corner are connected."""
    num_labels: int = cv2.connectedComponents(mask_HW.view(np.uint8), connectivity=8)[0]
    return num_labels - 1
