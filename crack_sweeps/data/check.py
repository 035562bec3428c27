"""Check a folder of photos and masks: go on past what is bad, name each thing with its cause, and measure the rest."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crack_sweeps.data.examination import ImageFacts, MaskFacts, PairFacts
from crack_sweeps.data.examiners import Progress, examine_all
from crack_sweeps.data.findings import Finding, mode_name, of_names, of_pairs, stray, usable
from crack_sweeps.data.folders import IMAGE_SUFFIXES, require_folder
from crack_sweeps.data.groups import GROUPS_FILE, families, group_photos, name_photos, suggest_pattern
from crack_sweeps.data.layouts import no_partners, nothing_found
from crack_sweeps.data.likeness import Likeness, find_alike
from crack_sweeps.data.mask_kinds import Reading, reading_of
from crack_sweeps.data.open import open_photos
from crack_sweeps.data.pairing import Pair, Survey, survey
from crack_sweeps.data.photos import SPLITS
from crack_sweeps.data.sharing import SharedPhoto, join, shared_photos
from crack_sweeps.errors import DataError
from crack_sweeps.specs.data_settings import data_settings
from crack_sweeps.specs.experiment import Data

_SHOWN_VALUES = 8
_HOW = {"equal": "equal files", "same": "same picture", "turned": "same picture turned"}


@dataclass(frozen=True, slots=True)
class Spread:
    """How a figure is spread over masks or along cracks."""

    p10: float
    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class MaskValue:
    """A value that masks hold.

    Args:
        share: Of all pixels of all masks that could be read in grey.
        num_masks: Masks that hold it at all.
    """

    value: int
    share: float
    num_masks: int


@dataclass(frozen=True, slots=True)
class DataCheck:
    """What was found in a folder; `sweeps data check --json` prints it.

    Args:
        path: The folder.
        layout: Where photos and masks lie in it.
        num_pairs: Photos with a mask.
        num_usable: Of these, how many a training could read.
        splits: Pairs by official split; empty where the set has none.
        sizes: Photos by size in px, the commonest first.
        photo_modes: Photos by the way they are written, the commonest first.
        mask_modes: Masks likewise.
        mask_values: The commonest values of the masks, with their shares.
        num_mask_values: How many values there are in all.
        mask_rule: What is read as crack; None where only a person can know.
        setting: What must be typed for a training to read the masks so; None where nothing must.
        crack_share: Over the masks that hold a crack; None where no mask could be read.
        crack_share_pooled: Of all pixels of all masks together.
        crack_width_px: Along the centre lines of cracks, in at most 1,000 masks that are spread over the set.
        num_empty_masks: Masks without a crack.
        photos_without_mask: Their files.
        masks_without_photo: Their files.
        shared_photos: Photos that are in more than one official split.
        findings: What a person should know, the worst first.
    """

    path: str
    layout: tuple[str, ...]
    num_pairs: int
    num_usable: int
    splits: Mapping[str, int]
    sizes: Mapping[str, int]
    photo_modes: Mapping[str, int]
    mask_modes: Mapping[str, int]
    mask_values: tuple[MaskValue, ...]
    num_mask_values: int
    mask_rule: str | None
    setting: str | None
    crack_share: Spread | None
    crack_share_pooled: float | None
    crack_width_px: Spread | None
    num_empty_masks: int
    photos_without_mask: tuple[str, ...]
    masks_without_photo: tuple[str, ...]
    shared_photos: tuple[SharedPhoto, ...]
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Examined:
    """A set that was looked at, file by file.

    Args:
        root: Its folder.
        survey: Its files.
        reading: How most of its masks want to be read.
        facts: What was seen of each pair, in their order.
        alike: Photos that show the same, by their places among the pairs.
    """

    root: Path
    survey: Survey
    reading: Reading
    facts: tuple[PairFacts, ...]
    alike: tuple[Likeness, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs, in the order of their facts."""
        return self.survey.pairs

    def label(self, path: Path) -> str:
        """A file's name as reports write it: relative to the set's folder."""
        return relative(path, self.root)


def refusal_of(root: Path, data: Data) -> DataError | None:
    """What a training would say of a folder, read in this way; None where it would begin."""
    try:
        open_photos(data.model_copy(update={"path": root}))
    except DataError as error:
        return error
    return None


