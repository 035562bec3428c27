"""Find photos and their masks in a folder, in any of the layouts that public sets come in, or say what is amiss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crack_sweeps.data.folders import (
    IMAGE_SUFFIXES,
    LOOKED_FOR,
    MASK_SUFFIXES,
    files_in,
    folders_in,
    is_mask_name,
    listing,
    places,
    require_folder,
)
from crack_sweeps.data.pairing import Matched, Pair, Survey, survey
from crack_sweeps.errors import DataError


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds."""

    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]


def find_pairs(root: Path) -> Found:
    """Photos with their masks, in the order of their names.

    Raises:
        DataError: There is no such folder, it is no folder, nothing in it is known, or photos have no mask.
    """
    require_folder(root, "data.path: ")
    found = survey(root)
    if not found.matched:
        raise nothing_found(root, "data.path: ")
    for place in found.matched:
        _refuse(place)
    warnings = [warning for place in found.matched for warning in _left_out(place)]
    return Found(found.pairs, (*warnings, *_outside_lists(found)))


def nothing_found(root: Path, key: str) -> DataError:
    """What to say of a folder without a set.

    Args:
        key: What the person called it, such as ``data.path: ``; it begins the message.
    """
    known = [path for path in folders_in(root).values() if places(path)]
    hint = f"there is a set one folder further down: `--data {known[0]}`" if known else f"looked for {LOOKED_FOR}"
    alone = [
        path
        for folder in (root, *folders_in(root).values())
        for path in files_in(folder, IMAGE_SUFFIXES)
        if not is_mask_name(path)
    ]
    if alone and not known:
        message = f"{count(len(alone), 'photo')} without masks: {names(alone)}"
    else:
        message = f"no photos with masks; it holds {listing(root)}"
    return DataError(f"{key}{root} has {message}", hint=hint)


def no_partners(place: Matched) -> DataError | None:
    """What to say of a place where nothing has a partner; None where there are pairs, or names that clash."""
    if place.pairs or place.doubles:
        return None
    images, masks = place.place.images, place.place.masks
    if not place.without_mask:
        return DataError(f"{images}: no photos in it; it holds {listing(images)}", hint=_endings(IMAGE_SUFFIXES))
    if not place.without_photo:
        return DataError(f"{masks}: no masks in it; it holds {listing(masks)}", hint=_endings(MASK_SUFFIXES))
    return DataError(
        f"{images}: none of {len(place.without_mask)} photos has a mask in {masks}; "
        f"the first photo is {place.without_mask[0].name}, the first mask {place.without_photo[0].name}",
        hint="name each mask like its photo: 1.jpg with 1.png, 1_mask.png or 1_GT.png",
    )


def _refuse(place: Matched) -> None:
    """Stops at the first thing that somebody must decide before photos can be trained on."""
    for path in place.unprintable:  # also bytes that are no UTF-8
        raise DataError(f"{path.parent}: a file name with unprintable characters, {path.name!a}", hint="rename it")
    for double in place.doubles:
        one, other = double.paths[:2]
        raise DataError(
            f"{one.parent}: two {double.what} for one name, {one.name} and {other.name}",
            hint="keep one of them in this folder",
        )
    nothing = no_partners(place)
    if nothing is not None:
        raise nothing
    if place.without_mask and not _masks_are_matlab(place):
        folder = place.place.images
        raise DataError(
            _without_mask(place),
            hint=f"move them out of {folder.name}/, or add black masks where there is no crack",
        )


def _left_out(place: Matched) -> Iterator[str]:
    if place.without_mask:
        yield f"{_without_mask(place)}; left out, as CrackForest has them"
    if place.without_photo:
        orphans = place.without_photo
        yield f"{place.place.masks}: {count(len(orphans), 'mask')} without a photo: {names(orphans)}; left out"


def _outside_lists(found: Survey) -> Iterator[str]:
    where = ", ".join(path.name for path in found.lists)
    if found.missing:
        lines = ", ".join(found.missing[:3]) + (", ..." if len(found.missing) > 3 else "")
        yield f"{where}: {count(len(found.missing), 'line')} without files: {lines}; left out"
    if found.unlisted:
        images = [pair.image for pair in found.unlisted]
        yield f"{where}: {count(len(images), 'photo')} in none of them: {names(images)}; left out"


def _masks_are_matlab(place: Matched) -> bool:
    masks = [*(pair.mask for pair in place.pairs), *place.without_photo]
    return all(path.suffix.lower() == ".mat" for path in masks)


def _without_mask(place: Matched) -> str:
    number = len(place.without_mask)
    of = number + len(place.pairs)
    return f"{place.place.images}: {count(number, 'photo')} of {of} without a mask: {names(place.without_mask)}"


def count(number: int, noun: str) -> str:
    """``1 photo``, ``2 photos``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def names(paths: Sequence[Path]) -> str:
    """The first three file names."""
    return ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")


def _endings(suffixes: frozenset[str]) -> str:
    return f"files that end in {', '.join(sorted(suffixes))} are read"
