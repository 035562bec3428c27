"""Why a trial went as it did, and in what two trials or runs differ; from files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crack_sweeps.errors import RunNotFound, UserError
from crack_sweeps.runs.directory import OUTPUTS, RunDirectory, find_run, mlflow_id
from crack_sweeps.runs.events import Event, read_events
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.loading import flat, load_resolved
from crack_sweeps.study.folder import STUDIES, StudyFolder
from crack_sweeps.study.ledger import read_rows
from crack_sweeps.study.naming import FoundTrial, find_trial, names_trial, trial_settings
from crack_sweeps.study.standing import go_on_command, peak_bytes, read_story

Pair = tuple[Any, Any]
FIGURES = ("crack_iou", "crack_f1", "precision", "recall")

# --- one trial -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """One process that worked on a trial's run, and how that ended.

    Args:
        began_ms: Milliseconds since 1970.
        pid: Its number.
        host: Its machine.
        resumed_from_step: Where it went on; None from the start.
        status: How it ended; None if it said nothing: it runs, or was killed.
        reason: Why it ended before its time.
    """

    began_ms: int
    pid: int
    host: str
    resumed_from_step: int | None
    status: str | None
    reason: str | None


@dataclass(frozen=True)
class Explanation:
    """All that is known of one trial.

    Args:
        trial: Its name.
        outcome: running, complete, pruned, rejected, invalid, failed or out_of_memory.
        said: The answer to "why?", in one sentence.
        reason: What its study wrote down.
        suggestion: What it was to try; None while nobody has written it down.
        seed: Of its training.
        repeat_of: The trial with the same settings, of which this is another seed.
        imported_from: The study that it was trained in.
        objective: The figure that is searched for.
        direction: Which way of it is better.
        value: The objective of a complete trial.
        place: Among the complete trials of its arm, from 1; equal values share one.
        num_complete: How many those are.
        epochs: Epoch to the objective after it.
        num_epochs: How many are complete.
        total_epochs: Epochs that it would train.
        images_per_epoch: Validation photos that score an epoch, where those are a part of all; its outcome is of all.
        num_images: All of them.
        best_epoch: The epoch whose weights are kept.
        forecast_bytes: Forecast peak memory.
        needed_bytes: The same, calibrated by what trials have needed here.
        budget_bytes: What a trial might need when this one was judged.
        peaks: Measured peak memory by kind.
        duration_s: Seconds of training, over all attempts.
        attempts: The processes that worked on it.
        notes: What its run warned of.
        run: Its run's name; None if it was never launched.
        run_dir: Where that is.
        lost: What is no longer there of it.
        mlflow_run_id: None until it was sent.
        go_on: For a trial that has not ended: the command that goes on with its study.
    """

    trial: str
    outcome: str
    said: str
    reason: str | None
    suggestion: Mapping[str, Any] | None
    seed: int | None
    repeat_of: str | None
    imported_from: str | None
    objective: str
    direction: str
    value: float | None
    place: int | None
    num_complete: int
    epochs: Mapping[int, float]
    num_epochs: int
    total_epochs: int | None
    images_per_epoch: int | None
    num_images: int | None
    best_epoch: int | None
    forecast_bytes: int | None
    needed_bytes: int | None
    budget_bytes: int | None
    peaks: Mapping[str, float]
    duration_s: float
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...]
    run: str | None
    run_dir: str | None
    lost: str | None
    mlflow_run_id: str | None
    go_on: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


def explain(wanted: str, *, root: Path = STUDIES, outputs: Path = OUTPUTS) -> Explanation:
    """Why a trial was pruned, rejected or failed, or how it went.

    Raises:
        UserError: There is no such trial.
    """
    found = find_trial(wanted, root=root, outputs=outputs)
    row, facts, objective = found.row or {}, found.facts, found.study.spec.objective
    value: float | None = row.get("value")
    better, num_complete = _rivals(found.folder, found.arm.name, value, objective.direction)
    events = list(read_events(found.run.events)) if found.run is not None else []
    story = read_story(found.run, objective.metric) if found.run is not None else None
    needed, excess = facts.get("needed_bytes"), row.get("excess", found.membership.get("excess"))
    first = facts.get("repeat_of")
    peaks = row.get("peaks") or _highest(events)
    total = story.total_epochs if story is not None else None
    epochs = story.values if story is not None else {}
    num_epochs = max(epochs, default=row.get("num_epochs", 0))
    images_per_epoch, num_images = _scored_images(events)
    known = {
        "outcome": row.get("outcome", "running"),
        "reason": row.get("reason"),
        "value": value,
        "place": better + 1 if value is not None else None,
        "num_complete": num_complete,
        "total_epochs": total,
    }
    return Explanation(
        trial=found.name,
        said=_said(**known, num_epochs=num_epochs, metric=objective.metric),
        suggestion=found.suggestion,
        seed=facts.get("seed"),
        repeat_of=_sibling(found, first) if first is not None else None,
        imported_from=facts.get("imported_from"),
        objective=objective.metric,
        direction=objective.direction,
        epochs=epochs,
        num_epochs=num_epochs,
        images_per_epoch=images_per_epoch,
        num_images=num_images,
        best_epoch=row.get("best_epoch"),
        forecast_bytes=facts.get("forecast_bytes"),
        needed_bytes=needed,
        budget_bytes=round(needed / (1 + excess)) if needed is not None and excess is not None else None,
        peaks=peaks,
        duration_s=row.get("duration_s", story.seconds if story is not None else 0.0),
        attempts=_attempts(events),
        notes=tuple(event["text"] for event in events if event["kind"] == "note"),
        run=row.get("run") or (found.run.name if found.run is not None else None),
        run_dir=row.get("run_dir") or (str(found.run.path) if found.run is not None else None),
        lost=found.lost,
        mlflow_run_id=mlflow_id(found.run) if found.run is not None else None,
        go_on=None
        if found.row is not None
        else go_on_command(found.study, storage=found.folder.read_facts().get("storage")),
        **known,
    )


def _said(
    outcome: str,
    reason: str | None,
    value: float | None,
    place: int | None,
    num_complete: int,
    total_epochs: int | None,
    *,
    num_epochs: int,
    metric: str,
) -> str:
    of_all = f" of {total_epochs}" if total_epochs is not None else ""
    after = f"after epoch {num_epochs}{of_all}" if num_epochs else "before its first epoch was complete"
    why = f": {reason}" if reason else ""
    match outcome:
        case "rejected":
            return f"rejected before launch, it cost no training{why}"
        case "invalid":
            return f"invalid, nothing can be trained with its settings; it cost no training{why}"
        case "pruned":
            return f"stopped by the pruner {after}{why}"
        case "failed":
            return f"failed {after}{why}"
        case "out_of_memory":
            return f"out of memory {after}{why}"
        case "complete":
            assert value is not None
            return f"complete: {metric} {value:.3f}, place {place} of {num_complete}"
    return f"has not ended: epoch {num_epochs}{of_all}"


def _rivals(folder: StudyFolder, arm: str, value: float | None, direction: str) -> tuple[int, int]:
    """How many complete trials are better than the value, and how many there are."""
    values = [row["value"] for row in read_rows(folder) if row["arm"] == arm and row["value"] is not None]
    if value is None:
        return 0, len(values)
    return sum(other > value if direction == "maximize" else other < value for other in values), len(values)


def _sibling(found: FoundTrial, number: int) -> str:
    return f"{found.name.rpartition('/')[0]}/{number}"


def _highest(events: list[Event]) -> dict[str, float]:
    highest: dict[str, float] = {}
    for event in events:
        if event["kind"] == "epoch":
            for name, value in event["metrics"].items():
                if name.endswith("_bytes"):
                    highest[name] = max(value, highest.get(name, 0.0))
    return highest


def _scored_images(events: list[Event]) -> tuple[int | None, int | None]:
    """Validation photos that score each epoch, and all of them; None where they are the same, or nobody says."""
    created = next((event for event in events if event["kind"] == "created"), {})
    few = created.get("params", {}).get("evaluation.images_per_epoch")
    num_val = created.get("dataset", {}).get("num_val")
    return (few, num_val) if few is not None and num_val is not None and few < num_val else (None, None)


def _attempts(events: list[Event]) -> tuple[Attempt, ...]:
    attempts: list[dict[str, Any]] = []
    for event in events:
        if event["kind"] == "attempt":
            attempts.append(
                {
                    "began_ms": event["time_ms"],
                    "pid": event["pid"],
                    "host": event["host"],
                    "resumed_from_step": event["resumed_from_step"],
                    "status": None,
                    "reason": None,
                }
            )
        elif event["kind"] == "ended" and attempts:
            attempts[-1] |= {"status": event["status"], "reason": event["reason"]}
    return tuple(Attempt(**attempt) for attempt in attempts)


# --- two of them ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Two trials or runs side by side.

    Args:
        a: Name of the first.
        b: Name of the second.
        settings: Dotted key to both values, where they differ; a key that one of them lacks is null there.
        figures: What was measured, of both, whether it differs or not.
        environment: Machine, versions, commit, data, where they differ; empty where one of them has no run.
        notes: What is no longer there of them.
    """

    a: str
    b: str
    settings: Mapping[str, Pair]
    figures: Mapping[str, Pair]
    environment: Mapping[str, Pair]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


