"""Look at device, driver, stores, disk, versions and what a crash left; repair on request, delete nothing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from crack_sweeps.errors import DeviceError, StoreError, SweepsError, UserError
from crack_sweeps.runs.directory import OUTPUTS, RunDirectory, all_runs, leftovers
from crack_sweeps.runs.record import read_record
from crack_sweeps.runs.slimming import is_slim, slim
from crack_sweeps.specs.profiles import choose_profile
from crack_sweeps.specs.words import listed
from crack_sweeps.study.folder import STUDIES, StudyFolder
from crack_sweeps.study.missing import read_begun, trials_without_run
from crack_sweeps.tracking.location import StoreLocation, mask, require_local, store_location
from crack_sweeps.tracking.lost import LostRuns
from crack_sweeps.tracking.state import EVENTS, first_event, left_open, unsent
from crack_sweeps.tracking.store import require_whole
from crack_sweeps.training.nvml import detect_machine, gpus, silent_gpus

if TYPE_CHECKING:
    from crack_sweeps.tracking.connection import StoreConnection

RESERVE_BYTES = 5 * 10**9  # below this a long training is likely to meet a full disk
_FLOORS = {"torch": (2, 10), "mlflow": (3, 17, 2)}  # releases before these have known holes
NUM_NAMED = 5  # trials that one finding names
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
    yield from _store(outputs, studies)
    yield from _storage(studies, storage)
    yield from _once(_runs(outputs, studies, storage))


def _once(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Each finding the first time: a folder that cannot be used is in the way of every look at it."""
    seen: set[Finding] = set()
    for finding in findings:
        if finding not in seen:
            seen.add(finding)
            yield finding


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


def _store(outputs: Path, studies: Path) -> Iterator[Finding]:
    try:
        location = _usable_store()
    except StoreError as error:
        yield Finding("store", "error", error.message, error.hint)
        return
    lost = LostRuns(location)
    gone = {"run": 0, "study": 0}
    stores: set[str] = set()
    for run, subject in _everything(outputs, studies):
        with contextlib.suppress(OSError):  # told where the run itself is looked at
            if not run.is_running() and (state := lost.state_of(run.path)) is not None:
                gone["study" if subject != run.name else "run"] += 1
                stores.add(state.store)
    if stores:
        were = "was" if sum(gone.values()) == 1 else "were"
        held = f"{_counted(gone)} {were} sent to {' and '.join(sorted(stores))}, which is gone or was made anew since"
        yield Finding("store", "warning", held, "sweeps doctor --fix sends them anew")
    elif location.database is not None and not location.database.exists():
        yield Finding("store", "ok", f"{location.shown}, which the first run makes")
    else:
        yield Finding("store", "ok", location.shown)


def _counted(numbers: Mapping[str, int]) -> str:
    """`3 runs and 1 study`, what there is none of left out."""
    plural = {"run": "runs", "study": "studies"}
    return " and ".join(
        f"{number} {word if number == 1 else plural[word]}" for word, number in numbers.items() if number
    )


def _usable_store() -> StoreLocation:
    location = store_location()
    require_local(location)
    require_whole(location)
    return location


def _storage(studies: Path, storage: str | None) -> Iterator[Finding]:
    """An address that was typed and is no study's: nothing is looked at there."""
    if storage is None:
        return
    if "://" not in storage:
        yield Finding("--storage", "warning", f"{mask(storage)} is no address", "such as postgresql://me@server/db")
        return
    from crack_sweeps.study.store import sqlite_url

    kept: list[str] = []
    for folder in _folders(studies):
        with contextlib.suppress(UserError, OSError):  # told where the study is looked at
            kept.append(folder.read_facts().get("storage") or sqlite_url(folder.database))
    if mask(storage) not in kept:
        elsewhere = sorted({address for address in kept if not address.startswith("sqlite")})
        remedy = f"studies keep them in {', '.join(elsewhere)}" if elsewhere else "leave --storage out"
        yield Finding("--storage", "warning", f"no study keeps its trials in {mask(storage)}", remedy)


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
    except (ValueError, OSError) as error:
        yield _unreadable(subject, error)


def _unreadable(subject: str, error: ValueError | OSError) -> Finding:
    if isinstance(error, OSError):
        text = f"cannot be used: {error.strerror} ({error.filename})"
        return Finding(subject, "error", text, "its owner must be able to read and write it: see `ls -l`")
    return Finding(subject, "error", f"cannot be read: {error}", "put its files back as they were")


def _run(run: RunDirectory) -> Iterator[Finding]:
    yield from _sending(run, run.name)
    status = run.status()
    if status == "FINISHED" or (status == "PRUNED" and run.metrics.is_file()):
        try:
            read_record(run)
        except UserError as error:
            remedy = f"put it back from a copy, or train again: sweeps run {run.config} --profile none"
            yield Finding(run.name, "error", f"is over, and its record is damaged: {error.message}", remedy)
    if status in ("RUNNING", "KILLED") and not run.is_running() and not _belongs_to_a_study(run):
        yield Finding(run.name, "ok", "did not finish", f"sweeps run --resume-from {run.name}")
    if status in ("FINISHED", "PRUNED") and not is_slim(run) and not run.is_running():
        yield Finding(run.name, "warning", "is over, and still holds its optimizer's state", "sweeps doctor --fix")


def _leftovers(outputs: Path) -> Iterator[Finding]:
    """Directories that are no runs; one that a process is making at this moment is locked, or has begun by now."""
    for run in leftovers(outputs=outputs):
        yield from _readable(run, run.name, _leftover)


