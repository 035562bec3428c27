"""What `sweeps study` does, callable from Python: `crack_sweeps.run_study("quick", trials=6)`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from filelock import Timeout

from crack_sweeps.console import gib
from crack_sweeps.data.open import open_photos
from crack_sweeps.data.photos import PhotoSet
from crack_sweeps.errors import DeviceError, StoreError, UserError
from crack_sweeps.runs.directory import OUTPUTS
from crack_sweeps.specs.study_loading import Identity, ResolvedStudy, identity, resolve_study
from crack_sweeps.study.calibration import Calibration, calibrate, host_name
from crack_sweeps.study.coordinator import Coordinator, Machinery
from crack_sweeps.study.data_facts import write_data_facts
from crack_sweeps.study.floor_scores import floor_scores
from crack_sweeps.study.folder import Stored, StudyFolder, find_stored, open_folder, why_anew
from crack_sweeps.study.forecasts import Forecaster
from crack_sweeps.study.imports import import_trials, sources
from crack_sweeps.study.ledger import read_rows
from crack_sweeps.study.local import LocalExecutor
from crack_sweeps.study.packing import Packer, read_slots
from crack_sweeps.study.plan import StudyPlan, make_study_plan, scratch_forecaster
from crack_sweeps.study.store import Store, database_of, own_url, require_usable
from crack_sweeps.study.updates import StudyEnded, StudyUpdate
from crack_sweeps.study.warm import processes
from crack_sweeps.tracking.location import mask, require_local, store_location
from crack_sweeps.tracking.start import MirrorHandle, start_study_mirror
from crack_sweeps.training.footprint import DeviceType
from crack_sweeps.training.nvml import detect_machine, visible_gpus

ARTIFACTS = Path("artifacts")
LOCK_PATIENCE_S = 2.0  # somebody may be looking whether the study is running, which takes its lock for a moment
MIRROR_PATIENCE_S = 120.0  # after the last trial; what is not sent by then goes on in the background
Notify = Callable[[str], None]
Stop = Callable[[], str | None]


class Flags(TypedDict, total=False):
    """What can be set beside the study's name; each means what the flag of `sweeps study` means."""

    overrides: Sequence[str]
    data: Path | None
    profile: str
    trials: int | None
    baseline_trials: int | None
    seeds: int | None
    jobs: int | Literal["auto"] | None
    gpu_hours: float | None
    vram_budget: str | None
    storage: str | None


@dataclass(frozen=True)
class StudyRecord:
    """How a study stands, as `sweeps study --json` prints it.

    Args:
        study: Its name with its version, as it is typed.
        folder: Where its files are.
        status: FINISHED, or KILLED if it was stopped before its end.
        reason: Why it was stopped; null if it was not.
        num_trained: Trials that trained, of the main arm, in all versions.
        num_failed: Trainings of the search, of any arm, that ended with an error, and finalists' that have no score.
        best: Ledger row of the best complete trial; null if there is none.
        answer: Who wins, in a sentence; null before all is trained.
    """

    study: str
    folder: str
    status: str
    reason: str | None
    num_trained: int
    num_failed: int
    best: dict[str, Any] | None
    answer: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


def run_study(study: str | Path | None = None, **flags: Unpack[Flags]) -> StudyRecord:
    """Search from where the study stands to the end of its budget.

    Raises:
        UserError: Something was typed, named or laid out wrongly; nothing was lost.
        NothingFits: No suggestion fits the memory budget.
    """
    record: StudyRecord | None = None
    with closing(searching(study, **flags)) as updates:
        for update in updates:
            if isinstance(update, StudyEnded):
                record = record_of(update)
    assert record is not None, "a study ends with a record or an error"
    return record


def record_of(ended: StudyEnded) -> StudyRecord:
    """The record of a study's end."""
    from crack_sweeps.leaderboard.wording import answer_of

    best = ended.best
    return StudyRecord(
        study=ended.folder.typed,
        folder=ended.folder.path.as_posix(),
        status="FINISHED" if ended.reason is None else "KILLED",
        reason=ended.reason,
        num_trained=ended.num_trained,
        num_failed=ended.num_failed,
        best=None if best is None else {**best, "trial": ended.folder.typed_trial(best["trial"])},
        answer=answer_of(ended.folder) if ended.reason is None else None,
    )


@dataclass(frozen=True)
class Settled:
    """A study on this machine, before anything is written."""

    study: ResolvedStudy
    photos: PhotoSet
    on: DeviceType
    packer: Packer
    calibration: Calibration


def settle_study(study: str | Path | None, flags: Flags, notify: Notify) -> Settled:
    """Resolve the study, open its photos, see what the machine has."""
    resolved = _resolve(study, flags)
    photos = open_photos(resolved.arms[0].base.data, root=ARTIFACTS, notify=notify)
    return Settled(resolved, photos, *_machine(resolved))


