"""The photos that a run is scored on: a split of its own set, or another set; and which of them it has seen before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crack_sweeps.data.groups import group_photos
from crack_sweeps.data.layouts import find_pairs
from crack_sweeps.data.masks import decide_rule
from crack_sweeps.data.open import open_photos
from crack_sweeps.data.photos import SPLITS, Photo, PhotoSet, ResolvedMaskRule, Split
from crack_sweeps.data.splits import Ungrouped
from crack_sweeps.deploy.trained import TrainedRun
from crack_sweeps.deploy.typed import ScoredSplit
from crack_sweeps.errors import DataError, UserError
from crack_sweeps.specs.experiment import Data
from crack_sweeps.specs.loading import resolve

# What belongs to the set that was trained on, and is read anew for another one unless somebody says otherwise.
_OF_THE_OLD_SET = {
    "data.mask.crack_values": "null",
    "data.mask.threshold": "null",
    "data.mask.invert": "false",
    "data.mask.channel": "null",
    "data.group_pattern": "null",
}
Notify = Callable[[str], None]


@dataclass(frozen=True)
class ScoredPhotos:
    """What is scored.

    Args:
        name: Of the set.
        root: Its folder.
        digest: SHA-256 over photos, masks and the rule.
        is_own: It is the set that the run was trained on.
        split: Which of its photos.
        photos: Themselves.
        rule: How their masks are read.
        seen: Of each of the run's own splits, the names of those photos that are in it too, byte for byte; None where
            the run's own photos are gone, so that nobody can tell.
        warnings: What a person should know before trusting the scores.
    """

    name: str
    root: Path
    digest: str
    is_own: bool
    split: ScoredSplit
    photos: tuple[Photo, ...]
    rule: ResolvedMaskRule
    seen: dict[Split, tuple[str, ...]] | None
    warnings: tuple[str, ...]


def own_photos(trained: TrainedRun, split: ScoredSplit, *, artifacts: Path, notify: Notify) -> ScoredPhotos:
    """A split of the set that the run was trained on.

    Raises:
        UserError: The photos, masks or splits are not those that it was trained on, or the split is empty.
    """
    own = open_photos(trained.experiment.data, root=artifacts, notify=notify)
    if own.digest != trained.record.data_digest:
        raise UserError(
            f"run {trained.name} was trained on data {trained.record.data_digest[:12]}, now {own.root} is "
            f"{own.digest[:12]}: photos or masks changed",
            hint=f"put the files back as they were, or score them as another set: --data {own.root}",
        )
    return _scored(own, split, own, is_own=True)


def other_photos(
    trained: TrainedRun, data: Path, split: ScoredSplit, settings: Sequence[str], *, artifacts: Path, notify: Notify
) -> ScoredPhotos:
    """Another set, or the run's own at another place.

    Args:
        trained: The run.
        data: Where the set is.
        split: All of it, or a split, as official or as drawn by the run's `data.split_seed`.
        settings: How its masks are read, as `data.mask.KEY=VALUE`; what nobody says is found by looking at them.
        artifacts: Where the built-in set is.
        notify: Told what takes time.

    Raises:
        DataError: The set cannot be used.
        UserError: The split is empty, or a setting is none of the data's.
    """
    described = other_data(trained, data, settings)
    try:
        own = open_photos(trained.experiment.data, root=artifacts, draw=False)
    except DataError as error:
        notify(f"the run's own photos cannot be compared with these: {error.message}")
        own = None
    photos = _every_photo(described) if split == "all" and data.is_dir() else open_photos(described, root=artifacts)
    return _scored(photos, split, own, is_own=own is not None and own.digest == photos.digest)


def other_data(trained: TrainedRun, data: Path, settings: Sequence[str]) -> Data:
    """How another set is read.

    Raises:
        UserError: A setting is none of the data's.
    """
    typed = {text.partition("=")[0].strip() for text in settings}
    unsaid = [f"{key}={value}" for key, value in _OF_THE_OLD_SET.items() if key not in typed]
    overrides = [f"data.path={data}", *unsaid, *settings]
    return resolve(trained.run.config, overrides=overrides, profile="none").experiment.data


def _scored(scored: PhotoSet, split: ScoredSplit, own: PhotoSet | None, *, is_own: bool) -> ScoredPhotos:
    photos = scored.photos if split == "all" else scored.split(split)
    if not photos:
        there_are = ", ".join(f"{len(scored.split(one))} {one}" for one in SPLITS)
        raise UserError(f"{scored.root}: no {split} photos in it", hint=f"there are {there_are}")
    seen = _seen(photos, own) if own is not None else None
    return ScoredPhotos(
        name=scored.name,
        root=scored.root,
        digest=scored.digest,
        is_own=is_own,
        split=split,
        photos=photos,
        rule=scored.rule,
        seen=seen,
        warnings=(*scored.warnings, *_flattery(seen, len(photos), split, is_own=is_own)),
    )


def _seen(photos: Iterable[Photo], own: PhotoSet) -> dict[Split, tuple[str, ...]]:
    """Which of the photos are in which of the run's own splits, by their bytes."""
    split_of: dict[str, set[Split]] = {}
    for photo in own.photos:
        split_of.setdefault(_digest(photo.image), set()).add(photo.split)
    found: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for photo in photos:
        for split in split_of.get(_digest(photo.image), ()):
            found[split].append(photo.name)
    return {split: tuple(names) for split, names in found.items()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flattery(
    seen: dict[Split, tuple[str, ...]] | None, num_photos: int, split: ScoredSplit, *, is_own: bool
) -> list[str]:
    if seen is None:
        return ["the run's own photos are gone, so nobody can tell whether it was trained on some of these"]
    warnings = []
    if seen["train"]:
        warnings.append(
            f"{len(seen['train'])} of {num_photos} photos were trained on ({_names(seen['train'])}): scores flatter"
        )
    if seen["val"] and not (is_own and split == "val"):
        warnings.append(
            f"{len(seen['val'])} of {num_photos} photos chose the weights and the threshold "
            f"({_names(seen['val'])}): scores flatter"
        )
    if seen["test"] and not (is_own and split == "test"):
        warnings.append(f"{len(seen['test'])} of {num_photos} are test photos of the run ({_names(seen['test'])})")
    return warnings


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _every_photo(data: Data) -> PhotoSet:
    """All photos of a folder, whatever its splits: a set of one split, or too small to be split, can be scored too."""
    assert data.path is not None
    found = find_pairs(data.path)
    stems = [pair.image.stem for pair in found.pairs]
    alike = len(set(stems)) < len(stems)
    named = [
        Ungrouped(
            name=f"{pair.split}-{stem}" if alike and pair.split is not None else stem,
            image=pair.image,
            mask=pair.mask,
            official=pair.split,
            group=stem,
        )
        for pair, stem in zip(found.pairs, stems, strict=True)
    ]
    grouped, _ = group_photos(named, data.path, data.group_pattern)  # its warnings are about splits
    rule, warnings = decide_rule([pair.mask for pair in found.pairs], data.mask)
    lines = sorted(
        f"{photo.image.relative_to(data.path).as_posix()}\t{_digest(photo.image)}\t{_digest(photo.mask)}"
        for photo in grouped
    )
    return PhotoSet(
        name=data.path.resolve().name,
        root=data.path,
        photos=tuple(
            Photo(photo.name, photo.image, photo.mask, photo.official or "test", photo.group) for photo in grouped
        ),
        rule=rule,
        digest=hashlib.sha256("\n".join([*lines, f"mask {rule}"]).encode()).hexdigest(),
        warnings=(*found.warnings, *warnings),
    )
