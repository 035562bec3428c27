"""Find photos and their masks in a folder, in any of the layouts that public crack sets come in."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crack_sweeps.data.photos import SPLITS, Split
from crack_sweeps.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
MASK_SUFFIXES = IMAGE_SUFFIXES | {".mat"}
_SPLIT_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "photos", "jpegimages")
_MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "lab", "groundtruth", "ground_truth", "gt", "annotations"),
    "segmentationclass",
)
_MASK_SUFFIX = re.compile(r"[-_. ](mask|gt|label|lab|seg|groundtruth)$", re.IGNORECASE)
LOOKED_FOR = (
    "images/ + masks/, train/images + train/masks (val, test), train_img/ + train_lab/ (test_img/ + test_lab/), "
    "image/ + groundTruth/*.mat, or one folder with 1.jpg + 1_mask.png (or _GT)"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A photo's file and its mask's file; `split` is the official one, None where the set has none."""

    image: Path
    mask: Path
    split: Split | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds."""

    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the photos and the masks of one split lie; one folder may hold both."""

    split: Split | None
    images: Path
    masks: Path


def find_pairs(root: Path) -> Found:
    """Photos with their masks, in the order of their names.

    Raises:
        DataError: There is no such folder, it is no folder, nothing in it is known, or photos have no mask.
    """
    _require_folder(root)
    places = _places(root)
    if not places:
        raise _nothing_found(root)
    pairs: list[Pair] = []
    warnings: list[str] = []
    for place in places:
        found = _one_folder(place) if place.images == place.masks else _two_folders(place)
        pairs += found.pairs
        warnings += found.warnings
    return Found(tuple(pairs), tuple(warnings))


def _places(root: Path) -> list[_Place]:
    folders = _folders(root)
    official = [
        place
        for split in SPLITS
        for place in (
            _split_prefixed(folders, split),
            _split_outside(folders, split),
            _split_inside(folders, split),
        )
        if place is not None
    ]
    if official:
        return official
    images, masks = _first(folders, _IMAGE_FOLDERS), _first(folders, _MASK_FOLDERS)
    if images is not None and masks is not None:
        return [_Place(None, images, masks)]
    return [_Place(None, root, root)] if _holds_both(_files(root, MASK_SUFFIXES)) else []


def _split_prefixed(folders: Mapping[str, Path], split: Split) -> _Place | None:
    """``train_img/ + train_lab/``, as DeepCrack has them."""
    for name in _SPLIT_NAMES[split]:
        images = _first(folders, [f"{name}{joint}{end}" for joint in "_-" for end in _IMAGE_FOLDERS])
        masks = _first(folders, [f"{name}{joint}{end}" for joint in "_-" for end in _MASK_FOLDERS])
        if images is not None and masks is not None:
            return _Place(split, images, masks)
    return None


def _split_outside(folders: Mapping[str, Path], split: Split) -> _Place | None:
    """``train/images + train/masks``, or ``train/`` with both."""
    outer = _first(folders, _SPLIT_NAMES[split])
    if outer is None:
        return None
    inner = _folders(outer)
    images, masks = _first(inner, _IMAGE_FOLDERS), _first(inner, _MASK_FOLDERS)
    if images is not None and masks is not None:
        return _Place(split, images, masks)
    return _Place(split, outer, outer) if _holds_both(_files(outer, MASK_SUFFIXES)) else None


def _split_inside(folders: Mapping[str, Path], split: Split) -> _Place | None:
    """``images/train + masks/train``."""
    outer_images, outer_masks = _first(folders, _IMAGE_FOLDERS), _first(folders, _MASK_FOLDERS)
    if outer_images is None or outer_masks is None:
        return None
    images = _first(_folders(outer_images), _SPLIT_NAMES[split])
    masks = _first(_folders(outer_masks), _SPLIT_NAMES[split])
    return None if images is None or masks is None else _Place(split, images, masks)


def _two_folders(place: _Place) -> Found:
    images = _by_stem(_files(place.images, IMAGE_SUFFIXES), place.images, "photos")
    mask_files = _files(place.masks, MASK_SUFFIXES)
    masks = _by_stem(mask_files, place.masks, "masks", photos=images)
    if not images:
        raise DataError(f"{place.images}: no photos in it{_instead(place.images)}", hint=_endings(IMAGE_SUFFIXES))
    if not masks:
        raise DataError(f"{place.masks}: no masks in it{_instead(place.masks)}", hint=_endings(MASK_SUFFIXES))
    without = [path for stem, path in images.items() if stem not in masks]
    paired = tuple(Pair(path, masks[stem], place.split) for stem, path in images.items() if stem in masks)
    if not paired:
        raise DataError(
            f"{place.images}: none of {len(images)} photos has a mask in {place.masks}; "
            f"the first photo is {without[0].name}, the first mask {mask_files[0].name}",
            hint="name each mask like its photo: 1.jpg with 1.png, 1_mask.png or 1_GT.png",
        )
    warnings: list[str] = []
    if without:
        message = f"{place.images}: {_count(len(without), 'photo')} of {len(images)} without a mask: {_names(without)}"
        if not all(path.suffix.lower() == ".mat" for path in mask_files):
            raise DataError(
                message, hint=f"move them out of {place.images.name}/, or add black masks where there is no crack"
            )
        warnings.append(f"{message}; left out, as CrackForest has them")
    orphans = [path for stem, path in masks.items() if stem not in images]
    if orphans:
        warnings.append(f"{place.masks}: {_count(len(orphans), 'mask')} without a photo: {_names(orphans)}; left out")
    return Found(paired, tuple(warnings))


