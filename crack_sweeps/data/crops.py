"""Cut one training crop out of one photo: a function of (seed, epoch, position) and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from crack_sweeps.data.augmentation import augment, build_pipeline, check_on_crop
from crack_sweeps.data.cache import DecodedPhoto, PhotoCache
from crack_sweeps.data.masks import read_pair
from crack_sweeps.data.photos import Photo, ResolvedMaskRule

# First words of the seeds, so that order and crops draw from unrelated streams. They must differ from each other and
# from 0: numpy pads short seeds with zeros, and (1, 2) is the same stream as (1, 2, 0).
_ORDER, _CROP, _CLASS, _MIX = 0x6F726472, 0x63726F70, 0x636C6173, 0x6D697865

# A crop that seeks a crack holds the chosen pixel at least this share of its side away from its border, where the
# photo allows it: rotations and scalings would else push it out again.
_MARGIN = 1 / 8


class Draw(NamedTuple):
    """One training sample: the `position`-th of an epoch, cut from photo number `photo`."""

    epoch: int
    position: int
    photo: int


def draws(seed: int, epoch: int, num_photos: int, count: int, weights: Sequence[float] | None = None) -> list[Draw]:
    """The samples of one epoch, in order; any epoch can be had without those before it.

    Photos come in permutations laid end to end over all epochs: where every epoch has `count` samples, no photo comes
    up a second time before each of the others came up once, however short the epochs. With weights this holds among
    the photos of one weight, which share the samples of each epoch with the others in proportion.

    Args:
        weights: How often each photo comes up, relative to the others; None is all alike.
    """
    if weights is None or len(set(weights)) == 1:
        photos = _in_turn((_ORDER, seed), num_photos, first=epoch * count, count=count)
        return [Draw(epoch, position, photo) for position, photo in enumerate(photos)]
    classes = [[photo for photo in range(num_photos) if weights[photo] == weight] for weight in sorted(set(weights))]
    quotas = _quotas([weights[photos[0]] * len(photos) for photos in classes], count)
    mixed = [
        photos[place]
        for number, (photos, quota) in enumerate(zip(classes, quotas, strict=True))
        for place in _in_turn((_CLASS, seed, number), len(photos), first=epoch * quota, count=quota)
    ]
    order = np.random.default_rng((_MIX, seed, epoch)).permutation(count)
    return [Draw(epoch, position, mixed[place]) for position, place in enumerate(order)]


def _in_turn(stream: tuple[int, ...], num_photos: int, *, first: int, count: int) -> list[int]:
    """`count` numbers from the `first` on of a sequence of permutations."""
    rounds = range(first // num_photos, -(-(first + count) // num_photos))
    photos = [
        int(photo) for number in rounds for photo in np.random.default_rng((*stream, number)).permutation(num_photos)
    ]
    skipped = first % num_photos
    return photos[skipped : skipped + count]


def _quotas(parts: Sequence[float], count: int) -> list[int]:
    """`count` shared out in proportion to the parts, none of which goes without if there is enough for all."""
    exact = [part * count / sum(parts) for part in parts]
    quotas = [max(int(share), 1 if count >= len(parts) else 0) for share in exact]
    by_rest = sorted(range(len(parts)), key=lambda number: quotas[number] - exact[number])
    for step in range(count - sum(quotas)):
        quotas[by_rest[step % len(parts)]] += 1
    while sum(quotas) > count:
        quotas[max(range(len(parts)), key=lambda number: (quotas[number] - exact[number], quotas[number]))] -= 1
    return quotas


class CropDataset:
    """Training crops at native resolution; `dataset[draw]` is the same crop in every process and in every order.

    Args:
        photos: The training photos; `Draw.photo` counts in them.
        rule: How their masks are read.
        crop_px: Side of a crop. Smaller photos are continued by their mirror image.
        crack_crop_fraction: Share of crops that are moved onto a crack; the rest lie anywhere.
        augmentations: albumentations calls as text.
        seed: Of crops and augmentations.
        cache_bytes: Memory for decoded photos.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        rule: ResolvedMaskRule,
        *,
        crop_px: int,
        crack_crop_fraction: float,
        augmentations: Sequence[str],
        seed: int,
        cache_bytes: int,
    ) -> None:
        self.photos = tuple(photos)
        self.rule = rule
        self.crop_px = crop_px
        self.crack_crop_fraction = crack_crop_fraction
        self.augmentations = tuple(augmentations)
        self.seed = seed
        self.cache = PhotoCache(cache_bytes)
        check_on_crop(self.augmentations, crop_px)
        self._pipeline = build_pipeline(self.augmentations)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, draw: Draw) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
        """Image and mask of one crop. They may be views of the cache: read-only where nothing was augmented."""
        rng = np.random.default_rng((_CROP, self.seed, draw.epoch, draw.position))
        photo = self.cache.get(draw.photo, lambda: self._decode(draw.photo))
        top, left = self._place(photo, rng)
        window = np.s_[top : top + self.crop_px, left : left + self.crop_px]
        if not self.augmentations:
            return photo.image_HW3[window], photo.mask_HW[window]
        # A copy, because some augmentations write into their input; the cache is read-only, so none can do so unseen.
        return augment(self._pipeline, photo.image_HW3[window].copy(), photo.mask_HW[window].copy(), rng)

    def describe(self, draw: Draw) -> str:
        """The photo's file, for messages."""
        return str(self.photos[draw.photo].image)

    def split_among(self, num_processes: int) -> CropDataset:
        """The same crops, for one of several processes that share the memory limit."""
        return CropDataset(
            self.photos,
            self.rule,
            crop_px=self.crop_px,
            crack_crop_fraction=self.crack_crop_fraction,
            augmentations=self.augmentations,
            seed=self.seed,
            cache_bytes=self.cache.limit_bytes // num_processes,
        )

    def _decode(self, number: int) -> DecodedPhoto:
        image_HW3, mask_HW = read_pair(self.photos[number], self.rule)
        return DecodedPhoto.of(_at_least(image_HW3, self.crop_px), _at_least(mask_HW, self.crop_px))

    def _place(self, photo: DecodedPhoto, rng: np.random.Generator) -> tuple[int, int]:
        """Top and left of the crop."""
        height, width = photo.mask_HW.shape
        seeks = rng.random() < self.crack_crop_fraction
        if not seeks or photo.cracks.size == 0:
            return int(rng.integers(height - self.crop_px + 1)), int(rng.integers(width - self.crop_px + 1))
        row, column = divmod(int(photo.cracks[rng.integers(photo.cracks.size)]), width)
        margin = int(self.crop_px * _MARGIN)
        into = rng.integers(margin, self.crop_px - margin, size=2)
        top = min(max(row - int(into[0]), 0), height - self.crop_px)
        left = min(max(column - int(into[1]), 0), width - self.crop_px)
        return top, left


def _at_least(array: UInt8[np.ndarray, "H W *channels"], side_px: int) -> UInt8[np.ndarray, "H2 W2 *channels"]:
    """The array itself, or continued by its mirror image on both sides until no side is shorter than `side_px`."""
    height, width = array.shape[:2]
    missing_rows, missing_columns = max(side_px - height, 0), max(side_px - width, 0)
    if missing_rows == missing_columns == 0:
        return array
    above, before = missing_rows // 2, missing_columns // 2
    padded: UInt8[np.ndarray, "H2 W2 *channels"] = cv2.copyMakeBorder(
        array, above, missing_rows - above, before, missing_columns - before, cv2.BORDER_REFLECT_101
    )
    return padded
