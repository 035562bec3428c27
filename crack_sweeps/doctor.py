"""Look at device, driver, stores, disk, versions and what a crash left; repair on request, delete nothing."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from crack_sweeps.errors import DeviceError, StoreError, SweepsError
from crack_sweeps.runs.directory import OUTPUTS, RunDirectory, all_runs, leftovers
from crack_sweeps.runs.slimming import is_slim, slim
from crack_sweeps.specs.profiles import choose_profile
from crack_sweeps.study.folder import STUDIES, all_studies
from crack_sweeps.tracking.location import require_local, store_location
from crack_sweeps.tracking.state import EVENTS, first_event, left_open, unsent
from crack_sweeps.training.nvml import detect_machine, gpus, silent_gpus

if TYPE_CHECKING:
    from crack_sweeps.tracking.connection import StoreConnection

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


def examine(*, outputs: Path = OUTPUTS, studies: Path = STUDIES, storage: str | None = None) -> Iterator[Finding]:
    """Look at everything, one finding after the other; changes nothing.

    Args:
        outputs: Folder of all runs.
        studies: Folder of all studies.
        storage: Address of a database with trials, where it has a password: no file keeps that.
    """
    yield Finding("python", "ok", f"{sys.version.split()[0]} on {sys.platform}")
    yield from _versions()
    yield from _device()
    yield _disk()
    yield _store()
    yield from _runs(outputs, studies, storage)


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
    for index, complaint in silent_gpus().items():
        remedy = "a reset or a restart of the machine may bring it back; trainings go to the others"
        yield Finding(f"gpu {index}", "error", f"does not answer: {complaint}", remedy)
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


def _runs(outputs: Path, studies: Path, storage: str | None = None) -> Iterator[Finding]:
    for study in _studies(studies):
        yield from _readable(study, f"study {study.name}", lambda study: _sending(study, f"study {study.name}"))
    yield from _books(studies, outputs, storage, write=False)
    num_runs = 0
    for run in all_runs(outputs=outputs):
        num_runs += 1
        yield from _readable(run, run.name, _run)
    yield from _leftovers(outputs)
    yield Finding("runs", "ok", f"{num_runs} under {outputs}")


def _readable(run: RunDirectory, subject: str, look: Callable[[RunDirectory], Iterator[Finding]]) -> Iterator[Finding]:
    """What is found; or that the files of this one are damaged, which keeps no other from being looked at."""
    try:
        yield from look(run)
    except ValueError as error:
        yield _unreadable(subject, error)


def _unreadable(subject: str, error: Exception) -> Finding:
    return Finding(subject, "error", f"cannot be read: {error}", "put its files back as they were")


def _run(run: RunDirectory) -> Iterator[Finding]:
    yield from _sending(run, run.name)
    status = run.status()
    if status in ("RUNNING", "KILLED") and not run.is_running() and not _belongs_to_a_study(run):
        yield Finding(run.name, "ok", "did not finish", f"sweeps run --resume-from {run.name}")
    if status in ("FINISHED", "PRUNED") and not is_slim(run) and not run.is_running():
        yield Finding(run.name, "warning", "is over, and still holds its optimizer's state", "sweeps doctor --fix")


def _leftovers(outputs: Path) -> Iterator[Finding]:
    """Directories that are no runs; one that a process is making at this moment is locked, or has begun by now."""
    for run in leftovers(outputs=outputs):
        if run.is_running() or run.has_begun():
            continue
        if run.events.is_file() and run.events.stat().st_size:
            yield Finding(run.name, "warning", "is no run: it lacks its first event or its environment.json")
        else:
            yield Finding(run.name, "ok", "died before its first event: not a run", f"nobody needs {run.path}")


def _books(studies: Path, outputs: Path, storage: str | None, *, write: bool) -> Iterator[Finding]:
    """What does not agree between a study's store, its ledger and its runs; with `write`, what was put right."""
    for folder in all_studies(root=studies):
        if folder.is_running():
            continue
        from crack_sweeps.study.repair import repair
        from crack_sweeps.study.store import address_of

        subject, kept = f"study {folder.typed}", folder.read_facts().get("storage")
        try:
            url = address_of(folder, storage)
            if url is None:
                remedy = f"sweeps doctor --storage {kept}, with its password"
                yield Finding(subject, "warning", f"its trials are in {kept}, which was not looked at", remedy)
                continue
            for flaw in repair(folder, url, outputs=outputs, write=write):
                if write:
                    yield Finding(flaw.subject, "ok", f"put right: {flaw.text}")
                else:
                    yield Finding(flaw.subject, "warning", flaw.text, "sweeps doctor --fix")
        except SweepsError as error:
            yield Finding(subject, "warning", f"its trials were not looked at: {error.message}", error.hint)
        except ValueError as error:  # a line of its ledger, or of the events of one of its runs
            yield _unreadable(subject, error)


