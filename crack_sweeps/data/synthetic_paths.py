"""Grow cracks through a surface: cheapest paths between its grains, with branches, gaps, widths and darkness."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from crack_sweeps.data.synthetic_fields import Field, Line, Profile, normals, resample, smooth_profile

SPACING_PX = 0.5  # between points of a centreline
CELL_PX = 2  # paths are searched on cells of this side: four times quicker, and the jitter hides it
MIN_WIDTH_PX, MAX_WIDTH_PX = 1.0, 18.0
MAX_SHARE = 0.08  # of the photo; real sets stay below .1

Habit = Literal["single", "branched", "network", "hairline"]


@dataclass(frozen=True)
class Crack:
    """One unbroken stretch of crack.

    Args:
        line: Its centreline, a point every half px.
        width_px: Its width at each point.
        brightness: What it leaves of the surface's brightness at each point, .55..0.95.
    """

    line: Line
    width_px: Profile
    brightness: Profile


@dataclass(frozen=True)
class _Growth:
    """How one photo's cracks grow: number of main paths, branches per path, width of the main path, gaps."""

    num_paths: tuple[int, int]
    num_branches: tuple[int, int]
    median_width_px: float
    width_spread: float
    gap_chance: float


# Widths are lognormal; medians and spreads were fitted to p10/50/90 = 1/4/13 px over all photos (a test measures it).
_GROWTH: dict[Habit, _Growth] = {
    "single": _Growth((1, 1), (0, 1), 9.0, 0.55, 0.4),
    "branched": _Growth((1, 1), (2, 4), 9.0, 0.45, 0.4),
    "network": _Growth((3, 4), (0, 2), 3.6, 0.30, 0.3),
    "hairline": _Growth((1, 2), (0, 2), 1.5, 0.20, 0.6),
}
_HABITS: tuple[Habit, ...] = ("single", "branched", "network", "hairline")
_HABIT_SHARES = (0.46, 0.26, 0.14, 0.14)


def grow_cracks(rng: np.random.Generator, resistance: Field) -> tuple[Crack, ...]:
    """All cracks of one photo, thin ones first so that wide ones are painted over them."""
    size_px = resistance.shape[0]
    habit = _HABITS[int(rng.choice(len(_HABITS), p=_HABIT_SHARES))]
    growth = _GROWTH[habit]
    cells = size_px // CELL_PX
    trimmed = resistance[: cells * CELL_PX, : cells * CELL_PX]
    cost = trimmed.reshape(cells, CELL_PX, cells, CELL_PX).mean(axis=(1, 3))
    cost = cost * _rim_cost(cells)
    base_brightness = rng.uniform(0.62, 0.88)
    grown: list[Crack] = []
    for _ in range(int(rng.integers(*growth.num_paths, endpoint=True))):
        width_px = growth.median_width_px * math.exp(growth.width_spread * rng.standard_normal())
        start, end, taper_end = _ends(rng, cells)
        main = _dress(rng, cheapest_path(cost, start, end), cells, width_px, base_brightness, (False, taper_end))
        grown.append(main)
        for _ in range(int(rng.integers(*growth.num_branches, endpoint=True))):
            branch = _branch(rng, cost, main, base_brightness)
            grown.append(branch)
            if rng.random() < 0.25 and habit == "branched":
                grown.append(_branch(rng, cost, branch, base_brightness))
    pieces = [piece for crack in grown for piece in _with_gaps(rng, crack, growth.gap_chance)]
    pieces = [inside for piece in pieces for inside in keep_where(piece, within_photo(piece.line, size_px))]
    return tuple(sorted(_slimmed(pieces, size_px), key=lambda piece: float(piece.width_px.mean())))


