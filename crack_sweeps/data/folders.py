"""Where the photos and the masks of a set lie: folders by name, official splits, photos and masks side by side."""

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
# Names are compared in lower case without spaces, dashes and underscores: `Ground Truth` is `groundtruth`.
_SPLIT_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training", "traincrop", "traindata"),
    "val": ("val", "valid", "validation", "valcrop", "valdata"),
    "test": ("test", "testing", "testcrop", "testdata"),
}
_IMAGE_FOLDERS = (
    *("images", "image", "imgs", "img", "photos", "photo", "jpegimages", "rgb"),
    *("original", "originals", "originalimages", "originalimage"),
)
_MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "lab", "groundtruth", "groundtruths", "gt", "gts", "annotations"),
    *("annotation", "ann", "segmentationclass", "segmentations", "segmentation"),
)
MASK_ENDING = re.compile(r"[-_. ](mask|gt|label|lab|seg|groundtruth)$", re.IGNORECASE)
MASK_BEGINNING = re.compile(r"^(mask|gt|label|lab|seg|groundtruth)[-_. ]", re.IGNORECASE)
LOOKED_FOR = (
    "images/ + masks/, train/images + train/masks (val, test), train_img/ + train_lab/ (test_img/ + test_lab/), "
    "image/ + groundTruth/*.mat, one folder with 1.jpg + 1_mask.png (or _GT), or train.txt with a photo and a mask "
    "in each line"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the photos and the masks of one split lie; one folder may hold both."""

    split: Split | None
    images: Path
    masks: Path


def places(root: Path) -> list[Place]:
    """The folders that hold photos and masks; those of official splits, if there are any, and no others."""
    folders = folders_in(root)
    official = [place for split in SPLITS for place in _official(folders, split)]
    if official:
        return official
    images, masks = _first(folders, _IMAGE_FOLDERS), _first(folders, _MASK_FOLDERS)
    if images is not None and masks is not None:
        return [Place(None, images, masks)]
    alike = [Place(None, images, masks) for images, masks in _named_alike(folders)]
    return alike or ([Place(None, root, root)] if holds_both(files_in(root, MASK_SUFFIXES)) else [])


def _official(folders: Mapping[str, Path], split: Split) -> Iterator[Place]:
    for place in (_split_prefixed(folders, split), _split_outside(folders, split), _split_inside(folders, split)):
        if place is not None:
            yield place


def _split_prefixed(folders: Mapping[str, Path], split: Split) -> Place | None:
    """``train_img/ + train_lab/``, as DeepCrack has them, or ``images_train/ + masks_train/``."""
    for name in _SPLIT_NAMES[split]:
        images = _first(folders, [made for end in _IMAGE_FOLDERS for made in (f"{name}{end}", f"{end}{name}")])
        masks = _first(folders, [made for end in _MASK_FOLDERS for made in (f"{name}{end}", f"{end}{name}")])
        if images is not None and masks is not None:
            return Place(split, images, masks)
    return None


def _split_outside(folders: Mapping[str, Path], split: Split) -> Place | None:
    """``train/images + train/masks``, or ``train/`` with both."""
    outer = _first(folders, _SPLIT_NAMES[split])
    if outer is None:
        return None
    inner = folders_in(outer)
    images, masks = _first(inner, _IMAGE_FOLDERS), _first(inner, _MASK_FOLDERS)
    if images is not None and masks is not None:
        return Place(split, images, masks)
    return Place(split, outer, outer) if holds_both(files_in(outer, MASK_SUFFIXES)) else None


def _split_inside(folders: Mapping[str, Path], split: Split) -> Place | None:
    """``images/train + masks/train``."""
    outer_images, outer_masks = _first(folders, _IMAGE_FOLDERS), _first(folders, _MASK_FOLDERS)
    if outer_images is None or outer_masks is None:
        return None
    images = _first(folders_in(outer_images), _SPLIT_NAMES[split])
    masks = _first(folders_in(outer_masks), _SPLIT_NAMES[split])
    return None if images is None or masks is None else Place(split, images, masks)


def _named_alike(folders: Mapping[str, Path]) -> Iterator[tuple[Path, Path]]:
    """``walls_images/ + walls_masks/``: two folders whose names differ in the word for photo and mask alone."""
    seen: set[Path] = set()
    for name, images in folders.items():
        for word in _IMAGE_FOLDERS:
            rest = name.removesuffix(word) if name.endswith(word) else None
            masks = _first(folders, [f"{rest}{end}" for end in _MASK_FOLDERS]) if rest else None
            if masks is not None and images not in seen:
                seen.add(images)
                yield images, masks


def holds_both(files: Sequence[Path]) -> bool:
    """Whether one folder has photos with their masks beside them, by their names or as JPEG + PNG of one name."""
    stems = {path.stem for path in files if not is_mask_name(path)}
    if any(is_mask_name(path) and without_mask_word(path.stem) in stems for path in files):
        return True
    jpegs = {path.stem for path in files if path.suffix.lower() in (".jpg", ".jpeg")}
    return any(path.stem in jpegs for path in files if path.suffix.lower() not in (".jpg", ".jpeg"))


def is_mask_name(path: Path) -> bool:
    """Whether the name says that this is a mask: ``1_mask.png``, ``gt-1.png``."""
    return bool(MASK_ENDING.search(path.stem) or MASK_BEGINNING.search(path.stem))


def without_mask_word(stem: str) -> str:
    """``1`` for ``1_mask`` or ``mask_1``."""
    ending = MASK_ENDING.sub("", stem)
    return ending if ending != stem else MASK_BEGINNING.sub("", stem)


# --- what lies in a folder -----------------------------------------------------------------------


def require_folder(root: Path, key: str) -> None:
    """Refuses what is no folder.

    Args:
        key: What the person called it, such as ``data.path: ``; it begins the message.
    """
    if not os.path.exists(root):  # unlike Path.exists, False for names that no file system takes
        parent = next((folder for folder in root.absolute().parents if os.path.isdir(folder)), Path())
        lower = {path.name.lower(): path for path in folders_in(parent).values()}
        near = difflib.get_close_matches(root.name.lower(), lower, n=1)
        raise DataError(
            f"{key}{root} does not exist",
            hint=f"did you mean {lower[near[0]]}?" if near else f"{parent} holds {listing(parent)}",
        )
    if not os.path.isdir(root):
        raise DataError(f"{key}{root} is a file, not a folder", hint="name the folder that holds the photos")


def folders_in(folder: Path) -> dict[str, Path]:
    """The folders in a folder, by their names as they are compared."""
    return {
        re.sub(r"[-_ ]", "", entry.name.lower()): Path(folder, entry.name)
        for entry in _entries(folder)
        if entry.is_dir()
    }


def files_in(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """The files in a folder that end in one of these, by name."""
    return [
        Path(folder, entry.name)
        for entry in _entries(folder)
        if entry.is_file() and os.path.splitext(entry.name)[1].lower() in suffixes
    ]


def listing(folder: Path) -> str:
    """What a folder holds, for messages."""
    entries = list(_entries(folder))
    names = [entry.name + "/" if entry.is_dir() else entry.name for entry in entries[:4]]
    return ", ".join(names) + (f" and {len(entries) - 4} more" if len(entries) > 4 else "") if names else "nothing"


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


def _first(folders: Mapping[str, Path], names: Sequence[str]) -> Path | None:
    return next((folders[name] for name in names if name in folders), None)
