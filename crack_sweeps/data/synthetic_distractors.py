"""Draw what is mistaken for a crack: joints, paint, sealant, tyre marks, stains, scratches, leaves, twigs, shadows."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from crack_sweeps.data.synthetic_fields import (
    SUPERSAMPLING,
    Field,
    Line,
    area_average,
    blank_canvas,
    blur,
    octaves,
    relief,
    resample,
    ribbon,
    smooth_noise,
    smooth_profile,
    step,
)
from crack_sweeps.data.synthetic_surfaces import Picture, Surface

Distractor = Callable[[np.random.Generator, Picture, Surface], Picture]
Cover = Callable[[np.random.Generator, Picture, Surface], tuple[Picture, Field]]


def joint(rng: np.random.Generator, picture: Picture, surface: Surface) -> Picture:
    """A saw cut between slabs: straight, dark, of one width, with a worn rim."""
    size_px = picture.shape[0]
    line = _straight_line(rng, size_px)
    width = rng.uniform(2.0, 6.5) * (1.0 + 0.05 * smooth_profile(rng, len(line), 8))
    cut = ribbon(size_px, line, width)
    rim = relief(blur(cut, 0.9), surface.light_xy)
    filling = 1.0 - cut * rng.uniform(0.25, 0.6) * (1.0 + 0.2 * smooth_noise(rng, size_px, 5))
    return picture * filling[..., None] - 0.25 * rim[..., None]


def lane_paint(rng: np.random.Generator, picture: Picture, surface: Surface) -> Picture:
    """A painted band, worn off in patches."""
    del surface
    size_px = picture.shape[0]
    line = _straight_line(rng, size_px)
    band = ribbon(size_px, line, np.full(len(line), rng.uniform(22.0, 60.0)))
    wear = octaves(rng, size_px, (24, 7, 3), (0.8, 0.6, 0.6))
    left = band * step(wear, rng.uniform(-1.3, 0.2), 0.5) * rng.uniform(0.65, 0.95)
    yellow = np.array([0.88, 0.74, 0.36])
    white = np.array([0.86, 0.87, 0.86])
    colour = (yellow if rng.random() < 0.3 else white) * rng.uniform(0.85, 1.05)
    grain = 1.0 + 0.35 * (picture.mean(axis=2) / picture.mean() - 1.0)  # paint keeps the grain of what it covers
    return np.asarray(picture * (1.0 - left[..., None]) + left[..., None] * colour * grain[..., None])


def sealant(rng: np.random.Generator, picture: Picture, surface: Surface) -> Picture:
    """A band of poured bitumen: dark, smooth, round-edged, wandering slowly."""
    size_px = picture.shape[0]
    line = _bent_line(rng, size_px, sway_px=9.0)
    width = rng.uniform(8.0, 17.0) * (1.0 + 0.12 * smooth_profile(rng, len(line), 40))
    band = blur(ribbon(size_px, line, width), 0.8)
    body = np.array([0.15, 0.15, 0.16]) * rng.uniform(0.8, 1.7) + 0.02 * smooth_noise(rng, size_px, 3)[..., None]
    shine = 0.15 * relief(blur(band, 2.0), surface.light_xy)
    return picture * (1.0 - band[..., None]) + band[..., None] * body - shine[..., None]


def tyre_mark(rng: np.random.Generator, picture: Picture, surface: Surface) -> Picture:
    """A broad streaky band of rubber."""
    del surface
    size_px = picture.shape[0]
    line = _bent_line(rng, size_px, sway_px=6.0)
    band = np.zeros((size_px, size_px))
    for _ in range(int(rng.integers(3, 7))):
        offset = rng.uniform(-16.0, 16.0, size=2)
        band += rng.uniform(0.3, 1.0) * ribbon(size_px, line + offset, np.full(len(line), rng.uniform(2.0, 8.0)))
    worn = blur(np.minimum(band, 1.2), 1.1) * step(octaves(rng, size_px, (12, 3), (0.7, 0.7)), -0.4, 1.6)
    return np.asarray(picture * (1.0 - rng.uniform(0.18, 0.38) * worn[..., None]))


def stain(rng: np.random.Generator, picture: Picture, surface: Surface) -> Picture:
    """Oil or water that soaked in: a dark blot with a ragged rim."""
    del surface
    size_px = picture.shape[0]
    centre = rng.uniform(0.1, 0.9, size=2) * size_px
    rows, columns = np.mgrid[0:size_px, 0:size_px]
    stretch = rng.uniform(0.5, 1.8)
    distance = np.sqrt(((columns - centre[0]) * stretch) ** 2 + (rows - centre[1]) ** 2)
    radius = rng.uniform(10.0, 46.0)
    blot = step(1.0 - distance / radius + 0.28 * octaves(rng, size_px, (20, 7), (1.0, 0.5)), 0.0, rng.uniform(0.2, 0.7))
    colour = np.array([1.0, 1.0, 1.0]) - rng.uniform(0.0, 0.12) * np.array([0.0, 0.4, 1.0])
    return picture * (1.0 - rng.uniform(0.2, 0.5) * blot[..., None]) * (1.0 - blot[..., None] * (1.0 - colour))


def scratches(rng: np.random.Generator, picture: Picture, surface: Surface) -> Picture:
    """A few straight hairlines, light or dark."""
    del surface
    size_px = picture.shape[0]
    heading = rng.uniform(0.0, math.pi)
    for _ in range(int(rng.integers(1, 6))):
        start = rng.uniform(0.0, 1.0, size=2) * size_px
        turn = heading + 0.15 * rng.standard_normal()
        end = start + rng.uniform(0.1, 0.6) * size_px * np.array([math.cos(turn), math.sin(turn)])
        line = resample(np.stack([start, end]), 1.0)
        width = rng.uniform(0.5, 1.6) * np.sqrt(np.linspace(1.0, 0.05, len(line)))
        change = rng.uniform(0.12, 0.4) * (1.0 if rng.random() < 0.55 else -1.0)
        picture = picture * (1.0 + change * ribbon(size_px, line, width)[..., None])
    return picture


def soft_shadow(rng: np.random.Generator, picture: Picture, surface: Surface) -> Picture:
    """The shadow of something out of the photo: a wall, or the boughs of a tree."""
    del surface
    size_px = picture.shape[0]
    if rng.random() < 0.5:
        shade = _half_plane(rng, size_px)
    else:
        shade = np.zeros((size_px, size_px))
        for _ in range(int(rng.integers(1, 4))):
            line = _bent_line(rng, size_px, sway_px=7.0)
            width = rng.uniform(3.0, 12.0) * np.linspace(1.0, rng.uniform(0.3, 1.0), len(line))
            shade = np.maximum(shade, ribbon(size_px, line, width))
        shade = blur(shade, rng.uniform(1.2, 3.0))
    depth = rng.uniform(0.25, 0.55)
    blue_sky = np.array([1.06, 1.0, 0.92])  # what lights a shadow is the sky
    return np.asarray(picture * (1.0 - depth * shade[..., None] * blue_sky))


def leaves(rng: np.random.Generator, picture: Picture, surface: Surface) -> tuple[Picture, Field]:
    """Fallen leaves with their midrib and shadow; they hide what lies below."""
    size_px = picture.shape[0]
    hidden = np.zeros((size_px, size_px))
    for _ in range(int(rng.integers(1, 4))):
        length = rng.uniform(14.0, 38.0)
        centre = rng.uniform(0.05, 0.95, size=2) * size_px
        heading = rng.uniform(0.0, 2.0 * math.pi)
        along = np.linspace(-0.5, 0.5, 40)
        direction = np.array([math.cos(heading), math.sin(heading)])
        across = np.array([-direction[1], direction[0]])
        curl = rng.uniform(-0.5, 0.5) * along**2
        spine = centre + length * (along[:, None] * direction + curl[:, None] * across)
        half = length * rng.uniform(0.3, 0.55) * (1.0 - 4.0 * along**2) * (1.15 - 0.6 * along)
        leaf = ribbon(size_px, spine, np.maximum(half, 0.3))
        cast = blur(np.roll(leaf, tuple(round(-2.0 * v) for v in surface.light_xy[::-1]), axis=(0, 1)), 1.5)
        picture = picture * (1.0 - 0.4 * cast[..., None])
        brown, green = np.array([0.46, 0.32, 0.17]), np.array([0.32, 0.38, 0.17])
        mix = rng.random()
        colour = (brown * mix + green * (1.0 - mix)) * rng.uniform(0.7, 1.4)
        veins = ribbon(size_px, spine, np.full(len(spine), 0.9))
        body = colour * (1.0 + 0.10 * smooth_noise(rng, size_px, 5) + 0.25 * veins)[..., None]
        picture = picture * (1.0 - leaf[..., None]) + leaf[..., None] * body
        hidden = np.maximum(hidden, leaf)
    return picture, hidden


def twigs(rng: np.random.Generator, picture: Picture, surface: Surface) -> tuple[Picture, Field]:
    """Thin sticks that lie on the ground: brown, lit on one side, with a shadow close by."""
    size_px = picture.shape[0]
    hidden = np.zeros((size_px, size_px))
    for _ in range(int(rng.integers(1, 3))):
        start = rng.uniform(0.1, 0.9, size=2) * size_px
        heading = rng.uniform(0.0, 2.0 * math.pi)
        end = start + rng.uniform(30.0, 90.0) * np.array([math.cos(heading), math.sin(heading)])
        middle = (start + end) / 2.0 + rng.uniform(-6.0, 6.0, size=2)
        line = resample(np.stack([start, middle, end]), 1.0)
        stick = ribbon(size_px, line, rng.uniform(1.6, 4.0) * np.linspace(1.0, 0.5, len(line)))
        cast = blur(np.roll(stick, tuple(round(-1.7 * v) for v in surface.light_xy[::-1]), axis=(0, 1)), 0.8)
        picture = picture * (1.0 - 0.4 * cast[..., None])
        body = np.array([0.42, 0.34, 0.25]) * rng.uniform(0.7, 1.3)
        lit = 0.25 * relief(blur(stick, 0.7), surface.light_xy)[..., None]
        picture = picture * (1.0 - stick[..., None]) + stick[..., None] * body - lit * stick[..., None]
        hidden = np.maximum(hidden, stick)
    return picture, hidden


# Chance of each in a photo. Under: the crack runs through it. Over: it hides the crack, and the label with it.
UNDER: dict[str, tuple[float, Distractor]] = {
    "tyre mark": (0.16, tyre_mark),
    "stain": (0.26, stain),
    "lane paint": (0.14, lane_paint),
    "joint": (0.22, joint),
    "sealant": (0.14, sealant),
    "scratches": (0.18, scratches),
}
OVER: dict[str, tuple[float, Cover]] = {"leaves": (0.13, leaves), "twigs": (0.12, twigs)}
LIGHT: dict[str, tuple[float, Distractor]] = {"soft shadow": (0.22, soft_shadow)}


def _straight_line(rng: np.random.Generator, size_px: int) -> Line:
    """From rim to rim through a random point, mostly along or across the photo."""
    through = rng.uniform(0.1, 0.9, size=2) * size_px
    heading = rng.uniform(0.0, math.pi) if rng.random() < 0.4 else math.pi / 2 * int(rng.integers(2))
    heading += 0.06 * rng.standard_normal()
    direction = np.array([math.cos(heading), math.sin(heading)])
    return resample(np.stack([through - 1.5 * size_px * direction, through + 1.5 * size_px * direction]), 1.0)


def _bent_line(rng: np.random.Generator, size_px: int, *, sway_px: float) -> Line:
    """From rim to rim, swaying smoothly over some 60 px."""
    line = _straight_line(rng, size_px)
    ahead = line[1] - line[0]
    across = np.array([-ahead[1], ahead[0]])
    return np.asarray(line + sway_px * smooth_profile(rng, len(line), 60)[:, None] * across)


def _half_plane(rng: np.random.Generator, size_px: int) -> Field:
    """One side of a swaying line, with a soft border."""
    canvas = blank_canvas(size_px)
    line = _bent_line(rng, size_px, sway_px=3.0)
    ahead = line[-1] - line[0]
    across = np.array([-ahead[1], ahead[0]]) * (1.0 if rng.random() < 0.5 else -1.0)
    outline = np.concatenate([line, line[::-1] + across])
    cv2.fillPoly(canvas, [np.rint(outline * SUPERSAMPLING).astype(np.int32)], 255)
    return blur(area_average(canvas), rng.uniform(1.5, 6.0))
