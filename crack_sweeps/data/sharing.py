"""Say which files come from one photo, by table, names and pixels, and which photos stand in several splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crack_sweeps.data.photos import SPLITS, Split

EVIDENCE = ("groups.csv", "data.group_pattern", "equal files", "same picture", "same picture turned", "file names")


@dataclass(frozen=True, slots=True)
class SharedPhoto:
    """A photo that is in more than one split.

    Args:
        name: The group's name; several where the table or the names do not know that they are one.
        files: How many of its files are in each split, and which.
        evidence: What says so, of EVIDENCE: each of these alone joins files of different splits.
    """

    name: str
    files: Mapping[Split, tuple[str, ...]]
    evidence: tuple[str, ...]


def join(num_files: int, clusters: Sequence[Sequence[int]]) -> list[int]:
    """For each file the first file that it belongs together with, through however many clusters."""
    parent = list(range(num_files))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for cluster in clusters:
        for place in cluster[1:]:
            one, other = sorted((root(cluster[0]), root(place)))
            parent[other] = one
    return [root(place) for place in range(num_files)]


def shared_photos(
    files: Sequence[str],
    splits: Sequence[Split | None],
    groups: Sequence[str],
    relations: Mapping[str, Sequence[Sequence[int]]],
) -> list[SharedPhoto]:
    """The photos whose files are in more than one official split.

    Args:
        files: Their names, for the report.
        splits: The official split of each; None where the set has none.
        groups: The name of each one's photo, as far as it is known.
        relations: By kind of evidence, the files that belong together.
    """
    roots = join(len(files), [cluster for clusters in relations.values() for cluster in clusters])
    together: dict[int, list[int]] = {}
    for place, root in enumerate(roots):
        together.setdefault(root, []).append(place)
    across = {root for root, places in together.items() if _spans(places, splits)}
    evidence: dict[int, set[str]] = {root: set() for root in across}
    for kind, clusters in relations.items():
        for cluster in clusters:
            if roots[cluster[0]] in across and _spans(cluster, splits):
                evidence[roots[cluster[0]]].add(kind)
    found = [
        SharedPhoto(
            name=" = ".join(sorted({groups[place] for place in together[root]})),
            files={
                split: names
                for split in SPLITS
                if (names := tuple(files[place] for place in together[root] if splits[place] == split))
            },
            evidence=tuple(kind for kind in EVIDENCE if kind in evidence[root]),
        )
        for root in across
    ]
    return sorted(found, key=lambda photo: photo.name)


def _spans(places: Sequence[int], splits: Sequence[Split | None]) -> bool:
    return len({splits[place] for place in places} - {None}) > 1
