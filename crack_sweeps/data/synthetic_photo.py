"""Draw one synthetic photo of cracked ground, with the mask, centreline and width that no annotator could know."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64, Int64, UInt8

from crack_sweeps.data.synthetic_distractors import LIGHT, OVER, UNDER
from crack_sweeps.data.synthetic_fields import (
    Field,
    area_average,
    blank_canvas,
    blur,
    paint_ribbon,
    relief,
    smooth_noise,
)
from crack_sweeps.data.synthetic_paths import Crack, grow_cracks, keep_where
from crack_sweeps.data.synthetic_surfaces import Picture, Surface, draw_surface

MIN_SIZE_PX = 64  # below it, no crack has room to bend
_WITHOUT_CRACK = (7, 3)  # seeds of remainder 3 modulo 7 show sound ground: 14 % of photos, in every split
_CORE = ((0.9, 0.5), (0.66, 1.0))  # share of the width, share of the depth: walls lean inwards


@dataclass(frozen=True)
class SyntheticPhoto:
    """A photo and the truth about it.

    Args:
        image: RGB.
        mask: 1 where cracks cover at least half of a pixel.
        centreline_xy: Points every half px along all visible cracks, in px; the top-left pixel's middle is (.5, .5).
        width_px: Width of the crack at each of these points.
        piece: Number of the unbroken stretch that each point belongs to, from 0.
        material: The ground.
        distractors: What else is in the photo, without a label.
    """

    image: UInt8[np.ndarray, "H W 3"]
    mask: UInt8[np.ndarray, "H W"]
    centreline_xy: Float64[np.ndarray, "N 2"]
    width_px: Float64[np.ndarray, " N"]
    piece: Int64[np.ndarray, " N"]
    material: str
    distractors: tuple[str, ...]


def draw_photo(seed: int, size_px: int) -> SyntheticPhoto:
    """The photo of that seed: the same pixels at every call."""
    if size_px < MIN_SIZE_PX:
        raise ValueError(f"size_px is {size_px}, must be at least {MIN_SIZE_PX}")
    # One generator per concern: a new distractor must not move the cracks.
    ground, growth, clutter, sensor = (np.random.default_rng((seed, concern)) for concern in range(4))
    surface = draw_surface(ground, size_px)
    modulus, remainder = _WITHOUT_CRACK
    cracks = () if seed % modulus == remainder else grow_cracks(growth, surface.resistance)
    picture = surface.picture
    names: list[str] = []
    for name, (chance, draw) in UNDER.items():
        if clutter.random() < chance:
            picture, names = draw(clutter, picture, surface), [*names, name]
    picture, mask = _open_cracks(growth, picture, surface, cracks)
    for name, (chance, cover) in OVER.items():
        if clutter.random() < chance:
            picture, hidden = cover(clutter, picture, surface)
            names = [*names, name]
            mask = mask * (hidden < 0.5)
            cracks = tuple(part for crack in cracks for part in keep_where(crack, ~_hits(hidden, crack)))
    for name, (chance, draw) in LIGHT.items():
        if clutter.random() < chance:
            picture, names = draw(clutter, picture, surface), [*names, name]
    return SyntheticPhoto(
        image=_expose(sensor, picture),
        mask=mask.astype(np.uint8),
        centreline_xy=np.concatenate([crack.line for crack in cracks]) if cracks else np.zeros((0, 2)),
        width_px=np.concatenate([crack.width_px for crack in cracks]) if cracks else np.zeros(0),
        piece=np.repeat(np.arange(len(cracks)), [len(crack.line) for crack in cracks]).astype(np.int64),
        material=surface.material,
        distractors=tuple(names),
    )


def _hits(hidden: Field, crack: Crack) -> np.ndarray:
    columns, rows = crack.line.astype(int).T
    return np.asarray(hidden[rows, columns] >= 0.5)


def _open_cracks(
    rng: np.random.Generator, picture: Picture, surface: Surface, cracks: tuple[Crack, ...]
) -> tuple[Picture, np.ndarray]:
    """Darken the ground along the cracks; the picture and the mask of 0/1."""
    size_px = picture.shape[0]
    if not cracks:
        return picture, np.zeros((size_px, size_px), np.uint8)
    canvas = blank_canvas(size_px)
    for crack in cracks:
        paint_ribbon(canvas, crack.line, crack.width_px, 255.0 * (1.0 - crack.brightness))
    coverage = area_average(np.where(canvas > 0, np.uint8(255), np.uint8(0)))
    depth = rng.uniform(0.20, 0.68)  # how much darker the inside of a wide crack is than its rims
    for share, deep in _CORE:
        for crack in cracks:
            core = crack.width_px * share - 0.7
            darker = depth * deep * np.clip((core - 0.5) / 2.5, 0.0, 1.0)
            for inner in _stretches(core > 0.5):
                value = 255.0 * (1.0 - crack.brightness[inner] * (1.0 - darker[inner]))
                paint_ribbon(canvas, crack.line[inner], core[inner], value)
    dirt = np.clip(1.0 + 0.09 * smooth_noise(rng, size_px, 2), 0.5, 1.4)  # crumbs and soil in the crack
    dark = blur(area_average(canvas), 0.35) * dirt
    soil = 0.16 * rng.random() ** 2 * np.array([-1.0, 0.0, 1.0])
    rim = relief(blur(coverage, 0.8), surface.light_xy) * rng.uniform(0.05, 0.16)
    spalled = blur(coverage, 2.2) * (1.0 - coverage) * smooth_noise(rng, size_px, 4) * 0.12
    darkened = picture * np.clip(1.0 - dark[..., None] * (1.0 + soil) + spalled[..., None], 0.03, None)
    return darkened - rim[..., None] * picture.mean(), (coverage >= 0.5).astype(np.uint8)


def _stretches(keep: np.ndarray) -> list[np.ndarray]:
    """Indices of each run of True that is long enough to paint."""
    runs = np.split(np.arange(len(keep)), np.flatnonzero(np.diff(keep.astype(np.int8))) + 1)
    return [run for run in runs if len(run) >= 3 and keep[run[0]]]


def _expose(rng: np.random.Generator, picture: Picture) -> np.ndarray:
    """What a camera makes of the scene: light fall-off, colour cast, blur, noise, JPEG."""
    size_px = picture.shape[0]
    rows, columns = np.mgrid[0:size_px, 0:size_px] / size_px - 0.5
    tilt = rng.uniform(-0.12, 0.12, size=2)
    light = 1.0 - rng.uniform(0.0, 0.35) * (rows**2 + columns**2) + tilt[0] * rows + tilt[1] * columns
    warm, green = rng.uniform(-0.045, 0.045), rng.uniform(-0.012, 0.012)
    seen = picture * light[..., None] * np.array([1.0 + warm, 1.0 + green, 1.0 - warm])
    sigma_px = rng.uniform(0.3, 0.85)
    seen = np.stack([blur(np.ascontiguousarray(seen[..., channel]), sigma_px) for channel in range(3)], axis=2)
    grain = rng.standard_normal((size_px, size_px, 1)) * 0.8 + (rng.random((size_px, size_px, 3)) - 0.5) * 1.7
    seen = seen + rng.uniform(0.006, 0.022) * grain
    rgb = np.rint(np.clip(seen, 0.0, 1.0) * 255.0).astype(np.uint8)
    quality = int(rng.integers(60, 96))
    written, jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert written, "OpenCV encodes any uint8 picture"
    decoded = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(decoded[..., ::-1])
