"""Read one photo as people see it: RGB, upright, whole; or say which file is damaged."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from crack_sweeps.errors import DataError

# Pillow's own limit against decompression bombs (256 MiB of RGB); it only warns there, we stop.
MAX_PIXELS = 89_478_485
_ORIENTATION = 0x0112  # the EXIF tag
_HEAD_BYTES = 64
# What Pillow's plugins raise on damaged files, found by truncating and flipping bits in every format (see the tests).
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
)


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """A photo as RGB, upright by its EXIF orientation. 16-bit grey keeps its upper byte; transparency is dropped.

    Raises:
        DataError: The file is missing, damaged, truncated or too large; its name is in the message.
    """
    return as_rgb(load_upright(path), path)


def as_rgb(upright: Image.Image, path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """A photo that is decoded already, as RGB.

    Raises:
        DataError: Its pixels are of a type that nobody can show.
    """
    if upright.mode.startswith("I;16"):
        grey_HW = (np.asarray(upright) >> 8).astype(np.uint8)
        return np.repeat(grey_HW[:, :, None], 3, axis=2)
    if upright.mode in ("I", "F"):
        raise DataError(
            f"{path}: pixels of type {'int32' if upright.mode == 'I' else 'float32'}",
            hint="save the photo with 8 or 16 bits per channel",
        )
    if upright.mode in ("P", "LA", "PA"):  # straight to RGB, Pillow warns about palettes with transparency
        upright = upright.convert("RGBA")
    return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"), dtype=np.uint8)


def load_upright(path: Path) -> Image.Image:
    """An image file decoded to its last byte, in the mode that it was written in, turned as its EXIF says.

    Raises:
        DataError: As `read_image`.
    """
    with _named(path), Image.open(path) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # else it copies the pixels where there is nothing to turn
        return image


def image_size(path: Path) -> tuple[tuple[int, int], bool]:
    """(height, width) in px as `read_image` gives it, from the header alone, and whether EXIF turns it on its side."""
    with _named(path), Image.open(path) as image:
        on_its_side = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        width, height = image.size
        return ((width, height) if on_its_side else (height, width)), on_its_side


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turns whatever Pillow finds wrong with a file into a DataError that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # odd metadata, harmless
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path}: more than {MAX_PIXELS / 1e6:.0f} million pixels",
            hint="cut the photo and its mask into tiles, and give the tiles one group with `data.group_pattern`",
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file", hint="the folder changed while it was in use: start again") from error
    except PermissionError as error:
        raise DataError(f"{path}: may not be read", hint="give yourself the right to read it") from error
    except MemoryError as error:
        raise DataError(f"{path}: does not fit into memory", hint="cut the photo into tiles") from error
    except _DAMAGE as error:
        other = _something_else(path)
        if other is not None:
            raise DataError(f"{path}: {other[0]}", hint=other[1]) from error
        reason = " ".join(str(error).replace(str(path), "the file").split())[:120] or type(error).__name__
        raise DataError(
            f"{path}: not a whole image ({reason})",
            hint="copy or export the file again, or move it and its partner out of the folder",
        ) from error


def _something_else(path: Path) -> tuple[str, str] | None:
    """What a file is that is no image at all, and what to do; None where it is a damaged image."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:  # the caller has an error to tell already
        return None
    if not head:
        return "an empty file (0 bytes)", "copy it again, or move it and its partner out of the folder"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself", "run `git lfs pull` where the set was cloned"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, not an image", "download the file again: the server sent a page in its place"
    return None