@dataclass(frozen=True)
class _Side:
    name: str
    experiment: Experiment
    figures: Mapping[str, Any]
    environment: Mapping[str, Any] | None
    lost: str | None = None


def diff(a: str, b: str, *, root: Path = STUDIES, outputs: Path = OUTPUTS) -> Difference:
    """In what two trials or runs differ.

    Args:
        a: STUDY/21, STUDY/ARM/21, or a run's name, MLflow id or unique prefix.
        b: The same.

    Raises:
        UserError: There is no such trial or run, or its settings cannot be read.
    """
    one, other = _side(a, root, outputs), _side(b, root, outputs)
    settings = _paired(flat(one.experiment), flat(other.experiment))
    figures = _paired(one.figures, other.figures)
    known = one.environment is not None and other.environment is not None
    environment = _paired(one.environment or {}, other.environment or {}) if known else {}
    return Difference(
        a=one.name,
        b=other.name,
        settings={key: pair for key, pair in settings.items() if pair[0] != pair[1]},
        figures={key: pair for key, pair in figures.items() if pair != (None, None)},
        environment={key: pair for key, pair in environment.items() if pair[0] != pair[1]},
        notes=tuple(f"{side.name}: {side.lost}" for side in (one, other) if side.lost is not None),
    )


def _side(wanted: str, root: Path, outputs: Path) -> _Side:
    if names_trial(wanted):
        found = find_trial(wanted, root=root, outputs=outputs)
        if found.run is not None:
            return _of_run(found.name, found.run, {"outcome": (found.row or {}).get("outcome", "running")})
        experiment = trial_settings(wanted, root=root, outputs=outputs).experiment
        return _Side(found.name, experiment, _figures_of_row(found.facts), None, lost=found.lost)
    try:
        run = find_run(wanted, outputs=outputs)
    except RunNotFound as error:
        raise RunNotFound(error.message, hint=f"{error.hint}; a trial is typed as STUDY/21") from None
    return _of_run(run.name, run, {})


