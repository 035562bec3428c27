"""Batches of crops as tensors: the same ones, bit for bit, for any number of loader processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Self

import cv2
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crack_sweeps.data.crops import CropDataset, Draw
from crack_sweeps.errors import LoaderStalled, SweepsError, TrainingError
from crack_sweeps.fork_server import HAS_FORK_SERVER, start_fork_server

Batch = tuple[UInt8[Tensor, "B 3 H W"], UInt8[Tensor, "B 1 H W"]]

# Forking the training process itself would copy locks that its other threads (torch, the memory sampler, CUDA) hold at
# that moment, and a fresh interpreter per worker would import torch and albumentations each time: so a fork server.
_EXIT_TIMEOUT_S = 5.0  # how long a killed process may take to vanish


class Loader:
    """Batches of crops, epoch after epoch, from processes that stay alive in between.

    What it gives depends on the draws alone: no global random number is drawn, neither torch's, numpy's nor Python's.

    Args:
        source: Where crops come from; each process gets its own, with its share of the memory limit.
        num_workers: Loader processes; 0 reads in this process and uses no multiprocessing at all.
        timeout_s: Seconds that one batch may take before the loader counts as stalled (with processes only: nobody can
            interrupt a read in this one). A process that was killed is noticed within the same time.
        pin_memory: Give batches in page-locked memory, from which they can be copied to a GPU in the background.
    """

    def __init__(self, source: CropDataset, *, num_workers: int, timeout_s: float, pin_memory: bool = False) -> None:
        self._source = source
        self._num_workers = num_workers
        self._timeout_s = timeout_s
        self._pin_memory = pin_memory
        self._batches: list[Sequence[Draw]] = []  # of the newest epoch; the DataLoader's sampler
        self._loader: DataLoader[Batch | SweepsError] | None = None
        self._iterator: Iterator[Batch | SweepsError] | None = None
        self._workers: list[BaseProcess] = []
        self._epoch_number = 0
        if num_workers:
            if HAS_FORK_SERVER:
                start_fork_server(__name__)
            # At exit this comes before multiprocessing's own clean-up, which sends SIGTERM (ignored by the workers)
            # and then waits for them for ever.
            Finalize(self, _kill, args=(self._workers,), exitpriority=100)
        else:
            cv2.setNumThreads(0)  # on such crops its threads cost more than they give, and torch's want the cores

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def epoch(self, draws: Sequence[Draw], batch_size: int) -> Iterator[Batch]:
        """The crops of these draws in their order, in batches; the last one may be smaller.

        It may be left early: the next epoch starts clean. A new epoch ends any older one.

        Raises:
            DataError: A photo or mask cannot be read, with the message and hint it was raised with.
            LoaderStalled: A batch took longer than the timeout.
            TrainingError: A loader process died.
        """
        self._epoch_number += 1
        self._batches[:] = [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]
        running = set(multiprocessing.active_children())
        try:
            with self._failures_explained("finishing a batch of an epoch that was left early"):
                if self._loader is None:
                    self._loader = self._new_loader()
                self._iterator = iter(self._loader)
        finally:
            self._workers.extend(set(multiprocessing.active_children()) - running)
        return self._give(tuple(self._batches), self._epoch_number)

    def close(self) -> None:
        """Ends the loader processes and whatever epoch there is. A later epoch starts new ones."""
        self._epoch_number += 1
        self._iterator = self._loader = None  # the DataLoader asks its processes to leave, and waits
        _kill(self._workers)

    def _new_loader(self) -> DataLoader[Batch | SweepsError]:
        parallel = self._num_workers > 0
        source = self._source.split_among(self._num_workers) if parallel else self._source
        return DataLoader(
            _BatchSource(source),
            batch_size=None,  # what the sampler gives is a whole batch of draws
            sampler=self._batches,
            num_workers=self._num_workers,
            timeout=self._timeout_s if parallel else 0,
            worker_init_fn=_begin_worker,
            multiprocessing_context=("forkserver" if HAS_FORK_SERVER else "spawn") if parallel else None,
            persistent_workers=parallel,
            pin_memory=self._pin_memory,
            generator=torch.Generator(),  # or each epoch would draw from torch's global one
        )

    def _give(self, batches: Sequence[Sequence[Draw]], epoch_number: int) -> Iterator[Batch]:
        for draws in batches:
            if epoch_number != self._epoch_number or self._iterator is None:
                raise RuntimeError("this epoch was ended by a newer one of the same loader, or by closing it")
            files = dict.fromkeys(self._source.describe(draw) for draw in draws[:3])
            with self._failures_explained(f"reading {', '.join(files)}"):
                batch = next(self._iterator)
            if isinstance(batch, SweepsError):
                raise batch
            image_B3HW, mask_B1HW = batch
            yield image_B3HW, mask_B1HW

    @contextmanager
    def _failures_explained(self, doing: str) -> Iterator[None]:
        """Tells a stalled loader and a dead process in plain words, and ends the rest; bugs keep their traceback."""
        try:
            yield
        except (RuntimeError, OSError, EOFError) as error:
            if not self._workers:
                raise
            stalled = str(error).startswith("DataLoader timed out")
            if not stalled:  # a broken pipe may be known a moment before the death that broke it
                wait([worker.sentinel for worker in self._workers], timeout=1.0)
            died = next((worker for worker in self._workers if worker.exitcode is not None), None)
            if died is None and not stalled:
                raise
            told = _death(died, doing) if died else _stall(self._timeout_s, doing)
            _kill(self._workers)  # first, or the DataLoader would wait for each that hangs
            self.close()
            raise told from error


class _BatchSource(Dataset[Batch | SweepsError]):
    """Whole batches of a dataset of crops."""

    def __init__(self, source: CropDataset) -> None:
        self._source = source

    def __getitem__(self, draws: Sequence[Draw]) -> Batch | SweepsError:
        """A batch, or what the person must be told: raised, it would reach the training as text, without its hint."""
        side_px = self._source.crop_px
        image_B3HW = torch.empty(len(draws), 3, side_px, side_px, dtype=torch.uint8)
        mask_B1HW = torch.empty(len(draws), 1, side_px, side_px, dtype=torch.uint8)
        images, masks = image_B3HW.numpy(), mask_B1HW.numpy()
        try:
            for row, draw in enumerate(draws):
                image_HW3, mask_HW = self._source[draw]
                images[row], masks[row, 0] = image_HW3.transpose(2, 0, 1), mask_HW
        except SweepsError as error:
            return error
        return image_B3HW, mask_B1HW


def _begin_worker(_: int) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # where the fork server is another's, or there is none to mask them
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    cv2.setNumThreads(0)  # the processes are the parallelism
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """Ends this worker when the training is gone; the DataLoader's own watch looks at the fork server instead."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _kill(workers: list[BaseProcess]) -> None:
    """Ends them at once; they hold nothing that could be lost."""
    for worker in workers:
        if worker.is_alive():
            worker.kill()
    for worker in workers:
        worker.join(_EXIT_TIMEOUT_S)
    workers.clear()


def _stall(timeout_s: float, doing: str) -> LoaderStalled:
    return LoaderStalled(
        f"the data loader gave nothing for {timeout_s:g} s while {doing}",
        hint="a slow or unreachable disk? raise data.loader_timeout_s, or copy the photos to a local disk",
    )


def _death(worker: BaseProcess, doing: str) -> TrainingError:
    if worker.exitcode is not None and worker.exitcode < 0:  # by a signal
        hint = "killed for want of memory? lower data.num_workers or data.cache_gib, or enlarge /dev/shm"
    else:
        hint = "a script that trains with data.num_workers > 0 must do so under `if __name__ == '__main__':`"
    return TrainingError(f"loader process {worker.pid} died (exit code {worker.exitcode}) while {doing}", hint=hint)
