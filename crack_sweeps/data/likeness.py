"""Find photos that show the same thing: equal files, and the same picture saved, scaled, turned or mirrored anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32, UInt64

from crack_sweeps.data.examination import THUMB_PX

# The hash compares 64 of the lowest frequencies of the thumbnail (Zauner 2010, pHash). Of 692 real photos the one
# pair saved anew differs in 4 bits and the most alike of the others in 12; the correlation below decides.
_HASH_SIDE = 9
_MOST_BITS = 12
# Thumbnails without what is broad, for two walls in the same light are not the same wall. Measured on the same photos:
# .997 for the pair saved anew, at most .67 for others.
_BROAD_PX = 3.0
_LEAST_CORRELATION = 0.95
_LEAST_DEVIATION = 0.5  # grey levels; below, a picture has nothing to be recognised by
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Likeness:
    """Two photos, by their places in the list, that show the same.

    Args:
        how: ``equal`` files, the ``same`` picture saved anew, or ``turned`` or mirrored.
    """

    one: int
    other: int
    how: Literal["equal", "same", "turned"]


def find_alike(digests: Sequence[str], thumbs: Sequence[bytes]) -> list[Likeness]:
    """All pairs of photos that show the same, of equal files only those with the first one.

    Args:
        digests: SHA-256 of each file.
        thumbs: Each photo in grey, 32x32 px.
    """
    first: dict[str, int] = {}
    equal: list[Likeness] = []
    for place, digest in enumerate(digests):
        earlier = first.setdefault(digest, place)
        if earlier != place:
            equal.append(Likeness(earlier, place, "equal"))
    places = sorted(first.values())
    found = _same_pictures(np.stack([_array(thumbs[place]) for place in places])) if places else ()
    return equal + [Likeness(places[one], places[other], how) for one, other, how in found]


def _same_pictures(thumbs_NHW: Float32[np.ndarray, "N H W"]) -> Iterator[tuple[int, int, Literal["same", "turned"]]]:
    """Places of pictures that correlate, upright or in any of the seven other ways to lay a photo down."""
    fine_NHW = np.stack([thumb_HW - cv2.GaussianBlur(thumb_HW, (0, 0), _BROAD_PX) for thumb_HW in thumbs_NHW])
    fine_NHW -= fine_NHW.mean(axis=(1, 2), keepdims=True)
    deviation_N = fine_NHW.std(axis=(1, 2))
    telling = np.flatnonzero(deviation_N >= _LEAST_DEVIATION)
    if len(telling) < 2:
        return
    unit_NHW = fine_NHW[telling] / (THUMB_PX * deviation_N[telling, None, None])
    thumbs_NHW = thumbs_NHW[telling]
    hashes_N = _hashes(thumbs_NHW)
    told: set[tuple[int, int]] = set()
    for turn in range(8):
        turned_N, turned_NHW = _hashes(_laid(thumbs_NHW, turn)), _laid(unit_NHW, turn)
        for one, other in _near(hashes_N, turned_N):
            if (one, other) in told or float((unit_NHW[one] * turned_NHW[other]).sum()) < _LEAST_CORRELATION:
                continue
            told.add((one, other))
            yield int(telling[one]), int(telling[other]), "same" if turn == 0 else "turned"


def _near(one_N: UInt64[np.ndarray, " N"], other_N: UInt64[np.ndarray, " N"]) -> Iterator[tuple[int, int]]:
    """Places i < j whose hashes differ in few bits."""
    for start in range(0, len(one_N), _BLOCK):
        differing = np.bitwise_count(one_N[start : start + _BLOCK, None] ^ other_N[None, start:])
        for row, column in zip(*np.nonzero(differing <= _MOST_BITS), strict=True):
            if column > row:
                yield start + int(row), start + int(column)


def _hashes(thumbs_NHW: Float32[np.ndarray, "N H W"]) -> UInt64[np.ndarray, " N"]:
    """64 bits: whether each of the lowest frequencies but the mean is above the median of them."""
    row, column = np.arange(_HASH_SIDE)[:, None], np.arange(THUMB_PX)[None]
    basis = np.cos(np.pi * (2 * column + 1) * row / (2 * THUMB_PX)).astype(np.float32)
    waves_NK = (basis @ thumbs_NHW @ basis.T).reshape(len(thumbs_NHW), -1)[:, 1:65]
    bits_NK = waves_NK > np.median(waves_NK, axis=1, keepdims=True)
    packed: UInt64[np.ndarray, " N"] = np.packbits(bits_NK, axis=1).view(np.uint64)[:, 0]
    return packed


def _laid(pictures_NHW: Float32[np.ndarray, "N H W"], turn: int) -> Float32[np.ndarray, "N H W"]:
    """Pictures turned by quarters, and mirrored from the fourth on; 0 leaves them as they are."""
    turned = np.rot90(pictures_NHW, turn % 4, axes=(1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if turn >= 4 else turned)


def _array(thumb: bytes) -> Float32[np.ndarray, "H W"]:
    return np.frombuffer(thumb, np.uint8).reshape(THUMB_PX, THUMB_PX).astype(np.float32)
