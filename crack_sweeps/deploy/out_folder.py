"""The folder that results are written to: nothing outside it, and nothing different that was there before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from crack_sweeps import durable
from crack_sweeps.errors import UserError


class OutFolder:
    """A folder for results.

    Args:
        path: Made, with what is above it, at the first file.
        overwrite: Whether a file with another content may be replaced.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = path
        self.overwrite = overwrite

    def check(self) -> None:
        """Whether results can be written here at all; writes nothing.

        Raises:
            UserError: The path, or something above it, is a file, or nobody may write there.
        """
        nearest = next(place for place in (self.path, *self.path.absolute().parents) if os.path.lexists(place))
        if not nearest.is_dir():
            raise UserError(f"--out {self.path}: {nearest} is no folder", hint="name a folder, new or old")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise UserError(f"--out {self.path}: {nearest} may not be written to", hint="name another folder")

    def write(self, files: Mapping[str, bytes]) -> list[Path]:
        """Write files that belong together: all of them, or none where one may not be written.

        A file that has this very content already is left alone.

        Args:
            files: Content by path within the folder.

        Raises:
            UserError: A file is there with another content, or its folder leads out of this one.
            DiskFull: There is no room.
        """
        targets = {self.path / relative: content for relative, content in files.items()}
        new = [target for target, content in targets.items() if self._is_new(target, content)]
        for target in new:
            durable.write_bytes(target, targets[target])
        return list(targets)

    def _is_new(self, target: Path, content: bytes) -> bool:
        """Whether the file is to be written; its folder is made."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"{target.parent}: is a file, not a folder", hint="name another --out") from None
        except OSError as error:
            said = (error.strerror or str(error)).lower()
            raise UserError(f"{target.parent}: cannot be made ({said})", hint="name another --out") from error
        if not target.parent.resolve().is_relative_to(self.path.resolve()):
            hint = "remove the link, or name another --out"
            raise UserError(f"{target.parent}: a link that leads out of {self.path}", hint=hint)
        if not os.path.lexists(target):
            return True
        if target.is_file() and target.read_bytes() == content:
            return False
        if target.is_dir() or not self.overwrite:
            hint = "name another --out, or add --overwrite"
            raise UserError(f"{target}: is there already, and different", hint=hint)
        return True
