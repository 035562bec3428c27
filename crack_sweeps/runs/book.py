"""What is written about one run while it goes on: each thing once, however often the run is killed and resumed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from crack_sweeps import durable
from crack_sweeps.runs.directory import RunDirectory, Status
from crack_sweeps.runs.events import EventLog, read_events
from crack_sweeps.runs.preparation import Prepared
from crack_sweeps.runs.process import Trainer
from crack_sweeps.runs.record import RunRecord, write_record
from crack_sweeps.training.loop import Notice, Progress


class RunBook:
    """Writes events, vram.json and the record; looks first at what an earlier attempt wrote.

    Args:
        run: The run's directory, whose lock the caller holds.
        prepared: The training.
        log: The run's open event log.
        log_model: Whether the trackers are given the model when the run is finished.
    """

    def __init__(self, run: RunDirectory, prepared: Prepared, log: EventLog, *, log_model: bool = True) -> None:
        self.run = run
        self.log_model = log_model
        self.prepared = prepared
        self.progress = Progress()
        self.peaks: dict[str, float] = {}
        self.memory_source: str | None = None
        self.ended = False
        self._log = log
        self._attempts = 0
        training = prepared.experiment.training
        self._told_shape = training.batch_size, training.activation_checkpointing
        self._last_epoch = 0
        self._speeds: list[float] = []  # images/s of each epoch
        self._final: set[str] = set()  # final events that are written, and files that were told
        self._warned: set[str] = set()
        for event in read_events(run.events):
            if event["kind"] == "attempt":
                self._attempts += 1
            elif event["kind"] == "epoch":
                self._last_epoch = event["epoch"]
                self._keep_highest(event["metrics"])
                self._keep_speed(event["metrics"])
            elif event["kind"] in ("metrics", "model"):
                self._final.add(event["kind"])
            elif event["kind"] == "artifact":
                self._final.add(event["path"])
            elif event["kind"] == "note":
                self._warned.add(event["text"])

    def attempt(self, progress: Progress, *, resumed_from_step: int | None) -> None:
        """An attempt begins. What an earlier one died before telling is told now: its last epoch, its first files."""
        self.progress = progress
        self._attempts += 1
        self._log.append(
            "attempt",
            attempt=self._attempts,
            **Trainer.this_process().told(),
            resumed_from_step=resumed_from_step,
        )
        self._files([(self.run.config, ""), (self.run.environment, "")])
        for warning in self.prepared.warnings:
            if warning not in self._warned:
                self._log.append("note", level="warning", text=warning)
        self.epoch()

    def epoch(self) -> None:
        """Tell the last complete epoch, unless it was told before."""
        report = self.progress.last_report
        if report is not None and report["epoch"] > self._last_epoch:
            self._log.append("epoch", **report)
            self._last_epoch = report["epoch"]
            self._keep_speed(report["metrics"])

    def note(self, text: str) -> Notice:
        """Tell something that a person should know."""
        self._log.append("note", level="warning", text=text)
        shape = self.progress.micro_batch, self.progress.activation_checkpointing
        if shape != self._told_shape:
            self._told_shape = shape
            checkpointing = str(shape[1]).lower()
            tags = {"crack_sweeps.micro_batch": str(shape[0]), "crack_sweeps.activation_checkpointing": checkpointing}
            self._log.append("tags", tags=tags)
        return Notice(text)

    def observe_peaks(self, metrics: Mapping[str, float], source: str) -> None:
        """Keep the highest memory seen in any attempt, and where the figures come from."""
        if source != self.memory_source:
            self._log.append("tags", tags={"memory_source": source})
        self.memory_source = source
        self._keep_highest(metrics)

    def _keep_highest(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name.endswith("_bytes"):
                self.peaks[name] = max(value, self.peaks.get(name, 0.0))

    def _keep_speed(self, metrics: Mapping[str, float]) -> None:
        if "images_per_s" in metrics:
            self._speeds.append(metrics["images_per_s"])

    def write_vram(self) -> None:
        """Store forecast and measured peaks side by side."""
        content = {"source": self.memory_source, "peaks": self.peaks, "forecast": asdict(self.prepared.forecast)}
        durable.write_text(self.run.vram, json.dumps(content, indent=2) + "\n")

    def finish(self, *, metrics: dict[str, float], threshold: float, files: list[tuple[Path, str]]) -> RunRecord:
        """All is done: final figures, files and model, then the end.

        Args:
            metrics: Final figures: `val/...`, `floor/...`, and of a finalist `test/...`.
            threshold: Chosen on validation.
            files: What to show in the tracker, and in which folder of it.
        """
        best = {key.replace("val/", "best/", 1): value for key, value in metrics.items()}
        if "metrics" not in self._final:
            self._log.append("metrics", metrics={**best, "best/threshold": threshold}, step=self.progress.epoch)
        record = self._record("FINISHED", None, metrics, threshold)
        write_record(self.run, record)
        self._files([*files, (self.run.metrics, "")])
        if self.log_model and "model" not in self._final:
            self._log.append("model", path="checkpoints/best_model.pth", config="config.yaml", threshold=threshold)
        self._log.append("ended", status="FINISHED", reason=None)
        self.ended = True
        return record

    def _files(self, files: list[tuple[Path, str]]) -> None:
        for path, folder in files:
            relative = path.relative_to(self.run.path).as_posix()
            if relative not in self._final:
                self._log.append("artifact", path=relative, to=folder)

    def end(self, status: Status, reason: str, *, error: str | None = None) -> RunRecord:
        """The run ends before its time.

        Args:
            status: How it stands now.
            reason: Why, in words.
            error: The kind of error that ended it, if one did.
        """
        assert not self.ended, "an attempt ends once"
        figures = self.progress.last_report["metrics"] if self.progress.last_report else {}
        metrics = {key: value for key, value in figures.items() if key.startswith("val/")}
        record = replace(self._record(status, reason, metrics, None), error=error)
        write_record(self.run, record)
        self._log.append("ended", status=status, reason=reason)
        self.ended = True
        return record

    def _record(
        self, status: Status, reason: str | None, metrics: dict[str, float], threshold: float | None
    ) -> RunRecord:
        prepared, progress = self.prepared, self.progress
        return RunRecord(
            run=self.run.name,
            run_id=None,
            run_dir=str(self.run.path),
            status=status,
            reason=reason,
            fingerprint=prepared.origin.fingerprint,
            threshold=threshold,
            metrics=metrics,
            vram={"source": self.memory_source, **self.peaks},
            duration_s=round(progress.seconds + progress.epoch_seconds, 3),
            profile=prepared.origin.profile,
            quick_look=prepared.origin.quick_look,
            seed=prepared.experiment.training.seed,
            data_digest=prepared.photos.digest,
            best_epoch=progress.best_epoch,
            num_epochs=progress.epoch,
            num_params=prepared.num_params,
            images_per_s=statistics.median(self._speeds) if self._speeds else None,
            commit=self.run.read_environment()["commit"],
        )
