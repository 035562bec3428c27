"""The photos that a run is scored on: a split of its own set, or another set; and which of them it has seen before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from crack_sweeps.data.digests import file_digest, set_digest
from crack_sweeps.data.groups import group_photos, name_photos
from crack_sweeps.data.layouts import find_pairs
from crack_sweeps.data.masks import decide_rule
from crack_sweeps.data.open import open_photos
from crack_sweeps.data.photos import SPLITS, Photo, PhotoSet, ResolvedMaskRule, Split
from crack_sweeps.deploy.trained import TrainedRun
from crack_sweeps.deploy.typed import ScoredSplit
from crack_sweeps.errors import DataError, UserError
from crack_sweeps.specs.data_settings import data_settings
from crack_sweeps.specs.experiment import Data

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
        rule: How their masks are read, unless a photo says otherwise.
        mask_rule: The same in words.
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
    mask_rule: str
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
        data: Where the set is, or the name that it was imported under.
        split: All of it, or a split, as official or as drawn by the run's `data.split_seed`.
        settings: How its masks are read, as `data.mask.KEY=VALUE`; what nobody says is found by looking at them.
        artifacts: Where the built-in set and the imported ones are.
        notify: Told what takes time.

    Raises:
        DataError: The set cannot be used.
        UserError: The split is empty, or a setting is none of the data's.
    """
    if (moved := _own_elsewhere(trained, data, settings, artifacts)) is not None:
        return _scored(moved, split, moved, is_own=True)
    try:
        own = open_photos(trained.experiment.data, root=artifacts, draw=False, notify=notify)
    except DataError as error:
        notify(f"the run's own photos cannot be compared with these: {error.message}")
        own = None
    if not data.is_dir():
        imported = data_settings(settings).model_copy(update={"path": data})
        return _scored(open_photos(imported, root=artifacts, notify=notify), split, own, is_own=False)
    seed = f"data.split_seed={trained.experiment.data.split_seed}"
    folder = data_settings(settings, [seed]).model_copy(update={"path": data})
    every, official = _every_photo(folder)
    drawn = split != "all" and split not in official
    return _scored(open_photos(folder, notify=notify) if drawn else every, split, own, is_own=False)


def _own_elsewhere(trained: TrainedRun, data: Path, settings: Sequence[str], artifacts: Path) -> PhotoSet | None:
    """The set, if it is the very one that was trained on, whatever its place."""
    if settings:
        return None
    own = trained.experiment.data
    read_as_own = Data(
        path=data,
        mask=own.mask,
        group_pattern=own.group_pattern,
        split_seed=own.split_seed,
        val_fraction=own.val_fraction,
    )
    try:
        found = open_photos(read_as_own, root=artifacts)
    except DataError:  # a set that could not be trained on so was not
        return None
    return found if found.digest == trained.record.data_digest else None


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
        mask_rule=scored.mask_rule,
        seen=seen,
        warnings=(*scored.warnings, *_flattery(seen, len(photos), split, is_own=is_own)),
    )


def _seen(photos: Iterable[Photo], own: PhotoSet) -> dict[Split, tuple[str, ...]]:
    """Which of the photos are in which of the run's own splits, by their bytes."""
    split_of: dict[str, set[Split]] = {}
    for photo in own.photos:
        split_of.setdefault(_digest_of(photo.image, photo.image.stat().st_mtime_ns), set()).add(photo.split)
    found: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for photo in photos:
        for split in split_of.get(_digest_of(photo.image, photo.image.stat().st_mtime_ns), ()):
            found[split].append(photo.name)
    return {split: tuple(names) for split, names in found.items()}


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


@lru_cache(maxsize=100_000)
def _digest_of(path: Path, _changed_ns: int) -> str:
    """Digest of a file as it was at that time; a set is gone through twice, and may be of many GB."""
    return file_digest(path)


def _every_photo(data: Data) -> tuple[PhotoSet, set[Split]]:
    """All photos of a folder, and its official splits: a set of one split, or too small to be split, can be scored too.

    What a folder's splits have in common says nothing about another set's model, so nobody is warned of it.
    """
    assert data.path is not None
    found = find_pairs(data.path)
    grouped, _ = group_photos(name_photos(found.pairs), data.path, data.group_pattern)
    rule, warnings = decide_rule([pair.mask for pair in found.pairs], data.mask)
    photos = tuple(Photo(one.name, one.image, one.mask, one.official or "test", one.group) for one in grouped)
    files = [path for photo in photos for path in (photo.image, photo.mask)]
    digests = {path: _digest_of(path, path.stat().st_mtime_ns) for path in files}
    every = PhotoSet(
        name=data.path.resolve().name,
        root=data.path,
        photos=photos,
        rule=rule,
        digest=set_digest(photos, data.path, rule, digests),
        warnings=(*found.warnings, *warnings),
    )
    return every, {one.official for one in grouped if one.official is not None}
