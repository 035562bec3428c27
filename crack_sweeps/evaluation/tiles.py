"""Predict a photo of any size at native resolution, by overlapping tiles that fade into each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import nn

Predict = Callable[[UInt8[np.ndarray, "H W 3"]], Float32[np.ndarray, "H W"]]

# Weights of the window are whole numbers up to 2^10 + 1. A float32 probability (24 bits) times two of them (11 bits
# each) is exact in float64 (53 bits), and so is the sum of 64 equal ones: where tiles agree on a pixel, their
# average is that very value, and no pixel changes sides of a threshold because it was tiled.
_WINDOW_HEIGHT = 1024


def tile_starts(length_px: int, tile_px: int, overlap: float) -> tuple[int, ...]:
    """Where tiles begin along one side: evenly spread, the last one flush with the end, overlapping at least as asked.

    A function of the three numbers alone; a side no longer than a tile has one, at 0.
    """
    if length_px <= tile_px:
        return (0,)
    stride = max(1, int(tile_px * (1 - overlap)))
    num_gaps = -((tile_px - length_px) // stride)
    return tuple(i * (length_px - tile_px) // num_gaps for i in range(num_gaps + 1))


def _window(tile_px: int) -> Int64[np.ndarray, " T"]:
    """One side of the smooth window: a raised cosine, 1 at the rim so that the photo's own rim has a weight too."""
    position = (np.arange(tile_px) + 0.5) / tile_px
    window_T: Int64[np.ndarray, " T"] = 1 + np.rint(_WINDOW_HEIGHT * np.sin(np.pi * position) ** 2).astype(np.int64)
    return window_T


def _summed(window_T: Int64[np.ndarray, " T"], starts: Sequence[int]) -> Int64[np.ndarray, " L"]:
    """The windows of all tiles along one side, added up."""
    total = np.zeros(starts[-1] + len(window_T), dtype=np.int64)
    for start in starts:
        total[start : start + len(window_T)] += window_T
    return total


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, then every module back in its own mode (frozen layers of a model in training stay frozen)."""
    were_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in were_training:
            module.training = True


def _tile_probabilities(
    model: nn.Module,
    image_HW3: UInt8[np.ndarray, "H W 3"],
    corners: Sequence[tuple[int, int]],
    *,
    tile_px: int,
    device: torch.device,
    batch_size: int,
    amp_dtype: torch.dtype | None,
) -> Iterator[Float32[np.ndarray, "T T"]]:
    """The probabilities of each tile, in the order of the corners; never more than a batch of them at once."""
    for first in range(0, len(corners), batch_size):
        tiles = [image_HW3[y : y + tile_px, x : x + tile_px] for y, x in corners[first : first + batch_size]]
        pixels_B3TT = torch.from_numpy(np.stack(tiles)).to(device).permute(0, 3, 1, 2)
        # no_grad, not inference mode: a module may keep a tensor that it made here, and training would trip over it.
        with torch.no_grad(), torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            logits_B1TT = model(pixels_B3TT.to(torch.float32, memory_format=torch.contiguous_format) / 255)
        assert logits_B1TT.shape == (len(tiles), 1, tile_px, tile_px), f"logits of shape {tuple(logits_B1TT.shape)}"
        yield from torch.sigmoid(logits_B1TT.float())[:, 0].cpu().numpy()


def _blend(
    tiles: Iterator[Float32[np.ndarray, "T T"]], rows: Sequence[int], columns: Sequence[int], tile_px: int
) -> Float32[np.ndarray, "H W"]:
    """The weighted mean of tiles that arrive row by row, holding one strip of sums as high as a tile."""
    window_T = _window(tile_px)
    window_TT: Float64[np.ndarray, "T T"] = np.outer(window_T, window_T).astype(np.float64)
    row_weights_H, column_weights_W = _summed(window_T, rows), _summed(window_T, columns)
    height, width = len(row_weights_H), len(column_weights_W)
    blended_HW = np.empty((height, width), dtype=np.float32)
    strip_TW = np.zeros((tile_px, width))
    for y, next_y in zip(rows, [*rows[1:], height], strict=True):
        for x in columns:
            strip_TW[:, x : x + tile_px] += window_TT * next(tiles)
        done = next_y - y
        blended_HW[y:next_y] = strip_TW[:done] / np.outer(row_weights_H[y:next_y], column_weights_W)
        strip_TW = np.concatenate([strip_TW[done:], np.zeros((done, width))])
    return blended_HW


def predict_image(
    model: nn.Module,
    image_HW3: UInt8[np.ndarray, "H W 3"],
    *,
    tile_px: int,
    overlap: float,
    device: torch.device,
    batch_size: int,
    amp_dtype: torch.dtype | None,
) -> Float32[np.ndarray, "H W"]:
    """The probability of crack at every pixel of a photo; NaN where the model gives NaN.

    The model is in eval mode meanwhile and afterwards as it was; no random number is drawn. Besides photo and result,
    memory holds one batch of tiles and one strip as high as a tile.

    Args:
        model: On `device`; photos in [0, 1] in, logits of the same height and width out.
        image_HW3: RGB. A side shorter than a tile is continued by reflection.
        tile_px: Side of a tile, px.
        overlap: Least share of a tile that its neighbour covers too, 0 .. 0.75.
        device: Where the model is.
        batch_size: Tiles per forward pass; where tiles lie does not depend on it.
        amp_dtype: Type of mixed precision; None is float32.
    """
    height, width = image_HW3.shape[:2]
    missing_y, missing_x = max(0, tile_px - height), max(0, tile_px - width)
    top, left = missing_y // 2, missing_x // 2
    if missing_y or missing_x:
        rims = ((top, missing_y - top), (left, missing_x - left), (0, 0))
        image_HW3 = np.pad(image_HW3, rims, mode="reflect")
    rows = tile_starts(image_HW3.shape[0], tile_px, overlap)
    columns = tile_starts(image_HW3.shape[1], tile_px, overlap)
    corners = [(y, x) for y in rows for x in columns]
    with _evaluating(model):
        tiles = _tile_probabilities(
            model,
            image_HW3,
            corners,
            tile_px=tile_px,
            device=device,
            batch_size=batch_size,
            amp_dtype=amp_dtype,
        )
        blended_HW = _blend(tiles, rows, columns, tile_px)
    return blended_HW[top : top + height, left : left + width]
