"""One trial's process: train what was ordered, report each epoch, wait for the verdict, leave."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from filelock import Timeout

import crack_sweeps.data.loader
import crack_sweeps.models.baselines
import crack_sweeps.models.hybrid  # noqa: F401  # the server that trials are forked from imports this module
from crack_sweeps.errors import SweepsError
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.preparation import Origin, prepare
from crack_sweeps.runs.proof import prove_suggestion
from crack_sweeps.runs.training_run import Began, Ended, Halt, Membership, Scoring, begin_run, proceed
from crack_sweeps.study import executor
from crack_sweeps.study.executor import Answer, GoOn, Leave, Order, Prune
from crack_sweeps.training.device import choose_device
from crack_sweeps.training.forecast import MemoryForecast
from crack_sweeps.training.loop import EpochReport, Notice, StepReport

LIVES_EVERY_S = 5.0  # a word takes microseconds; the coordinator waits minutes for one
LOCK_PATIENCE_S = 60.0  # a process of an earlier coordinator may be storing its last checkpoint


def main(order: Order, connection: Connection) -> None:
    """The whole life of a trial's process."""
    torch.set_num_threads(order.threads)
    os.environ["CUDA_VISIBLE_DEVICES"] = order.gpu or ""
    link = _Link(order, connection)
    with _logged(order), closing(connection):
        try:
            _train(order, link)
        except SweepsError as error:
            link.say(executor.Refused.by(order.key, error))
        except Exception as error:  # noqa: BLE001 - told to the coordinator, whose other trials go on
            traceback.print_exc()
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            message = f"{type(error).__name__}: {error} ({where}; a bug, its traceback is in {_log_of(order)})"
            link.say(executor.Refused(order.key, message, None, out_of_memory=False, mistake=False))


def _train(order: Order, link: _Link) -> None:
    origin = Origin(**order.origin)
    device = choose_device(origin.profile)
    if device.type == "cuda" and order.memory_fraction is not None:
        torch.cuda.set_per_process_memory_fraction(order.memory_fraction)
    prove_suggestion(order.suggestion, order.experiment)
    foreseen = MemoryForecast(**order.forecast)
    prepared = prepare(order.experiment, origin, order.photos, device=device, foreseen=foreseen)
    if not order.experiment.training.compile:  # a hook would be compiled too; its steps tell anyway
        prepared.model.register_forward_hook(link.lives)  # validation yields nothing, and may take hours
    run = _directory(order)
    if run is None:
        membership = Membership(**order.membership)
        run = begin_run(prepared, outputs=order.outputs, membership=membership, run_name=order.run_name)
    else:
        _wait_for_the_lock(run, order, link)
    updates = proceed(prepared, run, stop=link.halt, log_model=order.log_model, score_test=order.score_test)
    with closing(updates):
        for update in updates:
            match update:
                case Began():
                    link.say(executor.Began(order.key, update.total_epochs, update.resumed_from_step))
                    if update.last_epoch is not None:
                        link.report(update.last_epoch)
                case EpochReport():
                    link.report(update)
                case Notice():
                    link.say(executor.Told(order.key, update.text))
                case Ended():
                    link.say(executor.RunEnded(order.key))
                case StepReport() | Scoring():
                    link.lives()


def _directory(order: Order) -> RunDirectory | None:
    """The run of an earlier attempt; a directory that never got its first event is put aside and made anew."""
    path = order.outputs / order.run_name
    if not path.exists():
        return None
    run = RunDirectory(path)
    if run.events.is_file() and run.environment.is_file() and run.events.read_bytes().count(b"\n") > 0:
        return run
    path.rename(path.with_name(f".{path.name}.unfinished-{os.getpid()}"))
    return None


def _wait_for_the_lock(run: RunDirectory, order: Order, link: _Link) -> None:
    """Leave without a verdict where another process keeps the run: the coordinator tries again."""
    try:
        with run.lock().acquire(timeout=LOCK_PATIENCE_S):
            pass
    except Timeout:
        link.say(executor.Told(order.key, f"{run.name} is held by another process"))
        raise SystemExit(1) from None


class _Link:
    """The trial's end of the line to the coordinator; a coordinator that is gone means: leave, with a checkpoint."""

    def __init__(self, order: Order, connection: Connection) -> None:
        self._key = order.key
        self._connection = connection
        self._halt: Halt | None = None
        self._said = time.monotonic()
        for name in ("SIGTERM", "SIGHUP"):  # to this process alone; from a terminal they reach the coordinator
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._on_signal)
                if sys.platform != "win32":  # which has no fork server, whose mask this lifts
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, {getattr(signal, name)})

    def say(self, message: executor.Message) -> None:
        """Tell the coordinator."""
        self._said = time.monotonic()
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self._lost()

    def lives(self, *_: Any) -> None:
        """Tell that the trial is at work, unless it said something just now."""
        if time.monotonic() - self._said >= LIVES_EVERY_S:
            self.say(executor.Lives(self._key))

    def report(self, report: EpochReport) -> None:
        """Tell of an epoch and wait for the verdict."""
        self.say(executor.Reported(self._key, report.epoch, report.metrics))
        if self._halt is None:
            self._hear()

    def halt(self) -> Halt | None:
        """What the coordinator, or a signal, has asked for meanwhile."""
        while self._halt is None and self._waiting():
            self._hear()
        return self._halt

    def _waiting(self) -> bool:
        try:
            return self._connection.poll()
        except (BrokenPipeError, ConnectionResetError):
            self._lost()
            return False

    def _hear(self) -> None:
        try:
            answer: Answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._lost()
            return
        match answer:
            case GoOn():
                return
            case Prune():
                self._halt = Halt("PRUNED", answer.reason)
            case Leave():
                self._halt = Halt("KILLED", answer.reason)

    def _lost(self) -> None:
        self._halt = self._halt or Halt("KILLED", "the coordinator is gone")

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._halt = self._halt or Halt("KILLED", signal.Signals(number).name)


def _log_of(order: Order) -> Path:
    return order.outputs / f"{order.run_name}.log"


@contextlib.contextmanager
def _logged(order: Order) -> Iterator[Any]:
    """What libraries print goes into a file beside the run, not over the study's table."""
    path = _log_of(order)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        yield
    if path.exists() and path.stat().st_size == 0:
        path.unlink()
