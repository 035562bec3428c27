"""What was found in a folder of photos, as rows and lines that a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crack_sweeps.cli.rows import Rows
    from crack_sweeps.data.check import DataCheck, Spread
    from crack_sweeps.data.findings import Finding
    from crack_sweeps.data.importing import Imported
    from crack_sweeps.errors import DataError

_MOST_NAMED = 60  # files of one finding that are written out; `--json` has all
_MOST_ALIKE = 12  # findings of one kind that are told one by one


def check_rows(found: DataCheck) -> Rows:
    """Counts and figures."""
    splits = ", ".join(f"{number} {split}" for split, number in found.splits.items())
    usable = "" if found.num_usable == found.num_pairs else f"; {found.num_usable} can be used"
    rows = [
        ("folder", found.path),
        ("layout", ", ".join(found.layout)),
        ("pairs", f"{found.num_pairs}" + (f" ({splits})" if splits else ", no official split") + usable),
        ("size px", _counts(found.sizes)),
        ("photos", _counts(found.photo_modes)),
        ("masks", _counts(found.mask_modes)),
        ("mask values", _values(found)),
        ("crack is", _rule(found)),
    ]
    if found.crack_share is not None and found.crack_share_pooled is not None:
        spread = _spread(found.crack_share, ".2%")
        rows.append(("crack share", f"{found.crack_share_pooled:.2%} of all pixels; masks with crack {spread}"))
    if found.crack_width_px is not None:
        rows.append(("crack width px", _spread(found.crack_width_px, ".1f")))
    if found.mask_rule is not None:
        rows.append(("empty masks", str(found.num_empty_masks)))
    rows.append(("photos without a mask", str(len(found.photos_without_mask))))
    rows.append(("masks without a photo", str(len(found.masks_without_photo))))
    if len(found.splits) > 1:
        rows.append(("photos in two splits", str(len(found.shared_photos))))
    return rows


def has_errors(found: DataCheck) -> bool:
    """Whether a training stops at some of the files."""
    return any(finding.severity == "error" and finding.kind != "masks" for finding in found.findings)


def next_step(found: DataCheck, path: Path, refusal: DataError | None) -> str:
    """What to type next; `refusal` is what a training says of the folder as a whole."""
    setting = f" {found.setting}" if found.setting else ""
    if has_errors(found):
        return (
            f"a training stops at these errors: mend them, or leave those files out with\n"
            f"  sweeps data import {path} --as NAME --leave-out{setting}"
        )
    if refusal is not None and (found.mask_rule is not None or found.num_mask_values < 2):
        return f"a training refuses it: {refusal.message}" + (f"\n\nhint: {refusal.hint}" if refusal.hint else "")
    if found.mask_rule is None:
        return f"say how masks are read, and look again: sweeps data check {path} data.mask.KEY=VALUE"
    return f"train on it: sweeps run swinv2_hybrid --data {path}{setting}"


def import_rows(made: Imported) -> Rows:
    """What was imported."""
    splits = [
        f"{number} {split} ({made.crack_share[split]:.2%} crack)" if number else f"0 {split}"
        for split, number in made.num_photos.items()
    ]
    return [
        ("name", made.name),
        ("manifest", made.manifest),
        ("photos in", made.root),
        ("photos", ", ".join(splits)),
        ("left out", str(made.num_left_out)),
        ("groups", f"{made.num_groups}, by {made.groups_from}"),
        ("crack is", made.mask_rule),
        ("digest", made.digest),
    ]


def finding_lines(found: DataCheck) -> Iterator[str]:
    """Each finding on a line of its own, with what to do under it; an empty line before the first."""
    if not found.findings:
        return
    yield ""
    for _, alike in groupby(found.findings, key=lambda finding: (finding.severity, finding.kind)):
        findings = list(alike)
        if len(findings) > _MOST_ALIKE and findings[0].kind != "shared_photo":
            yield from _together(findings)
            continue
        for finding in findings:
            yield f"{finding.severity:<8} {_told(finding.files, finding.cause)}"
            if finding.remedy:
                yield f"{'':<8} -> {finding.remedy}"


def _together(findings: list[Finding]) -> Iterator[str]:
    """Many findings of one kind that differ in their figures alone: all files, and the first one's cause."""
    files = tuple(file for finding in findings for file in finding.files)
    first = findings[0]
    yield f"{first.severity:<8} {_told(files, f'each in its own way; the first: {first.cause}')}"
    if first.remedy:
        yield f"{'':<8} -> {first.remedy}"


def _told(files: tuple[str, ...], cause: str) -> str:
    """Few files stand before what is the matter with them, many behind it."""
    if not files:
        return cause
    named = ", ".join(files[:_MOST_NAMED])
    if len(files) <= 3:
        return f"{named}: {cause}"
    more = f" and {len(files) - _MOST_NAMED} more (--json names all)" if len(files) > _MOST_NAMED else ""
    return f"{len(files)} files: {cause}: {named}{more}"


def _counts(counts: Mapping[str, int]) -> str:
    shown = [f"{name} ({number})" for name, number in list(counts.items())[:4]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") if shown else "none that can be read"


def _values(found: DataCheck) -> str:
    shown = [f"{value.value} ({_share(value.share)}, in {value.num_masks})" for value in found.mask_values[:6]]
    more = found.num_mask_values - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "") if shown else "none that can be read in grey"


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 or share == 0 else f"{share:.2g}".replace("e-0", "e-")


def _rule(found: DataCheck) -> str:
    if found.mask_rule is None:
        return "unknown: only you can say"
    return found.mask_rule + (f"   (type {found.setting})" if found.setting else "")


def _spread(spread: Spread, form: str) -> str:
    return f"p10 {spread.p10:{form}}, p50 {spread.p50:{form}}, p90 {spread.p90:{form}}"