def plan_study(
    study: str | Path | None = None, *, notify: Notify = lambda _: None, **flags: Unpack[Flags]
) -> StudyPlan:
    """What `run_study` would do, in figures; trains nothing and writes nothing (`sweeps study --dry-run`).

    Args:
        study: As for `run_study`.
        notify: Given a line of talk now and then.
        flags: What can be set beside the name.
    """
    resolved = _resolve(study, flags)
    photos = open_photos(resolved.arms[0].base.data, root=ARTIFACTS, draw=False)
    on, packer, calibration = _machine(resolved)
    known = identity(resolved, photos.digest) if photos is not None else None
    stored = find_stored(resolved.spec.name, known)
    for warning in photos.warnings if photos is not None else ():
        notify(f"warning: {warning}")
    notify("forecasting the memory of the space's shapes ...")
    with scratch_forecaster(stored, on) as forecaster:
        return make_study_plan(
            resolved,
            photos,
            stored,
            on=on,
            packer=packer,
            calibration=calibration,
            peak=forecaster.peak,
            outputs=OUTPUTS,
        )


def _resolve(study: str | Path | None, flags: Flags) -> ResolvedStudy:
    return resolve_study(
        study,
        overrides=flags.get("overrides", ()),
        profile=flags.get("profile", "auto"),
        machine=detect_machine(),
        data=flags.get("data"),
        trials=flags.get("trials"),
        baseline_trials=flags.get("baseline_trials"),
        seeds=flags.get("seeds"),
        jobs=flags.get("jobs"),
        gpu_hours=flags.get("gpu_hours"),
        memory_budget=flags.get("vram_budget"),
    )


def _machine(resolved: ResolvedStudy) -> tuple[DeviceType, Packer, Calibration]:
    """What trials would run on, and what is known of memory there."""
    on = device_type_of(resolved.profile)
    slots = read_slots(on)
    if not slots:
        raise DeviceError(f"profile {resolved.profile} needs a GPU, and none is visible", hint="try --profile cpu")
    packer = Packer(lambda: read_slots(on), jobs=resolved.spec.jobs, limit_bytes=resolved.spec.memory_budget_bytes)
    return on, packer, calibrate(slots[0].name if on == "cuda" else host_name(), OUTPUTS, on=on)


def device_type_of(profile: str) -> DeviceType:
    """The kind of device that a profile's trials run on; `none` is a GPU where one is visible."""
    return "cpu" if profile == "cpu" or (profile == "none" and not visible_gpus()) else "cuda"


def searching(
    study: str | Path | None = None,
    *,
    stop: Stop = lambda: None,
    notify: Notify = lambda _: None,
    **flags: Unpack[Flags],
) -> Generator[StudyUpdate, None, None]:
    """The same as `run_study`, step by step.

    Args:
        study: A shipped study's name, one of `./studies`, or a YAML file; None is `swinv2_hybrid`.
        stop: Asked twice a second; a reason stores checkpoints and ends.
        notify: Given a line of talk now and then.
        flags: What can be set beside the name.
    """
    storage = flags.get("storage")
    settled = settle_study(study, flags, notify)
    resolved = settled.study
    known = identity(resolved, settled.photos.digest)
    require_storage(resolved, known, storage)
    opened = open_folder(
        resolved,
        known,
        {
            "memory_budget_bytes": settled.packer.largest_budget(),
            "calibration": asdict(settled.calibration),
            "data_digest": settled.photos.digest,
            "storage": mask(storage) if storage is not None else None,
        },
    )
    folder, facts = opened.folder, opened.folder.read_facts()
    refuse_other_storage(folder, storage)
    url = storage or own_url(folder)
    tell_study(resolved, settled, opened, notify)
    with _held(folder), ExitStack() as stack:
        write_data_facts(folder, settled.photos)
        processes()  # the warm server imports while the store is opened
        store = stack.enter_context(
            closing(Store(url, folder.name, resolved.all_arms, resolved.spec.objective, owner=folder, notify=notify))
        )
        if opened.gone:
            notify(f"warning: no trials of {' and '.join(opened.gone)} come along: what was there is gone")
        if opened.before:
            import_trials(sources(opened.before, storage), resolved, store, outputs=OUTPUTS, notify=notify)
        if not facts.get("imported"):
            folder.add_facts(imported=True)
        forecaster = stack.enter_context(Forecaster(folder.forecasts, settled.on))
        executor = stack.enter_context(closing(LocalExecutor()))
        coordinator = Coordinator(
            resolved,
            folder,
            settled.photos,
            Machinery(store, executor, forecaster, settled.packer, Calibration(**facts["calibration"]), settled.on),
            budget_bytes=min(
                resolved.spec.memory_budget_bytes or facts["memory_budget_bytes"], settled.packer.most_bytes()
            ),
            outputs=OUTPUTS,
            conclude=partial(_conclude, folder, settled.photos, notify),
        )
        mirror = _mirror(folder, notify)

        def asked() -> str | None:
            return "asked to stop" if folder.stop_request.exists() else stop()

        for update in coordinator.run(asked):
            if isinstance(update, StudyEnded) and mirror is not None and not mirror.wait(MIRROR_PATIENCE_S):
                notify("MLflow has not taken everything yet; `sweeps doctor --fix` sends what is missing")
            yield update


