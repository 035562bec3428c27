"""What is wrong with the files of a set, in words, each with the setting or the act that puts it right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from crack_sweeps.data.examination import ImageFacts, MaskFacts, PairFacts, Trouble
from crack_sweeps.data.folders import listing
from crack_sweeps.data.mask_kinds import Reading
from crack_sweeps.data.masks import CRACKFOREST_LABELS, SUSPICIOUS_ABOVE
from crack_sweeps.data.pairing import Matched, Pair, Survey

Severity = Literal["error", "warning", "note"]
Label = Callable[[Path], str]

# Share of a crack's surroundings that is brighter than it: at least .64 for 654 of 655 real pairs (the one below is a
# photo of CrackForest with another photo's mask), below .6 for 97 % of the same photos with masks that were swapped.
_LEAST_DARKER = 0.6
_LEAST_BRIGHTER = 0.35  # symmetrical, nearly: a mask that fits a bright crack
_SURELY_DARKER = 0.75
_MANY = 0.25  # share of pairs from which on it is no matter of single files
_MODES = {
    "1": "1-bit",
    "L": "grey",
    "LA": "grey with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "I": "32-bit",
    "F": "floating point",
}
_READ_AS = {
    "RGBA": "its transparency is dropped",
    "LA": "its transparency is dropped",
    "PA": "its transparency is dropped",
    "P": "its colours are read",
    "1": "it is read as black and white",
    "I;16": "the upper byte of each pixel is read",
    "CMYK": "it is converted to RGB",
}
_MASK_READ_AS = {
    "1": "it is read as 0 and 255",
    "P": "its greys are read, or its indices where it holds colours",
    "RGBA": "its grey is read, for alpha is the same everywhere",
    "LA": "its grey is read, for alpha is the same everywhere",
    "RGB": "its grey is read",
    "I;16": "its own values are read, 0 to 65535",
    "MATLAB": "its labels are read",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person should know.

    Args:
        severity: ``error``: a training stops at it. ``warning``: it can mislead. ``note``: good to know.
        kind: A word for programs.
        cause: What is the matter; begins in the middle of a sentence, after the files' names.
        files: The files, relative to the set's folder; none where it is about the whole set.
        remedy: What to do, or which setting reads it right; empty where nothing need be done.
    """

    severity: Severity
    kind: str
    cause: str
    files: tuple[str, ...] = ()
    remedy: str = ""


def mode_name(mode: str) -> str:
    """A mode of Pillow's as people call it."""
    return "16-bit grey" if mode.startswith("I;16") else _MODES.get(mode, mode)


def of_names(found: Survey, label: Label) -> Iterator[Finding]:
    """Files without a partner, and names that say too little or too much."""
    for place in found.matched:
        yield from _of_place(place, label)
    lists = ", ".join(path.name for path in found.lists)
    if found.missing:
        remedy = "bring the files, or delete the lines"
        yield Finding("warning", "missing", f"named in {lists}, but not there", found.missing, remedy)
    if found.unlisted:
        files = tuple(label(pair.image) for pair in found.unlisted)
        yield Finding("note", "unlisted", f"in none of {lists}, so in no split; left out", files)


def _of_place(place: Matched, label: Label) -> Iterator[Finding]:
    for double in place.doubles:
        files = tuple(map(label, double.paths))
        cause = f"{len(files)} {double.what} for one name, so nobody can know which is meant"
        yield Finding("error", "double", cause, files, "keep one of them in this folder")
    if place.unprintable:
        files = tuple(ascii(path.name)[1:-1] for path in place.unprintable)
        yield Finding("error", "unprintable", "a name that no report can show", files, "rename it")
    if place.without_mask:
        files = tuple(map(label, place.without_mask))
        if place.pairs and all(pair.mask.suffix.lower() == ".mat" for pair in place.pairs):
            yield Finding("note", "no_mask", "no ground truth; left out, as CrackForest has them", files)
        else:
            folder = place.place.images.name
            remedy = f"move them out of {folder}/, or add black masks where there is no crack"
            yield Finding("error", "no_mask", "without a mask", files, remedy)
    if place.without_photo:
        files = tuple(map(label, place.without_photo))
        yield Finding("note", "no_photo", "a mask without a photo; left out", files)


