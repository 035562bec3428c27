"""Random fields and ribbons that come out bit for bit alike on every processor: what synthetic photos are made of.

Big arrays see only +, -, *, /, square roots and box or Gaussian sums in float64, which every processor rounds alike.
`np.exp`, `np.sin` and OpenCV's float filters choose another routine per processor, and are left out for that reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float64
from scipy import ndimage

Field = Float64[np.ndarray, "H W"]
Line = Float64[np.ndarray, "N 2"]  # x, y in px; the middle of the top-left pixel is (.5, .5)
Profile = Float64[np.ndarray, " N"]

SUPERSAMPLING = 4  # DOMAIN recipe: drawn at 4x and area-averaged
_SPLINE_STD = 0.1588  # of uniform noise after three boxes per axis: sqrt(1/12) * 11/20
_SHIFT_BITS = 4  # OpenCV's polygons take 1/16 of a sub-pixel
_FILL_GROWTH = 1.0  # sub-pixels: cv2.fillConvexPoly also fills what its outline touches; a test measures the width


def smooth_noise(rng: np.random.Generator, size_px: int, cell_px: int) -> Field:
    """Noise of mean 0 and deviation about 1 whose grains are about `cell_px` wide (quadratic splines on a lattice)."""
    cells = size_px // cell_px + 5
    lattice = rng.random((cells, cells)) - 0.5
    top, left = (int(v) for v in rng.integers(cell_px, 2 * cell_px, size=2))  # hides the lattice, skips the rim
    tall = _spline(lattice, cell_px)[top : top + size_px]
    wide = np.repeat(tall, cell_px, axis=1)
    for _ in range(2):
        wide = cv2.blur(wide, (cell_px, 1))
    return wide[:, left : left + size_px] / _SPLINE_STD


def _spline(lattice: np.ndarray, cell: int) -> np.ndarray:
    """Each row drawn out over `cell` rows and smoothed by two boxes: a quadratic spline down the columns."""
    rows = np.repeat(lattice, cell, axis=0)
    for _ in range(2):
        rows = cv2.blur(rows, (1, cell))
    return np.asarray(rows)


def octaves(rng: np.random.Generator, size_px: int, cells_px: Sequence[int], weights: Sequence[float]) -> Field:
    """A weighted sum of smooth noises, coarse to fine."""
    total = np.zeros((size_px, size_px))
    for cell_px, weight in zip(cells_px, weights, strict=True):
        total += weight * smooth_noise(rng, size_px, cell_px)
    return total


def smooth_profile(rng: np.random.Generator, num_samples: int, cell_samples: int) -> Profile:
    """The same noise along a line."""
    lattice = rng.random(num_samples // cell_samples + 5) - 0.5
    profile = _spline(lattice[:, None], cell_samples)[:, 0]
    start = int(rng.integers(cell_samples, 2 * cell_samples))
    return np.asarray(profile[start : start + num_samples] / (1 / 12) ** 0.5 / 0.55**0.5)


def blur(field: Field, sigma_px: float) -> Field:
    """Gaussian blur, reflected at the rim."""
    return np.asarray(ndimage.gaussian_filter(field, sigma_px, mode="reflect", truncate=3.0))


def step(field: Field, at: float, softness: float) -> Field:
    """0 below `at`, 1 above, with a straight ramp of that softness in between."""
    return np.clip((field - at) / softness + 0.5, 0.0, 1.0)


def relief(height: Field, light_xy: tuple[float, float]) -> Field:
    """How much brighter each pixel of a bumpy surface is, lit from the direction `light_xy`."""
    slope_y, slope_x = np.gradient(height)
    return np.asarray(slope_x * light_xy[0] + slope_y * light_xy[1])


def resample(line: Line, spacing_px: float) -> Line:
    """The same line with points at equal distances."""
    steps = np.diff(line, axis=0)
    along = np.concatenate([[0.0], np.cumsum(np.sqrt(steps[:, 0] ** 2 + steps[:, 1] ** 2))])
    wanted = np.linspace(0.0, along[-1], max(int(along[-1] / spacing_px) + 1, 2))
    return np.stack([np.interp(wanted, along, line[:, 0]), np.interp(wanted, along, line[:, 1])], axis=1)


def normals(line: Line) -> Line:
    """Unit vectors across the line."""
    tangent = np.gradient(line, axis=0)
    length = np.sqrt(tangent[:, 0] ** 2 + tangent[:, 1] ** 2)
    length = np.where(length > 0.0, length, 1.0)
    return np.stack([-tangent[:, 1] / length, tangent[:, 0] / length], axis=1)


def paint_ribbon(canvas: np.ndarray, line: Line, width_px: Profile, value: Profile) -> None:
    """Paint a ribbon of changing width and value (1..255) onto a uint8 canvas of 4x the photo's size."""
    keep = np.arange(len(line)) % 2 == 0  # every other point is enough for the eye
    keep[-1] = True
    across = normals(np.asarray(ndimage.gaussian_filter1d(line, 3.0, axis=0, mode="nearest")))[keep]  # calm rims
    line, width_px, value = line[keep], width_px[keep], value[keep]
    reach = np.maximum(width_px * SUPERSAMPLING - _FILL_GROWTH, 0.0)[:, None] / 2.0
    middle = line * SUPERSAMPLING - 0.5  # OpenCV's whole numbers are pixel middles
    scale = 1 << _SHIFT_BITS
    left = np.rint((middle + reach * across) * scale).astype(np.int32)
    right = np.rint((middle - reach * across) * scale).astype(np.int32)
    quads = np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)
    for quad, shade in zip(quads, np.rint(value).tolist(), strict=False):
        cv2.fillConvexPoly(canvas, quad, shade, shift=_SHIFT_BITS)


def blank_canvas(size_px: int) -> np.ndarray:
    """An empty uint8 canvas at 4x."""
    return np.zeros((size_px * SUPERSAMPLING, size_px * SUPERSAMPLING), np.uint8)


def area_average(canvas: np.ndarray) -> Field:
    """A canvas at 4x as the mean of each photo pixel, in 0..1 for 0..255."""
    size_px = canvas.shape[0] // SUPERSAMPLING
    rows = np.zeros((size_px, canvas.shape[1]), np.uint16)  # sixteen times 255 fits
    blocks = np.zeros((size_px, size_px), np.uint16)
    for offset in range(SUPERSAMPLING):  # three times quicker than a sum over reshaped axes
        rows += canvas[offset::SUPERSAMPLING]
    for offset in range(SUPERSAMPLING):
        blocks += rows[:, offset::SUPERSAMPLING]
    return np.asarray(blocks / (255.0 * SUPERSAMPLING**2))


def ribbon(size_px: int, line: Line, width_px: Profile) -> Field:
    """Share of each photo pixel that a ribbon covers."""
    canvas = blank_canvas(size_px)
    paint_ribbon(canvas, line, width_px, np.full(len(line), 255.0))
    return area_average(canvas)
