"""Open a set of photos: pairs, sizes, groups, splits, the rule of its masks, and a digest of every byte."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

from crack_sweeps.data.digests import set_digest
from crack_sweeps.data.groups import group_photos, name_photos
from crack_sweeps.data.images import image_size, load_upright
from crack_sweeps.data.joined import join_sets
from crack_sweeps.data.layouts import find_pairs
from crack_sweeps.data.manifest import imported_names, is_name, manifest_path, open_with_digests
from crack_sweeps.data.masks import decide_rule
from crack_sweeps.data.pairing import Pair
from crack_sweeps.data.photos import PhotoSet
from crack_sweeps.data.splits import assign_splits, join_duplicates
from crack_sweeps.errors import DataError
from crack_sweeps.specs.experiment import Data
from crack_sweeps.specs.words import nearest

BUILTIN = "builtin"
_CHUNK_BYTES = 1 << 20
# A file without its end mark in its last bytes may have been cut off, and is decoded to find out.
_END_MARKS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}
_TAIL_BYTES = 64


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@overload
def open_photos(
    data: Data, *, root: Path = ..., draw: Literal[True] = ..., notify: Callable[[str], None] = ...
) -> PhotoSet: ...


@overload
def open_photos(
    data: Data, *, root: Path = ..., draw: bool, notify: Callable[[str], None] = ...
) -> PhotoSet | None: ...


def open_photos(
    data: Data, *, root: Path = Path("artifacts"), draw: bool = True, notify: Callable[[str], None] = _say
) -> PhotoSet | None:
    """The set that `data` describes, checked as far as can be done in seconds; every mask is checked again when read.

    Args:
        data: Where the photos are, how they are split and how masks are read.
        root: The folder that the built-in set is drawn under, and that imported sets have their manifests in.
        draw: Draw the built-in set where it does not exist yet; False writes nothing.
        notify: Told, in a sentence, what takes time.

    Returns:
        The set; None only where `draw` is False and the built-in set has not been drawn.

    Raises:
        DataError: The folder, its files or its masks cannot be used; the message names them, the hint says what to do.
    """
    if data.sets is not None:
        opened = [_open_path(one.path, data, root) for one in data.sets]
        digests = {path: sha256 for _, of_set in opened for path, sha256 in of_set.items()}
        return join_sets([photos for photos, _ in opened], [one.weight for one in data.sets], digests)
    if data.path is not None:
        return _open_path(data.path, data, root)[0]
    from crack_sweeps.data.synthetic import builtin_folder, draw_builtin  # own photos need not load it

    folder = builtin_folder(root)
    if draw:
        folder = draw_builtin(folder.parent, notify=notify)
    elif not folder.is_dir():
        return None
    return _open_folder(folder, BUILTIN, data)[0]


def _open_path(path: Path, data: Data, artifacts: Path) -> tuple[PhotoSet, dict[Path, str]]:
    """A folder, or where there is none, the set that was imported under that name; with the digest of each file."""
    imported = is_name(str(path)) and manifest_path(artifacts, str(path)).is_file()
    if os.path.exists(path) or not is_name(str(path)):
        photos, digests = _open_folder(path, path.resolve().name, data)
        both = (f"{path} is a folder here, and an imported set too: the folder is used",) if imported else ()
        return replace(photos, warnings=(*photos.warnings, *both)), digests
    if imported:
        return _open_imported(str(path), data, artifacts)
    close = nearest(str(path), imported_names(artifacts))
    if close is not None:
        raise DataError(f"data.path: {path} does not exist", hint=f"did you mean {close}, which was imported?")
    return _open_folder(path, str(path), data)  # which says what is near


def _open_imported(name: str, data: Data, artifacts: Path) -> tuple[PhotoSet, dict[Path, str]]:
    decided = [key for key in ("mask", "group_pattern") if getattr(data, key) != getattr(Data(), key)]
    if decided:
        raise DataError(
            f"data.{decided[0]}: {name} was imported with its rule and groups, which nothing can change here",
            hint="leave it out, or import the folder under another name with it",
        )
    photos, digests = open_with_digests(artifacts, name)
    idle = [key for key in ("split_seed", "val_fraction") if getattr(data, key) != getattr(Data(), key)]
    warnings = [f"data.{key} has no effect: {name} was split when it was imported" for key in idle]
    return replace(photos, warnings=(*photos.warnings, *warnings)), digests


def _open_folder(folder: Path, name: str, data: Data) -> tuple[PhotoSet, dict[Path, str]]:
    found = find_pairs(folder)
    digests = {path: _digest_of(path) for pair in found.pairs for path in (pair.image, pair.mask)}
    _check_sizes(found.pairs)
    named = name_photos(found.pairs)
    grouped, group_warnings = group_photos(named, folder, data.group_pattern)
    photos, split_warnings = assign_splits(
        join_duplicates(grouped, digests), split_seed=data.split_seed, val_fraction=data.val_fraction
    )
    rule, rule_warnings = decide_rule([photo.mask for photo in photos], data.mask)
    opened = PhotoSet(
        name=name,
        root=folder,
        photos=photos,
        rule=rule,
        digest=set_digest(photos, folder, rule, digests),
        warnings=(*found.warnings, *group_warnings, *split_warnings, *rule_warnings),
    )
    return opened, digests


def _check_sizes(pairs: Sequence[Pair]) -> None:
    """Compares the headers of all photos and masks; MATLAB files have none and are compared when they are read."""
    wrong: list[str] = []
    turned = 0
    for pair in pairs:
        if pair.mask.suffix.lower() == ".mat":
            continue
        (height, width), on_its_side = image_size(pair.image)
        (mask_height, mask_width), _ = image_size(pair.mask)
        if (height, width) != (mask_height, mask_width):
            wrong.append(f"{pair.image} is {width}x{height} px, its mask {pair.mask} {mask_width}x{mask_height}")
            turned += on_its_side and (width, height) == (mask_height, mask_width)
    if not wrong:
        return
    raise DataError(
        f"{len(wrong)} of {len(pairs)} photos differ in size from their masks: {wrong[0]}",
        hint="these photos are turned by their EXIF tag and the masks are not: turn the masks, or remove the tag"
        if turned == len(wrong)
        else "bring the masks that were drawn on these photos, at the photos' size",
    )


def _digest_of(path: Path) -> str:
    """SHA-256 of a file; one that seems cut off is decoded too, so that it is named now and not hours later."""
    digest = hashlib.sha256()
    tail = b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                tail = (tail + chunk)[-_TAIL_BYTES:]
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror})", hint="give yourself the right to read it"
        ) from error
    mark = _END_MARKS.get(path.suffix.lower())
    if mark is not None and mark not in tail:
        load_upright(path)
    return digest.hexdigest()
