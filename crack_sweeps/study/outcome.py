"""How a trial ended, read from what its run left on disk: the same answer for a coordinator and for the doctor."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.specs.study import Objective
from crack_sweeps.study.history import Outcome, Trial


def outcome_of(trial: Trial, *, outputs: Path, objective: Objective) -> Trial | None:
    """The trial as it ended, if its run did; None if it is to be gone on with.

    Args:
        trial: One that has not been told yet.
        outputs: Folder of all runs.
        objective: Which of the run's figures counts.
    """
    run = RunDirectory(outputs / trial.facts["run"])
    try:
        status = run.status() if run.events.is_file() else "RUNNING"
        if status in ("RUNNING", "KILLED"):
            return None
        record = _read_record(run)
    except (FileNotFoundError, ValueError) as error:  # one damaged run ends no study
        return ended(trial, "failed", f"what its run left cannot be read: {error}")
    if status == "FAILED" and record.get("error") == "DiskFull":
        return None  # its last checkpoint is whole
    if status == "FINISHED":
        value = record["metrics"].get(objective.metric)
        if value is None or not math.isfinite(value):
            return ended(trial, "failed", f"the run's record has no {objective.metric}")
        return replace(ended(trial, "complete", None), value=value)
    if status == "PRUNED":
        lack = trial.facts.get("no_figure")
        return ended(trial, "failed", lack) if lack is not None else ended(trial, "pruned", record["reason"])
    outcome: Outcome = "out_of_memory" if record.get("error") == "OutOfMemory" else "failed"
    return ended(trial, outcome, record["reason"])


def ended(trial: Trial, outcome: Outcome, reason: str | None) -> Trial:
    """The trial with its outcome and why."""
    return replace(trial, outcome=outcome, facts={**trial.facts, "reason": reason})


def _read_record(run: RunDirectory) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(run.metrics.read_bytes())
    return content
