"""Find a run that a name means and that is finished: what can be scored, or put to work. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crack_sweeps.errors import CheckpointError, RunNotFound, StudyNotFound, UserError
from crack_sweeps.runs.directory import OUTPUTS, RunDirectory, find_run
from crack_sweeps.runs.record import RunRecord, read_record
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.loading import load_resolved
from crack_sweeps.study.folder import STUDIES, StudyFolder, all_studies, stored_study
from crack_sweeps.study.naming import find_trial, names_trial

BEST_WEIGHTS = "best_model.pth"  # as training/checkpoints.py calls it, which loads torch


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Args:
        run: Its directory.
        record: How it ended.
        experiment: What was trained.
        threshold: Chosen on its validation photos.
        facts: Content of its environment.json.
        study: The folder of the study that it is a trial of; None for a single run, or where the folder is gone.
    """

    run: RunDirectory
    record: RunRecord
    experiment: Experiment
    threshold: float
    facts: dict[str, Any]
    study: StudyFolder | None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name


def find_trained(wanted: str, *, outputs: Path = OUTPUTS, studies: Path = STUDIES) -> TrainedRun:
    """The finished run that a name, a unique prefix, an MLflow id or a trial such as STUDY/21 means.

    Raises:
        RunNotFound: Nothing, or more than one, answers to the name.
        StudyNotFound: There is no such study or trial.
        UserError: The run did not finish, so nothing says how good its weights are or where its threshold lies.
        CheckpointError: Its best weights are gone.
    """
    run = _directory(wanted, outputs, studies)
    _require_finished(run)
    record = read_record(run)
    weights = run.checkpoints / BEST_WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"{weights}: the run's best weights are gone", hint=_again(run, studies))
    if record.threshold is None:
        raise UserError(f"{run.metrics}: no threshold in it", hint=_again(run, studies))
    return TrainedRun(
        run=run,
        record=record,
        experiment=load_resolved(run.config),
        threshold=record.threshold,
        facts=run.read_environment(),
        study=_study_of(run, studies),
    )


def _directory(wanted: str, outputs: Path, studies: Path) -> RunDirectory:
    if names_trial(wanted):
        found = find_trial(wanted, root=studies, outputs=outputs)
        if found.run is not None:
            return found.run
        if found.lost is not None:
            hint = f"put it back, or train its settings again: `sweeps run --trial {found.name}`"
            raise RunNotFound(f"trial {found.name}: {found.lost}", hint=hint)
        outcome = str(found.row["outcome"]).lower() if found.row is not None else "not begun yet"
        raise RunNotFound(f"trial {found.name} has no run ({outcome})", hint=f"`sweeps explain {found.name}` says why")
    try:
        return find_run(wanted, outputs=outputs)
    except RunNotFound:
        named = wanted.rstrip("/").removeprefix(f"{studies}/")
        if named in {name for folder in all_studies(root=studies) for name in (folder.name, folder.plain_name)}:
            hint = f"name one of its trials, such as {named}/0; `sweeps status {named}` shows the best"
            raise RunNotFound(f"{named} is a study, not a run", hint=hint) from None
        raise


def _require_finished(run: RunDirectory) -> None:
    status = run.status()
    if status == "FINISHED":
        return
    if run.is_running():
        raise UserError(f"run {run.name} is still being trained", hint="wait until it has ended")
    of = run.read_environment().get("study")
    if status == "PRUNED" and of is not None:
        trial = f"{of['name']}/{of['arm']}/{of['number']}"
        raise UserError(
            f"run {run.name} was pruned, so no threshold was chosen for it",
            hint=f"`sweeps run --trial {trial}` trains its settings to the end",
        )
    if status == "FAILED":
        reason = read_record(run).reason if run.metrics.is_file() else None
        raise UserError(f"run {run.name} failed{f': {reason}' if reason else ''}", hint="name a run that finished")
    raise UserError(
        f"run {run.name} did not finish, so no threshold was chosen for it",
        hint=f"go on with it: `sweeps run --resume-from {run.name}`"
        if of is None
        else f"the command that began study {of['name']} goes on with it",
    )


def _again(run: RunDirectory, studies: Path) -> str:
    """What to do about a finished run that lacks something."""
    if _study_of(run, studies) is not None:
        return f"train its settings again: `sweeps run --trial {run.name}`"
    return f"put the file back, or train again: `sweeps run {run.config} --profile none`"


def _study_of(run: RunDirectory, studies: Path) -> StudyFolder | None:
    of = run.read_environment().get("study")
    if of is None:
        return None
    try:
        return stored_study(of["name"], root=studies)
    except StudyNotFound:
        return None
