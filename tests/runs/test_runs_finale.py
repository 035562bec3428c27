"""How a run ends: what is scored, and what is kept to be looked at."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

from crack_sweeps.data.open import open_photos
from crack_sweeps.evaluation import evaluate
from crack_sweeps.evaluation.counts import Confusion
from crack_sweeps.evaluation.curve_file import read_curve
from crack_sweeps.evaluation.overlay_panels import find_overlays
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.events import read_events
from crack_sweeps.runs.preparation import Origin, prepare
from crack_sweeps.runs.record import RunRecord
from crack_sweeps.runs.training_run import Ended, begin_run, proceed
from crack_sweeps.specs.loading import resolve


def trained(photos: Path, tiny: list[str], *, score_test: bool) -> tuple[RunDirectory, RunRecord]:
    resolved = resolve("unet_small", overrides=tiny, profile="none", data=photos)
    origin = Origin(str(resolved.source), "none", False, resolved.overrides, resolved.fingerprint)
    prepared = prepare(resolved.experiment, origin, open_photos(resolved.experiment.data), device=torch.device("cpu"))
    run = begin_run(prepared)
    with closing(proceed(prepared, run, stop=lambda: None, score_test=score_test)) as updates:
        (record,) = [update.record for update in updates if isinstance(update, Ended)]
    return run, record


def test_validation_with_memory_for_one_tile_at_a_time_is_told_once_and_scores_the_same(
    here: Path, photos: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plenty = trained(photos, tiny, score_test=False)
    predict_image = evaluate.predict_image

    def greedy(*arguments: Any, batch_size: int, **more: Any) -> Any:
        if batch_size > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict_image(*arguments, batch_size=batch_size, **more)

    monkeypatch.setattr(evaluate, "predict_image", greedy)
    run, record = trained(photos, tiny, score_test=False)
    told = [event["text"] for event in read_events(run.events) if event["kind"] == "note"]
    assert told[-1] == "validation: out of memory: 1 tile at once from here on"
    assert len(set(told)) == len(told)
    assert record.metrics["val/crack_iou"] == pytest.approx(plenty.metrics["val/crack_iou"], abs=1e-3)


def counted(path: Path) -> list[int]:
    """True and false positives, false negatives and true negatives of all images, at the threshold."""
    scores = pyarrow.parquet.read_table(path)
    return [sum(scores[name].to_pylist()) for name in ("tp", "fp", "fn", "tn")]


def at_threshold(curve: Path) -> list[int]:
    counts, threshold = read_curve(curve)
    pooled: Confusion = counts.at(threshold).pooled()
    return [int(count[0]) for count in (pooled.tp, pooled.fp, pooled.fn, pooled.tn)]


def test_a_finalist_keeps_the_curves_of_both_splits_and_the_pictures_that_all_finalists_draw(
    here: Path, tested_photos: Path, tiny: list[str]
) -> None:
    run, record = trained(tested_photos, tiny, score_test=True)
    assert record.metrics["test/num_images"] == 2
    assert at_threshold(run.curve) == counted(run.scores)
    assert at_threshold(run.test_curve) == counted(run.test_scores)
    shared = [overlay for overlay in find_overlays(run.predictions) if overlay.path.name.startswith("shared-")]
    validation = pyarrow.parquet.read_table(run.scores)["name"].to_pylist()
    assert [overlay.photo for overlay in shared] == validation  # so few that all of them are drawn
    assert artifacts(run)["predictions/pictures.jpg"] == "", "MLflow compares what lies in no folder"


def artifacts(run: RunDirectory) -> dict[str, str]:
    """Files that the trackers are given, with the folder that each is shown in."""
    return {event["path"]: event["to"] for event in read_events(run.events) if event["kind"] == "artifact"}


def test_any_other_run_leaves_test_alone(here: Path, tested_photos: Path, tiny: list[str]) -> None:
    run, record = trained(tested_photos, tiny, score_test=False)
    assert not any(name.startswith("test/") for name in record.metrics)
    assert at_threshold(run.curve) == counted(run.scores)
    assert not run.test_curve.exists()
    assert not run.test_scores.exists()
    assert not list(run.predictions.glob("shared-*"))
    assert artifacts(run)["predictions/pictures.jpg"] == ""
