"""Draw bare asphalt and concrete: their colour, and how hard each spot is for a crack to run through."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float64

from crack_sweeps.data.synthetic_fields import Field, blur, octaves, relief, smooth_noise, step

Picture = Float64[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Surface:
    """A photo's ground before anything lies or breaks on it.

    Args:
        material: What it is.
        picture: RGB, 0 black, 1 white; may leave that range until the sensor clips it.
        resistance: Positive cost of a crack's path per px; low between grains, high across them.
        light_xy: Where the light comes from, as a unit vector in the plane of the photo.
    """

    material: Literal["asphalt", "concrete"]
    picture: Picture
    resistance: Field
    light_xy: tuple[float, float]


def draw_surface(rng: np.random.Generator, size_px: int) -> Surface:
    """A fresh piece of ground."""
    angle = rng.uniform(0.0, 2.0 * math.pi)
    light_xy = (math.cos(angle), math.sin(angle))
    return (_asphalt if rng.random() < 0.55 else _concrete)(rng, size_px, light_xy)


def stones(rng: np.random.Generator, size_px: int, pitch_px: float) -> tuple[Field, Field]:
    """Crushed stone about `pitch_px` apart: a shade in 0..1 per stone, and 1 inside stones down to 0 between them."""
    fine = 2 if pitch_px < 4.0 else 1  # stones of three px need borders finer than a px
    side = size_px * fine
    num_stones = int((size_px / pitch_px) ** 2)
    rows, columns = rng.integers(0, side, size=(2, num_stones))
    elsewhere = np.full((side, side), 255, np.uint8)
    elsewhere[rows, columns] = 0
    distance, labels = cv2.distanceTransformWithLabels(elsewhere, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    reach = rng.uniform(0.3, 0.75, size=num_stones + 1)[labels] * pitch_px * fine
    inside = np.clip((reach - distance.astype(np.float64)) / fine + 0.5, 0.0, 1.0)
    shade = rng.random(num_stones + 1)[labels]
    if fine == 1:
        return shade, inside
    share = _halve(inside)
    return _halve(shade * inside) / np.maximum(share, 1e-6), share


def _halve(field: Field) -> Field:
    return np.asarray((field[::2, ::2] + field[1::2, ::2] + field[::2, 1::2] + field[1::2, 1::2]) / 4.0)


def _asphalt(rng: np.random.Generator, size_px: int, light_xy: tuple[float, float]) -> Surface:
    pitch_px = rng.uniform(2.6, 6.5)
    shade, inside = stones(rng, size_px, pitch_px)
    wear = 0.7 + 0.3 * step(smooth_noise(rng, size_px, 48), 0.0, 3.0)  # traffic polishes the binder off the stones
    level = rng.uniform(0.30, 0.56)
    contrast = rng.uniform(0.25, 0.55)
    height = blur(inside * (0.5 + shade), 0.5) + 0.35 * smooth_noise(rng, size_px, 2)
    sparkle = step(shade, 0.965, 0.02) * inside
    grey = (
        level
        * (
            1.0
            + contrast * (shade - 0.5) * inside * wear
            - 0.30 * contrast * (1.0 - inside)
            + octaves(rng, size_px, (96, 40, 14), (0.06, 0.04, 0.03))
            + 0.05 * smooth_noise(rng, size_px, 2)
        )
        + rng.uniform(0.05, 0.13) * relief(height, light_xy)
        + rng.uniform(0.05, 0.25) * sparkle
    )
    tint = np.array([1.0, 1.0, 1.0]) + rng.uniform(-0.025, 0.05) * np.array([1.0, 0.2, -1.0])
    brown = (0.025 * smooth_noise(rng, size_px, 4) + 0.05 * (shade - 0.5) * inside)[..., None]
    picture = grey[..., None] * (tint + brown * np.array([1.0, 0.3, -0.9]))
    resistance = 1.0 + 2.2 * blur(inside, 0.7) + _wander(rng, size_px)
    return Surface("asphalt", picture, np.maximum(resistance, 0.15), light_xy)


def _concrete(rng: np.random.Generator, size_px: int, light_xy: tuple[float, float]) -> Surface:
    level = rng.uniform(0.48, 0.74)
    mottle = octaves(rng, size_px, (80, 36, 16, 7), (0.05, 0.035, 0.025, 0.02))
    grain = smooth_noise(rng, size_px, 2)
    coarse = smooth_noise(rng, size_px, int(rng.integers(3, 6)))
    grey = level * (1.0 + rng.uniform(0.7, 1.6) * mottle + rng.uniform(0.02, 0.06) * grain)
    grey += rng.uniform(0.01, 0.035) * relief(grain + coarse, light_xy)
    grey += rng.uniform(0.01, 0.035) * blur(3.4 * (rng.random((size_px, size_px)) - 0.5), 0.6)
    if rng.random() < 0.35:
        grey += rng.uniform(0.02, 0.06) * _broom_strokes(rng, size_px)
    grey *= 1.0 - _pores(rng, size_px)
    sand, inside = stones(rng, size_px, rng.uniform(5.0, 12.0))
    grey *= 1.0 + rng.uniform(0.0, 0.22) * (sand - 0.5) * inside * step(coarse, 0.4, 1.0)
    warmth = rng.uniform(-0.04, 0.14)
    tint = np.array([1.0 + 0.6 * warmth, 1.0, 1.0 - warmth])
    stain = 0.012 * smooth_noise(rng, size_px, 30)[..., None] * np.array([1.0, 0.4, -1.0])
    resistance = 1.3 + 0.35 * grain + 0.45 * coarse + 6.0 * mottle + _wander(rng, size_px)
    return Surface("concrete", grey[..., None] * (tint + stain), np.maximum(resistance, 0.15), light_xy)


def _wander(rng: np.random.Generator, size_px: int) -> Field:
    """Weak ground that no photo shows: it bends a crack over tens of px, as the layers below do."""
    return octaves(rng, size_px, (44, 18, 8), (0.30, 0.35, 0.30))


def _broom_strokes(rng: np.random.Generator, size_px: int) -> Field:
    hair = blur(rng.standard_normal((size_px, 24)), 0.8)  # each some 24 px long or more
    reach = np.linspace(0.0, 23.0, size_px)
    left = reach.astype(int).clip(max=22)
    strokes = hair[:, left] + (hair[:, left + 1] - hair[:, left]) * (reach - left)
    return strokes if rng.random() < 0.5 else np.ascontiguousarray(strokes.T)


def _pores(rng: np.random.Generator, size_px: int) -> Field:
    """Air bubbles that broke open: darkening in 0..1."""
    holes = np.zeros((size_px, size_px))
    num_pores = int(rng.integers(0, 70) * (size_px / 256) ** 2)
    rows, columns = rng.integers(0, size_px, size=(2, num_pores))
    holes[rows, columns] = rng.uniform(1.0, 9.0, size=num_pores)
    return np.asarray(np.minimum(blur(holes, rng.uniform(0.6, 1.3)), 0.6))
