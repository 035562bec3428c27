"""Decode one mask file to the values that stand in it: 1-bit, grey, 16-bit, palette, colour, MATLAB. Judges nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from crack_sweeps.data.images import load_upright
from crack_sweeps.data.matlab import MatlabError, Struct, read_matlab
from crack_sweeps.errors import DataError

GreyValues = UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"]
Colours = UInt8[np.ndarray, "H W 3"]
_CHANNELS = {"red": 0, "green": 1, "blue": 2}


def read_values(path: Path, channel: str | None = None) -> GreyValues | Colours:
    """What stands in a mask file: one value per pixel, or three where it is coloured and `channel` does not choose.

    1-bit files give 0 and 255. A palette gives its greys, or its indices where it holds colours (the label convention
    of Pascal VOC). Alpha is left out where it is the same everywhere; where it is not, it is an error.
    """
    if path.suffix.lower() == ".mat":
        return read_mat(path)
    return as_values(load_upright(path), path, channel)


def as_values(mask: Image.Image, path: Path, channel: str | None = None) -> GreyValues | Colours:
    """The same for a mask that is decoded already."""
    if mask.mode == "P":
        return _palette_values(mask, channel)
    if mask.mode in ("1", "L"):
        return np.array(mask.convert("L"), dtype=np.uint8)
    if mask.mode.startswith("I;16"):
        return np.asarray(mask).astype(np.uint16)
    if mask.mode in ("I", "F"):
        return _whole_numbers(np.asarray(mask), path)
    return _colour_values(mask, path, channel)


def pick_channel(colours_HW3: Colours, channel: str) -> UInt8[np.ndarray, "H W"]:
    """One channel of a coloured mask; ``max`` is the brightest of the three."""
    if channel == "max":
        brightest: UInt8[np.ndarray, "H W"] = colours_HW3.max(axis=2)
        return brightest
    return np.ascontiguousarray(colours_HW3[:, :, _CHANNELS[channel]])


def _palette_values(image: Image.Image, channel: str | None) -> GreyValues | Colours:
    indices_HW = np.array(image, dtype=np.uint8)
    colours_HW3 = np.array(image.convert("RGBA"), dtype=np.uint8)[:, :, :3]
    if channel is not None:
        return pick_channel(colours_HW3, channel)
    return np.ascontiguousarray(colours_HW3[:, :, 0]) if _is_grey(colours_HW3) else indices_HW


def _colour_values(image: Image.Image, path: Path, channel: str | None) -> GreyValues | Colours:
    rgba_HW4 = np.array(image.convert("RGBA"), dtype=np.uint8)
    alpha_HW = rgba_HW4[:, :, 3]
    if alpha_HW.min() != alpha_HW.max():
        raise DataError(
            f"{path}: a mask that is transparent in places (alpha {alpha_HW.min()} to {alpha_HW.max()})",
            hint="flatten it on black and save it without alpha; crack must be told by its value",
        )
    colours_HW3 = np.ascontiguousarray(rgba_HW4[:, :, :3])
    if channel is not None:
        return pick_channel(colours_HW3, channel)
    return np.ascontiguousarray(colours_HW3[:, :, 0]) if _is_grey(colours_HW3) else colours_HW3


def _is_grey(colours_HW3: Colours) -> bool:
    red, green, blue = (colours_HW3[:, :, index] for index in range(3))
    return bool(np.array_equal(red, green) and np.array_equal(green, blue))


def read_mat(path: Path) -> GreyValues:
    """CrackForest's ``groundTruth.Segmentation``, or the only 2-D array of numbers in the file."""
    try:
        variables = read_matlab(path)
    except (MatlabError, OSError) as error:
        raise DataError(
            f"{path}: not a whole MATLAB file ({error})",
            hint="copy the file again; in MATLAB, save(name, '-v7') writes what is read here",
        ) from error
    truth = variables.get("groundTruth")
    if isinstance(truth, Struct) and isinstance(labels := truth.get("Segmentation"), np.ndarray):
        return _whole_numbers(labels, path)
    arrays = {
        name: value
        for name, value in variables.items()
        if isinstance(value, np.ndarray) and value.ndim == 2 and min(value.shape) > 1
    }
    if len(arrays) != 1:
        found = ", ".join(sorted(variables)) or "nothing"
        raise DataError(
            f"{path}: holds {found}; looked for groundTruth.Segmentation or one 2-D array of numbers",
            hint="write the labels as PNG, or as the only array of the file",
        )
    return _whole_numbers(next(iter(arrays.values())), path)


def _whole_numbers(values: np.ndarray, path: Path) -> GreyValues:
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "buif":
        raise DataError(
            f"{path}: {values.ndim}-D array of {values.dtype}, not one label per pixel", hint="write the labels as PNG"
        )
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 65535) or (values.dtype.kind == "f" and bool((values != np.rint(values)).any())):
        raise DataError(
            f"{path}: values from {low:g} to {high:g}; masks hold whole numbers from 0 to 65535",
            hint="save the mask with 8 or 16 bits per pixel, for example 0 and 255",
        )
    return values.astype(np.uint8 if high <= 255 else np.uint16)
