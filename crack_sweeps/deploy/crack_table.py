"""`cracks.csv`: a row per photo, how much crack there is and how long and wide; it grows with each call."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crack_sweeps.deploy.out_folder import OutFolder
from crack_sweeps.errors import UserError

NAME = "cracks.csv"
COLUMNS = (
    "photo", "photo_width_px", "photo_height_px", "crack_share", "crack_length_px", "crack_width_px",
    "crack_max_width_px", "mm_per_px", "crack_length_mm", "crack_width_mm", "crack_max_width_mm", "threshold", "run",
)  # fmt: skip
_DIGITS = {"crack_share": 6} | dict.fromkeys(COLUMNS[4:7], 2) | dict.fromkeys(COLUMNS[8:11], 3)
# A spreadsheet takes a cell that begins so for a formula; a path that begins with `./` is the same path.
_FORMULA_SIGNS = ("=", "+", "-", "@")


class CrackTable:
    """The table of an output folder, with the rows of earlier calls.

    Args:
        out: Where it lies.

    Raises:
        UserError: A file of that name is there that this table did not write.
    """

    def __init__(self, out: OutFolder) -> None:
        self._out = out
        self._rows: dict[str, tuple[str, ...]] = {}
        path = out.path / NAME
        if path.is_file():
            self._rows = _read(path, out)

    def check(self, facts: Mapping[str, Any]) -> None:
        """Whether a photo's row may be written; nothing is changed.

        Raises:
            UserError: The photo has a row with other figures, and nobody asked to overwrite.
        """
        row = _row(facts)
        if self._rows.get(row[0], row) != row and not self._out.overwrite:
            raise UserError(
                f"{self._out.path / NAME}: {row[0]} has a row there already, and a different one",
                hint="name another --out, or add --overwrite",
            )

    def add(self, facts: Mapping[str, Any]) -> None:
        """Take in a photo's row, which `check` has let pass."""
        row = _row(facts)
        self._rows[row[0]] = row

    def write(self) -> Path | None:
        """Write the table, by photo; none where no photo has a row."""
        if not self._rows:
            return None
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([COLUMNS, *(self._rows[photo] for photo in sorted(self._rows))])
        # Rows of photos that are done are kept, and those that differ were refused before: this replaces nothing.
        return OutFolder(self._out.path, overwrite=True).write({NAME: text.getvalue().encode()})[0]


def _read(path: Path, out: OutFolder) -> dict[str, tuple[str, ...]]:
    try:
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines(keepends=True), strict=True)
    except (OSError, ValueError, csv.Error):
        header, rows = [], []
    if tuple(header) == COLUMNS and all(len(row) == len(COLUMNS) for row in rows):
        return {row[0]: tuple(row) for row in rows}
    if out.overwrite:
        return {}
    raise UserError(
        f"{path}: is there already, and no table of this command", hint="name another --out, or add --overwrite"
    )


def _row(facts: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_cell(column, facts[column]) for column in COLUMNS)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column in _DIGITS:
        return f"{value:.{_DIGITS[column]}f}"
    text = str(value)
    return f"./{text}" if column == "photo" and text.startswith(_FORMULA_SIGNS) else text
