"""Scores of a finished run, kept beside it: files, an event that the mirror sends, and the looks at test counted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from filelock import Timeout

from crack_sweeps import durable
from crack_sweeps.deploy.photo_files import safe_name
from crack_sweeps.deploy.scored_photos import ScoredPhotos
from crack_sweeps.deploy.trained import TrainedRun
from crack_sweeps.errors import StoreError, UserError
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.environment import redact_command
from crack_sweeps.runs.events import EventLog
from crack_sweeps.tracking.location import require_local, store_location
from crack_sweeps.tracking.start import start_sending

FOLDER = "evaluations"  # in the run's directory, and in MLflow
LOOKS = "test_looks.jsonl"  # in the study's folder
_LOCK_PATIENCE_S = 10.0  # another evaluation may be writing, which takes a moment
_MIRROR_PATIENCE_S = 60.0  # what is not sent by then goes on in the background


@dataclass(frozen=True)
class Label:
    """What an evaluation is called.

    Args:
        key: Before its figures in MLflow: `test`, `eval/NAME`.
        file: Of its files, without their suffix.
    """

    key: str
    file: str


def label_of(trained: TrainedRun, photos: ScoredPhotos, *, tta: bool, threshold: float | None) -> Label:
    """The same evaluation again has the same label; another threshold, other flips or other photos have another.

    Args:
        trained: The run.
        photos: What is scored.
        tta: With flips and rotations.
        threshold: Where somebody typed one; None is the run's own.
    """
    how = ("-tta" if tta else "") + (f"-t{threshold:.2f}" if threshold is not None else "")
    name = safe_name(photos.name)
    if _is_of_another_set(trained.run.path / FOLDER / f"{name}-{photos.split}{how}.json", photos):
        name += f"-{hashlib.sha256(str(photos.root.resolve()).encode()).hexdigest()[:6]}"
    if photos.is_own and photos.split == "test":
        key = "test"
    else:
        key = f"eval/{name}" if photos.split == "all" else f"eval/{name}-{photos.split}"
    return Label(key + how, f"{name}-{photos.split}{how}")


def _is_of_another_set(path: Path, photos: ScoredPhotos) -> bool:
    """Whether the record of an evaluation is about another folder of the same name."""
    if not path.is_file():
        return False
    try:
        data = json.loads(path.read_bytes())["data"]
        return not (photos.is_own and data["is_own"]) and Path(data["path"]).resolve() != photos.root.resolve()
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error})", hint="move it away; the scores are made anew") from error


def look_at_test(trained: TrainedRun, photos: ScoredPhotos) -> int | None:
    """Write down that test photos of the run's study were looked at, before anybody sees the scores.

    Returns:
        How often they were, this time included and without the finalists' own look; None where the run is of no study
        or these are no test photos of it.
    """
    if trained.study is None or not photos.seen or not photos.seen["test"]:
        return None
    path = trained.study.path / LOOKS
    look = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "run": trained.name,
        "command": redact_command(sys.argv),
    }
    with path.open("ab") as file:
        file.write(json.dumps(look, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return path.read_bytes().count(b"\n")


def attach(trained: TrainedRun, label: Label, record: Mapping[str, Any], table: pa.Table) -> None:
    """Keep an evaluation in the run's directory; its files take the place of those of the same label.

    Args:
        trained: The run.
        label: What the evaluation is called.
        record: Its figures and facts.
        table: A row per image.

    Raises:
        UserError: Another process is writing in the run's directory.
        DiskFull: There is no room.
    """
    run = trained.run
    try:
        with run.lock().acquire(timeout=_LOCK_PATIENCE_S), closing(EventLog(run.events)) as log:
            (run.path / FOLDER).mkdir(exist_ok=True)
            files = [f"{FOLDER}/{label.file}.json", f"{FOLDER}/{label.file}.parquet"]
            text = json.dumps(record, indent=2, allow_nan=False) + "\n"
            content = io.BytesIO()
            pyarrow.parquet.write_table(table, content)
            durable.write_bytes(run.path / files[1], content.getvalue())
            durable.write_text(run.path / files[0], text)
            figures = {**record["metrics"], "threshold": record["threshold"]}
            log.append(
                "evaluation",
                name=label.key,
                metrics={f"{label.key}/{name}": value for name, value in figures.items() if value is not None},
                step=trained.record.num_epochs,
                threshold_origin=record["threshold_origin"],
                data_digest=record["data"]["digest"],
            )
            for path in files:
                log.append("artifact", path=path, to=FOLDER)
    except Timeout:
        raise UserError(
            f"run {run.name}: another process is writing in its directory", hint="try again when it has ended"
        ) from None


def send(run: RunDirectory, notify: Callable[[str], None]) -> None:
    """Send what is new to the run's place in MLflow; where that cannot be done now, say how it is done later."""
    try:
        require_local(store_location())
    except StoreError as error:
        notify(f"warning: {error.message}; MLflow was not told. {error.hint or ''}".rstrip())
        return
    if not start_sending(run.path).wait(_MIRROR_PATIENCE_S):
        notify("MLflow has not taken everything yet; `sweeps doctor --fix` sends what is missing")