def of_pairs(pairs: Sequence[Pair], facts: Sequence[PairFacts], reading: Reading, label: Label) -> Iterator[Finding]:
    """What is wrong with single files and with the set's masks."""
    if reading.problem is not None:
        yield Finding("error", "masks", reading.problem, (), reading.remedy or "")
    if reading.rule is not None and reading.rule.allowed == CRACKFOREST_LABELS:
        cause = (
            "labels as CrackForest writes them: crack is 2; 1 is background, 3 background that cracks enclose, 4 other"
        )
        yield Finding("note", "labels", cause)
    causes: dict[tuple[Severity, str, str, str], list[str]] = {}
    for pair, seen in zip(pairs, facts, strict=True):
        for severity, kind, cause, path, remedy in _of_pair(pair, seen, reading):
            causes.setdefault((severity, kind, cause, remedy), []).append(label(path))
    for (severity, kind, cause, remedy), files in causes.items():
        yield Finding(severity, kind, cause, tuple(files), remedy)
    yield from _of_masks_together(pairs, facts, reading, label)
    yield from _of_contrast(pairs, facts, label)
    if reading.rule is None:
        yield from _of_labels(facts)
    yield from _of_modes(pairs, facts, label)


def usable(seen: PairFacts) -> bool:
    """Whether a training could read the pair, once it is told how masks are read."""
    return (
        isinstance(seen.image, ImageFacts)
        and isinstance(seen.mask, MaskFacts)
        and seen.image.size == seen.mask.size
        and seen.mask.oddity is None
    )


_Cause = tuple[Severity, str, str, Path, str]


def _of_pair(pair: Pair, seen: PairFacts, reading: Reading) -> Iterator[_Cause]:
    image, mask = seen.image, seen.mask
    if isinstance(image, Trouble):
        yield "error", "unreadable_photo", image.cause, pair.image, image.remedy
    if isinstance(mask, Trouble):
        yield "error", "unreadable_mask", mask.cause, pair.mask, mask.remedy
    elif mask.oddity is not None and not (reading.rule is None and mask.oddity.kind == "colour"):
        yield "error", f"mask_{mask.oddity.kind}", mask.oddity.cause, pair.mask, mask.oddity.remedy
    if isinstance(image, ImageFacts) and isinstance(mask, MaskFacts) and image.size != mask.size:
        yield _of_sizes(pair, image, mask)
    elif isinstance(image, ImageFacts) and image.on_its_side:
        yield "note", "rotation", "turned by its EXIF tag, like its mask; read upright", pair.image, ""


def _of_sizes(pair: Pair, image: ImageFacts, mask: MaskFacts) -> _Cause:
    cause = f"{image.size} px, its mask {mask.size}"
    if image.on_its_side and image.size == (mask.size.height, mask.size.width):
        cause += ": its EXIF tag turns the photo, and the mask was drawn without that"
        return "error", "rotation", cause, pair.image, "turn the mask, or remove the tag"
    if image.size.width * mask.size.height == image.size.height * mask.size.width:
        cause += ": the same shape at another size"
        return "error", "size", cause, pair.image, "bring the mask at the photo's size; a scaled one is no ground truth"
    return "error", "size", cause, pair.image, "bring the mask that was drawn on this photo, at the photo's size"


def _of_masks_together(
    pairs: Sequence[Pair], facts: Sequence[PairFacts], reading: Reading, label: Label
) -> Iterator[Finding]:
    masks = [
        (pair, seen, seen.mask) for pair, seen in zip(pairs, facts, strict=True) if isinstance(seen.mask, MaskFacts)
    ]
    empty = tuple(label(pair.mask) for pair, _, mask in masks if mask.share == 0.0)
    if empty:
        yield Finding("note", "empty", f"no crack in the mask ({len(empty)} of {len(masks)})", empty)
    shares = [(mask.share, mask.size.width * mask.size.height) for _, _, mask in masks if mask.share is not None]
    total = sum(pixels for _, pixels in shares)
    together = sum(share * pixels for share, pixels in shares) / total if total else 0.0
    if together > SUSPICIOUS_ABOVE:
        cause = f"crack covers {together:.0%} of the masks (rule: {reading.rule}); public sets have 0.3 to 10 %"
        yield Finding("warning", "much_crack", cause, (), "look whether the rule means crack: `--preview FILE`")
    alike: dict[str, list[tuple[str, str]]] = {}
    for pair, seen, mask in masks:
        if mask.share and isinstance(seen.image, ImageFacts):
            alike.setdefault(mask.digest, []).append((label(pair.mask), seen.image.digest))
    for copies in alike.values():
        if len({digest for _, digest in copies}) > 1:
            files = tuple(file for file, _ in copies)
            yield Finding("warning", "one_mask", "one and the same mask for different photos", files, _OWN_MASKS)