def relative(path: Path, root: Path) -> str:
    """A file's path inside a set, with slashes on every system; the whole path where it lies elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def silent(_done: int, _total: int) -> None:
    """Show nothing."""


def check_data(
    path: Path | str, *, settings: Sequence[str] = (), num_processes: int | None = 1, progress: Progress = silent
) -> DataCheck:
    """Everything that can be known of a folder of photos and masks by looking at each of them.

    Args:
        path: The folder.
        settings: How masks are read and files grouped where nobody should guess, as KEY=VALUE:
            `data.mask.threshold=128`.
        num_processes: How many look at files at once; None is one for each core. More than one import the calling
            script again, which must then do its work under `if __name__ == "__main__"`.
        progress: Told how many pairs of how many are done.

    Raises:
        SpecError: A setting is none that says how photos are read.
        DataError: There is no such folder, or no photo in it has a mask.
    """
    data = data_settings(settings)
    return report(examine_set(Path(path), data, num_processes=num_processes, progress=progress), data)


def examine_set(root: Path, data: Data, *, num_processes: int | None = 1, progress: Progress = silent) -> Examined:
    """Look at each pair of a folder; the arguments are those of `check_data`.

    Raises:
        DataError: There is no such folder, or no photo in it has a mask.
    """
    require_folder(root, "")
    found = survey(root)
    if not found.pairs:
        raise next((error for place in found.matched if (error := no_partners(place))), None) or nothing_found(root, "")
    reading = reading_of([pair.mask for pair in found.pairs], data.mask)
    facts = tuple(examine_all(found.pairs, reading.rule, num_processes=num_processes, progress=progress))
    return Examined(root, found, reading, facts, tuple(_alike(facts)))


def report(seen: Examined, data: Data) -> DataCheck:
    """What was seen, counted and put into words."""
    images = [facts.image for facts in seen.facts if isinstance(facts.image, ImageFacts)]
    masks = [facts.mask for facts in seen.facts if isinstance(facts.mask, MaskFacts)]
    shared, group_findings = _sharing(seen, data)
    findings = [
        *of_names(seen.survey, seen.label),
        *of_pairs(seen.pairs, seen.facts, seen.reading, seen.label),
        *group_findings,
        *stray(seen.root, seen.survey, _pictures(seen.root), seen.label),
    ]
    shares = [(mask.share, mask.size.width * mask.size.height) for mask in masks if mask.share is not None]
    values = sum((mask.counts for mask in masks), Counter[int]())
    return DataCheck(
        path=str(seen.root),
        layout=tuple(_layout(seen)),
        num_pairs=len(seen.pairs),
        num_usable=sum(map(usable, seen.facts)),
        splits={split: number for split in SPLITS if (number := sum(pair.split == split for pair in seen.pairs))},
        sizes=_counted(str(image.size) for image in images),
        photo_modes=_counted(mode_name(image.mode) for image in images),
        mask_modes=_counted(mode_name(mask.mode) for mask in masks),
        mask_values=tuple(
            MaskValue(value, number / values.total(), sum(value in mask.counts for mask in masks))
            for value, number in values.most_common(_SHOWN_VALUES)
        ),
        num_mask_values=len(values),
        mask_rule=str(seen.reading.rule) if seen.reading.rule is not None else None,
        setting=seen.reading.setting,
        crack_share=_spread(Counter(share for share, _ in shares if share > 0.0)),
        crack_share_pooled=sum(s * n for s, n in shares) / sum(n for _, n in shares) if shares else None,
        crack_width_px=_spread(sum((mask.widths_px for mask in masks), Counter[float]())),
        num_empty_masks=sum(share == 0.0 for share, _ in shares),
        photos_without_mask=tuple(seen.label(path) for place in seen.survey.matched for path in place.without_mask),
        masks_without_photo=tuple(seen.label(path) for place in seen.survey.matched for path in place.without_photo),
        shared_photos=tuple(shared),
        findings=tuple(sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))),
    )


# --- photos that are one photo -------------------------------------------------------------------


def _alike(facts: Sequence[PairFacts]) -> Iterator[Likeness]:
    """Photos that show the same, by their places among all pairs."""
    readable = [(place, seen.image) for place, seen in enumerate(facts) if isinstance(seen.image, ImageFacts)]
    found = find_alike([image.digest for _, image in readable], [image.thumb for _, image in readable])
    for alike in found:
        yield Likeness(readable[alike.one][0], readable[alike.other][0], alike.how)


def clusters_of(names: Sequence[str]) -> list[list[int]]:
    """The places of each name that comes up more than once."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return [cluster for cluster in places.values() if len(cluster) > 1]


