"""Keep decoded photos in memory up to a limit in bytes; what does not fit is read again each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8, UInt32


@dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """A photo and its mask as arrays that nobody may write to, and where its cracks are.

    Args:
        image_HW3: RGB.
        mask_HW: 1 on crack, 0 elsewhere.
        cracks: Linear index (row x width + column) of every crack pixel, so that picking one is one look-up.
    """

    image_HW3: UInt8[np.ndarray, "H W 3"]
    mask_HW: UInt8[np.ndarray, "H W"]
    cracks: UInt32[np.ndarray, " N"]

    @classmethod
    def of(cls, image_HW3: UInt8[np.ndarray, "H W 3"], mask_HW: UInt8[np.ndarray, "H W"]) -> DecodedPhoto:
        """Freezes both arrays (no copy) and tabulates the crack pixels."""
        cracks = np.flatnonzero(mask_HW).astype(np.uint32)
        for array in (image_HW3, mask_HW, cracks):
            array.flags.writeable = False
        return cls(image_HW3, mask_HW, cracks)

    @property
    def num_bytes(self) -> int:
        """Memory of the three arrays."""
        return self.image_HW3.nbytes + self.mask_HW.nbytes + self.cracks.nbytes


class PhotoCache:
    """Photos by number. The first ones that fit stay for good.

    Nothing is ever thrown out: an epoch is a permutation, under which every photo is equally likely to come next, so
    that putting a new one in the place of an old one costs a decode and gains nothing.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._photos: dict[int, DecodedPhoto] = {}

    def __len__(self) -> int:
        return len(self._photos)

    def get(self, number: int, decode: Callable[[], DecodedPhoto]) -> DecodedPhoto:
        """The photo itself, never a copy; decoded if it is not here, kept if there is room."""
        kept = self._photos.get(number)
        if kept is not None:
            return kept
        photo = decode()
        if self.used_bytes + photo.num_bytes <= self.limit_bytes:
            self._photos[number] = photo
            self.used_bytes += photo.num_bytes
        return photo
