"""Score a model, or anything that predicts, over photos: whole images at native resolution, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import nn

from crack_sweeps.data.masks import read_pair
from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.errors import NotFiniteError, OutOfMemory
from crack_sweeps.evaluation.counts import PixelCounts, count_pixels, stack
from crack_sweeps.evaluation.scores import Evaluation
from crack_sweeps.evaluation.tiles import Predict, predict_image

SMALLER = (
    "end what else runs on the device, or choose a smaller `evaluation.tile_px`, encoder or "
    "`model.decoder_cfg.width_multiplier`"
)


@dataclass(frozen=True, eq=False)
class PhotoCounts:
    """One photo that has been scored."""

    name: str
    group: str
    counts: PixelCounts


def predictor(
    model: nn.Module,
    *,
    tile_px: int,
    overlap: float,
    device: torch.device,
    batch_size: int,
    amp_dtype: torch.dtype | None,
    notify: Callable[[str], None] = lambda _: None,
    remedy: str = SMALLER,
) -> Predict:
    """`predict_image` with everything but the photo filled in.

    Where the device runs out of memory, half as many tiles are seen at once from there on; where they lie, and so the
    prediction up to rounding, stays the same.

    Args:
        notify: Told each time that there are fewer at once.
        remedy: What a person can do where not one fits; the rest are those of `predict_image`.

    Raises:
        OutOfMemory: When it is called and the device does not hold one tile.
    """

    def predict(image_HW3: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W"]:
        nonlocal batch_size
        while True:
            try:
                return predict_image(
                    model,
                    image_HW3,
                    tile_px=tile_px,
                    overlap=overlap,
                    device=device,
                    batch_size=batch_size,
                    amp_dtype=amp_dtype,
                )
            except torch.OutOfMemoryError as error:
                if batch_size == 1:
                    raise OutOfMemory(
                        f"out of memory: {device} has no memory for one tile of {tile_px} px", hint=remedy
                    ) from error
            # Outside the handler: the error's traceback keeps the batch that did not fit.
            batch_size //= 2
            torch.cuda.empty_cache()
            notify(f"out of memory: {batch_size} tile{'' if batch_size == 1 else 's'} at once from here on")

    return predict


def each_photo(predict: Predict, photos: Iterable[Photo], rule: ResolvedMaskRule) -> Iterator[PhotoCounts]:
    """Score one photo after the other; leave the loop to stop. Between two photos nothing is held but the counts.

    Raises:
        DataError: A photo or mask cannot be read.
        NotFiniteError: The prediction is NaN somewhere; that is a failure with a reason, never a score.
        OutOfMemory: The device does not hold one tile.
    """
    for photo in photos:
        image_HW3, mask_HW = read_pair(photo, rule)
        probability_HW = predict(image_HW3)
        if np.isnan(probability_HW).any():
            raise NotFiniteError(
                f"{photo.image}: the model's prediction is not a number",
                hint="mixed precision may overflow; try `training.use_amp=false`",
            )
        yield PhotoCounts(photo.name, photo.group, count_pixels(probability_HW, mask_HW))


def gather(scored: Iterable[PhotoCounts]) -> Evaluation:
    """All photos that `each_photo` gave, as one evaluation."""
    parts = tuple(scored)
    return Evaluation(
        names=tuple(part.name for part in parts),
        groups=tuple(part.group for part in parts),
        counts=stack([part.counts for part in parts]),
    )


def evaluate(
    model: nn.Module,
    photos: Sequence[Photo],
    rule: ResolvedMaskRule,
    *,
    tile_px: int,
    overlap: float,
    device: torch.device,
    batch_size: int,
    amp_dtype: torch.dtype | None,
) -> Evaluation:
    """Score a model over all photos in one go; to show progress or stop, use `each_photo` and `gather`."""
    predict = predictor(
        model, tile_px=tile_px, overlap=overlap, device=device, batch_size=batch_size, amp_dtype=amp_dtype
    )
    return gather(each_photo(predict, photos, rule))


def same_few(photos: Sequence[Photo], num_photos: int | None) -> tuple[Photo, ...]:
    """The photos scored after every epoch: always the same, evenly spread over the list; None, or enough, is all."""
    if num_photos is None or num_photos >= len(photos):
        return tuple(photos)
    return tuple(photos[(2 * i + 1) * len(photos) // (2 * num_photos)] for i in range(num_photos))