@contextmanager
def _held(folder: StudyFolder) -> Iterator[None]:
    """The study's lock, and its lease, which names this process to those who ask.

    Raises:
        UserError: Another process has it.
    """
    try:
        lock = folder.lock().acquire(timeout=LOCK_PATIENCE_S)
    except Timeout:
        lease = folder.read_lease()
        who = f"process {lease.pid} on {lease.host}" if lease is not None else "another process"
        raise UserError(
            f"study {folder.typed} is being searched by {who}",
            hint=f"`sweeps stop {folder.typed}` stops it cleanly",
        ) from None
    with lock:
        folder.write_lease()
        folder.stop_request.unlink(missing_ok=True)
        yield


def _conclude(folder: StudyFolder, photos: PhotoSet, notify: Notify) -> Sequence[Path]:
    """What a study is shown with when all is trained: floors, leaderboard, report."""
    from crack_sweeps.leaderboard.artifacts import write_artifacts

    notify("scoring the floors, writing leaderboard and report ...")
    floor_scores(folder.path, photos)
    return write_artifacts(folder)


def require_storage(study: ResolvedStudy, known: Identity, storage: str | None) -> None:
    """See that the study's trials can be kept where they shall be, before its folder says that they are there.

    Raises:
        UserError: They cannot, or are elsewhere, or belong to another study of this name.
    """
    stored = find_stored(study.spec.name, known)
    sources(stored.before, storage)
    if stored.exists:
        refuse_other_storage(stored.folder, storage)
    elif storage is not None or database_of(stored.folder).is_file():
        url = storage or own_url(stored.folder)
        require_usable(url, stored.folder.name, study.all_arms, study.spec.objective)


def refuse_other_storage(folder: StudyFolder, storage: str | None) -> None:
    """A study goes on where its trials are: elsewhere it would begin anew under the same name.

    Raises:
        UserError: Another storage was typed than it began with, or its database is gone.
    """
    kept = folder.read_facts()["storage"]
    given = mask(storage) if storage is not None else None
    if kept != given:
        where = kept or database_of(folder).as_posix()
        hint = f"type --storage {kept}" if kept is not None else "leave --storage out"
        hint += " (with its password)" if kept is not None and "***" in kept else ""
        raise UserError(f"study {folder.typed} keeps its trials in {where}, not in {given or 'its folder'}", hint=hint)
    if kept is None and not database_of(folder).is_file() and any(read_rows(folder)):
        raise UserError(
            f"study {folder.typed}: its database {database_of(folder)} is gone, and its ledger has trials",
            hint="`sweeps doctor --fix` rebuilds it from ledger and runs; or set SWEEPS_STORE as it was",
        )


def tell_study(study: ResolvedStudy, settled: Settled, opened: Stored, notify: Notify) -> None:
    """Say what is searched, and what is odd about it."""
    folder = opened.folder
    look = ": a quick look, never to be compared with full runs" if study.quick_look else ""
    notify(f"study {folder.typed} in {folder.path}, profile {study.profile}{look}")
    for key in study.fixed:
        notify(f"{key} was typed, so it is not searched")
    if (anew := why_anew(opened, study, settled.photos.digest)) is not None:
        notify(f"warning: {anew}")
    wanted, most = study.spec.memory_budget_bytes, settled.packer.most_bytes()
    if wanted is not None and wanted > most:
        notify(f"warning: the memory budget is {gib(wanted)}, but one trial can have {gib(most)} here: that counts")
    for warning in settled.photos.warnings:
        notify(f"warning: {warning}")


def _mirror(folder: StudyFolder, notify: Notify) -> MirrorHandle | None:
    """Start sending to MLflow, unless the store lies where SQLite is not safe."""
    try:
        require_local(store_location())
    except StoreError as error:
        notify(f"warning: {error.message}; searching without the mirror. {error.hint or ''}".rstrip())
        return None
    return start_study_mirror(folder.path)
