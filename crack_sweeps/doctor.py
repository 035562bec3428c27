"""Look at device, driver, stores, disk, versions and what a crash left; repair on request, delete nothing."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crack_sweeps.errors import DeviceError, StoreError
from crack_sweeps.runs.directory import OUTPUTS, all_runs
from crack_sweeps.specs.profiles import choose_profile
from crack_sweeps.tracking.location import require_local, store_location
from crack_sweeps.tracking.state import left_open, unsent
from crack_sweeps.training.nvml import detect_machine, gpus

RESERVE_BYTES = 5 * 10**9  # below this a long training is likely to meet a full disk
_FLOORS = {"torch": (2, 10), "mlflow": (3, 17, 2)}  # releases before these have known holes
Verdict = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    text: str
    remedy: str | None = None


def examine(*, outputs: Path = OUTPUTS) -> Iterator[Finding]:
    """Look at everything, one finding after the other; changes nothing."""
    yield Finding("python", "ok", f"{sys.version.split()[0]} on {sys.platform}")
    yield from _versions()
    yield from _device()
    yield _disk()
    yield _store()
    yield from _runs(outputs)


def _versions() -> Iterator[Finding]:
    for name, floor in _FLOORS.items():
        installed = importlib.metadata.version(name)
        numbers = tuple(int(part) for part in installed.split("+")[0].split(".")[: len(floor)] if part.isdigit())
        wanted = ".".join(map(str, floor))
        if numbers < floor:
            yield Finding(name, "error", f"{installed} has known security holes", f"upgrade to {wanted} or newer")
        else:
            yield Finding(name, "ok", installed)


def _device() -> Iterator[Finding]:
    try:
        found = gpus()
    except DeviceError as error:
        yield Finding("driver", "error", error.message, error.hint)
        return
    machine = detect_machine()
    profile = choose_profile(machine)
    if not found:
        yield Finding("device", "ok", f"no NVIDIA GPU, {machine.num_cpus} CPUs: profile {profile}, a quick look")
        return
    for gpu in found:
        free = f"{gpu.free_bytes / 2**30:.1f} of {gpu.total_bytes / 2**30:.1f} GiB free"
        yield Finding(f"gpu {gpu.index}", "ok", f"{gpu.name}, {free}, driver {gpu.driver_version}")
    from crack_sweeps.training.device import choose_device

    try:
        yield Finding("device", "ok", f"torch uses {choose_device(profile)}: profile {profile}")
    except DeviceError as error:
        yield Finding("device", "error", error.message, error.hint)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / 1e9:.1f} GB free here"
    if free < RESERVE_BYTES:
        return Finding(
            "disk", "warning", text, f"make room: less than {RESERVE_BYTES / 1e9:.0f} GB may not last a training"
        )
    return Finding("disk", "ok", text)


def _store() -> Finding:
    try:
        location = store_location()
        require_local(location)
    except StoreError as error:
        return Finding("store", "error", error.message, error.hint)
    if location.database is not None and not location.database.exists():
        return Finding("store", "ok", f"{location.shown}, which the first run makes")
    return Finding("store", "ok", location.shown)


def _runs(outputs: Path) -> Iterator[Finding]:
    num_runs = 0
    for run in all_runs(outputs=outputs):
        num_runs += 1
        running = run.is_running()
        waiting = unsent(run.path)
        if waiting and not running:
            yield Finding(run.name, "warning", f"{waiting} events are not in MLflow", "sweeps doctor --fix")
        elif not running and left_open(run.path):
            yield Finding(run.name, "warning", "shown as running, but its process is dead", "sweeps doctor --fix")
        if not running and run.status() in ("RUNNING", "KILLED"):
            yield Finding(run.name, "ok", "did not finish", f"sweeps run --resume-from {run.name}")
    yield Finding("runs", "ok", f"{num_runs} under {outputs}")


def fix(*, outputs: Path = OUTPUTS) -> Iterator[Finding]:
    """Send what is missing and close what a dead process left open. Doing it twice changes nothing.

    Raises:
        MirrorError: The tracking server cannot be reached; everything stays where it is.
    """
    from crack_sweeps.tracking.mirror import send

    for run in all_runs(outputs=outputs):
        if run.is_running():
            continue
        waiting = unsent(run.path)
        if waiting or left_open(run.path):
            send(run.path)
            yield Finding(run.name, "ok", f"sent {waiting} events" if waiting else "closed")
