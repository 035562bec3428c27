"""Match photos with masks by their names, and keep account of what has no partner. Refuses nothing, reads no pixels."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from crack_sweeps.data.folders import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    Place,
    files_in,
    is_mask_name,
    places,
    without_mask_word,
)
from crack_sweeps.data.photos import Split
from crack_sweeps.data.split_lists import listed_names, listed_pairs, split_lists

_JPEG = (".jpg", ".jpeg")
_IMAGE_ENDING = re.compile(r"[-_. ](img|image|photo|rgb|src|original)$", re.IGNORECASE)
_IMAGE_BEGINNING = re.compile(r"^(img|image|photo|rgb|src|original)[-_. ]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pair:
    """A photo's file and its mask's file; `split` is the official one, None where the set has none."""

    image: Path
    mask: Path
    split: Split | None


@dataclass(frozen=True, slots=True)
class Double:
    """Several files that answer to one name, so that nobody can know which is meant; none of them is in a pair."""

    what: Literal["photos", "masks"]
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Matched:
    """What one place holds: its pairs, and what is left over.

    Args:
        place: The folders.
        pairs: Photos with their masks, by name.
        without_mask: Photos that no mask is named like.
        without_photo: Masks that no photo is named like.
        doubles: Files that share a name with another.
        waiting: Photos and masks whose partner is one of those.
        unprintable: Files whose names could be written to no report.
    """

    place: Place
    pairs: tuple[Pair, ...]
    without_mask: tuple[Path, ...] = ()
    without_photo: tuple[Path, ...] = ()
    doubles: tuple[Double, ...] = ()
    waiting: tuple[Path, ...] = ()
    unprintable: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """What a folder holds, place by place.

    Args:
        matched: One for each place; the pairs of all of them are the set.
        missing: Files that train.txt, val.txt or test.txt names and that are not there, as they are written there.
        unlisted: Pairs that stand in none of the lists, where there are lists; they are not in `matched`.
        lists: The lists that decided the splits.
    """

    matched: tuple[Matched, ...]
    missing: tuple[str, ...] = ()
    unlisted: tuple[Pair, ...] = ()
    lists: tuple[Path, ...] = ()

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All photos with their masks, by place and name."""
        return tuple(pair for place in self.matched for pair in place.pairs)


def survey(root: Path) -> Survey:
    """Photos, masks, and what has no partner. A folder without a set gives an empty survey.

    Raises:
        DataError: The folder cannot be listed, or a list of a split cannot be read.
    """
    lists = split_lists(root)
    listed = listed_pairs(root, lists)
    if listed is not None:
        pairs = tuple(Pair(image, mask, split) for split, image, mask in listed.pairs)
        return Survey((Matched(Place(None, root, root), pairs),), missing=listed.missing, lists=tuple(lists.values()))
    found = tuple(match(place) for place in places(root))
    if lists and all(place.place.split is None for place in found):
        return _split_by_lists(found, lists)
    return Survey(found)


def match(place: Place) -> Matched:
    """The pairs of one place; names are compared as people see them, whatever the Unicode form."""
    files = files_in(place.images, MASK_SUFFIXES)
    if place.images == place.masks:
        masks = [path for path in files if is_mask_name(path)]
        if not masks:  # CRACK500: photos are JPEG, masks PNG
            masks = [path for path in files if path.suffix.lower() not in _JPEG]
        is_mask = set(masks)
        images = [path for path in files if path not in is_mask]
    else:
        images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
        masks = files_in(place.masks, MASK_SUFFIXES)
    unprintable = [path for path in (*images, *masks) if not path.name.isprintable()]
    by_name, double_images = _by_name({path: seen(path.stem) for path in images if path not in unprintable})
    aliases = _aliases(by_name)
    names = {path: _named_like(path, by_name, aliases) for path in masks if path not in unprintable}
    masks_by_name, double_masks = _by_name(names)
    taken = {name for double in double_images for name in {seen(path.stem) for path in double}}
    doubled = {name for double in double_masks for name in {names[path] for path in double}}
    return Matched(
        place,
        tuple(Pair(path, masks_by_name[name], place.split) for name, path in by_name.items() if name in masks_by_name),
        without_mask=tuple(path for name, path in by_name.items() if name not in masks_by_name and name not in doubled),
        without_photo=tuple(path for name, path in masks_by_name.items() if name not in by_name and name not in taken),
        doubles=(
            *(Double("photos", paths) for paths in double_images),
            *(Double("masks", paths) for paths in double_masks),
        ),
        waiting=(
            *(path for name, path in by_name.items() if name in doubled),
            *(path for name, path in masks_by_name.items() if name in taken),
        ),
        unprintable=tuple(unprintable),
    )


def seen(name: str) -> str:
    """A name as it looks: macOS writes the accent of an e as a letter of its own, other systems do not."""
    return unicodedata.normalize("NFC", name)


def _by_name(names: Mapping[Path, str]) -> tuple[dict[str, Path], list[tuple[Path, ...]]]:
    """Files by name, and those that share one."""
    alike: dict[str, list[Path]] = {}
    for path, name in names.items():
        alike.setdefault(name, []).append(path)
    single = {name: paths[0] for name, paths in alike.items() if len(paths) == 1}
    return single, [tuple(paths) for paths in alike.values() if len(paths) > 1]


def _aliases(images: Mapping[str, Path]) -> dict[str, str]:
    """Other names that a mask may know a photo by, where only one photo can be meant: ``1`` for ``1_img``."""
    found: dict[str, set[str]] = {}
    for name in images:
        bare = _IMAGE_BEGINNING.sub("", _IMAGE_ENDING.sub("", name))
        for alias in {bare, name.casefold(), bare.casefold()} - {""}:
            found.setdefault(alias, set()).add(name)
    return {alias: next(iter(names)) for alias, names in found.items() if len(names) == 1}


def _named_like(mask: Path, images: Mapping[str, Path], aliases: Mapping[str, str]) -> str:
    """The name of the photo that a mask is of; its own without ``_mask`` where there is no such photo."""
    stem = seen(mask.stem)
    bare = without_mask_word(stem)
    for name in (stem, bare):
        if name in images:
            return name
    for name in (stem, bare, stem.casefold(), bare.casefold()):
        if name in aliases:
            return aliases[name]
    return bare


def _split_by_lists(found: Sequence[Matched], lists: Mapping[Split, Path]) -> Survey:
    """Photos in the splits of lists that hold a name in each line, with a suffix or without."""
    splits = {_listed_name(line): split for line, split in listed_names(lists).items()}
    pairs = [pair for place in found for pair in place.pairs]
    there = {seen(pair.image.stem) for pair in pairs}
    if not there & set(splits):
        return Survey(tuple(found))  # lists of something else
    return Survey(
        tuple(
            replace(
                place,
                pairs=tuple(
                    replace(pair, split=splits[name])
                    for pair in place.pairs
                    if (name := seen(pair.image.stem)) in splits
                ),
            )
            for place in found
        ),
        missing=tuple(line for line in listed_names(lists) if _listed_name(line) not in there),
        unlisted=tuple(pair for pair in pairs if seen(pair.image.stem) not in splits),
        lists=tuple(lists.values()),
    )


def _listed_name(line: str) -> str:
    stem, suffix = os.path.splitext(os.path.basename(line))
    return seen(stem if suffix.lower() in MASK_SUFFIXES else stem + suffix)
