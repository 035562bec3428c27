"""What a person types for `evaluate` and `predict`, checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from crack_sweeps.data.manifest import imported_names
from crack_sweeps.errors import UserError
from crack_sweeps.runs.directory import OUTPUTS
from crack_sweeps.specs.data_settings import data_settings
from crack_sweeps.specs.profiles import AS_WRITTEN, named_profile
from crack_sweeps.specs.words import listed

ScoredSplit = Literal["train", "val", "test", "all"]
SCORED_SPLITS: tuple[ScoredSplit, ...] = get_args(ScoredSplit)


def check_profile(profile: str) -> None:
    """A profile has a known name.

    Raises:
        SpecError: There is none of that name.
    """
    if profile not in ("auto", AS_WRITTEN):
        named_profile(profile)


def check_threshold(threshold: float | None) -> None:
    """A threshold tells two classes apart.

    Raises:
        UserError: It is not between 0 and 1.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise UserError(
            f"--threshold {threshold:g}: not between 0 and 1",
            hint="leave it out for the one that the run chose on its validation photos",
        )


def check_scale(mm_per_px: float | None) -> None:
    """A pixel has a size.

    Raises:
        UserError: It has none.
    """
    if mm_per_px is not None and not 0 < mm_per_px < math.inf:
        raise UserError(
            f"--mm-per-px {mm_per_px:g}: not a size above 0",
            hint="it is what a photo shows in mm over its width in px, such as 0.25",
        )


def check_two_decimals(threshold: float | None) -> None:
    """Pixels are counted at the thresholds .01 to .99 alone.

    Raises:
        UserError: It is none of them.
    """
    if threshold is not None and not (0.005 < threshold < 0.995 and abs(threshold - round(threshold, 2)) < 1e-9):
        raise UserError(
            f"--threshold {threshold:g}: none of .01, .02 to .99",
            hint="leave it out for the one that the run chose on its validation photos",
        )


def check_scored(
    split: str | None, data: Path | None, settings: Sequence[str], *, artifacts: Path = OUTPUTS.parent
) -> ScoredSplit:
    """Which photos are to be scored.

    Args:
        split: As typed.
        data: Another set.
        settings: KEY=VALUE about that set.
        artifacts: Where imported sets are.

    Raises:
        UserError: It is not said, or not so that it could be done.
    """
    data_settings(settings)
    if settings and data is None:
        raise UserError(
            f"`{settings[0]}`: the run's own photos are read as they were when it was trained",
            hint="name another set with --data",
        )
    if split is None and data is None:
        raise UserError(
            "which photos?",
            hint="--split val or --split test of the run's own, or --data FOLDER for another set",
        )
    if data is not None and not data.is_dir():
        names = imported_names(artifacts)
        if str(data) not in names:
            imported = f", or a set that was imported: {listed(names)}" if names else ""
            raise UserError(f"--data {data}: no such folder", hint=f"name a folder of photos and masks{imported}")
    chosen: ScoredSplit | None = next((known for known in SCORED_SPLITS if known == (split or "all")), None)
    if chosen is None:
        raise UserError(f"--split {split}: no such split", hint=f"type {listed(SCORED_SPLITS)}")
    return chosen
