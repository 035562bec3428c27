"""One run from start to record: it writes the run's directory and yields what happens, step by step."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import Timeout
from torch import Tensor

from crack_sweeps import durable
from crack_sweeps.data.crops import CropDataset, draws
from crack_sweeps.data.loader import Loader
from crack_sweeps.errors import SweepsError
from crack_sweeps.runs.book import RunBook
from crack_sweeps.runs.directory import OUTPUTS, RunDirectory, create_run_directory, reserved_run_directory
from crack_sweeps.runs.environment import describe_environment
from crack_sweeps.runs.events import EventLog
from crack_sweeps.runs.finale import Outcome, conclude, predict_with, validation_scores
from crack_sweeps.runs.preparation import Prepared
from crack_sweeps.runs.proof import prove
from crack_sweeps.runs.record import RunRecord
from crack_sweeps.runs.resume import being_trained, refuse_over
from crack_sweeps.specs.loading import dump, flat
from crack_sweeps.training.checkpoints import CheckpointFolder
from crack_sweeps.training.loop import EpochReport, Notice, Report, StepReport, TrainingState, train
from crack_sweeps.training.peaks import PeakMeter

MLFLOW_EXPERIMENT = "runs"
LOCK_PATIENCE_S = 2.0  # somebody may be looking whether the run is running, which takes its lock for a moment


@dataclass(frozen=True)
class Halt:
    """Why a run ends before its time: KILLED can be gone on with, PRUNED is meant to be over."""

    status: Literal["KILLED", "PRUNED"]
    reason: str


Stop = Callable[[], Halt | None]


@dataclass(frozen=True)
class Membership:
    """Where a run belongs.

    Args:
        experiment: MLflow experiment to show it under.
        shown_as: Its name there; None is the run's own.
        parent: What it is nested under: `run` (that one's name) and `dir` (its folder).
        tags: More MLflow tags.
        study: Which study and trial it is of, for whoever rebuilds a study from its runs; None for a single run.
    """

    experiment: str = MLFLOW_EXPERIMENT
    shown_as: str | None = None
    parent: Mapping[str, str] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    study: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Locked:
    """The run is this process's alone; what is told from now on is of its attempt."""

    run: RunDirectory


@dataclass(frozen=True)
class Began:
    """The run has its directory and, after a resume, its place in the training."""

    run: RunDirectory
    resumed_from_step: int | None
    total_steps: int
    total_epochs: int
    last_epoch: EpochReport | None = None  # of an earlier attempt


@dataclass(frozen=True)
class Scoring:
    """Training is over; the best weights are being scored on whole photos."""

    done: int
    total: int


@dataclass(frozen=True)
class Ended:
    """The last word of a run."""

    record: RunRecord


Update = Locked | Began | Scoring | Ended | Report


def begin_run(
    prepared: Prepared,
    *,
    outputs: Path = OUTPUTS,
    membership: Membership | None = None,
    run_name: str | None = None,
) -> RunDirectory:
    """Make the run's directory with its configuration and its first event.

    Until it has that it is locked: a directory without both is one that a crash left.

    Args:
        prepared: The training.
        outputs: Folder of all runs.
        membership: Where it belongs; None is a single run.
        run_name: The name that was reserved for it; None takes a new one.
    """
    membership = membership or Membership()
    if run_name is None:
        run = create_run_directory(prepared.experiment.name, outputs=outputs)
    else:
        run = reserved_run_directory(run_name, outputs=outputs)
    with run.lock().acquire(timeout=LOCK_PATIENCE_S):
        _write_first_files(prepared, run, membership)
    return run


def _write_first_files(prepared: Prepared, run: RunDirectory, membership: Membership) -> None:
    environment = describe_environment(prepared.device)
    origin, photos = prepared.origin, prepared.photos
    durable.write_text(run.config, dump(prepared.experiment))
    facts = {
        "experiment_file": origin.source,
        "fingerprint": origin.fingerprint,
        "profile": origin.profile,
        "quick_look": origin.quick_look,
        "overrides": list(origin.overrides),
        "seed": prepared.experiment.training.seed,
        "data": {
            "name": photos.name,
            "digest": photos.digest,
            "mask_rule": photos.mask_rule,
            "warnings": photos.warnings,
        },
        "precision": prepared.precision,
        "num_params": prepared.num_params,
        "steps_per_epoch": prepared.steps_per_epoch,
        "weights_sha256": prepared.weights_sha256,
        "built": prepared.model.built(),
        "study": membership.study,
    }
    durable.write_text(run.environment, json.dumps({**facts, **environment}, indent=2) + "\n")
    with closing(EventLog(run.events)) as log:
        log.append(
            "created",
            run=run.name,
            experiment=membership.experiment,
            shown_as=membership.shown_as,
            parent=membership.parent,
            params={**flat(prepared.experiment), "num_params": prepared.num_params, "precision": prepared.precision},
            tags={
                "crack_sweeps.run": run.name,
                "crack_sweeps.fingerprint": origin.fingerprint,
                "crack_sweeps.profile": origin.profile,
                "crack_sweeps.quick_look": str(origin.quick_look).lower(),
                "crack_sweeps.commit": environment["commit"] or "none",
                "crack_sweeps.dirty_diff": environment["dirty_diff_sha256"] or "clean",
                "crack_sweeps.data_digest": photos.digest,
                "crack_sweeps.device": environment["device_name"],
                **membership.tags,
            },
            dataset={
                "name": photos.name,
                "digest": photos.digest,
                "source": prepared.experiment.data.source,
                "num_train": len(photos.split("train")),
                "num_val": len(photos.split("val")),
                "num_test": len(photos.split("test")),
            },
        )


def proceed(
    prepared: Prepared, run: RunDirectory, *, stop: Stop, log_model: bool = True, score_test: bool = False
) -> Generator[Update, None, None]:
    """Train from the newest checkpoint (or from the start) to the record.

    Args:
        prepared: The same experiment, data and device that the run began with.
        run: Its directory.
        stop: Asked after each update; an answer makes a checkpoint and ends the run.
        log_model: Whether the trackers are given the model at the end.
        score_test: Whether the test photos are scored at the end: a study's finalists only.

    Raises:
        UserError: Another process trains this run, or has ended it meanwhile; nothing was touched.
        SweepsError: The training failed; the reason is in the record too.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(run.lock().acquire(timeout=LOCK_PATIENCE_S))
        except Timeout:
            raise being_trained(run) from None
        refuse_over(run)
        log = stack.enter_context(closing(EventLog(run.events)))
        book = RunBook(run, prepared, log, log_model=log_model)
        try:
            yield Locked(run)
            yield from _proceed(prepared, run, book, stop, score_test=score_test)
        except (GeneratorExit, KeyboardInterrupt):
            if not book.ended:  # a caller may well leave after the last word
                book.end("KILLED", "left before the end")
            raise
        except BaseException as error:
            if not book.ended:
                kind = type(error).__name__
                reason = error.message if isinstance(error, SweepsError) else f"{kind}: {error}"
                book.end("FAILED", reason, error=kind)
            raise


def _proceed(
    prepared: Prepared, run: RunDirectory, book: RunBook, stop: Stop, *, score_test: bool
) -> Generator[Update, None, None]:
    training = prepared.experiment.training
    vault = CheckpointFolder(run.checkpoints)
    vault.clear_unfinished()
    torch.manual_seed(training.seed)
    state = TrainingState(
        prepared.model,
        training,
        device=prepared.device,
        amp_dtype=prepared.amp_dtype,
        steps_per_epoch=prepared.steps_per_epoch,
    )
    prove(state, prepared.experiment)
    stored = vault.load_latest()
    if stored is not None:
        state.load_state_dict(stored[0])
    resumed_from = state.step if stored else None
    book.attempt(state.progress, resumed_from_step=resumed_from)
    yield Began(run, resumed_from, training.epochs * prepared.steps_per_epoch, training.epochs, _last_epoch(state))
    for complaint in stored[1] if stored else ():
        yield book.note(f"{complaint}; going on from the checkpoint before it")
    if (halt := stop()) is not None:
        yield Ended(_halt(halt, state, book, vault))
        return

    lacks: list[str] = []  # of memory, while photos are scored
    predict = predict_with(prepared, batch_size=state.progress.micro_batch, notify=lacks.append)

    def tell_lacks() -> Iterator[Notice]:
        while lacks:
            yield book.note(lacks.pop(0))

    with PeakMeter(prepared.device) as meter, closing(_Crops(prepared)) as crops:
        for report in train(state, crops, lambda _: validation_scores(prepared, predict)):
            if isinstance(report, EpochReport):
                report = replace(report, metrics={**report.metrics, **meter.read()})
                state.progress.last_report = {"epoch": report.epoch, "step": report.step, "metrics": report.metrics}
                book.observe_peaks(report.metrics, meter.source)
                if report.is_best:
                    with state.evaluated_weights():
                        vault.save_best({"model": state.model.state_dict(), "epoch": report.epoch})
                vault.save_latest(state.state_dict())
                book.epoch()
            elif isinstance(report, Notice):
                book.note(report.text)
            yield from tell_lacks()
            yield report
            if (halt := stop()) is not None:
                if isinstance(report, StepReport):
                    vault.save_latest(state.state_dict())
                yield Ended(_halt(halt, state, book, vault))
                return
        book.observe_peaks(meter.read(), meter.source)

    for progress in conclude(prepared, run, vault, predict, score_test=score_test):
        yield from tell_lacks()
        if isinstance(progress, Outcome):
            book.write_vram()
            record = book.finish(metrics=progress.metrics, threshold=progress.threshold, files=progress.files)
            with state.evaluated_weights():
                vault.finish({"model": state.model.state_dict(), "epoch": state.progress.epoch})
            yield Ended(record)
            return
        yield Scoring(*progress)
        if (halt := stop()) is not None:
            yield Ended(_halt(halt, state, book, vault))
            return


def _halt(halt: Halt, state: TrainingState, book: RunBook, vault: CheckpointFolder) -> RunRecord:
    """End before the time. What is over for good keeps its best and its last weights, and gives the rest back."""
    if halt.status == "PRUNED":
        book.write_vram()
    record = book.end(halt.status, halt.reason)
    if halt.status == "PRUNED":
        with state.evaluated_weights():
            vault.finish({"model": state.model.state_dict(), "epoch": state.progress.epoch})
    return record


def _last_epoch(state: TrainingState) -> EpochReport | None:
    """The last complete epoch of an earlier attempt: whoever waits for it may not have heard of it."""
    report = state.progress.last_report
    if report is None:
        return None
    is_best = state.progress.best_epoch == report["epoch"]
    return EpochReport(epoch=report["epoch"], step=report["step"], metrics=report["metrics"], is_best=is_best)


class _Crops:
    """Gives the micro-batches of an epoch from any step on; the same ones however many workers cut them."""

    def __init__(self, prepared: Prepared) -> None:
        experiment, data = prepared.experiment, prepared.experiment.data
        self.num_photos = len(prepared.photos.split("train"))
        self.weights = [photo.weight for photo in prepared.photos.split("train")]
        self.seed = experiment.training.seed
        self.crops_per_step = experiment.training.effective_batch
        self.crops_per_epoch = self.crops_per_step * prepared.steps_per_epoch
        dataset = CropDataset(
            prepared.photos.split("train"),
            prepared.photos.rule,
            crop_px=experiment.crop_px,
            crack_crop_fraction=data.crack_crop_fraction,
            augmentations=data.transform.augmentations,
            seed=self.seed,
            cache_bytes=int(data.cache_gib * 2**30),
        )
        self.loader = Loader(
            dataset,
            num_workers=data.num_workers,
            timeout_s=data.loader_timeout_s,
            pin_memory=prepared.device.type == "cuda",
        )

    def __call__(self, epoch: int, first_step: int, micro_batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        drawn = draws(self.seed, epoch, self.num_photos, self.crops_per_epoch, self.weights)
        return self.loader.epoch(drawn[first_step * self.crops_per_step :], micro_batch)

    def close(self) -> None:
        """End the workers."""
        self.loader.close()
