"""Several sets as one: names that stay unique, each photo with its own rule and weight, no photo in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from crack_sweeps.data.photos import SPLITS, Photo, PhotoSet
from crack_sweeps.errors import DataError


def join_sets(sets: Sequence[PhotoSet], weights: Sequence[float], digests: Mapping[Path, str]) -> PhotoSet:
    """The photos of all sets in the splits that they have there.

    A photo that two sets share, byte for byte, stays in test before val and in val before train.

    Args:
        weights: How often a photo of each set is drawn.
        digests: SHA-256 of each photo's file.

    Raises:
        DataError: Two sets have one name.
    """
    names = [one.name for one in sets]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise DataError(
            f"data.sets: two sets are called {twice}",
            hint="their photos could not be told apart: import one under another name",
        )
    photos = [
        replace(photo, name=f"{one.name}-{photo.name}", group=f"{one.name}/{photo.group}", rule=one.rule, weight=weight)
        for one, weight in zip(sets, weights, strict=True)
        for photo in one.photos
    ]
    kept, warnings = _without_doubles(photos, digests)
    told = "\n".join(f"{weight:g}\t{one.digest}" for one, weight in zip(sets, weights, strict=True))
    return PhotoSet(
        name="+".join(names),
        root=Path("+".join(names)),
        photos=tuple(photo for split in SPLITS for photo in kept if photo.split == split),
        rule=sets[0].rule,
        digest=hashlib.sha256(f"sets\n{told}".encode()).hexdigest(),
        warnings=(*(f"{one.name}: {warning}" for one in sets for warning in one.warnings), *warnings),
    )


def _without_doubles(photos: Sequence[Photo], digests: Mapping[Path, str]) -> tuple[list[Photo], list[str]]:
    """Photos of which no other split has a copy that ranks before, and a line about those that went."""
    rank = {split: number for number, split in enumerate(("test", "val", "train"))}
    first: dict[str, int] = {}
    for photo in photos:
        digest = digests[photo.image]
        first[digest] = min(first.get(digest, len(rank)), rank[photo.split])
    kept = [photo for photo in photos if rank[photo.split] == first[digests[photo.image]]]
    left_out = [photo.name for photo in photos if rank[photo.split] > first[digests[photo.image]]]
    if not left_out:
        return kept, []
    named = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
    return kept, [f"{len(left_out)} photos are in another set's val or test too and were left out: {named}"]
