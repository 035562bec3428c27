"""Import a folder of photos under a name: examined whole, grouped, split without leaks, and written to a manifest."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crack_sweeps import durable
from crack_sweeps.data.check import Examined, clusters_of, examine_set, silent
from crack_sweeps.data.digests import set_digest
from crack_sweeps.data.examination import ImageFacts, MaskFacts
from crack_sweeps.data.examiners import Progress
from crack_sweeps.data.findings import Finding, of_names, of_pairs, usable
from crack_sweeps.data.groups import GROUPS_FILE, by_pattern, by_table, name_photos, suggest_pattern
from crack_sweeps.data.manifest import COPIES, Manifest, Row, manifest_path, require_name
from crack_sweeps.data.photos import SPLITS, Photo, ResolvedMaskRule
from crack_sweeps.data.presets import preset as preset_of
from crack_sweeps.data.sharing import join
from crack_sweeps.data.splits import TEST_FRACTION, Ungrouped, assign_splits
from crack_sweeps.errors import DataError, DiskFull, UserError
from crack_sweeps.specs.data_settings import data_settings

_LEAVE_OUT = ("no_mask", "no_photo", "unlisted")  # notes of files that are left out as a matter of course


@dataclass(frozen=True, slots=True)
class Imported:
    """What was imported; `sweeps data import --json` prints it.

    Args:
        name: What specs call it: `data.path`.
        manifest: The file that says all of it.
        root: The folder that the photos lie in.
        digest: Of content, splits and rule.
        mask_rule: What is read as crack.
        groups_from: What told which files are of one photo.
        num_groups: How many photos that makes.
        num_photos: Files by split.
        crack_share: Mean share of crack by split.
        num_left_out: Pairs that cannot be used, or leak.
        left_out: Why, file by file.
        warnings: What a person should know before trusting a score.
    """

    name: str
    manifest: str
    root: str
    digest: str
    mask_rule: str
    groups_from: str
    num_groups: int
    num_photos: Mapping[str, int]
    crack_share: Mapping[str, float]
    num_left_out: int
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self)


def import_data(
    path: Path | str,
    *,
    name: str,
    settings: Sequence[str] = (),
    preset: str | None = None,
    groups: Path | str | None = None,
    group_column: str = "group",
    test_fraction: float = TEST_FRACTION,
    keep_leaks: bool = False,
    leave_out: bool = False,
    copy: bool = False,
    replace: bool = False,
    artifacts: Path = Path("artifacts"),
    num_processes: int | None = 1,
    progress: Progress = silent,
) -> Imported:
    """Write the manifest of a folder, so that experiments use it as `data.path=NAME`.

    Args:
        path: The folder.
        name: Letters, digits, '.', '_' and '-'.
        settings: How masks are read and files grouped, as KEY=VALUE: `data.mask.threshold=128`.
        preset: How the masks of a public set are read and its crops are named.
        groups: A CSV table with `file` and a column that names each file's photo; None is groups.csv in the folder.
        group_column: That column.
        test_fraction: Share of the photos held out as test where the set has no official test split.
        keep_leaks: Keep photos in train and val that the official test split shows too.
        leave_out: Leave out what cannot be used, in place of stopping.
        copy: Copy the files beside the manifest.
        replace: Import anew under a name that is taken.
        artifacts: The folder that manifests lie under.
        num_processes: As for `check_data`.
        progress: Told how many pairs of how many are done.

    Raises:
        UserError: The name is none or taken, or a setting or preset is not known.
        DataError: The folder, a file of it or its groups cannot be used.
    """
    target = _free_place(name, artifacts, replace=replace)
    chosen = preset_of(preset) if preset is not None else None
    data = data_settings(settings, chosen.mask if chosen is not None else ())
    if not 0.0 < test_fraction < 1.0:
        raise UserError(f"--test-fraction {test_fraction:g}: must lie between 0 and 1", hint="0.2 is a fifth")
    table = Path(groups) if groups is not None else None
    if table is not None and not table.is_file():
        raise UserError(f"--groups {table}: no such file", hint="name a CSV table with the columns `file` and `group`")
    seen = examine_set(Path(path), data, num_processes=num_processes, progress=progress)
    rule = _rule(seen)
    good, left_out = _usable(seen, go_on=leave_out)
    pattern = chosen.group_pattern if chosen is not None else None
    grouped, groups_from = _grouped(seen, good, data.group_pattern, table, group_column, pattern)
    shares = {photo.name: _mask(seen, place).share or 0.0 for place, photo in zip(good, grouped, strict=True)}
    if not any(shares.values()):
        raise DataError(f"{path}: no mask holds crack by the rule {rule}", hint="`sweeps data check` shows the values")
    photos, split_warnings = assign_splits(
        grouped,
        split_seed=data.split_seed,
        val_fraction=data.val_fraction,
        test_fraction=test_fraction,
        crack_shares=shares,
        drop_leaks=not keep_leaks,
    )
    warnings = [*_summary(left_out), *split_warnings, *_doubts(seen)]
    if chosen is not None and chosen.warn:
        warnings.append(chosen.about)
    rows, digest = _rows(seen, photos, rule, shares)
    manifest = Manifest(
        name=name,
        root=None if copy else str(seen.root),
        imported_from=str(seen.root),
        imported_at=datetime.now(UTC).isoformat(timespec="seconds"),
        preset=preset,
        groups_from=groups_from,
        rule=rule,
        digest=digest,
        warnings=tuple(warnings),
        photos=rows,
    )
    _write(manifest, seen.root, target)
    return _imported(manifest, target, len(seen.pairs), tuple(left_out))


def _free_place(name: str, artifacts: Path, *, replace: bool) -> Path:
    """Where the manifest goes.

    Raises:
        UserError: The name is none or taken.
    """
    require_name(name, "--as ")
    target = manifest_path(artifacts, name)
    if target.parent.exists() and not replace:
        raise UserError(
            f"--as {name}: a set of this name was imported already, {target}",
            hint="choose another name, or type --replace to import it anew",
        )
    if Path(name).exists():
        raise UserError(
            f"--as {name}: there is a folder of that name here, which `--data {name}` would mean",
            hint="choose another name",
        )
    return target


def _rule(seen: Examined) -> ResolvedMaskRule:
    """The rule of the masks, which must be said where they hold anything but 0 and one other value."""
    reading = seen.reading
    if reading.problem is not None or reading.rule is None:
        said = reading.problem or "no mask can be read"
        raise DataError(f"{seen.root}: {said}", hint=reading.remedy or "`sweeps data check` names each with its cause")
    return reading.rule


def _usable(seen: Examined, *, go_on: bool) -> tuple[list[int], list[str]]:
    """Places of the pairs that can be used, and what to say of the others.

    Raises:
        DataError: There are others, and nobody said that they are to be left out; or there are none that can be used.
    """
    errors = [finding for finding in _findings(seen) if finding.severity == "error"]
    good = [place for place, facts in enumerate(seen.facts) if usable(facts)]
    if errors and not go_on:
        number = sum(max(1, len(finding.files)) for finding in errors)
        first = f"{errors[0].files[0]}: " if errors[0].files else ""
        raise DataError(
            f"{seen.root}: {number} {'file' if number == 1 else 'files'} cannot be used: {first}{errors[0].cause}",
            hint=f"`sweeps data check {seen.root}` names each with its remedy; --leave-out goes on without them",
        )
    if not good:
        raise DataError(f"{seen.root}: no pair can be used", hint=f"`sweeps data check {seen.root}` says why")
    warnings = [_one_line(finding, "left out") for finding in errors]
    warnings += [
        _one_line(f, "") for f in _findings(seen) if f.kind in ("no_mask", "no_photo") and f.severity == "note"
    ]
    return good, warnings


def _summary(left_out: Sequence[str]) -> list[str]:
    """What each run should hear of what was left out: all of it where it is little."""
    if len(left_out) <= 2:
        return list(left_out)
    return [f"{left_out[0]}; and {len(left_out) - 1} more that were left out when the set was imported"]


def _findings(seen: Examined) -> Iterator[Finding]:
    yield from of_names(seen.survey, seen.label)
    yield from of_pairs(seen.pairs, seen.facts, seen.reading, seen.label)


def _doubts(seen: Examined) -> Iterator[str]:
    """What a check warns of and an import cannot mend."""
    for finding in _findings(seen):
        if finding.severity == "warning":
            yield _one_line(finding, "")


def _one_line(finding: Finding, ending: str) -> str:
    named = ", ".join(finding.files[:3]) + (f" and {len(finding.files) - 3} more" if len(finding.files) > 3 else "")
    text = f"{named}: {finding.cause}" if named else finding.cause
    return f"{text}; {ending}" if ending else text


# --- groups --------------------------------------------------------------------------------------


def _grouped(
    seen: Examined,
    good: Sequence[int],
    pattern: str | None,
    table: Path | None,
    column: str,
    preset_pattern: str | None,
) -> tuple[list[Ungrouped], str]:
    """The usable pairs with their groups, and what told them; copies of one picture are of one group."""
    named = name_photos([seen.pairs[place] for place in good])
    stems = [photo.image.stem for photo in named]
    own_table = seen.root / GROUPS_FILE
    if pattern is not None:
        grouped, source = by_pattern(named, pattern), f"data.group_pattern={pattern}"
    elif table is not None or own_table.is_file():
        grouped, source = by_table(named, table or own_table, column), (table or own_table).name
    elif preset_pattern is not None:
        grouped, source = by_pattern(named, preset_pattern), f"the preset's pattern {preset_pattern}"
    elif (suggested := suggest_pattern(stems)) is not None:
        grouped, source = by_pattern(named, suggested), f"file names, which look like crops: {suggested}"
    else:
        grouped, source = tuple(named), "file: each is a photo of its own"
    number = {place: new for new, place in enumerate(good)}
    copies = [[number[a.one], number[a.other]] for a in seen.alike if a.one in number and a.other in number]
    roots = join(len(grouped), [*clusters_of([photo.group for photo in grouped]), *copies])
    return [
        dataclasses.replace(photo, group=grouped[root].group) for photo, root in zip(grouped, roots, strict=True)
    ], source


# --- writing -------------------------------------------------------------------------------------


def _mask(seen: Examined, place: int) -> MaskFacts:
    mask = seen.facts[place].mask
    assert isinstance(mask, MaskFacts), "usable pairs have readable masks"
    return mask


def _rows(
    seen: Examined, photos: Sequence[Photo], rule: ResolvedMaskRule, shares: Mapping[str, float]
) -> tuple[tuple[Row, ...], str]:
    """The manifest's lines, and the digest of the set."""
    digests: dict[Path, str] = {}
    for pair, facts in zip(seen.pairs, seen.facts, strict=True):
        if isinstance(facts.image, ImageFacts) and isinstance(facts.mask, MaskFacts):
            digests |= {pair.image: facts.image.digest, pair.mask: facts.mask.digest}
    rows = tuple(
        Row(
            name=photo.name,
            image=seen.label(photo.image),
            mask=seen.label(photo.mask),
            split=photo.split,
            group=photo.group,
            image_sha256=digests[photo.image],
            mask_sha256=digests[photo.mask],
            crack_share=round(shares[photo.name], 6),
        )
        for photo in photos
    )
    return rows, set_digest(photos, seen.root, rule, digests)


