"""A study's folder and its runs, written as the coordinator and the trials write them, without training anything."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from crack_sweeps.runs.directory import OUTPUTS, RunDirectory
from crack_sweeps.specs.loading import dump, flat
from crack_sweeps.specs.study_loading import ResolvedStudy, dump_study_snapshot, resolve_study, settle
from crack_sweeps.study.folder import FORMAT, STUDIES, StudyFolder
from crack_sweeps.study.history import Outcome, Trial
from crack_sweeps.study.ledger import row_of
from crack_sweeps.tracking.state import Trainer

SPEC = """\
name: toy
base: unet_small
settings: {training.epochs: 5}
space:
  training.learning_rate: {low: 0.0003, high: 0.03, log: true}
  training.loss.dice_weight: {choices: [0.0, 0.4, 1.0]}
budget: {trials: 8}
finalists: {seeds: 0}
"""
LIVING = Trainer.this_process()
DEAD = Trainer(os.getpid(), started=1.0, host=platform.node())  # an earlier process with this one's number
ELSEWHERE = Trainer(1, started=1.0, host="another-machine")
NOON_MS = 1_700_000_000_000


class HandMadeStudy:
    """`studies/toy/` in the working directory."""

    def __init__(self) -> None:
        STUDIES.mkdir(exist_ok=True)
        (STUDIES / "toy.yaml").write_text(SPEC)
        self.study = _resolved()
        self.arm = self.study.arms[0]
        self.folder = StudyFolder(STUDIES / "toy")
        self.folder.path.mkdir()
        self.folder.snapshot.write_text(dump_study_snapshot(self.study))
        facts = {"format": FORMAT, "space": "a", "rest": "b", "imports_from": None, "began": "2026-01-01T12:00:00+0000"}
        self.folder.facts_file.write_text(json.dumps(facts))
        append(self.folder.events, "created", run="toy", experiment="toy")

    def attempt(self, trainer: Trainer = LIVING, **budget: Any) -> None:
        """A coordinator begins."""
        (self.folder.path / "coordinator.json").write_text(json.dumps(asdict(trainer)))
        append(self.folder.events, "attempt", attempt=1, **_told(trainer), **budget)

    def end(self, status: str = "FINISHED", reason: str | None = None) -> None:
        """The coordinator leaves."""
        append(self.folder.events, "ended", status=status, reason=reason)

    def trial(
        self,
        number: int,
        *values: float,
        outcome: Outcome | None = None,
        value: float | None = None,
        run: bool = True,
        trainer: Trainer = LIVING,
        ended: str | None = None,
        suggestion: dict[str, Any] | None = None,
        excess: float = -0.5,
        **facts: Any,
    ) -> str | None:
        """A trial with the objective after each epoch; without an outcome it has not ended.

        Returns:
            Its run's name.
        """
        suggestion = suggestion or {"training.learning_rate": 0.001 * (number + 1), "training.loss.dice_weight": 0.4}
        name = f"20260101-12000{number}-toy-{number:03d}-abcdef" if run else None
        facts = {"seed": 0, "repeat_of": None, "needed_bytes": 2**30, "forecast_bytes": 2**29, "run": name, **facts}
        facts = facts if run else {key: said for key, said in facts.items() if key not in ("run", "seed", "repeat_of")}
        trial = Trial(
            self.arm.name, number, suggestion, outcome or "running", value, dict(enumerate(values, 1)), excess, facts
        )
        if name is not None:
            path = OUTPUTS / name
            append(
                self.folder.events, "trial", arm=self.arm.name, number=number, run=name, run_dir=os.path.abspath(path)
            )
            self._run(path, trial, trainer, ended)
        if outcome is not None:
            append(self.folder.ledger, "trial", **row_of(trial, name=f"toy/{number}", outputs=OUTPUTS))
        return name

    def _run(self, path: Path, trial: Trial, trainer: Trainer, ended: str | None) -> None:
        run = RunDirectory(path)
        path.mkdir(parents=True)
        experiment = settle(self.arm, {**trial.suggestion, "training.seed": trial.facts["seed"]})
        run.config.write_text(dump(experiment))
        write_environment(
            run,
            study={
                "name": "toy",
                "arm": trial.arm,
                "number": trial.number,
                "suggestion": dict(trial.suggestion),
                "excess": trial.excess,
                "facts": dict(trial.facts),
            },
        )
        append(run.events, "created", run=run.name, experiment="toy", params=flat(experiment))
        append(run.events, "attempt", attempt=1, resumed_from_step=None, **_told(trainer))
        for epoch, value in trial.intermediate.items():
            metrics = {"val/crack_iou": value, "epoch_s": 10.0, "memory/peak_rss_bytes": 2**20 * epoch}
            append(run.events, "epoch", epoch=epoch, step=epoch, metrics=metrics)
        if ended is not None:
            append(run.events, "ended", status=ended, reason=trial.facts.get("reason"))
            record = {"status": ended, "duration_s": 10.0 * len(trial.intermediate), "best_epoch": 1}
            record |= {"metrics": {"val/crack_iou": trial.value}} if trial.value is not None else {"metrics": {}}
            peaks = {"source": "rss", "memory/peak_rss_bytes": 2**20 * max(trial.intermediate, default=0)}
            run.metrics.write_text(json.dumps({**record, "num_epochs": len(trial.intermediate), "vram": peaks}))


@cache
def _resolved() -> ResolvedStudy:
    return resolve_study(STUDIES / "toy.yaml", profile="none")


def write_environment(run: RunDirectory, *, study: dict[str, Any] | None, **facts: Any) -> None:
    """environment.json, as far as studies read it."""
    known = {
        "profile": "none",
        "quick_look": False,
        "overrides": [],
        "seed": 0,
        "num_params": 7,
        "commit": "c0ffee",
        "device_name": "a processor",
        "packages": {"torch": "2.15.0", "timm": "1.0.31"},
        "command": "sweeps study toy",
        "study": study,
    }
    run.environment.write_text(json.dumps({**known, **facts}))


def append(log: Path, kind: str, **fields: Any) -> None:
    """One more event, as `EventLog` writes it but for forcing it to disk."""
    seq = log.read_bytes().count(b"\n") if log.exists() else 0
    with log.open("a") as file:
        file.write(json.dumps({"seq": seq, "time_ms": time.time_ns() // 1_000_000, "kind": kind, **fields}) + "\n")


def at(log: Path, time_ms: int) -> None:
    """All events of a log happened at this moment."""
    events = [{**json.loads(line), "time_ms": time_ms} for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps(event) + "\n" for event in events))


def _told(trainer: Trainer) -> dict[str, Any]:
    return {"pid": trainer.pid, "process_started": trainer.started, "host": trainer.host}