_OWN_MASKS = "bring each photo's own mask"


def _of_contrast(pairs: Sequence[Pair], facts: Sequence[PairFacts], label: Label) -> Iterator[Finding]:
    """Masks that seem to belong to other photos: what they mark is as bright as what is around it."""
    measured = [(pair, seen.darker) for pair, seen in zip(pairs, facts, strict=True) if seen.darker is not None]
    unlike = [label(pair.mask) for pair, darker in measured if _LEAST_BRIGHTER < darker < _LEAST_DARKER]
    bright = [label(pair.mask) for pair, darker in measured if darker <= _LEAST_BRIGHTER]
    if len(unlike) > _MANY * len(measured):
        cause = (
            f"in {len(unlike)} of {len(measured)} pairs what the mask marks is no darker than what is around it: "
            "are masks and photos paired wrongly?"
        )
        yield Finding("warning", "other_photo", cause, (), "look at some: `--preview FILE`")
    elif unlike:
        cause = "what it marks is no darker than what is around it: another photo's mask?"
        yield Finding("warning", "other_photo", cause, tuple(unlike), _OWN_MASKS)
    if bright:
        yield Finding("note", "bright_crack", "what it marks is brighter than what is around it", tuple(bright))


def _of_labels(facts: Sequence[PairFacts]) -> Iterator[Finding]:
    """Which of several values is likely to mean crack: the one that marks what is darker than its surroundings."""
    seen: dict[int, list[float]] = {}
    for each in facts:
        for value, darker in each.darker_of.items():
            seen.setdefault(value, []).append(darker)
    means = {value: fmean(darker) for value, darker in seen.items()}
    dark = [value for value, darker in means.items() if darker >= _SURELY_DARKER]
    if len(means) > 1 and len(dark) == 1:
        others = ", ".join(f"{value}: {darker:.0%}" for value, darker in means.items() if value not in dark)
        cause = (
            f"{dark[0]} is likely crack: {means[dark[0]]:.0%} of what is around it is brighter (of what is around "
            f"{others})"
        )
        yield Finding("note", "likely_crack", cause, (), f"`data.mask.crack_values=[{dark[0]}]`; see `--preview FILE`")


def _of_modes(pairs: Sequence[Pair], facts: Sequence[PairFacts], label: Label) -> Iterator[Finding]:
    """Files that are written in another way than most, and how they are read."""
    seen = list(zip(pairs, facts, strict=True))
    photos = [(label(pair.image), of.image.mode) for pair, of in seen if isinstance(of.image, ImageFacts)]
    masks = [
        (label(pair.mask), of.mask.mode)
        for pair, of in seen
        if isinstance(of.mask, MaskFacts) and (of.mask.oddity is None or of.mask.oddity.kind != "colour")
    ]
    yield from _unlike_most(photos, "photo_mode", _READ_AS)
    yield from _unlike_most(masks, "mask_mode", _MASK_READ_AS)


def _unlike_most(files: Sequence[tuple[str, str]], kind: str, read_as: dict[str, str]) -> Iterator[Finding]:
    modes = Counter(mode for _, mode in files)
    if len(modes) < 2:
        return
    usual = modes.most_common(1)[0][0]
    for mode in modes:
        how = read_as.get("I;16" if mode.startswith("I;16") else mode)
        if mode != usual and how is not None:
            cause = f"{mode_name(mode)}, most others are {mode_name(usual)}; {how}"
            yield Finding("note", kind, cause, tuple(file for file, of in files if of == mode))


def stray(root: Path, found: Survey, photos: Iterable[Path], label: Label) -> Iterator[Finding]:
    """Pictures in the folder that belong to no pair and that nothing else has named."""
    known = {
        path
        for place in found.matched
        for path in (*place.without_mask, *place.without_photo, *place.waiting, *place.unprintable)
    }
    known |= {path for place in found.matched for double in place.doubles for path in double.paths}
    known |= {path for pair in (*found.pairs, *found.unlisted) for path in (pair.image, pair.mask)}
    files = tuple(label(path) for path in photos if path not in known)
    if files:
        cause = f"in no folder of photos or masks that is known, so left out; {root.name} holds {listing(root)}"
        yield Finding("note", "stray", cause, files)
