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
EXIF_ORIENTATION = 0x0112
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


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image file, its header read; whatever is wrong with it inside the block becomes a DataError that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # damage that Pillow only mutters about
            with Image.open(path) as image:
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path}: more than {MAX_PIXELS / 1e6:.0f} million pixels",
            hint="cut the photo and its mask into tiles and give them one group (`data.group_pattern`)",
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file", hint="the folder changed while it was in use: start again") from error
    except PermissionError as error:
        raise DataError(f"{path}: may not be read", hint="give yourself the right to read it") from error
    except MemoryError as error:
        raise DataError(f"{path}: too large for this machine's memory", hint="cut the photo into tiles") from error
    except _DAMAGE as error:
        raise DataError(
            f"{path}: not a whole image ({_one_line(error)})",
            hint="copy or export the file again, or move it and its partner out of the folder",
        ) from error


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """A photo as RGB, upright by its EXIF orientation. 16-bit grey keeps its upper byte; transparency is dropped.

    Raises:
        DataError: The file is missing, damaged, truncated or too large; its name is in the message.
    """
    with opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            grey = (np.asarray(upright) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if upright.mode in ("I", "F"):
            raise DataError(
                f"{path}: pixels of type {'int32' if upright.mode == 'I' else 'float32'}",
                hint="save the photo with 8 or 16 bits per channel",
            )
        if upright.mode in ("P", "LA", "PA"):
            upright = upright.convert("RGBA")
        return np.array(upright.convert("RGB"), dtype=np.uint8)


def image_size(path: Path) -> tuple[tuple[int, int], bool]:
    """(height, width) in px as `read_image` gives it, from the header alone, and whether EXIF turned it by 90 degrees."""
    with opened(path) as image:
        turned = image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
        width, height = image.size
        return ((width, height) if turned else (height, width)), turned


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
