"""What NVIDIA's driver says about this machine, asked without torch: cards, memory, what a process holds."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml

from crack_sweeps.errors import DeviceError
from crack_sweeps.specs.profiles import Machine


@dataclass(frozen=True)
class Gpu:
    """One card, or one MIG instance where a card is cut into them."""

    index: int  # NVML's number of the card, which is nvidia-smi's; the instances of one card share it
    uuid: str  # GPU-... or MIG-...
    name: str
    total_bytes: int
    free_bytes: int
    driver_version: str


def gpus() -> list[Gpu]:
    """Every GPU that answers, MIG instances in place of a card that is cut up; none without a driver.

    Raises:
        DeviceError: There is a driver, but it does not answer, or no card does.
    """
    found, silent = _look()
    if silent and not found:
        raise _no_answer(next(iter(silent.values())))
    return found


def silent_gpus() -> dict[int, str]:
    """NVML's number of each card that does not answer, and what the driver says of it: it fell off the bus, say.

    Raises:
        DeviceError: There is a driver, but it does not answer.
    """
    return {index: str(error) for index, error in _look()[1].items()}


def _look() -> tuple[list[Gpu], dict[int, pynvml.NVMLError]]:
    found: list[Gpu] = []
    silent: dict[int, pynvml.NVMLError] = {}
    with _session() as has_driver:
        if not has_driver:
            return [], {}
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handles = _instances(pynvml.nvmlDeviceGetHandleByIndex(index))
                found += [_describe(handle, index, driver) for handle in handles]
            except pynvml.NVMLError as error:
                silent[index] = error
    return found, silent


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that CUDA may use in this process, in CUDA's order, as `CUDA_VISIBLE_DEVICES` says.

    Numbers in that variable are read as nvidia-smi's; `choose_device` sees to it that CUDA counts likewise. As in
    CUDA, the list ends at the first entry that names nothing. Cards that do not answer are left out.

    Raises:
        DeviceError: There is a driver, but it does not answer, or none of the cards does that CUDA may use.
    """
    found, silent = _look()
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    entries = [entry.strip() for entry in wanted.split(",")] if wanted is not None else None
    left_out = [error for index, error in silent.items() if entries is None or str(index) in entries]
    visible: list[Gpu] = []
    for entry in entries or ():
        if entry.isdecimal() and int(entry) in silent:
            continue
        match = _named_by(entry, found)
        if match is None or match in visible:
            break
        visible.append(match)
    if entries is None:
        visible = found
    if left_out and not visible:
        raise _no_answer(left_out[0])
    return visible


def process_memory_bytes(pid: int, index: int) -> int | None:
    """What a process holds on card `index` (all of its MIG instances together); None where the driver does not say.

    In a container the driver's list is often empty or holds the host's process numbers; on Windows it has no sizes.
    """
    with _session() as has_driver:
        if not has_driver:
            return None
        held = [_held_by(pid, handle) for handle in _instances(pynvml.nvmlDeviceGetHandleByIndex(index))]
    known = [num_bytes for num_bytes in held if num_bytes is not None]
    return sum(known) if known else None


@contextmanager
def driver_kept_open() -> Iterator[None]:
    """Inside, questions are answered without loading the library anew each time."""
    with _session():
        yield


def detect_machine(environment: Mapping[str, str] = os.environ) -> Machine:
    """What profiles are chosen by: the first GPU that CUDA may use, and the processors that this process may use."""
    visible = visible_gpus(environment)
    return Machine(
        gpu_name=visible[0].name if visible else None,
        gpu_memory_bytes=visible[0].total_bytes if visible else None,
        num_cpus=usable_cpus(),
    )


def usable_cpus(cgroup_root: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that this process may use: by its affinity and, in a container, by its cgroup's quota, at least 1."""
    # macOS and Windows have no affinity
    num_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(cgroup_root)
    return num_cpus if quota is None else max(1, min(num_cpus, math.ceil(quota)))


@contextmanager
def _session() -> Iterator[bool]:
    """The driver's library, loaded; NVML counts how often, so sessions nest. False where there is no driver."""
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        yield False
        return
    except pynvml.NVMLError as error:
        raise _no_answer(error) from error
    try:
        yield True
    except pynvml.NVMLError as error:
        raise _no_answer(error) from error
    finally:
        pynvml.nvmlShutdown()


def _no_answer(error: pynvml.NVMLError) -> DeviceError:
    return DeviceError(
        f"NVIDIA's driver does not answer: {error}",
        hint="after an update of the driver restart the machine (`nvidia-smi` tells more), or use --profile cpu",
    )


def _instances(handle: Any) -> list[Any]:
    """The MIG instances of a card, or the card itself where it is whole."""
    try:
        current, _pending = pynvml.nvmlDeviceGetMigMode(handle)
        if current != pynvml.NVML_DEVICE_MIG_ENABLE:
            return [handle]
        slots = range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle))
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):  # a card or driver without MIG
        return [handle]
    instances = []
    for slot in slots:
        try:
            instances.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot))
        except pynvml.NVMLError_NotFound:  # an empty slot
            continue
    return instances


def _describe(handle: Any, index: int, driver: str) -> Gpu:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        index=index,
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        driver_version=driver,
    )


def _held_by(pid: int, handle: Any) -> int | None:
    try:
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission):
        return None
    sizes = [process.usedGpuMemory for process in processes if process.pid == pid]
    if not sizes or None in sizes:
        return None
    return sum(map(int, sizes))


def _named_by(entry: str, found: list[Gpu]) -> Gpu | None:
    """The GPU that an entry of CUDA_VISIBLE_DEVICES names: a number, or the beginning of a UUID that is one's alone."""
    if entry.isdecimal():
        at_number = [gpu for gpu in found if gpu.index == int(entry)]
        return at_number[0] if at_number else None
    matches = [gpu for gpu in found if entry and gpu.uuid.startswith(entry)]
    return matches[0] if len(matches) == 1 else None


def _cgroup_quota(root: Path) -> float | None:
    """Processors' worth of time that the cgroup grants; None is no limit (or no cgroup)."""
    unified, quota_us, period_us = root / "cpu.max", root / "cpu/cpu.cfs_quota_us", root / "cpu/cpu.cfs_period_us"
    if unified.is_file():
        quota, period = unified.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    if quota_us.is_file() and period_us.is_file():
        quota_value = int(quota_us.read_text())
        return None if quota_value < 0 else quota_value / int(period_us.read_text())
    return None


def _text(value: str | bytes) -> str:
    """NVML's bindings before 11.5 answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value
