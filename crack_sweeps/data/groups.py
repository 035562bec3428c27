"""Say which original photo each file was cut from: by `data.group_pattern`, by groups.csv, or each file for itself."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from crack_sweeps.data.pairing import Pair
from crack_sweeps.data.splits import Ungrouped
from crack_sweeps.errors import DataError

GROUPS_FILE = "groups.csv"
# How crops are named: photo_row_column, photo-number, photo_number. Beside each the pattern that also takes the whole
# photo, which stands among its crops in DeepCrack: 11142 beside 11142-1.
_CROP_NAMES = (
    (r"^(.+)[-_]\d+[-_]\d+$", r"^(.+?)(?:[-_]\d+[-_]\d+)?$"),
    (r"^(.+)-\d+$", r"^(.+?)(?:-\d+)?$"),
    (r"^(.+)_\d+$", r"^(.+?)(?:_\d+)?$"),
)


def group_photos(
    photos: Sequence[Ungrouped], root: Path, pattern: str | None
) -> tuple[tuple[Ungrouped, ...], tuple[str, ...]]:
    """The photos with their groups, and what a person should know about them.

    Raises:
        DataError: The pattern or the table is not valid, or does not speak of every photo.
    """
    if pattern is not None:
        return by_pattern(photos, pattern), ()
    table = root / GROUPS_FILE
    if table.is_file():
        return by_table(photos, table), ()
    suggestion = suggest_pattern([photo.image.stem for photo in photos])
    if suggestion is None:
        return tuple(photos), ()
    return tuple(photos), (
        "file names look like crops of the same photos, yet each counts as a photo of its own; "
        f"`'data.group_pattern={suggestion}'` keeps crops of one photo in one split",
    )


def suggest_pattern(stems: Sequence[str]) -> str | None:
    """A pattern that gathers names which look like crops of one photo (``11125-1``, ``11125-2``), or None.

    ``crack_001``, ``crack_002`` is a numbering, not crops: it has one prefix, or very few.
    """
    for crop, pattern in _CROP_NAMES:
        prefixes = Counter(match[1] for stem in stems if (match := re.search(crop, stem)))
        crops = sum(number for number in prefixes.values() if number > 1)
        if crops >= len(stems) / 4 and len(prefixes) >= max(5, len(stems) / 50):
            return pattern
    return None


def families(stems: Sequence[str]) -> dict[str, str]:
    """The photo that each name seems to be a crop of, where names look like that at all; else nothing."""
    pattern = suggest_pattern(stems)
    if pattern is None:
        return {}
    return {stem: match[1] if (match := re.search(pattern, stem)) else stem for stem in stems}


def name_photos(pairs: Sequence[Pair]) -> list[Ungrouped]:
    """Names are file stems; where train and test both have a ``001``, all names carry their official split."""
    unique = max(Counter(pair.image.stem for pair in pairs).values(), default=1) == 1
    names = [pair.image.stem if unique or pair.split is None else f"{pair.split}-{pair.image.stem}" for pair in pairs]
    return [
        Ungrouped(name=name, image=pair.image, mask=pair.mask, official=pair.split, group=name)
        for name, pair in zip(names, pairs, strict=True)
    ]


def by_pattern(photos: Sequence[Ungrouped], pattern: str) -> tuple[Ungrouped, ...]:
    """The photos with the groups that a pattern finds in their names.

    Raises:
        DataError: It is no pattern, or finds nothing in some of the names.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"data.group_pattern: {pattern!r} is not a regular expression ({error})",
            hint=r"for example `'data.group_pattern=^(.+)-\d+$'`",
        ) from error
    if compiled.groups < 1:
        raise DataError(
            f"data.group_pattern: {pattern!r} has no group in parentheses",
            hint=r"put the photo's part of the name in parentheses, as in `'data.group_pattern=^(.+)-\d+$'`",
        )
    matches = {photo.name: compiled.search(photo.image.stem) for photo in photos}
    grouped = [replace(photo, group=match[1]) for photo in photos if (match := matches[photo.name]) and match[1]]
    if len(grouped) < len(photos):
        unmatched = [photo.image.stem for photo in photos if not (match := matches[photo.name]) or not match[1]]
        raise DataError(
            f"data.group_pattern: {pattern!r} finds no group in {len(unmatched)} of {len(photos)} names: "
            f"{_first_names(unmatched)}",
            hint="the pattern is searched in the file name without its ending, and must find a group in every one",
        )
    return tuple(grouped)


def by_table(photos: Sequence[Ungrouped], table: Path, column: str = "group") -> tuple[Ungrouped, ...]:
    """The photos with the groups that a table gives their files.

    Raises:
        DataError: It cannot be read, lacks the column, or does not speak of every photo.
    """
    groups = _read_table(table, column)
    keys = {photo.name: _key_in(groups, photo) for photo in photos}
    missing = [photo.image.name for photo in photos if keys[photo.name] is None]
    if missing:
        raise DataError(
            f"{table}: no row for {len(missing)} of {len(photos)} photos: {_first_names(missing)}",
            hint="add the rows, or give `data.group_pattern`, which is used in place of the table",
        )
    return tuple(replace(photo, group=groups[key]) for photo in photos if (key := keys[photo.name]) is not None)


def _key_in(groups: Mapping[tuple[str, str], str], photo: Ungrouped) -> tuple[str, str] | None:
    keys = [(photo.official or "", photo.image.name), ("", photo.image.name)]
    return next((key for key in keys if key in groups), None)


def _read_table(table: Path, column: str) -> dict[tuple[str, str], str]:
    """Group by (split, file name); the split is "" where the table has no such column."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines, strict=True)
            columns = set(rows.fieldnames or ())
            if not {"file", column} <= columns:
                raise DataError(
                    f"{table}: has the columns {', '.join(sorted(columns)) or 'none'}",
                    hint=f"it needs `file` and `{column}`, and may have `split`",
                )
            groups: dict[tuple[str, str], str] = {}
            for row in rows:
                file, group = row["file"], row[column]
                if not file or not group:
                    raise DataError(
                        f"{table}: line {rows.line_num} lacks its file or its group", hint="fill it in, or delete it"
                    )
                key = (row.get("split") or "", file)
                if groups.setdefault(key, group) != group:
                    raise DataError(
                        f"{table}: line {rows.line_num} puts {file} into group {group}, an earlier line into "
                        f"{groups[key]}",
                        hint="keep one of the two lines",
                    )
            return groups
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{table}: not a table that can be read ({error})", hint="save it as CSV in UTF-8") from error


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