def _sending(run: RunDirectory, subject: str) -> Iterator[Finding]:
    """What MLflow does not have of a run, or of a study, that no process is at work on."""
    if run.is_running():
        return
    if waiting := unsent(run.path):
        yield Finding(subject, "warning", f"{waiting} events are not in MLflow", "sweeps doctor --fix")
    elif left_open(run.path):
        yield Finding(subject, "warning", "shown as running, but its process is dead", "sweeps doctor --fix")


def _studies(studies: Path) -> Iterator[RunDirectory]:
    """Folders of studies that have begun. Like a run's, each has events and a lock that its one process holds."""
    if studies.is_dir():
        yield from (RunDirectory(path) for path in sorted(studies.iterdir()) if (path / EVENTS).is_file())


def _belongs_to_a_study(run: RunDirectory) -> bool:
    """Its study goes on with it, not `sweeps run`."""
    created = first_event(run.path)
    return created is not None and bool(created.get("parent"))


def fix(*, outputs: Path = OUTPUTS, studies: Path = STUDIES, storage: str | None = None) -> Iterator[Finding]:
    """Send what is missing, close and give back what a dead process left. Doing it twice changes nothing.

    One run that cannot be mended keeps no other from it. What is nested is sent after what it is nested under. A
    finding of another verdict than `ok` was not mended.

    Raises:
        MirrorError: The tracking server cannot be reached; everything stays where it is.
    """
    from crack_sweeps.tracking.connection import StoreConnection

    yield from _books(studies, outputs, storage, write=True)
    yield from _slim(outputs)
    store: StoreConnection | None = None
    for run, subject in [
        *((study, f"study {study.name}") for study in _studies(studies)),
        *((run, run.name) for run in all_runs(outputs=outputs)),
    ]:
        if run.is_running():
            continue
        try:
            waiting = unsent(run.path)
            if not waiting and not left_open(run.path):
                continue
        except ValueError as error:
            yield _unreadable(subject, error)
            continue
        store = store or StoreConnection()
        yield _send(run, subject, store, waiting)


def _slim(outputs: Path) -> Iterator[Finding]:
    """Give back what runs that are over no longer need: they died between their last event and doing so."""
    for run in all_runs(outputs=outputs):
        try:
            if run.status() in ("FINISHED", "PRUNED") and not is_slim(run) and slim(run):
                yield Finding(run.name, "ok", "gave back its optimizer's state")
        except SweepsError as error:
            yield Finding(run.name, "warning", error.message, error.hint)
        except ValueError:
            continue  # an edited events.jsonl, which `examine` tells


def _send(run: RunDirectory, subject: str, store: StoreConnection, waiting: int) -> Finding:
    """Send one run. Whatever is wrong with it alone is told.

    Raises:
        MirrorError: The tracking server cannot be reached.
    """
    from crack_sweeps.tracking.connection import Refused
    from crack_sweeps.tracking.mirror import Busy, send

    try:
        send(run.path, store=store)
    except Busy:
        return Finding(subject, "ok", "left to the mirror that is at work on it")
    except Refused as error:  # somebody deleted it in MLflow, say
        return Finding(subject, "warning", f"not sent: {error.message}", error.hint)
    except SweepsError:
        raise
    except Exception as error:  # noqa: BLE001 - told, and the others are sent
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return Finding(
            subject, "error", f"not sent: {type(error).__name__}: {error} ({where})", f"look at {run.events}"
        )
    return Finding(subject, "ok", f"sent {waiting} events" if waiting else "closed")
