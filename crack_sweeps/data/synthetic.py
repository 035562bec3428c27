"""The built-in set: 160 synthetic photos in train/val/test folders, drawn once per machine and checked by a hash.

The hash is over decoded pixels, not files, so another zlib cannot change it. Another NumPy, SciPy, OpenCV or kind of
processor may: such a set is used all the same, a notice says so, and `set.json` beside the photos keeps the hash that
was found. Figures from it do not compare with the release's; the data digest of every run shows that too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import scipy
from filelock import FileLock, Timeout

from crack_sweeps.data.synthetic_photo import SyntheticPhoto, draw_photo
from crack_sweeps.errors import DataError, DiskFull

VERSION = "v1"  # raised by any change of the pixels, together with the hash
CONTENT_HASH = "b20153351082078f984700c4887a1d62a4650fdd103fd97b8f78a633875b231f"  # as drawn on x86-64 Linux
SIZE_PX = 256
SEEDS: dict[str, range] = {"train": range(104), "val": range(104, 132), "test": range(132, 160)}

_LOCK_TIMEOUT_S = 600.0  # another process draws; it needs seconds
_RECORD = "set.json"  # what was drawn, with what


def builtin_folder(root: Path) -> Path:
    """Where the set stands or will stand under an artifacts folder."""
    return root / "data" / _folder_name()


def draw_builtin(cache_dir: Path, *, notify: Callable[[str], None]) -> Path:
    """Draw the set into `cache_dir` unless it is there, and return its folder.

    Processes that ask at the same time wait for the one that draws. The folder appears whole or not at all.

    Args:
        cache_dir: Parent of the set's folder: `builtin_folder(root).parent`.
        notify: Takes one line for the person who waits.

    Raises:
        DataError: The set that is there has lost files, or another process holds the lock for ten minutes.
        DiskFull: There is no room to write it.
    """
    folder = cache_dir / _folder_name()
    if folder.exists():
        return _whole(folder)
    cache_dir.mkdir(parents=True, exist_ok=True)
    lock_path = cache_dir / f"{_folder_name()}.lock"
    try:
        with FileLock(lock_path, timeout=_LOCK_TIMEOUT_S):
            if not folder.exists():
                _draw_into(folder, notify)
    except Timeout as error:
        raise DataError(
            f"{folder}: another process has been drawing the built-in photos for {_LOCK_TIMEOUT_S:.0f} s",
            hint=f"if none is at work, delete {lock_path} and run again",
        ) from error
    return _whole(folder)


def content_hash(photos: list[SyntheticPhoto]) -> str:
    """sha256 over shape and pixels of every photo and mask, in order."""
    digest = hashlib.sha256()
    for photo in photos:
        for pixels in (photo.image, photo.mask):
            digest.update(repr(pixels.shape).encode())
            digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def _folder_name() -> str:
    return f"builtin-{VERSION}-{CONTENT_HASH[:8]}"


def _names() -> list[tuple[str, str, int]]:
    """Split, file name without suffix, and seed of every photo."""
    return [(split, f"{split}-{seed:03d}", seed) for split, seeds in SEEDS.items() for seed in seeds]


def _draw_into(folder: Path, notify: Callable[[str], None]) -> None:
    """Draw everything beside `folder`, then rename; the caller holds the lock."""
    names = _names()
    notify(f"drawing {len(names)} built-in crack photos into {folder} (once, some ten seconds)")
    partial = folder.with_name(f"{folder.name}.partial")
    if partial.exists():  # of a drawing that was killed: only the lock's holder comes here
        shutil.rmtree(partial)
    try:
        with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
            photos = list(pool.map(lambda name: _draw_and_write(partial, *name), names))
        found = content_hash(photos)
        if found != CONTENT_HASH:
            notify(
                "the built-in photos drawn here differ from the release's in some pixels (another NumPy, SciPy, OpenCV "
                f"or processor): content hash {found[:8]} instead of {CONTENT_HASH[:8]}; compare figures only with "
                "runs on this set"
            )
        (partial / _RECORD).write_text(json.dumps(_description(found), indent=2) + "\n", encoding="utf-8")
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"{folder}: the disk is full; the built-in photos need 30 MB", hint="make room and run again"
            ) from error
        raise


def _draw_and_write(folder: Path, split: str, name: str, seed: int) -> SyntheticPhoto:
    photo = draw_photo(seed, SIZE_PX)
    for kind in ("images", "masks"):
        (folder / split / kind).mkdir(parents=True, exist_ok=True)
    (folder / "truth" / split).mkdir(parents=True, exist_ok=True)
    _write_png(folder / split / "images" / f"{name}.png", photo.image[..., ::-1])
    _write_png(folder / split / "masks" / f"{name}.png", photo.mask * np.uint8(255))
    np.savez_compressed(
        folder / "truth" / split / f"{name}.npz",
        centreline_xy=photo.centreline_xy.astype(np.float32),
        width_px=photo.width_px.astype(np.float32),
        piece=photo.piece.astype(np.int32),
    )
    return photo


def _write_png(path: Path, pixels: np.ndarray) -> None:
    encoded, png = cv2.imencode(".png", pixels)
    assert encoded, "OpenCV encodes any uint8 picture"
    path.write_bytes(png.tobytes())  # cv2.imwrite would keep a full disk to itself


def _description(found_hash: str) -> dict[str, object]:
    return {
        "version": VERSION,
        "content_hash": found_hash,
        "released_content_hash": CONTENT_HASH,
        "num_photos": {split: len(seeds) for split, seeds in SEEDS.items()},
        "drawn_with": {"numpy": np.__version__, "scipy": scipy.__version__, "opencv": cv2.__version__},
    }


def _whole(folder: Path) -> Path:
    """The folder, once every photo and mask was seen to be there."""
    expected = [f"{split}/{kind}/{name}.png" for split, name, _ in _names() for kind in ("images", "masks")]
    for path in (_RECORD, *expected):
        if not (folder / path).is_file():
            raise DataError(
                f"{folder}: {path} of the built-in photos is missing",
                hint="delete this folder; the next run draws it again",
            )
    return folder
