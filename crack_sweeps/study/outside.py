"""Outside entries: somebody's predictions on a study's own photos, checked against these and kept in its ledger."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet

from crack_sweeps.errors import UserError
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.ledger import add_outside, read_rows

EntrySplit = Literal["val", "test"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_FLOORS = ("otsu", "black_hat")
_SHOWN = 3


@dataclass(frozen=True)
class KnownImage:
    """What a study knows of one of its photos: where it belongs, and its mask."""

    group: str
    crack_px: int
    all_px: int


@dataclass(frozen=True)
class KnownSplit:
    """The photos of a split of a study.

    Args:
        folder: Of the study.
        split: Which split.
        images: By name.
        source: The file that says so.
        data_digest: Of the study's data; None where nothing says.
    """

    folder: StudyFolder
    split: EntrySplit
    images: Mapping[str, KnownImage]
    source: Path
    data_digest: str | None


def check_name(name: str) -> None:
    """Refuses what could not be a file's name.

    Raises:
        UserError: It could not.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"--add {name}: not a name for an entry", hint="letters, digits, `.`, `_` and `-`, at most 80 of them"
        )


def known_split(folder: StudyFolder, split: EntrySplit) -> KnownSplit:
    """The photos of a split, from the scores of a finalist or of a floor.

    Raises:
        UserError: Nothing in the study has been scored on this split yet, or a file is damaged.
    """
    for path in _tables(folder, split):
        if path.is_file():
            return KnownSplit(folder, split, _images(path), path, _digest(folder))
    raise UserError(
        f"study {folder.name} has scored no photo of {split} yet, so nothing says which photos these are",
        hint="add the entry when the study's finalists have ended",
    )


def name_alike(known: KnownSplit, names: list[str]) -> dict[str, str]:
    """The study's name of each photo, for the names of the masks that were scored.

    Raises:
        UserError: They are not the photos of the split.
    """
    alike = _alike(known, names)
    if alike is not None:
        return alike
    other: EntrySplit = "val" if known.split == "test" else "test"
    if _are_of(known.folder, other, names):
        raise UserError(
            f"these are the {other} photos of study {known.folder.name}, not those of {known.split}",
            hint=f"`--split {other}` puts the entry there",
        )
    missing = sorted(set(known.images) - set(names))
    others = sorted(set(names) - set(known.images))
    said = [f"{len(missing)} missing here ({_some(missing)})"] if missing else []
    said += [f"{len(others)} of another name ({_some(others)})"] if others else []
    raise UserError(
        f"study {known.folder.name} has {len(known.images)} {known.split} photos: {' and '.join(said)}",
        hint=f"score exactly the photos of {known.split}; {known.source} lists them",
    )


def _alike(known: KnownSplit, names: list[str]) -> dict[str, str] | None:
    """Where train and test number their photos alike, a study's names begin with the split's."""
    for prefix in ("", f"{known.split}-"):
        alike = {name: f"{prefix}{name}" for name in names}
        if set(alike.values()) == set(known.images):
            return alike
    return None


def _are_of(folder: StudyFolder, split: EntrySplit, names: list[str]) -> bool:
    found = next((path for path in _tables(folder, split) if path.is_file()), None)
    return found is not None and _alike(KnownSplit(folder, split, _images(found), found, None), names) is not None


def as_of(known: KnownSplit, table: pa.Table) -> pa.Table:
    """The table of images with the study's names and groups, in the order of names.

    Args:
        known: The split.
        table: From `score_table`.

    Raises:
        UserError: The photos or their masks are not the study's.
    """
    alike = name_alike(known, table.column("name").to_pylist())
    names = [alike[name] for name in table.column("name").to_pylist()]
    tp, fp, fn, tn = (table.column(name).to_pylist() for name in ("tp", "fp", "fn", "tn"))
    differing: list[str] = []
    for row, name in enumerate(names):
        image = known.images[name]
        crack_px, all_px = tp[row] + fn[row], tp[row] + fp[row] + fn[row] + tn[row]
        if all_px != image.all_px:
            differing.append(f"{name} has {all_px} pixels here and {image.all_px} in the study")
        elif crack_px != image.crack_px:
            differing.append(f"the mask of {name} has {crack_px} crack pixels here and {image.crack_px} in the study")
    if differing:
        raise UserError(
            f"{len(differing)} of {len(names)} masks are not those of study {known.folder.name}: {differing[0]}",
            hint="score against the study's own masks, read by the same rule (`data.mask...`)",
        )
    groups = [known.images[name].group for name in names]
    table = table.set_column(table.schema.get_field_index("name"), "name", pa.array(names, pa.string()))
    table = table.set_column(table.schema.get_field_index("group"), "group", pa.array(groups, pa.string()))
    return table.sort_by("name")


def write_outside(
    known: KnownSplit,
    table: pa.Table,
    *,
    name: str,
    threshold: float,
    threshold_origin: str,
    protocol: str,
    metrics: Mapping[str, float | None],
    command: str,
) -> Path:
    """Keep an entry: its table of images as `outside/NAME-SPLIT.parquet`, and a line in the ledger.

    Args:
        known: The split that was scored.
        table: From `as_of`.
        name: Of the entry; the newest of a name and split counts.
        threshold: From which a pixel counted as crack.
        threshold_origin: validation, given or oracle.
        protocol: The rule of scoring.
        metrics: By plain name.
        command: What was typed.

    Returns:
        The table's file.

    Raises:
        UserError: The name could be no file's.
        StudyError: The study is being searched.
    """
    check_name(name)
    scores = Path("outside") / f"{name}-{known.split}.parquet"
    path = known.folder.path / scores
    path.parent.mkdir(exist_ok=True)
    # An older entry of this name keeps its table until the ledger has taken the new one.
    new = path.with_suffix(".new")
    try:
        pyarrow.parquet.write_table(table, new)
        add_outside(
            known.folder,
            {
                "name": name,
                "split": known.split,
                "threshold": threshold,
                "threshold_origin": threshold_origin,
                "protocol": protocol,
                "metrics": dict(metrics),
                "scores": scores.as_posix(),
                "data_digest": known.data_digest,
                "command": command,
            },
        )
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    return path


def _tables(folder: StudyFolder, split: EntrySplit) -> Iterator[Path]:
    """Where the photos of a split may be listed: the newest training first, then the floors."""
    for row in reversed(list(read_rows(folder))):
        if row["run_dir"] is not None:
            run = RunDirectory(Path(row["run_dir"]))
            yield run.scores if split == "val" else run.test_scores
    for floor in _FLOORS:
        yield folder.path / "floors" / f"{floor}-{split}.parquet"


def _images(path: Path) -> dict[str, KnownImage]:
    try:
        table = pyarrow.parquet.read_table(path, columns=["name", "group", "tp", "fp", "fn", "tn"])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    return {
        row["name"]: KnownImage(row["group"], row["tp"] + row["fn"], row["tp"] + row["fp"] + row["fn"] + row["tn"])
        for row in table.to_pylist()
    }


def _digest(folder: StudyFolder) -> str | None:
    """The study's own word for its data; older studies have it in their rows alone."""
    path = folder.path / "data.json"
    if path.is_file():
        digest: str = json.loads(path.read_bytes())["digest"]
        return digest
    return next((row["data_digest"] for row in read_rows(folder) if row["data_digest"] is not None), None)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
