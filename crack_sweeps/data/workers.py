"""Loader processes: they fill batches of crops in shared memory, in order, and report what goes wrong in plain words.

Why not torch's DataLoader: it changes its batch size only by starting anew, tells a worker's exception as a string
(a DataError would lose its hint), cannot leave an epoch early without working off what was asked for, and with workers
that are not its direct children it notices a dead one only when the timeout is over.

Why a fork server on POSIX: forking the training process itself would copy locks held by its other threads (torch, the
memory sampler, CUDA) in whatever state they are, and a fresh interpreter per worker would import OpenCV and
albumentations each time. The server is a clean process that has imported them once, without threads and without CUDA.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.util import Finalize
from typing import Protocol, Self

import cv2
import numpy as np
from jaxtyping import UInt8

from crack_sweeps.data.crops import Draw
from crack_sweeps.errors import LoaderStalled, SweepsError, TrainingError

SLOTS = 2  # batches per worker: one being read, one being filled
START_TIMEOUT_S = 120.0  # a cold import of albumentations takes 5 s on an idle machine
EXIT_TIMEOUT_S = 5.0  # how long a killed process may take to vanish

_FORK_SERVER = "forkserver" in multiprocessing.get_all_start_methods()
_STARTING = "starting"
_READY = "ready"
_DONE = "done"


class CropSource(Protocol):
    """What the loader reads from; it must survive pickling."""

    @property
    def crop_px(self) -> int: ...

    def __getitem__(self, draw: Draw, /) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]: ...

    def describe(self, draw: Draw) -> str: ...

    def split_among(self, num_processes: int) -> Self: ...


@dataclass(frozen=True, slots=True)
class _Task:
    slot: int
    draws: tuple[Draw, ...]


@dataclass(frozen=True, slots=True)
class _Crash:
    """A worker's bug, with its traceback."""

    traceback: str


def batch_bytes(batch_size: int, crop_px: int) -> int:
    """Memory of one batch: three channels and a mask."""
    return batch_size * 4 * crop_px * crop_px


def batch_views(
    buffer: UInt8[np.ndarray, " bytes"], batch_size: int, crop_px: int
) -> tuple[UInt8[np.ndarray, "B 3 H W"], UInt8[np.ndarray, "B 1 H W"]]:
    """Images and masks of a batch that lies in one piece of memory."""
    num_pixels = batch_size * crop_px * crop_px
    image_B3HW = buffer[: 3 * num_pixels].reshape(batch_size, 3, crop_px, crop_px)
    mask_B1HW = buffer[3 * num_pixels : 4 * num_pixels].reshape(batch_size, 1, crop_px, crop_px)
    return image_B3HW, mask_B1HW


def fill(
    source: CropSource,
    draws: Sequence[Draw],
    image_B3HW: UInt8[np.ndarray, "B 3 H W"],
    mask_B1HW: UInt8[np.ndarray, "B 1 H W"],
) -> None:
    """Writes each crop into its row; the only copy between augmentation and batch."""
    for row, draw in enumerate(draws):
        image_HW3, mask_HW = source[draw]
        image_B3HW[row] = image_HW3.transpose(2, 0, 1)
        mask_B1HW[row, 0] = mask_HW


def warm_up() -> None:
    """Starts the fork server, which then imports what workers need while the caller builds its model."""
    if _FORK_SERVER:
        from multiprocessing import forkserver  # cannot be imported where there is none

        multiprocessing.set_forkserver_preload([__name__])
        forkserver.ensure_running()


