"""Read train.txt, val.txt and test.txt: a photo and its mask in each line (CRACK500), or a name in each line (VOC)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crack_sweeps.data.photos import SPLITS, Split
from crack_sweeps.errors import DataError

_FOLDERS = ("", "lists", "splits", "metadata", "ImageSets/Segmentation")
_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train.txt",),
    "val": ("val.txt", "valid.txt", "validation.txt"),
    "test": ("test.txt",),
}


@dataclass(frozen=True, slots=True)
class Listed:
    """The pairs of lists with two columns, and the files that they name in vain."""

    pairs: tuple[tuple[Split, Path, Path], ...]
    missing: tuple[str, ...]


def split_lists(root: Path) -> dict[Split, Path]:
    """The lists that lie in a set's folder, train's among them; none where there is no train.txt.

    Raises:
        DataError: A list is no text.
    """
    for folder in _FOLDERS:
        paths = {split: path for split in SPLITS for name in _NAMES[split] if (path := root / folder / name).is_file()}
        if "train" in paths:
            for path in paths.values():
                _lines(path)
            return paths
    return {}


def listed_pairs(root: Path, lists: Mapping[Split, Path]) -> Listed | None:
    """The pairs of lists that name a photo and a mask in each line; None where they do not."""
    pairs: list[tuple[Split, Path, Path]] = []
    missing: list[str] = []
    for split, path in lists.items():
        for line in _lines(path):
            columns = _two(line)
            if columns is None:
                return None
            image, mask = (_existing(name, root, path) for name in columns)
            if image is None or mask is None:
                missing.append(line)
            else:
                pairs.append((split, image, mask))
    return Listed(tuple(pairs), tuple(missing)) if pairs else None


def listed_names(lists: Mapping[Split, Path]) -> dict[str, Split]:
    """The split of each line of lists that name one photo in a line."""
    return {line: split for split, path in lists.items() for line in _lines(path)}


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not a list that can be read ({error})", hint="save it as UTF-8, or move it elsewhere"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _two(line: str) -> tuple[str, str] | None:
    """The two columns of a line, however they are parted; None where there are not two file names."""
    for separator in ("\t", ",", ";", None):
        columns = [column.strip() for column in line.split(separator)]
        if len(columns) == 2 and all("." in column for column in columns):
            return columns[0], columns[1]
    return None


def _existing(name: str, root: Path, path: Path) -> Path | None:
    """A file of a list: under the set's folder, or beside the list. Many such names begin with ``/``."""
    relative = name.replace("\\", "/").lstrip("/")
    if ".." in relative.split("/"):  # a set holds its own files
        return None
    return next((place for place in (root / relative, path.parent / relative) if place.is_file()), None)
