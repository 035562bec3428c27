"""Somebody's prediction images: matched with masks by name, and read as grey values 0 to 255."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from crack_sweeps.data.folders import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    files_in,
    is_mask_name,
    listing,
    require_folder,
    without_mask_word,
)
from crack_sweeps.data.images import image_size, load_upright
from crack_sweeps.data.masks import read_mask
from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.errors import DataError

# How published code names what it predicts: SCSegamba and MixerCSeg write 1_pre.png, DeepSegmentor 1_fake_B.png.
_WORDS = r"preds?|predictions?|pre|probs?|probability|out|outputs?|results?|fake_b"
_ENDING = re.compile(rf"[-_. ]({_WORDS})$", re.IGNORECASE)
_BEGINNING = re.compile(rf"^({_WORDS})[-_. ]", re.IGNORECASE)
_SHOWN = 3


@dataclass(frozen=True)
class Paired:
    """Predictions with their masks.

    Args:
        photos: By name; `image` is the prediction, not a photograph. Each is a group of its own.
        unused: Predictions that no mask is named like.
    """

    photos: tuple[Photo, ...]
    unused: tuple[Path, ...]


def pair_predictions(predictions: Path, masks: Path) -> Paired:
    """Match the files of two folders by name; endings such as ``_pred`` and ``_mask`` are no part of it.

    Raises:
        DataError: A folder is missing or holds no picture, a mask has no prediction, or two files share a name.
    """
    predicted = _by_name(predictions, IMAGE_SUFFIXES, "prediction")
    true = _by_name(masks, MASK_SUFFIXES, "mask")
    missing = [path for name, path in true.items() if name not in predicted]
    if len(missing) == len(true):
        first = next(iter(predicted.values()))
        raise DataError(
            f"{predictions}: none of {_count(len(true), 'mask')} in {masks} has a prediction in it; "
            f"the first mask is {missing[0].name}, the first prediction {first.name}",
            hint="name each prediction like its mask: 1.png, 1_pred.png with 1.png, 1_mask.png or 1_GT.png",
        )
    if missing:
        raise DataError(
            f"{predictions}: {len(missing)} of {_count(len(true), 'mask')} in {masks} without a prediction: "
            f"{_names(missing)}",
            hint="a score is over all masks of its folder: predict the rest, or move these masks out",
        )
    photos = tuple(Photo(name, predicted[name], path, "test", name) for name, path in true.items())
    for photo in photos:
        if photo.image.resolve() == photo.mask.resolve():
            raise DataError(
                f"{photo.mask}: prediction and mask are one and the same file", hint="name the two folders apart"
            )
    return Paired(photos, tuple(path for name, path in predicted.items() if name not in true))


def check_sizes(photos: Sequence[Photo]) -> None:
    """Compare the headers of all files, so that a mismatch is told at once; MATLAB files are compared when read.

    Raises:
        DataError: A prediction is not of its mask's size.
    """
    wrong = [said for photo in photos if photo.mask.suffix.lower() != ".mat" for said in _size_mismatch(photo)]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {_count(len(photos), 'prediction')} not of the mask's size: {wrong[0]}", hint=_RESIZE
        )


_RESIZE = "save predictions at the photo's own size, or let `--resize` bring them to that of the masks"


def read_prediction(path: Path) -> UInt8[np.ndarray, "H W"]:
    """The grey values of a prediction, as they are written; 1-bit files give 0 and 255.

    Raises:
        DataError: The file is damaged, in colour, transparent in places, or has not 8 bits.
    """
    picture = load_upright(path)
    if picture.mode in ("1", "L"):
        return np.array(picture.convert("L"), dtype=np.uint8)
    if picture.mode == "F" or picture.mode.startswith("I"):
        bits = "floating point numbers" if picture.mode == "F" else "16 or 32 bits"
        raise DataError(
            f"{path}: a prediction of {bits} a pixel",
            hint="save the probability of crack as 8-bit grey: round(255 p)",
        )
    colours_HW4 = np.array(picture.convert("RGBA"), dtype=np.uint8)
    if colours_HW4[:, :, 3].min() != colours_HW4[:, :, 3].max():
        raise DataError(
            f"{path}: a prediction that is transparent in places", hint="save it as 8-bit grey, without alpha"
        )
    if (colours_HW4[:, :, 0] != colours_HW4[:, :, 1]).any() or (colours_HW4[:, :, 0] != colours_HW4[:, :, 2]).any():
        raise DataError(
            f"{path}: a prediction in colour",
            hint="save the probability of crack as 8-bit grey, no overlay and no colour map",
        )
    return np.ascontiguousarray(colours_HW4[:, :, 0])


def read_predicted_pair(
    photo: Photo, rule: ResolvedMaskRule, *, resize: bool
) -> tuple[UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]:
    """Prediction (0 to 255) and mask (0 and 1), of one size.

    Args:
        photo: From `pair_predictions`.
        rule: How the masks are read.
        resize: Bring a prediction of another size to the mask's, linearly between its pixels.

    Raises:
        DataError: Either cannot be read, or they differ in size and may not be resized.
    """
    values_HW, mask_HW = read_prediction(photo.image), read_mask(photo, rule)
    if values_HW.shape == mask_HW.shape:
        return values_HW, mask_HW
    if not resize:
        raise DataError(_differ(photo, values_HW.shape, mask_HW.shape), hint=_RESIZE)
    height, width = mask_HW.shape
    return cv2.resize(values_HW, (width, height), interpolation=cv2.INTER_LINEAR), mask_HW


def _size_mismatch(photo: Photo) -> Iterator[str]:
    size, mask_size = image_size(photo.image)[0], image_size(photo.mask)[0]
    if size != mask_size:
        yield _differ(photo, size, mask_size)


def _differ(photo: Photo, size: tuple[int, ...], mask_size: tuple[int, ...]) -> str:
    return f"{photo.image} is {size[1]}x{size[0]} px, its mask {photo.mask} {mask_size[1]}x{mask_size[0]}"


def _by_name(folder: Path, suffixes: frozenset[str], what: str) -> dict[str, Path]:
    """The files of a folder by what their names say beside ``_pred`` or ``_mask``.

    One folder may hold both, and photos too: of several files of one name, those that say that they are what is looked
    for come before those that say nothing, and these before those that say that they are the other thing.
    """
    require_folder(folder, "")
    files = files_in(folder, suffixes)
    if not files:
        raise DataError(
            f"{folder}: no {what}s in it; it holds {listing(folder)}",
            hint=f"files that end in {', '.join(sorted(suffixes))} are read",
        )
    alike: dict[str, list[Path]] = {}
    for path in files:
        alike.setdefault(_name_of(path), []).append(path)
    return {name: _meant(paths, what, folder) for name, paths in alike.items()}


def _meant(paths: Sequence[Path], what: str, folder: Path) -> Path:
    ranks: Mapping[Path, int] = {path: _rank(path, what) for path in paths}
    best = [path for path in paths if ranks[path] == min(ranks.values())]
    if len(best) > 1:
        raise DataError(
            f"{folder}: {_names(best)} could each be the {what} of one image", hint="keep one of them in this folder"
        )
    return best[0]


def _rank(path: Path, what: str) -> int:
    says_prediction = bool(_ENDING.search(path.stem) or _BEGINNING.search(path.stem))
    says_mask = is_mask_name(path)
    wanted, other = (says_prediction, says_mask) if what == "prediction" else (says_mask, says_prediction)
    return 0 if wanted else 2 if other else 1


def _name_of(path: Path) -> str:
    stem = unicodedata.normalize("NFC", path.stem)
    bare = without_mask_word(_BEGINNING.sub("", _ENDING.sub("", stem)))
    return bare or stem


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")
