"""A pretended NVIDIA driver: it answers what pynvml asks, with the cards and processes that a test puts in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tiny_training is shared by the files here


@dataclass
class FakeCard:
    """A card, or a MIG instance of one."""

    uuid: str = "GPU-00000000-0000-0000-0000-000000000000"
    name: str | bytes = "NVIDIA GeForce RTX 4060"
    total_bytes: int = 8 * 2**30
    free_bytes: int = 7 * 2**30
    processes: list[tuple[int, int | None]] = field(default_factory=list)  # pid, bytes
    instances: list[FakeCard | None] | None = None  # None: a card without MIG; an empty slot is None
    mig_enabled: bool = True
    refuses_process_list: bool = False
    error: int | None = None  # NVML's number of what asking for the card raises


class FakeNvml:
    """Speaks pynvml's interface; its error classes are pynvml's own."""

    NVML_DEVICE_MIG_ENABLE = pynvml.NVML_DEVICE_MIG_ENABLE
    NVMLError = pynvml.NVMLError
    NVMLError_LibraryNotFound = pynvml.NVMLError_LibraryNotFound
    NVMLError_DriverNotLoaded = pynvml.NVMLError_DriverNotLoaded
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_FunctionNotFound = pynvml.NVMLError_FunctionNotFound
    NVMLError_NoPermission = pynvml.NVMLError_NoPermission
    NVMLError_NotFound = pynvml.NVMLError_NotFound

    def __init__(self) -> None:
        self.cards: list[FakeCard] = []
        self.init_error: int | None = None  # NVML's number of the error that nvmlInit raises
        self.process_error: int | None = None
        self.open_sessions = 0

    def add(self, **known: Any) -> FakeCard:
        """One more card in the machine."""
        self.cards.append(FakeCard(**known))
        return self.cards[-1]

    def _answer(self) -> None:
        assert self.open_sessions > 0, "asked outside a session"

    @staticmethod
    def instance(**known: Any) -> FakeCard:
        """A MIG instance, to be put into a card's `instances`."""
        return FakeCard(**known)

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise pynvml.NVMLError(self.init_error)
        self.open_sessions += 1

    def nvmlShutdown(self) -> None:
        self._answer()
        self.open_sessions -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        self._answer()
        return "570.86.15"

    def nvmlDeviceGetCount(self) -> int:
        self._answer()
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeCard:
        self._answer()
        if (error := self.cards[index].error) is not None:
            raise pynvml.NVMLError(error)
        return self.cards[index]

    def nvmlDeviceGetName(self, handle: FakeCard) -> str | bytes:
        self._answer()
        return handle.name

    def nvmlDeviceGetUUID(self, handle: FakeCard) -> str:
        self._answer()
        return handle.uuid

    def nvmlDeviceGetMemoryInfo(self, handle: FakeCard) -> SimpleNamespace:
        self._answer()
        return SimpleNamespace(
            total=handle.total_bytes, free=handle.free_bytes, used=handle.total_bytes - handle.free_bytes
        )

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeCard) -> list[SimpleNamespace]:
        self._answer()
        if self.process_error is not None:
            raise pynvml.NVMLError(self.process_error)
        if handle.refuses_process_list:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        return [SimpleNamespace(pid=pid, usedGpuMemory=num_bytes) for pid, num_bytes in handle.processes]

    def nvmlDeviceGetMigMode(self, handle: FakeCard) -> list[int]:
        self._answer()
        if handle.instances is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(handle.mig_enabled), int(handle.mig_enabled)]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: FakeCard) -> int:
        self._answer()
        assert handle.instances is not None
        return len(handle.instances)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: FakeCard, index: int) -> FakeCard:
        self._answer()
        assert device.instances is not None
        instance = device.instances[index]
        if instance is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return instance


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    """The pretended driver, in place of the real one; it must end with as many sessions closed as opened."""
    fake = FakeNvml()
    monkeypatch.setattr("crack_sweeps.training.nvml.pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield fake
    assert fake.open_sessions == 0
