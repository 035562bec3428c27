"""What a study tells the trackers: its own run, the runs of its trials, its figures; each thing once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from crack_sweeps.data.photos import PhotoSet
from crack_sweeps.runs.environment import git_state
from crack_sweeps.runs.events import EventLog, read_events
from crack_sweeps.runs.process import Trainer
from crack_sweeps.specs.study import StudySpec
from crack_sweeps.specs.study_loading import ResolvedStudy, flat_study
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import Trial


class StudyJournal:
    """Appends to a study's events; looks first at what an earlier coordinator wrote.

    Args:
        folder: The study's, whose lock the caller holds.
        study: What is searched.
        photos: What is trained on.
    """

    def __init__(self, folder: StudyFolder, study: ResolvedStudy, photos: PhotoSet) -> None:
        self.folder = folder
        self._attempts = 0
        self._told: set[tuple[str, int]] = set()
        self._figures_at = -1
        (folder.path / "logs").mkdir(exist_ok=True)
        created = False
        for event in read_events(folder.events):
            match event["kind"]:
                case "created":
                    created = True
                case "attempt":
                    self._attempts += 1
                case "trial":
                    self._told.add((event["arm"], event["number"]))
                case "metrics":
                    self._figures_at = max(self._figures_at, event["step"])
        self._log = EventLog(folder.events)
        if not created:
            self._create(study, photos)

    def _create(self, study: ResolvedStudy, photos: PhotoSet) -> None:
        commit, dirty = git_state(Path.cwd())
        self._log.append(
            "created",
            run=self.folder.name,
            shown_as=f"study {self.folder.name}",
            experiment=self.folder.plain_name,
            parent=None,
            params=flat_study(study),
            tags={
                "crack_sweeps.study": self.folder.name,
                "crack_sweeps.profile": study.profile,
                "crack_sweeps.quick_look": str(study.quick_look).lower(),
                "crack_sweeps.commit": commit or "none",
                "crack_sweeps.dirty_diff": dirty or "clean",
                "crack_sweeps.data_digest": photos.digest,
            },
            dataset={
                "name": photos.name,
                "digest": photos.digest,
                "source": study.arms[0].base.data.source,
                "num_train": len(photos.split("train")),
                "num_val": len(photos.split("val")),
                "num_test": len(photos.split("test")),
            },
        )
        self._log.append("artifact", path=self.folder.snapshot.name, to="")
        for warning in photos.warnings:
            self._log.append("note", level="warning", text=warning)

    def attempt(self, spec: StudySpec) -> None:
        """A coordinator begins, or goes on, with the budget of this command: it is no part of the study's identity."""
        self._attempts += 1
        self._log.append(
            "attempt",
            attempt=self._attempts,
            **Trainer.this_process().told(),
            trials=spec.budget.trials,
            baseline_trials=spec.budget.baseline_trials,
            seeds=spec.finalists.seeds,
            gpu_hours=spec.budget.gpu_hours,
            jobs=spec.jobs,
            vram_budget=spec.memory_budget,
        )

    def trial(self, trial: Trial, run_dir: Path) -> None:
        """A trial's run is about to exist."""
        if (trial.arm, trial.number) not in self._told:
            self._log.append(
                "trial", arm=trial.arm, number=trial.number, run=run_dir.name, run_dir=os.path.abspath(run_dir)
            )
            self._told.add((trial.arm, trial.number))

    def progress(self, figures: Mapping[str, float]) -> None:
        """How the study stands, by the number of its trials that ended, in all arms."""
        step = int(figures["num_ended"])
        if step > self._figures_at:
            self._log.append("metrics", metrics=dict(figures), step=step)
            self._figures_at = step

    def artifacts(self, paths: Iterable[Path], to: str = "") -> None:
        """Files of the study's folder to show; one that was shown before replaces itself."""
        for path in paths:
            self._log.append("artifact", path=path.relative_to(self.folder.path).as_posix(), to=to)

    def end(self, status: str, reason: str | None) -> None:
        """The coordinator leaves."""
        self._log.append("ended", status=status, reason=reason)

    def close(self) -> None:
        """Close the file; the events are on disk already."""
        self._log.close()
