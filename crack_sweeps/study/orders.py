"""What a trial's process is told: its settings on this machine, and where its run belongs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from crack_sweeps.data.photos import PhotoSet
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.study_loading import ResolvedStudy
from crack_sweeps.study.executor import Order
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import Trial
from crack_sweeps.study.ledger import trial_name
from crack_sweeps.study.packing import Placement
from crack_sweeps.training.footprint import MemoryForecast


def order_for(
    trial: Trial,
    experiment: Experiment,
    placement: Placement,
    forecast: MemoryForecast,
    *,
    study: ResolvedStudy,
    folder: StudyFolder,
    photos: PhotoSet,
    outputs: Path,
    parent_run: str | None,
) -> Order:
    """The order of one trial.

    Args:
        trial: What is to be trained.
        experiment: Its settings, with its own seed.
        placement: Where.
        forecast: Of its memory.
        study: What it is a trial of.
        folder: Of that study.
        photos: Opened and checked.
        outputs: Folder of all runs.
        parent_run: The run whose settings it trains with another seed; None for settings of its own.
    """
    workers = min(experiment.data.num_workers, placement.threads - 1)  # results do not depend on them
    data = experiment.data.model_copy(update={"num_workers": workers})
    is_final = trial.facts.get("finalist_of") is not None
    return Order(
        key=(trial.arm, trial.number),
        run_name=trial.facts["run"],
        outputs=outputs,
        experiment=experiment.model_copy(update={"data": data}),
        origin={
            "source": str(study.source),
            "profile": study.profile,
            "quick_look": study.quick_look,
            "overrides": study.overrides,
            "fingerprint": trial.facts["fingerprint"],
        },
        suggestion=trial.suggestion,
        membership=_membership(trial, study, folder, outputs, parent_run),
        photos=photos,
        forecast=asdict(forecast),
        gpu=placement.gpu,
        memory_fraction=placement.memory_fraction,
        threads=placement.threads - workers,
        score_test=is_final,
        log_model=is_final and not study.quick_look,  # of a quick look nobody wants the weights
    )


def _membership(
    trial: Trial, study: ResolvedStudy, folder: StudyFolder, outputs: Path, parent_run: str | None
) -> dict[str, Any]:
    main, finalist_of = study.arms[0].name, trial.facts.get("finalist_of")
    name = trial_name(folder, main, trial.arm, trial.number)
    parent = {"run": folder.name, "dir": folder.path.as_posix()}
    if parent_run is not None:
        parent = {"run": parent_run, "dir": (outputs / parent_run).as_posix()}
    tags = {
        "crack_sweeps.study": folder.name,
        "crack_sweeps.trial": name,
        "crack_sweeps.arm": finalist_of or trial.arm,
        "crack_sweeps.memory_forecast_bytes": str(trial.facts["forecast_bytes"]),
    }
    if finalist_of is not None:
        tags["crack_sweeps.finalist"] = trial.facts["selected_trial"] or "as shipped"
    return {
        "experiment": folder.plain_name,
        "shown_as": _shown_as(trial, main),
        "parent": parent,
        "tags": tags,
        "study": {
            "name": folder.name,
            "arm": trial.arm,
            "number": trial.number,
            "suggestion": dict(trial.suggestion),
            "excess": trial.excess,
            "facts": dict(trial.facts),
        },
    }


def _shown_as(trial: Trial, main: str) -> str:
    seed, first, finalist_of = (trial.facts.get(key) for key in ("seed", "repeat_of", "finalist_of"))
    if finalist_of is not None:
        return f"{finalist_of} finalist (seed {seed})"
    text = f"trial {trial.number}" if trial.arm == main else f"{trial.arm} trial {trial.number}"
    return text if first is None else f"{text} (seed {seed} of trial {first})"