def _write(manifest: Manifest, root: Path, target: Path) -> None:
    """The set's folder appears whole or not at all.

    Raises:
        DiskFull: There was no room; nothing is left of the import.
    """
    folder = target.parent
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        if manifest.root is None:
            for row in manifest.photos:
                for file in (row.image, row.mask):
                    (partial / COPIES / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(root / file, partial / COPIES / file)
        durable.write_text(partial / target.name, manifest.as_text())
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        durable.sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if durable.disk_is_full(error):
            raise DiskFull(f"{folder}: the disk is full", hint="make room, or import without --copy") from error
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error})", hint="give yourself the right to write there"
        ) from error


def _imported(manifest: Manifest, target: Path, num_pairs: int, left_out: tuple[str, ...]) -> Imported:
    by_split = {split: [row for row in manifest.photos if row.split == split] for split in SPLITS}
    return Imported(
        name=manifest.name,
        manifest=str(target),
        root=manifest.root if manifest.root is not None else str(target.parent / COPIES),
        digest=manifest.digest,
        mask_rule=str(manifest.rule),
        groups_from=manifest.groups_from,
        num_groups=len({row.group for row in manifest.photos}),
        num_photos={split: len(rows) for split, rows in by_split.items()},
        crack_share={
            split: sum(row.crack_share for row in rows) / len(rows) for split, rows in by_split.items() if rows
        },
        num_left_out=num_pairs - len(manifest.photos),
        left_out=left_out,
        warnings=manifest.warnings,
    )
