"""Give every photo its split by group: official test kept, validation never shares a group with train, leaks named."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crack_sweeps.data.photos import Photo, Split
from crack_sweeps.errors import DataError

TEST_FRACTION = 0.2  # where a set has no official test split


@dataclass(frozen=True, slots=True)
class Ungrouped:
    """A photo before it has its final split; `official` is what the folder says, None where it says nothing."""

    name: str
    image: Path
    mask: Path
    official: Split | None
    group: str


def assign_splits(
    photos: Sequence[Ungrouped], *, split_seed: int, val_fraction: float
) -> tuple[tuple[Photo, ...], tuple[str, ...]]:
    """Every photo in one split, sorted by split and name, and what a person should know about it.

    The result is a function of names, groups, official splits, `split_seed` and `val_fraction` alone.

    Raises:
        DataError: There are too few groups, or no photos to train on.
    """
    warnings: list[str] = []
    members: dict[Split, list[Ungrouped]] = {"train": [], "val": [], "test": []}
    for photo in photos:
        members[photo.official or "train"].append(photo)
    if not members["train"]:
        found = ", ".join(f"{len(rows)} {split}" for split, rows in members.items() if rows) or "none"
        raise DataError(f"no photos to train on (found: {found})", hint="a set needs train images and masks")
    if not members["test"]:
        members["test"], members["train"] = _hold_out(
            members["train"], TEST_FRACTION, f"test:{split_seed}", leave=1 if members["val"] else 2
        )
        warnings.append(
            f"the set has no official test split: {len(members['test'])} photos were held out as test "
            f"({TEST_FRACTION:.0%} by group, data.split_seed={split_seed})"
        )
    if members["val"]:
        warnings += _part_val_from_train(members)
    else:
        members["val"], members["train"] = _hold_out(members["train"], val_fraction, f"val:{split_seed}", leave=1)
    if not members["val"] or not members["train"]:
        raise DataError("validation and training photos share all their groups", hint="leave the val folder out")
    warnings += _leaks(members)
    assigned = [
        Photo(name=row.name, image=row.image, mask=row.mask, split=split, group=row.group)
        for split, rows in members.items()
        for row in sorted(rows, key=lambda row: row.name)
    ]
    return tuple(assigned), tuple(warnings)


def join_duplicates(photos: Sequence[Ungrouped], digests: Mapping[Path, str]) -> tuple[Ungrouped, ...]:
    """Groups that hold the same file byte for byte become one group, so that copies cannot be told apart by name.

    Args:
        photos: Photos with the groups that names or a table gave them.
        digests: SHA-256 of each file's bytes.
    """
    parent: dict[str, str] = {photo.group: photo.group for photo in photos}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    first: dict[str, str] = {}
    for photo in photos:
        one, other = sorted((root(photo.group), root(first.setdefault(digests[photo.image], photo.group))))
        parent[other] = one
    return tuple(replace(photo, group=root(photo.group)) for photo in photos)


def _hold_out(
    rows: Sequence[Ungrouped], fraction: float, seed: str, *, leave: int
) -> tuple[list[Ungrouped], list[Ungrouped]]:
    """(held out, kept): whole groups up to the fraction, in an order that only their names and the seed decide.

    At least one group is held out and at least `leave` groups are kept.
    """
    sizes = Counter(row.group for row in rows)
    if len(sizes) <= leave:
        raise DataError(
            f"{len(rows)} photos of {len(sizes)} {'group' if len(sizes) == 1 else 'groups'} cannot be split further: "
            "a group stays together",
            hint="train, val and test need a group each: bring photos of more places, or see `data.group_pattern`",
        )
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    target = max(1, round(fraction * len(rows)))
    chosen: set[str] = set()
    held = 0
    for group in order:
        if held + sizes[group] <= target and len(chosen) < len(sizes) - leave:
            chosen.add(group)
            held += sizes[group]
    if not chosen:  # every group is larger than what should be held out
        chosen.add(min(order, key=lambda group: sizes[group]))
    return [row for row in rows if row.group in chosen], [row for row in rows if row.group not in chosen]


def _part_val_from_train(members: dict[Split, list[Ungrouped]]) -> list[str]:
    """An official validation split gives the groups that train has too back to train."""
    shared = _groups(members["train"]) & _groups(members["val"])
    if not shared:
        return []
    moved = [row for row in members["val"] if row.group in shared]
    members["val"] = [row for row in members["val"] if row.group not in shared]
    members["train"] = members["train"] + moved
    return [
        f"{len(moved)} validation photos show what train shows ({_listed(shared)}): they were moved to train, "
        f"{len(members['val'])} are left for validation"
    ]


def _leaks(members: dict[Split, list[Ungrouped]]) -> list[str]:
    """Official test splits are kept as published; what they share with the rest is said."""
    shared = _groups(members["test"]) & (_groups(members["train"]) | _groups(members["val"]))
    if not shared:
        return []
    leaked = sum(row.group in shared for row in members["test"])
    return [
        f"{leaked} of {len(members['test'])} test photos were cut from photos that are in train or val too: "
        f"{_listed(shared)}; test scores flatter a little"
    ]


def _groups(rows: Iterable[Ungrouped]) -> set[str]:
    return {row.group for row in rows}


def _listed(groups: Iterable[str]) -> str:
    names = sorted(groups)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
