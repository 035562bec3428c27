"""Which files a person means by PHOTOS, and under which names their results are written. Opens no photo."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from crack_sweeps.data.folders import IMAGE_SUFFIXES
from crack_sweeps.errors import DataError
from crack_sweeps.specs.words import listed, printable

# What some file system refuses in a name, and what could lead out of a folder.
_REFUSED = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
# File systems take 255 bytes; a result adds its suffix, and durable.py a process number while it writes.
_LONGEST_BYTES = 200


def find_photos(photos: Path) -> list[Path]:
    """The photo, or the photos that lie in the folder itself, by name; hidden files are none.

    Raises:
        DataError: There is no such file or folder, it may not be read, or no photo is in it.
    """
    shown = printable(str(photos))
    if os.path.isfile(photos):
        if photos.suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(f"{shown}: no photo by its name", hint=f"photos end in {listed(sorted(IMAGE_SUFFIXES))}")
        return [photos]
    if not os.path.isdir(photos):  # unlike Path.is_dir, False for names that no file system takes
        raise DataError(f"{shown}: no such file or folder", hint="name a photo, or a folder of photos")
    try:
        with os.scandir(photos) as entries:
            visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        hint = "give yourself the right to read the folder"
        raise DataError(f"{shown}: cannot be listed ({error.strerror})", hint=hint) from error
    # A link that leads nowhere is named when it is read, like any photo that cannot be.
    found = [Path(photos, e.name) for e in visible if not e.is_dir() and Path(e.name).suffix.lower() in IMAGE_SUFFIXES]
    if found:
        return found
    deeper = next((Path(photos, e.name) for e in visible if e.is_dir() and _has_photos(Path(photos, e.name))), None)
    raise DataError(
        f"{shown}: no photos in it",
        hint=f"there are some one folder further down: {printable(str(deeper))}"
        if deeper is not None
        else f"photos end in {listed(sorted(IMAGE_SUFFIXES))}",
    )


def _has_photos(folder: Path) -> bool:
    try:
        return any(
            Path(name).suffix.lower() in IMAGE_SUFFIXES for name in os.listdir(folder) if not name.startswith(".")
        )
    except OSError:  # it may not be read; there is no need to suggest it
        return False


def result_names(photos: Sequence[Path]) -> list[str]:
    """A name for each photo's results, the photo's own without its suffix; no two are the same on any file system.

    Photos that only their suffix tells apart keep it (`a.jpg` and `a.png`); whatever is still alike is numbered.
    """
    stems = [safe_name(photo.stem) for photo in photos]
    number_of = Counter(_folded(stem) for stem in stems)
    taken: set[str] = set()
    names = []
    for photo, stem in zip(photos, stems, strict=True):
        wanted = stem if number_of[_folded(stem)] == 1 else safe_name(photo.name)
        name, number = wanted, 1
        while _folded(name) in taken:
            number += 1
            name = f"{wanted}-{number}"
        taken.add(_folded(name))
        names.append(name)
    return names


def _folded(name: str) -> str:
    """What a file system that ignores case and the spelling of accents tells names apart by."""
    return unicodedata.normalize("NFC", name).casefold()


def safe_name(name: str) -> str:
    """The name with what leads elsewhere or is refused somewhere replaced; a very long one is cut and kept unique."""
    safe = _REFUSED.sub("_", os.fsencode(name).decode("utf-8", "replace")).rstrip(". ") or "_"
    if len(safe.encode()) <= _LONGEST_BYTES:
        return safe
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return f"{safe.encode()[: _LONGEST_BYTES - 9].decode('utf-8', 'ignore')}-{digest}"