def _one_folder(place: _Place) -> Found:
    """Photos and masks side by side: ``1.jpg`` with ``1_mask.png``, or ``1.jpg`` with ``1.png``."""
    files = _files(place.images, MASK_SUFFIXES)
    masks = [path for path in files if _is_mask_name(path)]
    if not masks:  # CRACK500: photos are JPEG, masks PNG
        masks = [path for path in files if path.suffix.lower() not in (".jpg", ".jpeg")]
    is_mask = set(masks)
    images = _by_stem([path for path in files if path not in is_mask], place.images, "photos")
    by_stem = _by_stem(masks, place.images, "masks", photos=images)
    without = [path for stem, path in images.items() if stem not in by_stem]
    if without:
        raise DataError(
            f"{place.images}: {_count(len(without), 'photo')} of {len(images)} without a mask: {_names(without)}",
            hint="move them out of the folder, or add black masks where there is no crack",
        )
    orphans = [path for stem, path in by_stem.items() if stem not in images]
    warnings = (
        (f"{place.masks}: {_count(len(orphans), 'mask')} without a photo: {_names(orphans)}; left out",)
        if orphans
        else ()
    )
    return Found(tuple(Pair(path, by_stem[stem], place.split) for stem, path in images.items()), warnings)


def _holds_both(files: Sequence[Path]) -> bool:
    """Whether one folder has photos with their masks beside them, by suffix or as JPEG + PNG of one name."""
    stems = {path.stem for path in files if not _is_mask_name(path)}
    if any(_is_mask_name(path) and _bare(path) in stems for path in files):
        return True
    jpegs = {path.stem for path in files if path.suffix.lower() in (".jpg", ".jpeg")}
    return any(path.stem in jpegs for path in files if path.suffix.lower() not in (".jpg", ".jpeg"))


def _is_mask_name(path: Path) -> bool:
    return _MASK_SUFFIX.search(path.stem) is not None


def _bare(path: Path) -> str:
    return _MASK_SUFFIX.sub("", path.stem)


def _by_stem(
    files: Sequence[Path], folder: Path, what: str, *, photos: Mapping[str, Path] | None = None
) -> dict[str, Path]:
    """Files by their photo's name; for masks (`photos` given) an ending such as ``_mask`` is no part of it."""
    found: dict[str, Path] = {}
    for path in files:
        stem = path.stem if photos is None or path.stem in photos else _bare(path)
        if stem in found:
            raise DataError(
                f"{folder}: two {what} for one name, {found[stem].name} and {path.name}",
                hint="keep one of them in this folder",
            )
        found[stem] = path
    return found


def _require_folder(root: Path) -> None:
    if not os.path.exists(root):  # unlike Path.exists, False for names that no file system takes
        parent = next((folder for folder in root.absolute().parents if os.path.isdir(folder)), Path())
        near = difflib.get_close_matches(root.name.lower(), _folders(parent), n=1)
        raise DataError(
            f"data.path: {root} does not exist",
            hint=f"did you mean {_folders(parent)[near[0]]}?" if near else f"{parent} holds {_listing(parent)}",
        )
    if not os.path.isdir(root):
        raise DataError(f"data.path: {root} is a file, not a folder", hint="name the folder that holds the photos")


def _nothing_found(root: Path) -> DataError:
    known = [path for path in _folders(root).values() if _places(path)]
    hint = f"there is a set one folder further down: `--data {known[0]}`" if known else f"looked for {LOOKED_FOR}"
    alone = [
        path
        for folder in (root, *_folders(root).values())
        for path in _files(folder, IMAGE_SUFFIXES)
        if not _is_mask_name(path)
    ]
    if alone and not known:
        message = f"{_count(len(alone), 'photo')} without masks: {_names(alone)}"
    else:
        message = f"no photos with masks; it holds {_listing(root)}"
    return DataError(f"data.path: {root} has {message}", hint=hint)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(
                (entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name
            )
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror})", hint="give yourself the right to read the folder"
        ) from error


def _folders(folder: Path) -> dict[str, Path]:
    return {entry.name.lower(): Path(folder, entry.name) for entry in _entries(folder) if entry.is_dir()}


def _files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    files = [
        Path(folder, entry.name)
        for entry in _entries(folder)
        if entry.is_file() and os.path.splitext(entry.name)[1].lower() in suffixes
    ]
    for path in files:
        if not path.name.isprintable():  # also bytes that are no UTF-8: they could be written to no report
            raise DataError(f"{folder}: a file name with unprintable characters, {path.name!a}", hint="rename it")
    return files


def _first(folders: Mapping[str, Path], names: Sequence[str]) -> Path | None:
    return next((folders[name] for name in names if name in folders), None)


def _instead(folder: Path) -> str:
    return f"; it holds {_listing(folder)}"


def _listing(folder: Path) -> str:
    entries = list(_entries(folder))
    names = [entry.name + "/" if entry.is_dir() else entry.name for entry in entries[:4]]
    return ", ".join(names) + (f" and {len(entries) - 4} more" if len(entries) > 4 else "") if names else "nothing"


def _endings(suffixes: frozenset[str]) -> str:
    return f"files that end in {', '.join(sorted(suffixes))} are read"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
