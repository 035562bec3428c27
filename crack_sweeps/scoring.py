"""Score anybody's prediction images by our rules: `crack_sweeps.score_predictions(...)`, as `sweeps score` does."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from crack_sweeps.errors import UserError
from crack_sweeps.evaluation.prediction_files import (
    PredictionFolder,
    Progress,
    choose_on,
    open_folder,
    score_folder,
)
from crack_sweeps.evaluation.protocols import PROTOCOLS, MetricSet, ProtocolName, Scoring, ThresholdOrigin
from crack_sweeps.evaluation.thresholds import threshold_index
from crack_sweeps.specs.data_settings import READING, data_settings
from crack_sweeps.specs.experiment import MaskRule
from crack_sweeps.specs.words import listed, printable
from crack_sweeps.study.folder import find_study
from crack_sweeps.study.outside import EntrySplit, KnownSplit, as_of, check_name, known_split, name_alike, write_outside

ORACLE: Literal["oracle"] = "oracle"
_MASKS = "data.mask."


@dataclass(frozen=True)
class Entry:
    """What was put on a leaderboard.

    Args:
        name: Of the entry.
        study: The study's name.
        split: The split that was scored.
        scores: The table of images.
    """

    name: str
    study: str
    split: EntrySplit
    scores: str


@dataclass(frozen=True)
class PredictionScores:
    """What `sweeps score --json` prints.

    Args:
        predictions: Folder of the predictions.
        masks: Folder of the masks.
        protocol: The rule of scoring.
        metric_set: `headline` or `all`.
        threshold: Probability from which a pixel counts as crack.
        threshold_origin: `validation`, `given`, or `oracle`: chosen on the scored images themselves.
        mask_rule: How the masks were read.
        num_images: How many were scored.
        metrics: Flat, by the names of SCORES.md; null where there is nothing to measure.
        notes: What a person should know before trusting them.
        entry: Where they stand on a leaderboard; null if nobody asked.
    """

    predictions: str
    masks: str
    protocol: ProtocolName
    metric_set: MetricSet
    threshold: float
    threshold_origin: ThresholdOrigin
    mask_rule: str
    num_images: int
    metrics: dict[str, float | None]
    notes: tuple[str, ...]
    entry: Entry | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


def _unwatched(_label: str, _done: int, _total: int) -> None:
    """Show nothing."""


def score_predictions(
    predictions: str | Path,
    masks: str | Path,
    *,
    protocol: ProtocolName = "ours",
    threshold: float | Literal["oracle"] = ORACLE,
    val: tuple[str | Path, str | Path] | None = None,
    metrics: MetricSet = "all",
    overrides: Sequence[str] = (),
    resize: bool = False,
    add: str | None = None,
    study: str | None = None,
    split: EntrySplit = "test",
    jobs: int = 1,
    progress: Progress = _unwatched,
) -> PredictionScores:
    """Score a folder of prediction images against a folder of masks.

    Args:
        predictions: 8-bit grey, 255 being a probability of 1 (or 0 and 1 alone); named like the masks.
        masks: Read by the project's rules.
        protocol: The rule of scoring.
        threshold: Crack where value / 255 reaches it, one of .01 .. .99; `oracle` takes the best one on these images.
        val: Predictions and masks of validation photos to choose the threshold on; instead of one that is given.
        metrics: `headline` is pixels alone, `all` everything that the protocol knows.
        overrides: How the masks are read, as `data.mask.KEY=VALUE`.
        resize: Bring predictions of another size to that of their masks.
        add: Put the scores on the leaderboard of a study under this name.
        study: The study; the newest where none is named.
        split: Which of the study's splits the photos are.
        jobs: Processes. A script that asks for more than one must start below `if __name__ == "__main__":`.
        progress: Told what is being done, how many images are through, and of how many.

    Raises:
        UserError: Something was typed, named or laid out wrongly.
    """
    _check(protocol, metrics, threshold, val)
    known = _known(add, study, split, protocol)
    rule = _mask_rule(overrides)
    folder = open_folder(Path(predictions), Path(masks), rule, resize=resize)
    if known is not None:
        name_alike(known, [photo.name for photo in folder.photos])  # before minutes are spent on them
    chosen, origin, notes = _threshold(threshold, val, overrides, resize, jobs, progress)
    scoring, odd = score_folder(
        folder,
        threshold=chosen,
        threshold_origin=origin,
        protocol=protocol,
        metrics=metrics,
        jobs=jobs,
        progress=progress,
    )
    command = _typed(predictions, masks, threshold, val, metrics, overrides, resize)
    return PredictionScores(
        predictions=str(predictions),
        masks=str(masks),
        protocol=protocol,
        metric_set=metrics,
        threshold=scoring.threshold,
        threshold_origin=scoring.threshold_origin,
        mask_rule=str(folder.rule),
        num_images=len(scoring.evaluation.names),
        metrics=scoring.figures,
        notes=(*folder.notes, *notes, *odd),
        entry=_add(known, add, scoring, command) if known is not None and add is not None else None,
    )


def _check(
    protocol: str, metrics: str, threshold: float | Literal["oracle"], val: tuple[str | Path, str | Path] | None
) -> None:
    """Whatever can be told before a file is read."""
    if protocol not in PROTOCOLS:
        raise UserError(f"--protocol {protocol}: no such protocol", hint=f"there are {' and '.join(PROTOCOLS)}")
    if metrics not in ("headline", "all"):
        raise UserError(f"--metrics {metrics}: no such set", hint="there are headline and all")
    if threshold != ORACLE and val is not None:
        raise UserError(
            f"--threshold {threshold} is given, so --val has nothing to choose", hint="leave one of them out"
        )
    if PROTOCOLS[protocol].always_oracle and (threshold != ORACLE or val is not None):
        raise UserError(
            f"--protocol {protocol} always chooses its threshold on the scored images",
            hint="leave the threshold out, or score by `--protocol ours`",
        )
    if threshold != ORACLE:
        try:
            threshold_index(threshold)
        except ValueError:
            raise UserError(
                f"--threshold {threshold}: none of 0.01, 0.02 .. 0.99",
                hint="crack is where value / 255 reaches it; for a grey value of 128, type 0.5",
            ) from None


def _mask_rule(overrides: Sequence[str]) -> MaskRule:
    """How masks are read: with no setting, that is found out. The other settings of a set mean nothing here."""
    of_masks = [key for key in READING if key.startswith(_MASKS)]
    for text in overrides:
        if not text.startswith(_MASKS):
            raise UserError(
                f"{printable(text)}: only how masks are read can be set here",
                hint=f"there are {listed(of_masks, 'and')}",
            )
    return data_settings(overrides).mask


def _known(add: str | None, study: str | None, split: EntrySplit, protocol: ProtocolName) -> KnownSplit | None:
    """What the study knows of its photos; None where nothing is to be added to one."""
    if add is None:
        if study is not None:
            raise UserError(f"--study {study} is where `--add NAME` puts an entry", hint="give it a name with --add")
        return None
    if protocol != "ours":
        raise UserError(
            f"--add {add}: a leaderboard shows scores by `--protocol ours` alone, not by {protocol}",
            hint="leave the protocol out",
        )
    if split not in ("val", "test"):
        raise UserError(f"--split {split}: no such split", hint="val or test")
    check_name(add)
    return known_split(find_study(study), split)


def _threshold(
    threshold: float | Literal["oracle"],
    val: tuple[str | Path, str | Path] | None,
    overrides: Sequence[str],
    resize: bool,
    jobs: int,
    progress: Progress,
) -> tuple[float | None, ThresholdOrigin, tuple[str, ...]]:
    """The threshold where it does not have to wait for the scored images, its origin, and notes on its choice."""
    if val is None:
        return (None, "oracle", ()) if threshold == ORACLE else (threshold, "given", ())
    folder: PredictionFolder = open_folder(Path(val[0]), Path(val[1]), _mask_rule(overrides), resize=resize)
    return choose_on(folder, jobs=jobs, progress=progress), "validation", folder.notes


def _add(known: KnownSplit, name: str, scoring: Scoring, command: str) -> Entry:
    path = write_outside(
        known,
        as_of(known, scoring.table),
        name=name,
        threshold=scoring.threshold,
        threshold_origin=scoring.threshold_origin,
        protocol=scoring.protocol,
        metrics=scoring.figures,
        command=f"{command} --add {shlex.quote(name)} --study {known.folder.name} --split {known.split}",
    )
    return Entry(name, known.folder.name, known.split, str(path))


def _typed(
    predictions: str | Path,
    masks: str | Path,
    threshold: float | Literal["oracle"],
    val: tuple[str | Path, str | Path] | None,
    metrics: MetricSet,
    overrides: Sequence[str],
    resize: bool,
) -> str:
    """The command that does the same."""
    words = ["sweeps", "score", str(predictions), str(masks), *overrides]
    words += ["--val", str(val[0]), str(val[1])] if val is not None else ["--threshold", str(threshold)]
    words += ["--metrics", metrics, *(["--resize"] if resize else [])]
    return shlex.join(words)