def _leftover(run: RunDirectory) -> Iterator[Finding]:
    if run.is_running() or run.has_begun():
        return
    if run.events.is_file() and run.events.stat().st_size:
        yield Finding(run.name, "warning", "is no run: it lacks its first event or its environment.json")
    elif kept := [path for path in (*sorted(run.checkpoints.glob("*.pth")), run.metrics) if path.is_file()]:
        held = listed([path.relative_to(run.path).as_posix() for path in kept], "and")
        remedy = "keep it, and put its events.jsonl back from a copy"
        yield Finding(run.name, "error", f"lost its events.jsonl, and holds {held}", remedy)
    else:
        yield Finding(run.name, "ok", "died before its first event: not a run", f"nobody needs {run.path}")


def _books(studies: Path, outputs: Path, storage: str | None, *, write: bool) -> Iterator[Finding]:
    """What does not agree between a study's store, its ledger and its runs; with `write`, what was put right."""
    for folder in _folders(studies):
        if write and not _holds(folder.path, folder.facts_file.name):
            continue  # nothing mends that
        subject = f"study {folder.name}"
        try:
            subject = f"study {folder.typed}"
            if not folder.is_running():
                yield from _book(folder, subject, outputs, storage, write=write)
        except (ValueError, OSError) as error:  # a line of the events of one of its runs; a file of somebody else's
            yield _unreadable(subject, error)


def _book(folder: StudyFolder, subject: str, outputs: Path, storage: str | None, *, write: bool) -> Iterator[Finding]:
    from crack_sweeps.study.repair import repair
    from crack_sweeps.study.store import address_of

    try:
        read_begun(folder)
        without_run = trials_without_run(folder)
    except UserError as error:  # nothing can be compared with it
        yield Finding(subject, "error", error.message, error.hint)
        return
    if (gone := without_run.names) and not write:
        names = f"{', '.join(gone[:NUM_NAMED])}{', ...' if len(gone) > NUM_NAMED else ''}"
        have = "has" if len(gone) == 1 else "have"
        text = f"{len(gone)} of its {without_run.num_launched} trials {have} no run directory any more: {names}"
        yield Finding(subject, "warning", text, f"put them back; or train again: sweeps run --trial {gone[0]}")
    kept = folder.read_facts().get("storage")
    try:
        url = address_of(folder, storage)
        if url is None:
            remedy = f"sweeps doctor --storage {kept}, with its password"
            yield Finding(subject, "warning", f"its trials are in {kept}, which was not looked at", remedy)
            return
        for flaw in repair(folder, url, outputs=outputs, write=write):
            if write:
                yield Finding(flaw.subject, "ok", f"put right: {flaw.text}")
            else:
                yield Finding(flaw.subject, "warning", flaw.text, "sweeps doctor --fix")
    except SweepsError as error:
        yield Finding(subject, "warning", f"its trials were not looked at: {error.message}", error.hint)


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
    yield from (RunDirectory(folder.path) for folder in _folders(studies) if _holds(folder.path, EVENTS))


def _folders(studies: Path) -> list[StudyFolder]:
    """Studies, those among them that lack a file or are somebody else's: `all_studies` finds whole ones alone."""
    found = sorted(studies.iterdir()) if studies.is_dir() else []
    return [StudyFolder(path) for path in found if _holds(path, "identity.json") or _holds(path, EVENTS)]


def _holds(path: Path, name: str) -> bool:
    try:
        return (path / name).is_file()
    except PermissionError:  # told when it is looked at
        return True


def _everything(outputs: Path, studies: Path) -> Iterator[tuple[RunDirectory, str]]:
    """What is sent to MLflow, and how it is called: studies first, then runs, the newest first."""
    yield from ((study, f"study {study.name}") for study in _studies(studies))
    yield from ((run, run.name) for run in all_runs(outputs=outputs))


def _belongs_to_a_study(run: RunDirectory) -> bool:
    """Its study goes on with it, not `sweeps run`."""
    created = first_event(run.path)
    return created is not None and bool(created.get("parent"))


def fix(*, outputs: Path = OUTPUTS, studies: Path = STUDIES, storage: str | None = None) -> Iterator[Finding]:
    """Send what is missing, close and give back what a dead process left. Doing it twice changes nothing.

    What was sent to a store that is gone is sent anew, to the one of now. One run that cannot be mended keeps no other
    from it. What is nested is sent after what it is nested under. A finding of another verdict than `ok` was not
    mended.

    Raises:
        MirrorError: The tracking server cannot be reached; everything stays where it is.
    """
    yield from _once(chain(_books(studies, outputs, storage, write=True), _slim(outputs), _sent(outputs, studies)))


def _sent(outputs: Path, studies: Path) -> Iterator[Finding]:
    """Send what the store of now lacks: what is lost is forgotten first, all of it, since it may be nested."""
    from crack_sweeps.tracking.connection import StoreConnection

    try:
        lost = LostRuns(_usable_store())
    except StoreError as error:
        yield Finding("store", "error", error.message, error.hint)
        return
    at_rest: list[tuple[RunDirectory, str]] = []
    for run, subject in _everything(outputs, studies):
        try:
            if not run.is_running():
                lost.forget(run.path)
                at_rest.append((run, subject))
        except OSError as error:
            yield _unreadable(subject, error)
    store: StoreConnection | None = None
    for run, subject in at_rest:
        try:
            waiting = unsent(run.path)
            if not waiting and not left_open(run.path):
                continue
        except (ValueError, OSError) as error:
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
        except OSError as error:
            yield _unreadable(run.name, error)
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