def _figures_of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the ledger keeps of a trial without a run, as far as it was trained."""
    known = {"outcome": row.get("outcome", "running"), "needed_bytes": row.get("needed_bytes")}
    if row.get("run_dir") is None:
        return known
    return {
        **known,
        **{key: row["metrics"].get(f"val/{key}") for key in FIGURES},
        "epochs": row["num_epochs"],
        "best_epoch": row["best_epoch"],
        "peak_bytes": peak_bytes(row["peaks"]),
        "seconds": row["duration_s"],
        "num_params": row["num_params"],
    }


def _of_run(name: str, run: RunDirectory, known: Mapping[str, Any]) -> _Side:
    facts = run.read_environment()
    record = _record(run)
    last: dict[str, Any] = {}
    seconds = 0.0
    for event in read_events(run.events):
        if event["kind"] == "epoch":
            last = {**event["metrics"], "epoch": event["epoch"]}
            seconds += event["metrics"].get("epoch_s", 0.0)
    metrics = record.get("metrics") or last
    figures = {
        **known,
        "status": record.get("status", "RUNNING"),
        **{key: metrics.get(f"val/{key}") for key in FIGURES},
        "epochs": record.get("num_epochs", last.get("epoch", 0)),
        "best_epoch": record.get("best_epoch"),
        "peak_bytes": peak_bytes(record.get("vram") or last),
        "seconds": record.get("duration_s", seconds),
        "num_params": facts.get("num_params"),
    }
    return _Side(name, load_resolved(run.config), figures, _environment(facts))


def _environment(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a machine, on one level; not the spec's own facts, nor what each run has anew."""
    spec_facts = ("experiment_file", "overrides", "seed", "study", "built", "command", "num_params", "fingerprint")
    flattened: dict[str, Any] = {}
    for key, value in facts.items():
        if key in spec_facts:
            continue
        if isinstance(value, Mapping):
            flattened |= {f"{key}.{inner}": said for inner, said in value.items() if inner != "warnings"}
        else:
            flattened[key] = value
    return flattened


def _record(run: RunDirectory) -> dict[str, Any]:
    if not run.metrics.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(run.metrics.read_bytes())
    except ValueError as error:
        raise UserError(f"{run.metrics}: cannot be read ({error})") from error
    return content


def _paired(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Pair]:
    return {key: (one.get(key), other.get(key)) for key in (*one, *(key for key in other if key not in one))}
