"""Give every photo its split by group: official test kept, validation never shares a group with train, leaks named."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from crack_sweeps.data.photos import Photo, Split
from crack_sweeps.errors import DataError

TEST_FRACTION = 0.2  # where a set has no official test split
_DRAWS = 100  # ways to hold groups out that are compared by how alike the crack shares are


@dataclass(frozen=True, slots=True)
class Ungrouped:
    """A photo before it has its final split; `official` is what the folder says, None where it says nothing."""

    name: str
    image: Path
    mask: Path
    official: Split | None
    group: str


def assign_splits(
    photos: Sequence[Ungrouped],
    *,
    split_seed: int,
    val_fraction: float,
    test_fraction: float = TEST_FRACTION,
    crack_shares: Mapping[str, float] | None = None,
    drop_leaks: bool = False,
) -> tuple[tuple[Photo, ...], tuple[str, ...]]:
    """Every photo in one split, sorted by split and name, and what a person should know about it.

    The result is a function of names, groups, official splits and the other arguments alone.

    Args:
        split_seed: Of whatever is drawn.
        val_fraction: Share of the photos outside test that validation gets, where there is no official one.
        test_fraction: Share of the photos that test gets, where there is no official one.
        crack_shares: Share of crack of each photo, by name: what is held out then has little and much crack alike.
        drop_leaks: Leave out of train and val what the official test split shows too.

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
    if members["test"] and drop_leaks:
        warnings += _drop_leaks(members)
    has_val = bool(members["val"])
    if has_val:  # before test is held out, which then has no group that validation has
        warnings += _part_val_from_train(members)
    if not members["test"]:
        members["test"], members["train"] = _hold_out(
            members["train"], test_fraction, f"test:{split_seed}", crack_shares, leave=1 if has_val else 2
        )
        warnings.append(
            f"the set has no official test split: {len(members['test'])} photos were held out as test "
            f"({test_fraction:.0%} by group, data.split_seed={split_seed})"
        )
    if not has_val:
        members["val"], members["train"] = _hold_out(
            members["train"], val_fraction, f"val:{split_seed}", crack_shares, leave=1
        )
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
    rows: Sequence[Ungrouped], fraction: float, seed: str, crack_shares: Mapping[str, float] | None, *, leave: int
) -> tuple[list[Ungrouped], list[Ungrouped]]:
    """(held out, kept): whole groups up to the fraction, as only names, crack shares and the seed decide.

    At least one group is held out and at least `leave` groups are kept.
    """
    sizes = Counter(row.group for row in rows)
    if len(sizes) <= leave:
        raise DataError(
            f"{len(rows)} photo{'' if len(rows) == 1 else 's'} of {len(sizes)} "
            f"group{'' if len(sizes) == 1 else 's'} cannot be split further: "
            "a group stays together",
            hint="train, val and test need a group each: bring photos of more places, or see `data.group_pattern`",
        )
    target = max(1, round(fraction * len(rows)))
    chosen = _fill(sizes, seed, target, leave)
    if crack_shares is not None:
        draws = [chosen, *(_fill(sizes, f"{seed}:{number}", target, leave) for number in range(1, _DRAWS))]
        chosen = min(draws, key=lambda groups: _unlikeness(rows, groups, crack_shares, target))
    return [row for row in rows if row.group in chosen], [row for row in rows if row.group not in chosen]


def _fill(sizes: Mapping[str, int], seed: str, target: int, leave: int) -> frozenset[str]:
    """Groups in the order of their hashes, as long as they fit into `target` photos."""
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    chosen: set[str] = set()
    held = 0
    for group in order:
        if held + sizes[group] <= target and len(chosen) < len(sizes) - leave:
            chosen.add(group)
            held += sizes[group]
    if not chosen:  # every group is larger than what should be held out
        chosen.add(min(order, key=lambda group: sizes[group]))
    return frozenset(chosen)


def _unlikeness(
    rows: Sequence[Ungrouped], groups: frozenset[str], crack_shares: Mapping[str, float], target: int
) -> float:
    """How far what these groups hold is from all photos in deciles and mean of the crack share, and from the number
    that is wanted; 0 is alike."""
    everywhere = _deciles([crack_shares[row.name] for row in rows])
    held = [crack_shares[row.name] for row in rows if row.group in groups]
    apart = sum(abs(one - other) for one, other in zip(_deciles(held), everywhere, strict=True))
    mean = fmean(crack_shares[row.name] for row in rows)
    return (
        apart / max(sum(everywhere), 1e-9)
        + abs(fmean(held) - mean) / max(mean, 1e-9)
        + abs(len(held) - target) / target
    )


def _deciles(shares: Sequence[float]) -> list[float]:
    """The value in the middle of each tenth."""
    ordered = sorted(shares)
    return [ordered[(2 * tenth + 1) * len(ordered) // 20] for tenth in range(10)]


def _drop_leaks(members: dict[Split, list[Ungrouped]]) -> list[str]:
    """Train and val lose the groups that the official test split has; test stays as published."""
    shared = _groups(members["test"]) & (_groups(members["train"]) | _groups(members["val"]))
    dropped = [row for split in ("train", "val") for row in members[split] if row.group in shared]
    for split in ("train", "val"):
        members[split] = [row for row in members[split] if row.group not in shared]
    if not dropped:
        return []
    return [
        f"{len(dropped)} photos of train or val show what the official test split shows ({_listed(shared)}): left out, "
        "so that test scores are not flattered"
    ]


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
