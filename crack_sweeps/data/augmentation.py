"""Turn augmentations written as text into one albumentations pipeline, and run it with a given sample's randomness."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.augmentations import AugmentationCall, parse_augmentation

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or the import asks the network for a newer version
import albumentations as A
from albumentations.augmentations.crops.transforms import CropSizeError

Image = UInt8[np.ndarray, "H W 3"]
Mask = UInt8[np.ndarray, "H W"]

# What albumentations and OpenCV raise on arguments that are well-typed but impossible for this crop.
_REFUSALS = (ValueError, TypeError, KeyError, IndexError, AttributeError, ZeroDivisionError, cv2.error, CropSizeError)

# What it warns about although the transform does as it is told. All its other warnings mean that something was dropped.
_ADVICE = r"This augmenter is very slow|\w+ is (a special|an alias)"


def build_pipeline(texts: Sequence[str]) -> A.Compose:
    """The calls in order, as one pipeline. What albumentations only warns about (a name or value it drops) is refused.

    Raises:
        SpecError: A text is no valid call, or would blend the two values of a mask.
    """
    return A.Compose([_transform(text) for text in texts])


def augment(pipeline: A.Compose, image_HW3: Image, mask_HW: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
    """One sample through the pipeline, everything random in it from `rng`.

    All transforms draw from one stream. albumentations' own `set_random_seed` gives each transform a stream with the
    same start instead, so that three flips with p=0.5 happen all together or not at all.

    Raises:
        SpecError: The result is no uint8 crop of the same size with a mask of 0 and 1.
    """
    pipeline.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    done = pipeline(image=image_HW3, mask=mask_HW)
    image, mask = done["image"], done["mask"]
    problem = _difference(image_HW3, mask_HW, image, mask)
    if problem is not None:
        raise SpecError(f"data.transform.augmentations: {problem}", hint="take out the one that does so")
    return image, mask


def check_on_crop(texts: Sequence[str], crop_px: int) -> None:
    """Runs each augmentation once on a made-up crop, so that what cannot work is told before any training.

    Raises:
        SpecError: It fails on a crop of this size, or gives something that is no such crop.
    """
    rng = np.random.default_rng(0)
    image_HW3 = rng.integers(0, 256, (crop_px, crop_px, 3), dtype=np.uint8)
    mask_HW = np.eye(crop_px, dtype=np.uint8)
    for text in texts:
        transform = _transform(text)
        transform.set_random_state(rng, random.Random(0))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # or each sample would say the same again
                done = transform(force_apply=True, image=image_HW3.copy(), mask=mask_HW.copy())
        except (*_REFUSALS, UserWarning) as error:
            raise _refused(text, f"fails on a {crop_px} px crop: {_one_line(error)}") from error
        problem = _difference(image_HW3, mask_HW, done["image"], done["mask"])
        if problem is not None:
            raise _refused(text, problem)


def _transform(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=_ADVICE, category=UserWarning)
        try:
            return _build(parse_augmentation(text))
        except (*_REFUSALS, UserWarning) as error:
            raise _refused(text, _one_line(error)) from error


def _build(call: AugmentationCall) -> Any:
    transform = getattr(A, call.name.removeprefix("A."))(
        *(_argument(value) for value in call.args),
        **{key: _argument(value) for key, value in call.kwargs.items()},
    )
    if vars(transform).get("mask_interpolation") not in (None, cv2.INTER_NEAREST):
        raise ValueError("mask_interpolation would blend crack and background; leave it out, masks are read nearest")
    return transform


def _argument(value: object) -> object:
    if isinstance(value, AugmentationCall):
        return _build(value)
    if isinstance(value, list | tuple):
        return type(value)(_argument(item) for item in value)
    return value


def _difference(image_HW3: Image, mask_HW: Mask, image: Image, mask: Mask) -> str | None:
    """What the augmentation may not have changed, in words; None where all is well."""
    for before, after in ((image_HW3, image), (mask_HW, mask)):
        if after.shape != before.shape or after.dtype != before.dtype:
            return f"{before.dtype} {before.shape} became {after.dtype} {after.shape}"
    highest = int(mask.max())
    return None if highest <= 1 else f"a mask of 0 and 1 came to hold {highest}"


def _refused(text: str, reason: str) -> SpecError:
    return SpecError(
        f"data.transform.augmentations: `{text}`: {reason}", hint="correct its arguments or take it out of the list"
    )


def _one_line(error: Exception | Warning) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if (
        len(lines) > 2 and "validation error" in lines[0]
    ):  # pydantic: a count, then a field and its trouble, then a link
        lines = [f"{lines[1]}: {lines[2].split(' [type=')[0].removeprefix('Value error, ')}"]
    return " ".join(lines)[:200] or type(error).__name__
