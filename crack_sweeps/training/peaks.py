"""Peak memory of a training, measured while it runs, with the source of the figure."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psutil
import torch

from crack_sweeps.errors import DeviceError
from crack_sweeps.training import nvml

MemorySource = Literal["torch+nvml", "torch", "rss"]
CLEAR_PEAK = "5"  # proc(5), /proc/PID/clear_refs: set the peak resident set back to what is resident now
PROC = Path("/proc/self")


class PeakMeter:
    """The largest amounts of memory in use since it was entered or reset.

    On CUDA: the allocator's own peaks, and what the driver counts for this process (context and libraries
    included), sampled in a thread. On the CPU: the resident set of this process (loader workers left out), sampled,
    and the kernel's own high-water mark where it can be set back.

    Args:
        device: Where the training runs.
        interval_s: Seconds between samples.
    """

    def __init__(self, device: torch.device, *, interval_s: float = 0.2) -> None:
        self.device = device
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._sampled_bytes = 0
        self._kernel_keeps_peak = False
        self._gpu_index = _nvml_index(device) if device.type == "cuda" else None
        self._driver = nvml.driver_kept_open()

    def __enter__(self) -> Self:
        self._driver.__enter__()
        self.reset()
        self._stop.clear()
        self._thread = threading.Thread(target=self._keep_sampling, name="memory-peaks", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._thread is not None
        self._stop.set()
        self._thread.join()
        self._driver.__exit__(None, None, None)

    @property
    def source(self) -> MemorySource:
        """Where the figures come from: the tag `memory_source`. The driver counts once it gave one figure."""
        if self.device.type != "cuda":
            return "rss"
        return "torch+nvml" if self._sampled_bytes else "torch"

    def reset(self) -> None:
        """Begin anew, as each attempt of a training does."""
        with self._lock:
            self._sampled_bytes = 0
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            else:
                self._kernel_keeps_peak = _clear_kernel_peak()
        self._sample()

    def read(self) -> dict[str, int]:
        """The peaks so far, in bytes, named as the metrics are; what was not measured is absent."""
        self._sample()
        if self.device.type != "cuda":
            kernel_bytes = _kernel_peak_bytes() if self._kernel_keeps_peak else 0
            return {"memory/peak_rss_bytes": max(self._sampled_bytes, kernel_bytes)}
        peaks = {
            "vram/peak_allocated_bytes": torch.cuda.max_memory_allocated(self.device),
            "vram/peak_reserved_bytes": torch.cuda.max_memory_reserved(self.device),
        }
        if self._sampled_bytes:
            peaks["vram/peak_process_bytes"] = self._sampled_bytes
        return peaks

    def _keep_sampling(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            self._sampled_bytes = max(self._sampled_bytes, self._held_bytes())

    def _held_bytes(self) -> int:
        """What this process holds now; 0 where nobody says."""
        if self.device.type != "cuda":
            return int(psutil.Process().memory_info().rss)
        if self._gpu_index is None:
            return 0
        reserved = torch.cuda.memory_reserved(self.device)
        try:
            held = nvml.process_memory_bytes(os.getpid(), self._gpu_index)
        except DeviceError:  # a driver that stops answering must not stop a training: the allocator still counts
            self._gpu_index = None
            return 0
        # In a container the driver numbers processes as the host does, so our number may be another's.
        return held if held is not None and held >= reserved else 0


def _nvml_index(device: torch.device) -> int | None:
    """NVML's number of a torch device, by UUID: CUDA may count cards in another order and hide some."""
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    matches = [gpu.index for gpu in nvml.gpus() if gpu.uuid.endswith(uuid)]
    return matches[0] if matches else None


def _clear_kernel_peak() -> bool:
    """Set the kernel's high-water mark of this process back; False where the system has none that can be."""
    try:
        (PROC / "clear_refs").write_text(CLEAR_PEAK)
    except OSError:  # no Linux, or a container that forbids it: the samples stand alone
        return False
    return True


def _kernel_peak_bytes() -> int:
    for line in (PROC / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
