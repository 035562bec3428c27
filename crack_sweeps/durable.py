"""Write a file so that a crash leaves the old one or the new one, never half of either."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from crack_sweeps.errors import DiskFull


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut. Windows has no such call and needs none for NTFS names."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def disk_is_full(error: BaseException) -> bool:
    """Whether an error while writing means: no room. torch.save says it in a RuntimeError of its zip writer."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, RuntimeError) and ("inline_container.cc" in str(error) or "No space left" in str(error))


def stage(path: Path, write: Callable[[BinaryIO], None]) -> Path:
    """Write beside `path` under a temporary name and force it to disk; the caller renames it into place.

    Raises:
        DiskFull: There was no room; the temporary file is gone and `path` is as it was.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with staged.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        staged.unlink(missing_ok=True)
        if disk_is_full(error):
            raise DiskFull(
                f"{path}: the disk is full", hint=f"make room on the disk that holds {path.parent}, then resume"
            ) from error
        raise
    return staged


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content in one step."""

    def write(file: BinaryIO) -> None:
        file.write(content)

    os.replace(stage(path, write), path)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a text file's content in one step, as UTF-8."""
    write_bytes(path, text.encode())
