"""The end of a run: the best weights, scored on every validation photo, with floors, pictures and curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet

from crack_sweeps.evaluation.curve_file import write_curve
from crack_sweeps.evaluation.curves import precision_recall_curve, training_curves
from crack_sweeps.evaluation.evaluate import PhotoCounts, each_photo, gather, predictor, same_few
from crack_sweeps.evaluation.floors import floors
from crack_sweeps.evaluation.overlays import write_contact_sheet, write_overlays, write_shared_overlays
from crack_sweeps.evaluation.scores import Evaluation, choose_threshold, score, score_table
from crack_sweeps.evaluation.tiles import Predict
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.events import read_events
from crack_sweeps.runs.preparation import Prepared
from crack_sweeps.training.checkpoints import CheckpointFolder

# Photos of validation that every finalist draws: the report shows three of them, the leader's best, median and worst.
NUM_SHARED = 9


@dataclass(frozen=True)
class Outcome:
    """What a finished run found.

    Args:
        metrics: `val/...` over all validation photos at the threshold; `floor/...` what needs no learning; `test/...`
            where the test photos were scored.
        threshold: Chosen on those photos.
        files: Pictures and tables, each with the folder it is shown in.
    """

    metrics: dict[str, float]
    threshold: float
    files: list[tuple[Path, str]]


def predict_with(prepared: Prepared, *, batch_size: int, notify: Callable[[str], None]) -> Predict:
    """Whole photos by overlapping tiles, as this experiment evaluates, with the model's weights of each moment.

    Args:
        prepared: The training.
        batch_size: Tiles on the device at once.
        notify: Told where there is memory for fewer.
    """
    experiment = prepared.experiment
    return predictor(
        prepared.model,
        tile_px=experiment.tile_px,
        overlap=experiment.evaluation.tile_overlap,
        device=prepared.device,
        batch_size=batch_size,
        amp_dtype=prepared.amp_dtype,
        notify=lambda text: notify(f"validation: {text}"),
    )


def validation_scores(prepared: Prepared, predict: Predict) -> dict[str, float]:
    """After an epoch: the same few (or all) validation photos each time, at the threshold that suits them best."""
    chosen = same_few(prepared.photos.split("val"), prepared.experiment.evaluation.images_per_epoch)
    scored = gather(each_photo(predict, chosen, prepared.photos.rule))
    threshold = choose_threshold(scored.counts)
    figures = score(scored, threshold)
    names = ("crack_iou", "crack_f1", "precision", "recall", "crack_iou_image", "crack_f1_image")
    return {**{f"val/{name}": figures[name] for name in names}, "val/threshold": threshold}


def conclude(
    prepared: Prepared, run: RunDirectory, vault: CheckpointFolder, predict: Predict, *, score_test: bool = False
) -> Iterator[tuple[int, int] | Outcome]:
    """Score the best weights; yields (photos done, photos in all) and at the end the outcome.

    Args:
        prepared: The training.
        run: Its directory.
        vault: Where the best weights are.
        predict: Of `predict_with`.
        score_test: Score the test photos too, at the threshold that validation chose, and draw the photos that every
            finalist draws. For a study's finalists: what has been chosen by its test score has no test score any more.
    """
    model = prepared.model
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(vault.load_best()["model"])
    photos, rule = prepared.photos.split("val"), prepared.photos.rule
    tested = prepared.photos.split("test") if score_test else ()
    parts: list[PhotoCounts] = []
    for part in each_photo(predict, (*photos, *tested), rule):
        parts.append(part)
        yield len(parts), len(photos) + len(tested)
    scored = gather(parts[: len(photos)])
    threshold = choose_threshold(scored.counts)
    metrics = {f"val/{name}": value for name, value in score(scored, threshold).items()}
    for floor, figures in floors(photos, rule).items():
        metrics |= {f"floor/{floor}_{name}": figures[name] for name in ("crack_iou", "crack_f1")}

    pyarrow.parquet.write_table(score_table(scored, threshold), run.scores)
    write_curve(scored.counts, threshold, run.curve)
    files: list[tuple[Path, str]] = [(run.scores, ""), (run.curve, "")]
    if tested:
        on_test = gather(parts[len(photos) :])
        metrics |= {f"test/{name}": value for name, value in score(on_test, threshold).items()}
        pyarrow.parquet.write_table(score_table(on_test, threshold), run.test_scores)
        write_curve(on_test.counts, threshold, run.test_curve)
        files += [(run.test_scores, ""), (run.test_curve, "")]
    files += _pictures(prepared, run, predict, scored, threshold, for_all=score_test)
    epochs = [(event["epoch"], event["metrics"]) for event in read_events(run.events) if event["kind"] == "epoch"]
    curves = [
        training_curves(epochs, run.logs / "training.png"),
        precision_recall_curve(scored.counts, threshold, run.logs / "precision_recall.png", title=run.name),
    ]
    files += [(path, "curves") for path in curves]
    model.load_state_dict(trained)
    yield Outcome(metrics=metrics, threshold=threshold, files=files)


def _pictures(
    prepared: Prepared, run: RunDirectory, predict: Predict, scored: Evaluation, threshold: float, *, for_all: bool
) -> Iterator[tuple[Path, str]]:
    """Draw this run's best, median and worst photos; `for_all` those too that every finalist draws."""
    photos, rule = prepared.photos.split("val"), prepared.photos.rule
    num_each = prepared.experiment.evaluation.num_overlays
    pictures = write_overlays(predict, photos, rule, scored, threshold, run.predictions, num_each=num_each)
    looked_at = [path for path in pictures if path.name.startswith(("best-01-", "median-01-", "worst-01-"))]
    if for_all:
        shared = write_shared_overlays(predict, same_few(photos, NUM_SHARED), rule, threshold, run.predictions)
        looked_at = shared[:: max(1, len(shared) // 3)][:3]
        pictures += shared
    yield from ((path, "overlays") for path in pictures)
    if looked_at:  # MLflow compares runs by files of one name that lie in no folder
        yield write_contact_sheet(looked_at, run.predictions / "pictures.jpg"), ""
