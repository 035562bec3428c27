"""Trials on this machine: each its own process, forked from a server that has imported torch and touched no GPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from crack_sweeps.errors import StudyError
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.events import read_events
from crack_sweeps.study.executor import Answer, Gone, Key, Message, Order
from crack_sweeps.study.warm import processes
from crack_sweeps.tracking.state import Trainer

_ORPHAN_PATIENCE_S = 20.0  # for a trial whose coordinator died to store its checkpoint
_EXIT_PATIENCE_S = 30.0  # between a trial's last word and its end; it has nothing left to do then


def begin_trial(order: Order, connection: Connection) -> None:
    """Where a trial's process starts; the coordinator itself never imports torch."""
    from crack_sweeps.study.trial import main

    main(order, connection)


@dataclass
class _Trial:
    process: BaseProcess
    connection: Connection


class LocalExecutor:
    """An `Executor` of processes on this machine."""

    def __init__(self) -> None:
        self._context = processes()
        self._trials: dict[Key, _Trial] = {}

    def launch(self, order: Order) -> None:
        """Fork a trial; it begins while this returns."""
        if order.key in self._trials:
            raise StudyError(f"trial {order.key} is running already")
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=begin_trial, args=(order, theirs), name=f"trial {order.key}", daemon=False
        )
        process.start()
        theirs.close()
        self._trials[order.key] = _Trial(process, ours)

    def wait(self, timeout_s: float) -> Sequence[Message]:
        """Messages as they come; `Gone` for each process that has ended and said all."""
        waiting: dict[Any, Key] = {}  # a connection, or the process's end: its workers may hold the connection open
        for key, trial in self._trials.items():
            waiting[trial.connection] = waiting[trial.process.sentinel] = key
        if not waiting:
            time.sleep(timeout_s)
            return []
        spoke = [waiting[ready] for ready in wait(list(waiting), timeout=timeout_s)]
        ended = [key for key, trial in self._trials.items() if not trial.process.is_alive()]
        messages: list[Message] = []
        for key in dict.fromkeys([*spoke, *ended]):
            messages += self._hear(key)
        return messages

    def answer(self, key: Key, answer: Answer) -> None:
        """Tell a trial, if it can still hear."""
        trial = self._trials.get(key)
        if trial is None or trial.connection.closed:
            return
        try:
            trial.connection.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return  # its end is noticed, and told, by `wait`

    def end(self, key: Key) -> None:
        """End one trial at once, its loader's workers too, which might hang as it did; its checkpoints stay."""
        process = self._trials[key].process
        try:
            workers = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        process.kill()
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()

    def kill(self) -> None:
        """End all trials at once; their checkpoints stay."""
        for trial in self._trials.values():
            trial.process.kill()

    def close(self) -> None:
        """Wait for what is left."""
        self.kill()
        for trial in self._trials.values():
            trial.process.join(_EXIT_PATIENCE_S)
            trial.connection.close()
        self._trials.clear()

    def _hear(self, key: Key) -> list[Message]:
        trial = self._trials[key]
        messages: list[Message] = []
        has_ended = not trial.process.is_alive()  # asked first: what it said before its end is in the connection then
        try:
            while trial.connection.poll():
                messages.append(trial.connection.recv())
            if not has_ended:
                return messages
        except (EOFError, ConnectionResetError):
            pass
        trial.connection.close()
        trial.process.join(_EXIT_PATIENCE_S)
        if trial.process.is_alive():  # it has nothing left to do, so it hangs
            trial.process.kill()
            trial.process.join()
        messages.append(Gone(key, trial.process.exitcode))
        del self._trials[key]
        return messages


def end_orphan(run: RunDirectory) -> None:
    """See that nobody trains in a run whose coordinator died: its process leaves by itself, one that hangs is ended.

    Raises:
        StudyError: It is at work on another machine, where nobody here can end it.
    """
    if not run.path.is_dir():
        return
    deadline = time.monotonic() + _ORPHAN_PATIENCE_S
    while run.is_running() and time.monotonic() < deadline:
        time.sleep(0.1)
    if not run.is_running():
        return
    attempts = [event for event in read_events(run.events) if event["kind"] == "attempt"]
    if not attempts or (trainer := Trainer.of(attempts[-1])).is_dead():
        return
    if not trainer.is_here:
        raise StudyError(
            f"{run.name} is being trained on {trainer.host}, by a trial whose coordinator is gone",
            hint=f"end process {trainer.pid} there; the same command goes on",
        )
    with suppress(psutil.NoSuchProcess):
        psutil.Process(trainer.pid).kill()
