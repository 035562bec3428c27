"""Trials on this machine: each its own process, forked from a server that has imported torch and touched no GPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from crack_sweeps.errors import StudyError
from crack_sweeps.study.executor import Answer, Gone, Key, Message, Order
from crack_sweeps.study.warm import processes

_EXIT_PATIENCE_S = 30.0  # between a trial's last word and its end; it has nothing left to do then


def begin_trial(order: Order, connection: Connection) -> None:
    """Where a trial's process starts; the coordinator itself never imports torch."""
    from crack_sweeps.study.trial import main

    main(order, connection)


@dataclass
class _Trial:
    process: BaseProcess
    connection: Connection
    silent_since: float | None = None  # it closed its end, but its process is still there


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
        waiting: dict[Any, Key] = {}  # what to wait for: a connection, or the number of a process's end
        for key, trial in self._trials.items():
            waiting[trial.process.sentinel if trial.connection.closed else trial.connection] = key
        if not waiting:
            time.sleep(timeout_s)
            return []
        messages: list[Message] = []
        for ready in wait(list(waiting), timeout=timeout_s):
            messages += self._hear(waiting[ready])
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
        if not trial.connection.closed:
            try:
                while trial.connection.poll():
                    messages.append(trial.connection.recv())
                return messages
            except (EOFError, ConnectionResetError):
                trial.connection.close()
        trial.process.join(_EXIT_PATIENCE_S)
        if trial.process.is_alive():  # it has nothing left to do, so it hangs
            trial.process.kill()
            trial.process.join()
        messages.append(Gone(key, trial.process.exitcode))
        del self._trials[key]
        return messages
