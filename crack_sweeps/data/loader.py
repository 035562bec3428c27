"""Batches of crops as tensors: the same ones, bit for bit, for any number of loader processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from crack_sweeps.data.crops import Draw
from crack_sweeps.data.workers import CropSource, WorkerPool, batch_bytes, batch_views, fill, warm_up

Batch = tuple[UInt8[Tensor, "B 3 H W"], UInt8[Tensor, "B 1 H W"]]


class Loader:
    """Batches of crops, epoch after epoch, from processes that stay alive in between.

    What it gives depends on the draws alone: no random number is drawn here, neither torch's, numpy's nor Python's.

    Args:
        source: Where crops come from.
        num_workers: Loader processes; 0 reads in this process and uses no multiprocessing at all.
        timeout_s: Seconds that one batch may take before the loader counts as stalled (with processes only: nobody can
            interrupt a read in this one).
        pin_memory: Give batches in page-locked memory, from which they can be copied to a GPU in the background.
    """

    def __init__(self, source: CropSource, *, num_workers: int, timeout_s: float, pin_memory: bool = False) -> None:
        self._source = source
        self._num_workers = num_workers
        self._timeout_s = timeout_s
        self._pin_memory = pin_memory
        self._pool: WorkerPool | None = None
        self._epochs_begun = 0
        if num_workers:
            warm_up()
        else:
            cv2.setNumThreads(
                0
            )  # on crops of this size its threads cost more than they give, and torch's want the cores

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
        self._epochs_begun += 1
        batches = [tuple(draws[start : start + batch_size]) for start in range(0, len(draws), batch_size)]
        given = self._from_workers(batches) if self._num_workers else self._in_process(batches)
        return self._while_newest(given, self._epochs_begun)

    def close(self) -> None:
        """Ends the loader processes. A later epoch starts new ones."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _while_newest(self, batches: Iterator[Batch], epoch: int) -> Iterator[Batch]:
        while True:
            if epoch != self._epochs_begun:
                raise RuntimeError("a newer epoch of the same loader has ended this one")
            batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _in_process(self, batches: Sequence[tuple[Draw, ...]]) -> Iterator[Batch]:
        for draws in batches:
            memory, batch = self._empty(len(draws))
            fill(self._source, draws, *batch_views(memory, len(draws), self._source.crop_px))
            yield batch

    def _from_workers(self, batches: Sequence[tuple[Draw, ...]]) -> Iterator[Batch]:
        if not batches:
            return
        pool = self._workers_for(len(batches[0]))
        pool.begin(batches)
        for draws in batches:
            memory, batch = self._empty(len(draws))
            pool.take(memory)
            yield batch

    def _workers_for(self, batch_size: int) -> WorkerPool:
        """The pool there is, or a new one where there is none, or none that holds such a batch."""
        if self._pool is not None and not self._pool.closed and batch_size <= self._pool.max_batch:
            return self._pool
        self.close()
        self._pool = WorkerPool(
            self._source, num_workers=self._num_workers, max_batch=batch_size, timeout_s=self._timeout_s
        )
        return self._pool

    def _empty(self, batch_size: int) -> tuple[UInt8[np.ndarray, " bytes"], Batch]:
        """Memory for one batch, as plain bytes and as the two tensors that lie in it."""
        crop_px = self._source.crop_px
        memory = torch.empty(batch_bytes(batch_size, crop_px), dtype=torch.uint8, pin_memory=self._pin_memory)
        num_image_bytes = memory.numel() // 4 * 3
        image_B3HW = memory[:num_image_bytes].view(batch_size, 3, crop_px, crop_px)
        mask_B1HW = memory[num_image_bytes:].view(batch_size, 1, crop_px, crop_px)
        return memory.numpy(), (image_B3HW, mask_B1HW)