def cheapest_path(cost: Field, start: tuple[int, int], end: tuple[int, int]) -> np.ndarray:
    """Rows and columns of the cheapest 8-connected path, both ends included (Dijkstra on the steps' mean cost)."""
    rows, columns = cost.shape
    index = np.arange(rows * columns).reshape(rows, columns)
    sources, targets, weights = [], [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = (slice(0, rows - down), slice(max(0, -right), columns - max(0, right)))
        there = (slice(down, rows), slice(max(0, right), columns - max(0, -right)))
        length = math.sqrt(down * down + right * right)
        sources.append(index[here].ravel())
        targets.append(index[there].ravel())
        weights.append((length * (cost[here] + cost[there]) / 2.0).ravel())
    shape = (rows * columns, rows * columns)
    graph = sparse.coo_array(
        (np.concatenate(weights), (np.concatenate(sources), np.concatenate(targets))), shape=shape
    ).tocsr()
    first, last = int(index[start]), int(index[end])
    _, before = csgraph.dijkstra(graph, directed=False, indices=first, return_predecessors=True)
    nodes = [last]
    while nodes[-1] != first:
        nodes.append(int(before[nodes[-1]]))
    return np.stack(np.divmod(np.array(nodes[::-1]), columns), axis=1)


def _rim_cost(cells: int) -> Field:
    """A factor that keeps paths from running along the edge of the photo, where only half of them would show."""
    inward = np.minimum(np.arange(cells), np.arange(cells)[::-1])
    near = 1.0 - np.minimum(inward / 10.0, 1.0)
    return 1.0 + 1.5 * np.maximum(near[:, None], near[None, :])


def within_photo(line: Line, size_px: int) -> np.ndarray:
    """Which points of a line the photo shows."""
    return np.asarray(((line >= 0.0) & (line < size_px)).all(axis=1))


def keep_where(crack: Crack, keep: np.ndarray) -> list[Crack]:
    """The stretches of a crack where `keep` holds; crumbs below 2 px are dropped."""
    labels, num_stretches = ndimage.label(keep)
    stretches = [np.flatnonzero(labels == number) for number in range(1, num_stretches + 1)]
    return [
        Crack(crack.line[points], crack.width_px[points], crack.brightness[points])
        for points in stretches
        if len(points) * SPACING_PX >= 2.0
    ]


def _ends(rng: np.random.Generator, cells: int) -> tuple[tuple[int, int], tuple[int, int], bool]:
    """Where a main path enters, where it ends, and whether that end lies inside the photo."""
    low, high = cells // 8, cells - cells // 8

    def at_side(side: int) -> tuple[int, int]:
        along, edge = int(rng.integers(low, high)), (cells - 1 if side >= 2 else 0)
        return (edge, along) if side % 2 == 0 else (along, edge)

    side = int(rng.integers(4))
    if rng.random() < 0.25:
        inner = cells // 4
        row, column = (int(v) for v in rng.integers(inner, cells - inner, size=2))
        return at_side(side), (row, column), True
    other = (side + (2 if rng.random() < 0.7 else int(rng.choice([1, 3])))) % 4
    return at_side(side), at_side(other), False


def _branch(rng: np.random.Generator, cost: Field, parent: Crack, base_brightness: float) -> Crack:
    """A side crack that leaves its parent at 20 to 70 degrees and is .5 to .8 as wide there."""
    cells = cost.shape[0]
    num_points = len(parent.line)
    at = int(rng.integers(num_points // 10, max(num_points * 9 // 10, num_points // 10 + 1)))
    ahead, behind = min(at + 12, num_points - 1), max(at - 12, 0)
    heading = math.atan2(*(parent.line[ahead] - parent.line[behind])[::-1])
    heading += math.radians(rng.uniform(20.0, 70.0)) * (1 if rng.random() < 0.5 else -1)
    heading += math.pi if rng.random() < 0.5 else 0.0
    reach = cells * rng.uniform(0.15, 0.5)
    start = np.clip(parent.line[at] / CELL_PX, 0, cells - 1).astype(int)
    end = np.clip(start + reach * np.array([math.cos(heading), math.sin(heading)]), 0, cells - 1).astype(int)
    low = np.maximum(np.minimum(start, end) - 6, 0)
    high = np.minimum(np.maximum(start, end) + 7, cells)
    window = cost[low[1] : high[1], low[0] : high[0]]
    path = cheapest_path(window, (start[1] - low[1], start[0] - low[0]), (end[1] - low[1], end[0] - low[0]))
    width_px = float(parent.width_px[at]) * rng.uniform(0.5, 0.8)
    return _dress(rng, path + low[::-1], cells, width_px, base_brightness, (False, True))


def _dress(
    rng: np.random.Generator,
    path: np.ndarray,
    cells: int,
    width_px: float,
    base_brightness: float,
    tapers: tuple[bool, bool],
) -> Crack:
    """Turn a path of cells into a centreline with sub-pixel jitter, width and brightness."""
    line = (path[:, ::-1] + 0.5) * CELL_PX
    line = _past_the_rim(line, path, cells)
    line = np.asarray(ndimage.gaussian_filter1d(line, 0.8 + 0.08 * width_px, axis=0, mode="nearest"))
    line = resample(line, SPACING_PX)
    num_points = len(line)
    bends = 0.5 * max(width_px - 4.0, 0.0) * 0.12 * smooth_profile(rng, num_points, 26)
    sway = bends + 0.55 * smooth_profile(rng, num_points, 16) + 0.28 * smooth_profile(rng, num_points, 6)
    line = line + normals(line) * sway[:, None] * min(1.0, 0.4 + width_px / 8.0)
    swell = 0.30 * smooth_profile(rng, num_points, 90) + 0.18 * smooth_profile(rng, num_points, 20)
    ragged = smooth_profile(rng, num_points, 4) + smooth_profile(rng, num_points, 9)
    ragged *= 0.13 * min(1.0, 6.0 / width_px)  # a px at most, however wide the crack
    taper = np.ones(num_points)
    fade = max(min(num_points, 2 * int(12 + 5 * width_px)), 2)
    if tapers[0]:
        taper[:fade] *= np.sqrt(np.linspace(0.0, 1.0, fade))
    if tapers[1]:
        taper[-fade:] *= np.sqrt(np.linspace(1.0, 0.0, fade))
    width = width_px * np.maximum(1.0 + swell + ragged, 0.25) * taper
    brightness = base_brightness + 0.09 * smooth_profile(rng, num_points, 60)
    return Crack(line, np.clip(width, MIN_WIDTH_PX, MAX_WIDTH_PX), np.clip(brightness, 0.55, 0.95))


def _past_the_rim(line: Line, path: np.ndarray, cells: int) -> Line:
    """Lengthen ends that reach the rim, so that the crack leaves the photo instead of stopping at its edge."""
    parts = [line]
    for first, second in ((0, min(4, len(line) - 1)), (-1, max(-5, -len(line)))):
        if (path[first] == 0).any() or (path[first] == cells - 1).any():
            beyond = line[first] + (line[first] - line[second])
            parts = [beyond[None], *parts] if first == 0 else [*parts, beyond[None]]
    return np.concatenate(parts)


def _with_gaps(rng: np.random.Generator, crack: Crack, chance: float) -> list[Crack]:
    """Cut out stretches where the crack is closed: neither drawn nor labelled."""
    keep = np.ones(len(crack.line), bool)
    width_px = crack.width_px.copy()
    chance *= min(1.0, 4.0 / float(width_px.mean()))  # wide cracks seldom close
    while rng.random() < chance:
        at, length = int(rng.integers(len(keep))), int(rng.integers(6, 34))
        keep[at : at + length] = False
        distance_px = np.maximum(np.abs(np.arange(len(keep)) - (at + length / 2)) - length / 2, 0.0) * SPACING_PX
        width_px *= np.sqrt(np.minimum(distance_px / (1.5 * crack.width_px + 1.0), 1.0))
    return keep_where(replace(crack, width_px=np.maximum(width_px, MIN_WIDTH_PX)), keep)


def _slimmed(pieces: list[Crack], size_px: int) -> list[Crack]:
    """The same cracks, narrower where together they would fill more of the photo than real ones do."""
    share = sum(float(piece.width_px.sum()) for piece in pieces) * SPACING_PX / size_px**2
    factor = min(1.0, MAX_SHARE / max(share, 1e-9))
    return [replace(piece, width_px=np.maximum(piece.width_px * factor, MIN_WIDTH_PX)) for piece in pieces]
