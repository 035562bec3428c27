"""Names for what files and sets hold: equal where the same would be trained on, whatever the place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.errors import DataError


def file_digest(path: Path, *, imported_as: str | None = None) -> str:
    """SHA-256 of a file's bytes.

    Args:
        imported_as: The set that should have it, for the message.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        where = f", which was imported as {imported_as}" if imported_as else ""
        raise DataError(
            f"{path}: no such file{where}", hint="bring it back, or import the folder from where it is now"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror})", hint="give yourself the right to read it"
        ) from error


def set_digest(photos: Iterable[Photo], root: Path, rule: ResolvedMaskRule, digests: Mapping[Path, str]) -> str:
    """One name for all that a figure depends on: names within the set, splits, bytes, and the rule; not for places.

    Args:
        root: The folder that the files lie in.
        digests: SHA-256 of each file.
    """
    lines = sorted(
        f"{photo.image.relative_to(root).as_posix()}\t{photo.split}\t{digests[photo.image]}\t{digests[photo.mask]}"
        for photo in photos
    )
    return hashlib.sha256("\n".join([*lines, f"mask {rule}"]).encode()).hexdigest()
