"""A toy study on a bench: tiny photos, real store, ledger and journal; trials and memory forecasts stand in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from crack_sweeps.data.open import open_photos
from crack_sweeps.errors import SweepsError
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.events import EventLog
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.study_loading import ResolvedStudy, identity, resolve_study
from crack_sweeps.study import executor
from crack_sweeps.study.calibration import Calibration
from crack_sweeps.study.coordinator import PATIENCE, Coordinator, Machinery
from crack_sweeps.study.executor import Order
from crack_sweeps.study.folder import StudyFolder, open_folder
from crack_sweeps.study.history import Trial
from crack_sweeps.study.packing import Packer, Slot
from crack_sweeps.study.silence import Patience
from crack_sweeps.study.store import Store, sqlite_url
from crack_sweeps.training.footprint import MemoryForecast

TOY = """\
name: toy
base: unet_small
settings:
  training.epochs: 3
  training.steps_per_epoch: 1
  training.batch_size: 2
  training.gradient_accumulation_steps: 1
  training.early_stopping_patience: null
  model.encoder_cfg.depth: 3
  model.decoder_cfg.channels: [16, 8, 8]
  data.crop_px: 32
  data.num_workers: 0
  evaluation.num_overlays: 0
space:
  training.learning_rate: {low: 0.0003, high: 0.03, log: true}
  training.loss.dice_weight: {choices: [0.0, 0.4, 1.0]}
  training.loss.focal_gamma: {low: 0, high: 3, step: 1}