def _sharing(seen: Examined, data: Data) -> tuple[list[SharedPhoto], list[Finding]]:
    """Photos in several splits, and what else is to say about files that come from one photo."""
    pairs, named = seen.pairs, name_photos(seen.pairs)
    stems = [pair.image.stem for pair in pairs]
    by_name = families(stems)
    findings: list[Finding] = []
    relations: dict[str, list[list[int]]] = {how: [] for how in _HOW.values()}
    for alike in seen.alike:
        relations[_HOW[alike.how]].append([alike.one, alike.other])
    told = "data.group_pattern" if data.group_pattern is not None else GROUPS_FILE
    groups = [by_name.get(stem, stem) for stem in stems]
    if data.group_pattern is not None or (seen.root / GROUPS_FILE).is_file():
        try:
            groups = [photo.group for photo in group_photos(named, seen.root, data.group_pattern)[0]]
            relations[told] = clusters_of(groups)
        except DataError as error:
            findings.append(Finding("error", "groups", error.message, (), error.hint or ""))
    if by_name:
        families_by_split = clusters_of([by_name[stem] for stem in stems])
        known = join(len(pairs), relations.get(told, []))
        # Where a table or a pattern says what belongs together, names are evidence for it and not against it.
        relations["file names"] = [
            cluster
            for cluster in families_by_split
            if told not in relations or len({known[place] for place in cluster}) == 1
        ]
        if told not in relations:
            findings.append(_crops(stems))
    labels = [seen.label(pair.image) for pair in pairs]
    shared = shared_photos(labels, [pair.split for pair in pairs], groups, relations)
    findings += [_leak(photo) for photo in shared]
    findings += _copies(seen, labels)
    return shared, findings


def _crops(stems: Sequence[str]) -> Finding:
    cause = "file names look like crops of the same photos, and no groups.csv says which"
    remedy = f"`'data.group_pattern={suggest_pattern(stems)}'` keeps crops of one photo in one split"
    return Finding("note", "crops", cause, (), remedy)


def _leak(photo: SharedPhoto) -> Finding:
    where = " and ".join(f"{len(files)} in {split}" for split, files in photo.files.items())
    files = tuple(file for names in photo.files.values() for file in names)
    cause = f"photo {photo.name} is in more than one split, {where} ({', '.join(photo.evidence)})"
    remedy = "scores on test flatter by these files; name them beside the score, or leave them out of train"
    return Finding("warning", "shared_photo", cause, files, remedy)


def _copies(seen: Examined, labels: Sequence[str]) -> Iterator[Finding]:
    """Photos that show the same within one split, or where there are no splits yet."""
    within = [alike for alike in seen.alike if seen.pairs[alike.one].split == seen.pairs[alike.other].split]
    roots = join(len(labels), [[alike.one, alike.other] for alike in within])
    together: dict[int, list[Likeness]] = {}
    for alike in within:
        together.setdefault(roots[alike.one], []).append(alike)
    for found in together.values():
        places = sorted({place for alike in found for place in (alike.one, alike.other)})
        how = ", ".join(dict.fromkeys(_HOW[alike.how] for alike in found))
        cause = f"{len(places)} photos show the same ({how})"
        remedy = "keep one of them; `sweeps data import` keeps them in one split"
        yield Finding("warning", "near_copies", cause, tuple(labels[place] for place in places), remedy)


# --- figures -------------------------------------------------------------------------------------


def _layout(seen: Examined) -> Iterator[str]:
    if seen.survey.lists:
        yield ", ".join(seen.label(path) for path in seen.survey.lists)
    for place in (matched.place for matched in seen.survey.matched):
        if place.images == seen.root:
            if not seen.survey.lists:
                yield "one folder"
        elif place.images == place.masks:
            yield f"{seen.label(place.images)}/"
        else:
            yield f"{seen.label(place.images)}/ + {seen.label(place.masks)}/"


def _pictures(root: Path) -> Iterator[Path]:
    """All picture files under a folder, hidden ones apart."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(folder, name)


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _spread(counts: Counter[float]) -> Spread | None:
    """Percentiles of values that come up so many times each: the smallest value with at least that share below."""
    total = counts.total()
    if not total:
        return None
    found: list[float] = []
    for wanted in (0.1, 0.5, 0.9):
        below = 0
        for value in sorted(counts):
            below += counts[value]
            if below >= wanted * total:
                found.append(value)
                break
    return Spread(*found)
