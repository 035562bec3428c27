"""What a set of photos is: photo and mask in pairs, each in one split and one group; a digest of all bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class ResolvedMaskRule:
    """How every mask of a set is read, with nothing left to guess. Exactly one of the first two is set.

    Args:
        crack_values: Pixel values that mean crack.
        threshold: Pixels at or above it are crack.
        invert: Crack and background change places after the rule above.
        channel: The channel that a colour mask is read from; None where masks are grey.
        allowed: Values that a mask may hold, where the rule was found by looking at the masks; None where it was given.
    """

    crack_values: tuple[int, ...] | None = None
    threshold: int | None = None
    invert: bool = False
    channel: Literal["red", "green", "blue", "max"] | None = None
    allowed: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """One line for people, the same for equal readings: ``== 255``, ``>= 128, inverted, channel max``."""
        if self.crack_values is not None:
            text = "== " + " or ".join(map(str, sorted(self.crack_values)))
        else:
            text = f">= {self.threshold}"
        return text + (", inverted" if self.invert else "") + (f", channel {self.channel}" if self.channel else "")


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo, its mask, and where the two belong.

    Args:
        name: Unique within the set; a plain file stem, so it may name a picture or a row.
        image: The photo's file.
        mask: The mask's file (an image, or a MATLAB ``.mat``).
        split: The split that the photo is used in.
        group: The original photograph that this file was cut from; no group is in both train and val.
        rule: How its own mask is read, where it comes from one of several sets; None is the rule of its `PhotoSet`.
        weight: How often it is drawn for training, relative to the others.
    """

    name: str
    image: Path
    mask: Path
    split: Split
    group: str
    rule: ResolvedMaskRule | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """Photos in their splits, and the rule that reads their masks.

    Args:
        name: The folder's name, or ``builtin``.
        root: The folder that the files lie in.
        photos: All photos, by split and name.
        rule: How the masks are read, unless a photo says otherwise.
        digest: SHA-256 over names, splits, bytes of photos and masks, and the rule.
        warnings: What a person should know before trusting a score: leaks, photos left out, splits that were drawn.
    """

    name: str
    root: Path
    photos: tuple[Photo, ...]
    rule: ResolvedMaskRule
    digest: str
    warnings: tuple[str, ...]

    @property
    def mask_rule(self) -> str:
        """How the masks are read, in words: one rule, or all those of several sets."""
        return "; ".join(dict.fromkeys(str(photo.rule or self.rule) for photo in self.photos)) or str(self.rule)

    def split(self, name: Split) -> tuple[Photo, ...]:
        """The photos of one split, by name."""
        return tuple(photo for photo in self.photos if photo.split == name)
