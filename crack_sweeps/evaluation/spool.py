"""Maps that wait on disk for a threshold: reduced to the bins of the 99 thresholds, which loses nothing for them."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from types import TracebackType

import numpy as np
from jaxtyping import Float32, UInt8

from crack_sweeps.evaluation.relaxed import Mask
from crack_sweeps.evaluation.thresholds import NUM_BINS, bins, threshold_index

_MOST_IN_MEMORY_BYTES = 1 << 26


class Spool:
    """A temporary file of maps and masks; it is gone when the block ends."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_MOST_IN_MEMORY_BYTES)  # noqa: SIM115 - this is one itself
        self._entries: list[tuple[tuple[int, int], int]] = []

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    def add(self, probability_HW: Float32[np.ndarray, "H W"], mask_HW: UInt8[np.ndarray, "H W"]) -> None:
        """Let one image wait."""
        packed = zlib.compress((bins(probability_HW) + np.uint8(NUM_BINS) * mask_HW).tobytes(), level=1)
        self._file.write(packed)
        self._entries.append(((probability_HW.shape[0], probability_HW.shape[1]), len(packed)))

    def at(self, threshold: float) -> Iterator[tuple[Mask, Mask]]:
        """What each image has predicted and true as crack at this threshold, in the order in which they came."""
        crack_from = threshold_index(threshold)
        self._file.seek(0)
        for shape, num_bytes in self._entries:
            cells_HW = np.frombuffer(zlib.decompress(self._file.read(num_bytes)), dtype=np.uint8).reshape(shape)
            yield cells_HW % NUM_BINS >= crack_from, cells_HW >= NUM_BINS