sampler: {name: tpe, startup_trials: 4}
pruner: {name: hyperband, min_epochs: 1, reduction_factor: 2}
budget: {trials: 8}
finalists: {seeds: 0}
jobs: 1
"""


def draw_photos(folder: Path, num_photos: int = 6) -> Path:
    """Grey noise with one dark polyline each, 64x48 px, as images/ and masks/."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(num_photos):
        image = rng.integers(120, 180, (48, 64, 3), dtype=np.uint8)
        mask = np.zeros((48, 64), np.uint8)
        points = np.stack([np.linspace(0, 63, 6), rng.integers(8, 40, 6)], axis=1).astype(np.int32)
        cv2.polylines(mask, [points.reshape(-1, 1, 2)], isClosed=False, color=255, thickness=2)
        image[mask > 0] //= 3
        cv2.imwrite(str(folder / "images" / f"p{number}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"p{number}.png"), mask)
    return folder


class StandInExecutor:
    """Trials without processes: each epoch's objective comes from a function, and the run's files are written.

    Args:
        outputs: Folder of all runs.
        objective: (experiment, epoch) to a value; an exception is how that trial ends.
        hangs: (experiment, epoch) to whether the trial says nothing any more from there on; it is deaf, too.
        num_at_once: Highest number of trials that ran side by side, to be read afterwards.
    """

    def __init__(
        self,
        outputs: Path,
        objective: Callable[[Experiment, int], float],
        hangs: Callable[[Experiment, int], bool] = lambda *_: False,
    ) -> None:
        self.outputs = outputs
        self.objective = objective
        self.hangs = hangs
        self.deaf: set[Any] = set()
        self.orders: list[Order] = []
        self.num_at_once = 0
        self.seen_at_launch: list[dict[Any, Order]] = []
        self._running: dict[Any, Order] = {}
        self._epoch: dict[Any, int] = {}
        self._queue: list[Any] = []

    def launch(self, order: Order) -> None:
        self.orders.append(order)
        self._running[order.key] = order
        self.num_at_once = max(self.num_at_once, len(self._running))
        self.seen_at_launch.append(dict(self._running))
        run = RunDirectory(self.outputs / order.run_name)
        if not run.path.exists():
            run.path.mkdir(parents=True)
            run.environment.write_text("{}")
            self._event(order, "created")
        self._event(order, "attempt", pid=0, process_started=0.0, host="nowhere")
        self._epoch[order.key] = 0
        self._next_epoch(order)

    def wait(self, timeout_s: float) -> list[Any]:
        messages, self._queue = self._queue[:1], self._queue[1:]
        return messages

    def answer(self, key: Any, answer: Any) -> None:
        order = self._running.get(key)
        if order is None or key in self.deaf:  # it has ended, and nobody has heard so yet
            return
        match answer:
            case executor.GoOn():
                self._next_epoch(order)
            case executor.Prune():
                self._end(order, "PRUNED", answer.reason, {})
            case executor.Leave():
                self._queue = [message for message in self._queue if message.key != key]
                self._end(order, "KILLED", answer.reason, {})

    def end(self, key: Any) -> None:
        self.deaf.discard(key)
        del self._running[key]
        self._queue.append(executor.Gone(key, -9))

    def kill(self) -> None:
        self._running.clear()

    def close(self) -> None:
        self._running.clear()

    def _next_epoch(self, order: Order) -> None:
        self._epoch[order.key] += 1
        epoch, total = self._epoch[order.key], order.experiment.training.epochs
        if epoch > total:
            value = max(self.objective(order.experiment, e) for e in range(1, total + 1))
            self._end(order, "FINISHED", None, {"val/crack_iou": value})
            return
        if self.hangs(order.experiment, epoch):
            self.deaf.add(order.key)
            return
        try:
            value = self.objective(order.experiment, epoch)
        except SweepsError as error:
            self._queue.append(executor.Refused.by(order.key, error))
            self._end(order, "FAILED", error.message, {}, error=type(error).__name__)
            return
        self._queue.append(executor.Reported(order.key, epoch, {"val/crack_iou": value}))

    def _end(
        self, order: Order, status: str, reason: str | None, metrics: dict[str, float], error: str | None = None
    ) -> None:
        run = RunDirectory(self.outputs / order.run_name)
        record = {"metrics": metrics, "reason": reason, "error": error, "duration_s": 1.0, "vram": {}}
        run.metrics.write_text(json.dumps(record))
        self._event(order, "ended", status=status, reason=reason)
        del self._running[order.key]
        self._queue.append(executor.Gone(order.key, 0))

    def _event(self, order: Order, kind: str, **fields: Any) -> None:
        with closing(EventLog(self.outputs / order.run_name / "events.jsonl")) as log:
            log.append(kind, **fields)


class StandInForecaster:
    """Forecasts from a function of the experiment, in bytes."""

    def __init__(self, bytes_of: Callable[[Experiment], int]) -> None:
        self.bytes_of = bytes_of

    def peak(self, experiment: Experiment) -> MemoryForecast:
        total = self.bytes_of(experiment)
        return MemoryForecast(0, 0, 0, 0, total, 0, 0, total)  # activations, which no disk has to hold


@dataclass
class Bench:
    """A coordinator on a bench: real store, ledger and journal; trials and memory stand in."""

    here: Path
    photos: Path

    def resolve(self, **flags: Any) -> ResolvedStudy:
        return resolve_study("toy", profile="none", data=self.photos, **flags)

    def run(
        self,
        study: ResolvedStudy,
        objective: Callable[[Experiment, int], float],
        *,
        bytes_of: Callable[[Experiment], int] = lambda _: 1 << 20,
        budget_bytes: int = 1 << 30,
        slots: Sequence[Slot] = (Slot(None, 0, "host memory", 8 << 30, 8 << 30, 1),),
        look: Callable[[], Sequence[Slot]] | None = None,
        limit_bytes: int | None = None,
        hangs: Callable[[Experiment, int], bool] = lambda *_: False,
        patience: Patience = PATIENCE,
        stop: Callable[[], str | None] = lambda: None,
        on_update: Callable[[Any], None] = lambda _: None,
        storage: str | None = None,
    ) -> tuple[list[Any], StandInExecutor, StudyFolder]:
        """All updates, the executor, and the study's folder; `on_update` hears each update as it comes.

        Slots are as given, or as `look` finds them each time; trials are in the folder's SQLite file or in `storage`.
        """
        photos = open_photos(study.arms[0].base.data, root=Path("artifacts"))
        folder = open_folder(study, identity(study, photos.digest), {}).folder
        outputs = Path("artifacts/outputs")
        trials = StandInExecutor(outputs, objective, hangs)
        with closing(self._store(study, folder, storage)) as store:
            machinery = Machinery(
                store,
                trials,
                StandInForecaster(bytes_of),  # type: ignore[arg-type]
                Packer(look or (lambda: slots), jobs=study.spec.jobs, limit_bytes=limit_bytes),
                Calibration("stand-in", 0, 0, None),
                "cpu",
            )
            coordinator = Coordinator(
                study, folder, photos, machinery, budget_bytes=budget_bytes, outputs=outputs, patience=patience
            )
            updates = []
            for update in coordinator.run(stop):
                updates.append(update)
                on_update(update)
            return updates, trials, folder

    def trials(
        self, study: ResolvedStudy, folder: StudyFolder, arm: str | None = None, *, storage: str | None = None
    ) -> list[Trial]:
        with closing(self._store(study, folder, storage)) as store:
            return store.trials(arm or study.arms[0].name)

    def _store(self, study: ResolvedStudy, folder: StudyFolder, storage: str | None) -> Store:
        return Store(storage or sqlite_url(folder.database), folder.name, study.all_arms, study.spec.objective)