class WorkerPool:
    """Processes that outlive epochs. Batch k is always filled by worker k mod n, so nothing needs sorting afterwards.

    Args:
        source: Where crops come from; each worker gets its own, with its share of the memory limit.
        num_workers: At least 1.
        max_batch: The largest batch that fits into a slot.
        timeout_s: How long one batch may take.
    """

    def __init__(self, source: CropSource, *, num_workers: int, max_batch: int, timeout_s: float) -> None:
        warm_up()
        self.max_batch = max_batch
        self._source = source
        self._timeout_s = timeout_s
        self._batches: Sequence[tuple[Draw, ...]] = ()
        self._num_sent = self._num_taken = 0
        self._workers: list[_Worker] = []
        # Runs before multiprocessing's own clean-up, which would send SIGTERM (ignored by workers) and wait for ever.
        self._end = Finalize(self, _kill, args=(self._workers,), exitpriority=100)
        share = source.split_among(num_workers)
        self._workers.extend(_Worker(share, max_batch) for _ in range(num_workers))
        for worker in self._workers:
            self._reply(worker, max(timeout_s, START_TIMEOUT_S), _STARTING)

    @property
    def closed(self) -> bool:
        """Whether the workers are gone: after `close`, or after any error but a SweepsError that a worker met."""
        return not self._end.still_active()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def begin(self, batches: Sequence[tuple[Draw, ...]]) -> None:
        """Has the workers start on these batches. What is left of an earlier list is waited for and dropped."""
        for worker in self._workers:
            while worker.num_pending:
                self._reply(worker, self._timeout_s, "finishing a batch of an epoch that was left early")
        self._batches, self._num_sent, self._num_taken = batches, 0, 0
        for _ in range(SLOTS * len(self._workers)):
            self._send_next()

    def take(self, into: UInt8[np.ndarray, " bytes"]) -> None:
        """Waits for the next batch, copies it out, and hands its slot back for another.

        Raises:
            SweepsError: What a worker met (a damaged photo), as it was raised there.
            LoaderStalled: The batch took longer than the timeout. The workers are gone then.
            TrainingError: The worker died. The others are gone then, too.
        """
        worker, slot = self._place(self._num_taken)
        draws = self._batches[self._num_taken]
        reading = ", ".join(dict.fromkeys(self._source.describe(draw) for draw in draws[:3]))
        reply = self._reply(worker, self._timeout_s, f"reading {reading}")
        if isinstance(reply, SweepsError):
            raise reply
        into[:] = worker.slots[slot][: into.size]
        self._num_taken += 1
        self._send_next()

    def close(self) -> None:
        """Kills the workers, which hold nothing that could be lost."""
        if self._end.still_active():
            self._end()

    def _place(self, number: int) -> tuple[_Worker, int]:
        """Worker and slot of a batch."""
        return self._workers[number % len(self._workers)], number // len(self._workers) % SLOTS

    def _send_next(self) -> None:
        if self._num_sent == len(self._batches):
            return
        worker, slot = self._place(self._num_sent)
        try:
            worker.connection.send(_Task(slot, self._batches[self._num_sent]))
        except OSError as error:
            raise self._died(worker, "waiting for work") from error
        worker.num_pending += 1
        self._num_sent += 1

    def _reply(self, worker: _Worker, timeout_s: float, doing: str) -> object:
        try:
            if not worker.connection.poll(timeout_s):
                raise LoaderStalled(
                    f"the data loader gave nothing for {timeout_s:g} s while {doing}",
                    hint="a slow or unreachable disk? raise data.loader_timeout_s, or copy the photos to a local disk",
                )
            reply: object = worker.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died(worker, doing) from error
        except BaseException:  # stalled, or interrupted in the middle of a message
            self.close()
            raise
        if isinstance(reply, _Crash):
            self.close()
            raise RuntimeError(f"a loader process failed while {doing}:\n\n{reply.traceback}")
        worker.num_pending -= 1
        return reply

    def _died(self, worker: _Worker, doing: str) -> TrainingError:
        worker.process.join(EXIT_TIMEOUT_S)
        code = worker.process.exitcode
        self.close()
        if doing == _STARTING:
            hint = "a script that trains with data.num_workers > 0 must do so under `if __name__ == '__main__':`"
        else:
            hint = "killed for want of memory? lower data.num_workers or data.cache_gib"
        return TrainingError(f"loader process {worker.process.pid} died (exit code {code}) while {doing}", hint=hint)


class _Worker:
    """One process, the pipe to it and the memory shared with it."""

    def __init__(self, source: CropSource, max_batch: int) -> None:
        context = _context()
        # An unlinked temporary file, in /dev/shm if that is large enough (64 MiB in most containers): nothing to leak.
        memory = [context.RawArray(ctypes.c_uint8, batch_bytes(max_batch, source.crop_px)) for _ in range(SLOTS)]
        self.slots = [np.ctypeslib.as_array(slot) for slot in memory]
        self.num_pending = 1  # the greeting
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(source, memory, theirs), name="loader", daemon=True)
        self.process.start()
        theirs.close()  # or the end of the process would not be the end of the pipe


def _context() -> ForkServerContext | SpawnContext:
    return multiprocessing.get_context("forkserver") if _FORK_SERVER else multiprocessing.get_context("spawn")


def _kill(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
        worker.connection.close()
    for worker in workers:
        worker.process.join(EXIT_TIMEOUT_S)
    workers.clear()


def _work(source: CropSource, memory: Sequence[ctypes.Array[ctypes.c_uint8]], connection: Connection) -> None:
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group. The training process decides what they mean;
    # when it goes, the pipe ends and so does this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)  # the processes are the parallelism
    slots = [np.ctypeslib.as_array(slot) for slot in memory]
    try:
        connection.send(_READY)
        while True:
            _serve(source, connection.recv(), slots, connection)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the training process is gone, or has closed the pool


def _serve(
    source: CropSource, task: _Task, slots: Sequence[UInt8[np.ndarray, " bytes"]], connection: Connection
) -> None:
    try:
        fill(source, task.draws, *batch_views(slots[task.slot], len(task.draws), source.crop_px))
    except SweepsError as error:
        connection.send(error)
    except BaseException:
        connection.send(_Crash(traceback.format_exc()))
        raise
    else:
        connection.send(_DONE)
