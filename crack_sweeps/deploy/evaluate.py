"""Score a finished run on a split of its photos or on another set, and attach the scores to the run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crack_sweeps.data.masks import read_pair
from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.deploy.attach import FOLDER, attach, label_of, look_at_test, send
from crack_sweeps.deploy.network import load_network
from crack_sweeps.deploy.scored_photos import other_photos, own_photos
from crack_sweeps.deploy.trained import find_trained
from crack_sweeps.deploy.typed import ScoredSplit, check_profile, check_scored, check_two_decimals
from crack_sweeps.errors import NotFiniteError
from crack_sweeps.evaluation.counts import count_pixels
from crack_sweeps.evaluation.protocols import ImagePart, ProtocolName, ThresholdOrigin, conclude, shape_at
from crack_sweeps.evaluation.tiles import Predict
from crack_sweeps.runs.directory import OUTPUTS, mlflow_id
from crack_sweeps.runs.environment import git_state, redact_command

PROTOCOL: ProtocolName = "ours"


@dataclass(frozen=True)
class Progress:
    """How many photos are scored."""

    done: int
    total: int


@dataclass(frozen=True)
class EvaluationRecord:
    """The scores of a run on some photos: what `--json` prints, and what is kept beside the run.

    Args:
        run: The run's name.
        run_id: MLflow's id of it; null until the mirror has sent it.
        run_dir: Its directory.
        evaluation: What the scores are called in MLflow: `test`, or `eval/NAME` on another set; the same evaluation
            again takes the place of the one before.
        data: Name, path, digest, split and number of the photos; how many of them the run has `seen` in its own
            splits, null where its own photos are gone.
        threshold: Probability from which a pixel counts as crack.
        threshold_origin: `validation`: the run chose it on its own validation photos; `given`: somebody typed it.
        tta: Each tile was seen in its eight flips and rotations.
        protocol: By which the scores were made.
        metrics: Pooled figures by plain name, means of images as `..._image`, what is chosen on the scored photos
            themselves as `oracle/...`; null where there is nothing to measure.
        files: Of the run: this record, and the table of images.
        test_looks: How often the test photos of the run's study have been looked at so, this time included; null
            where these are no test photos, or the run is of no study.
        fingerprint: Of what was trained.
        seed: Of the training.
        quick_look: The run's profile shrank the work: never to be ranked beside full runs.
        device: Where it was scored.
        precision: The type that was computed with.
        duration_s: Of scoring.
        warnings: What a person should know before trusting the scores.
        time: When.
        commit: Of the working directory; null outside git.
        command: As it was typed.
    """

    run: str
    run_id: str | None
    run_dir: str
    evaluation: str
    data: dict[str, Any]
    threshold: float
    threshold_origin: ThresholdOrigin
    tta: bool
    protocol: str
    metrics: dict[str, float | None]
    files: list[str]
    test_looks: int | None
    fingerprint: str
    seed: int
    quick_look: bool
    device: str
    precision: str
    duration_s: float
    warnings: list[str]
    time: str
    commit: str | None
    command: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


def evaluate_run(
    run: str,
    *,
    split: ScoredSplit | None = None,
    data: str | Path | None = None,
    settings: Sequence[str] = (),
    threshold: float | None = None,
    tta: bool = False,
    profile: str = "auto",
) -> EvaluationRecord:
    """Score a finished run, as `sweeps evaluate`; the record is what `--json` prints.

    Args:
        run: A finished run's name, a unique prefix, its MLflow id, or a trial such as `STUDY/21`.
        split: train, val, test or all. Of another set all of it, unless one is named.
        data: Another set than the one that the run was trained on.
        settings: How the masks of that set are read, as `data.mask.KEY=VALUE`.
        threshold: One of .01 .. .99; None is what the run chose on its validation photos.
        tta: See each tile in its eight flips and rotations.
        profile: Says on which device: auto, cpu, gpu-8gb, gpu-24gb or gpu-80gb.

    Raises:
        UserError: Something was named wrongly, or cannot be scored.
    """
    record: EvaluationRecord | None = None
    updates = evaluating(run, split=split, data=data, settings=settings, threshold=threshold, tta=tta, profile=profile)
    with closing(updates):
        for update in updates:
            if isinstance(update, EvaluationRecord):
                record = update
    assert record is not None, "an evaluation ends with a record or an error"
    return record


def evaluating(
    run: str,
    *,
    split: ScoredSplit | None = None,
    data: str | Path | None = None,
    settings: Sequence[str] = (),
    threshold: float | None = None,
    tta: bool = False,
    profile: str = "auto",
    notify: Callable[[str], None] = lambda _: None,
) -> Generator[Progress | EvaluationRecord, None, None]:
    """The same as `evaluate_run`, photo by photo; whoever leaves the loop before the end leaves nothing behind."""
    data = Path(data) if data is not None else None
    which = check_scored(split, data, settings)
    check_two_decimals(threshold)
    check_profile(profile)
    trained = find_trained(run)
    photos = (
        own_photos(trained, which, artifacts=OUTPUTS.parent, notify=notify)
        if data is None
        else other_photos(trained, data, which, settings, artifacts=OUTPUTS.parent, notify=notify)
    )
    for warning in photos.warnings:
        notify(f"warning: {warning}")
    network = load_network(trained, profile=profile, tta=tta, notify=notify)
    limit = trained.threshold if threshold is None else threshold
    began = time.monotonic()
    parts: list[ImagePart] = []
    for photo in photos.photos:
        parts.append(_score(photo, photos.rule, network.predict, limit))
        yield Progress(len(parts), len(photos.photos))
    origin: ThresholdOrigin = "validation" if threshold is None else "given"
    scoring = conclude(parts, threshold=limit, threshold_origin=origin, protocol=PROTOCOL, metrics="all")
    label = label_of(trained, photos, tta=tta, threshold=threshold)
    record = EvaluationRecord(
        run=trained.name,
        run_id=None,
        run_dir=str(trained.run.path),
        evaluation=label.key,
        data={
            "name": photos.name,
            "path": str(photos.root),
            "digest": photos.digest,
            "split": photos.split,
            "is_own": photos.is_own,
            "num_photos": len(photos.photos),
            "mask_rule": photos.mask_rule,
            "seen": {part: len(names) for part, names in photos.seen.items()} if photos.seen is not None else None,
        },
        threshold=limit,
        threshold_origin=origin,
        tta=tta,
        protocol=PROTOCOL,
        metrics=scoring.figures,
        files=[f"{FOLDER}/{label.file}.json", f"{FOLDER}/{label.file}.parquet"],
        test_looks=look_at_test(trained, photos),
        fingerprint=trained.record.fingerprint,
        seed=trained.record.seed,
        quick_look=trained.record.quick_look,
        device=network.device,
        precision=network.precision,
        duration_s=round(time.monotonic() - began, 3),
        warnings=list(photos.warnings),
        time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        commit=git_state(Path.cwd())[0],
        command=redact_command(sys.argv),
    )
    attach(trained, label, record.as_dict(), scoring.table)
    send(trained.run, notify)
    yield replace(record, run_id=mlflow_id(trained.run))


def _score(photo: Photo, rule: ResolvedMaskRule, predict: Predict, threshold: float) -> ImagePart:
    """One photo; its map is let go at once."""
    image_HW3, mask_HW = read_pair(photo, rule)
    probability_HW = predict(image_HW3)
    if np.isnan(probability_HW).any():
        raise NotFiniteError(
            f"{photo.image}: the network's prediction is not a number",
            hint="mixed precision may overflow; try another machine's --profile",
        )
    counts = count_pixels(probability_HW, mask_HW)
    return ImagePart(photo.name, photo.group, counts, shape_at(threshold, probability_HW, mask_HW))
