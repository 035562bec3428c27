"""A set of photos under a name: which files, in which split and group, by which rule, with the digest of each.

It lies at artifacts/data/NAME/manifest.json. The files stay where they are, or lie beside it where they were copied.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crack_sweeps.data.digests import file_digest, set_digest
from crack_sweeps.data.photos import SPLITS, Photo, PhotoSet, ResolvedMaskRule
from crack_sweeps.errors import DataError, UserError
from crack_sweeps.specs.words import nearest

FORMAT = 1
COPIES = "files"  # the folder of copied files, beside the manifest
_FILE = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True, slots=True)
class Row:
    """One photo.

    Args:
        name: Unique within the set.
        image: Its file, relative to the set's folder.
        mask: Its mask's file, likewise.
        split: train, val or test.
        group: The photograph that it was cut from.
        image_sha256: Of the photo's bytes.
        mask_sha256: Of the mask's bytes.
        crack_share: Share of crack in the mask.
    """

    name: str
    image: str
    mask: str
    split: str
    group: str
    image_sha256: str
    mask_sha256: str
    crack_share: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """A set under a name.

    Args:
        name: Letters, digits, '.', '_' and '-'.
        root: The folder that the files lie in, as it was typed; None where they were copied beside the manifest.
        imported_from: The folder that was imported, as it was typed.
        imported_at: When, in UTC.
        preset: The preset that was named.
        groups_from: What told the groups: a table, a pattern, the file names, or nothing.
        rule: How masks are read.
        digest: Of content, splits and rule, as `PhotoSet.digest`.
        warnings: What a person should know before trusting a score.
        photos: All photos, by split and name.
    """

    name: str
    root: str | None
    imported_from: str
    imported_at: str
    preset: str | None
    groups_from: str
    rule: ResolvedMaskRule
    digest: str
    warnings: tuple[str, ...]
    photos: tuple[Row, ...]

    def as_text(self) -> str:
        """The file's content."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"


def manifest_path(artifacts: Path, name: str) -> Path:
    """Where the manifest of a set lies or would lie.

    Raises:
        UserError: It is no name.
    """
    require_name(name, "data.path: ")
    return artifacts / "data" / name / _FILE


def is_name(text: str) -> bool:
    """Whether a set may be called so."""
    return _NAME.fullmatch(text) is not None and not text.lower().startswith("builtin")


def require_name(name: str, key: str) -> None:
    """Refuses what cannot be a set's name.

    Args:
        key: What the person called it; it begins the message.
    """
    if not is_name(name):
        raise UserError(
            f"{key}{name!r} cannot be the name of a set",
            hint="letters, digits, '.', '_' and '-', beginning with a letter or digit, 80 at most; `builtin` is taken",
        )


def imported_names(artifacts: Path) -> list[str]:
    """The names of all sets that were imported."""
    return sorted(path.parent.name for path in (artifacts / "data").glob(f"*/{_FILE}"))


def read_manifest(artifacts: Path, name: str) -> Manifest:
    """A set by its name.

    Raises:
        DataError: None was imported under it, or its manifest is damaged.
    """
    path = manifest_path(artifacts, name)
    if not path.is_file():
        names = imported_names(artifacts)
        close = nearest(name, names)
        there_are = f"there are {', '.join(names)}" if names else "none was imported yet"
        raise DataError(
            f"data.path: no set was imported as {name}",
            hint=f"did you mean {close}?" if close else f"{there_are}; `sweeps data import PATH --as {name}` makes one",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _parsed(content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:80]
        raise DataError(
            f"{path}: not a manifest that can be read ({type(error).__name__}: {reason})",
            hint=f"delete the folder {path.parent} and import the set again",
        ) from error


def open_manifest(artifacts: Path, name: str) -> PhotoSet:
    """An imported set, once every file was seen to be what it was.

    Raises:
        DataError: A file is gone or was changed since; its name is in the message.
    """
    return open_with_digests(artifacts, name)[0]


def open_with_digests(artifacts: Path, name: str) -> tuple[PhotoSet, dict[Path, str]]:
    """The same, and the SHA-256 of each file.

    Raises:
        DataError: A file is gone or was changed since; its name is in the message.
    """
    manifest = read_manifest(artifacts, name)
    root = manifest_path(artifacts, name).parent / COPIES if manifest.root is None else Path(manifest.root)
    for row in manifest.photos:
        for file, sha256 in ((row.image, row.image_sha256), (row.mask, row.mask_sha256)):
            if file_digest(root / file, imported_as=name) != sha256:
                raise DataError(
                    f"{root / file}: changed since it was imported as {name}",
                    hint="bring the old file back, or import the folder again: "
                    f"`sweeps data import {manifest.imported_from} --as {name} --replace`",
                )
    photos = tuple(_photo(row, root) for row in manifest.photos)
    digests = {
        root / file: sha256
        for row in manifest.photos
        for file, sha256 in ((row.image, row.image_sha256), (row.mask, row.mask_sha256))
    }
    digest = set_digest(photos, root, manifest.rule, digests)
    if digest != manifest.digest:
        raise DataError(
            f"{manifest_path(artifacts, name)}: was changed by hand: its rows do not give its digest",
            hint="import the set again: splits, groups and the rule are part of what runs are compared by",
        )
    return PhotoSet(name, root, photos, manifest.rule, digest, manifest.warnings), digests


def _photo(row: Row, root: Path) -> Photo:
    split = next(split for split in SPLITS if split == row.split)
    return Photo(name=row.name, image=root / row.image, mask=root / row.mask, split=split, group=row.group)


def _parsed(content: Any) -> Manifest:
    """Raises ValueError, TypeError or KeyError where the content is not what `Manifest.as_text` writes."""
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise ValueError("another format")
    content_rule = content.pop("rule")
    photos = tuple(_row(row) for row in content.pop("photos"))
    return Manifest(
        **{**content, "warnings": tuple(content["warnings"])},
        rule=_rule(content_rule),
        photos=photos,
    )


def _rule(content: dict[str, Any]) -> ResolvedMaskRule:
    crack_values, allowed = content.pop("crack_values"), content.pop("allowed")
    rule = ResolvedMaskRule(
        crack_values=None if crack_values is None else tuple(crack_values),
        allowed=None if allowed is None else tuple(allowed),
        **content,
    )
    if (rule.crack_values is None) == (rule.threshold is None):
        raise ValueError("a rule without crack")
    return rule


def _row(content: Any) -> Row:
    row = Row(**content)
    texts = [value for key, value in asdict(row).items() if key != "crack_share"]
    if not all(isinstance(text, str) for text in texts) or row.split not in SPLITS:
        raise ValueError(f"a photo that is none: {row.name}")
    for file in (row.image, row.mask):
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise ValueError(f"a file outside the set: {file}")
    return row
