"""What the commands do, callable from Python: `crack_sweeps.run(...)` returns the object that `--json` prints."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from crack_sweeps.data.open import open_photos
from crack_sweeps.deploy.evaluate import evaluate_run as evaluate_run
from crack_sweeps.deploy.predict import predict_photos as predict_photos
from crack_sweeps.errors import CheckpointError, DiskFull, StoreError, UserError
from crack_sweeps.runs.directory import OUTPUTS, RunDirectory, find_run
from crack_sweeps.runs.plan import Cost, Plan, make_plan
from crack_sweeps.runs.preparation import Origin, Prepared, prepare, weights_digest
from crack_sweeps.runs.record import RunRecord, read_record, with_mlflow_id
from crack_sweeps.runs.resume import (
    has_checkpoint,
    newest_alike,
    refuse_if_running,
    refuse_other_data,
    refuse_other_precision,
    refuse_over,
    refuse_trial,
    stored_experiment,
)
from crack_sweeps.runs.slimming import is_slim, slim
from crack_sweeps.runs.training_run import Began, Ended, Halt, Locked, Membership, Stop, Update, begin_run, proceed
from crack_sweeps.specs.loading import Resolved, resolve
from crack_sweeps.study.calibration import calibrate, host_name
from crack_sweeps.study.naming import trial_settings
from crack_sweeps.tracking.location import StoreLocation, require_local, store_location
from crack_sweeps.tracking.start import MirrorHandle, start_mirror
from crack_sweeps.tracking.tensorboard import write_board
from crack_sweeps.training.device import choose_device
from crack_sweeps.training.footprint import DeviceType, MemoryForecast
from crack_sweeps.training.forecast import device_type
from crack_sweeps.training.nvml import detect_machine, visible_gpus

ARTIFACTS = Path("artifacts")
MIRROR_PATIENCE_S = 60.0  # after a training; what is not sent by then goes on in the background
Notify = Callable[[str], None]


def _silent(_: str) -> None:
    """Say nothing."""


def _go_on() -> Halt | None:
    """Nothing asks for a stop."""
    return None


def run(
    experiment: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    data: Path | None = None,
    profile: str = "auto",
    seed: int | None = None,
    resume: bool = False,
    resume_from: str | None = None,
    trial: str | None = None,
) -> RunRecord:
    """One training from start to record, as `sweeps run`.

    Args:
        experiment: A shipped experiment's name, one of `./experiments`, or a YAML file.
        overrides: Settings as `a.b.c=value`, stronger than file and profile.
        data: Folder of photos and masks; None is what the experiment says (the built-in set if nothing).
        profile: auto, cpu, gpu-8gb, gpu-24gb or gpu-80gb.
        seed: Of weights, order, crops and augmentation.
        resume: Go on with the newest unfinished run of the same fingerprint, seed and data.
        resume_from: Go on with this run; everything else comes from it.
        trial: Train the settings of this trial of a study, such as `STUDY/21`; beside it only a seed can be given.

    Raises:
        UserError: Something was typed, named or laid out wrongly; nothing was trained.
        TrainingError: The training failed; its directory says why.
    """
    record: RunRecord | None = None
    updates = training(
        experiment,
        overrides=overrides,
        data=data,
        profile=profile,
        seed=seed,
        resume=resume,
        resume_from=resume_from,
        trial=trial,
    )
    with closing(updates):
        for update in updates:
            if isinstance(update, Ended):
                record = update.record
    assert record is not None, "a training ends with a record or an error"
    return record


def training(
    experiment: str | Path | None,
    *,
    overrides: Sequence[str] = (),
    data: Path | None = None,
    profile: str = "auto",
    seed: int | None = None,
    resume: bool = False,
    resume_from: str | None = None,
    trial: str | None = None,
    stop: Stop = _go_on,
    notify: Notify = _silent,
) -> Generator[Update, None, None]:
    """The same as `run`, step by step: the caller sees every report and may leave the loop.

    Args:
        stop: Asked after each step; an answer ends the run with a checkpoint.
        notify: Given a line of talk now and then.
    """
    location = store_location()  # an address that nothing can be sent to is told before anything is written
    if resume_from is not None:
        if overrides or data is not None or profile != "auto" or seed is not None or resume or trial is not None:
            raise UserError(
                "--resume-from goes on with a run as it was, so nothing can be changed beside it",
                hint="leave out the overrides and flags, or start a new run",
            )
        directory: RunDirectory | None = find_run(resume_from)
        assert directory is not None
        if directory.status() == "FINISHED":
            yield _finished(directory, notify)
            return
        prepared = _prepare_again(directory, notify)
    else:
        resolved = _resolved(experiment, overrides, data, profile, seed, trial)
        if trial is None:
            tell_profile(resolved, notify)
        else:
            look = "; a quick look, not to be compared with full runs" if resolved.quick_look else ""
            notify(f"the settings of trial {trial}, profile {resolved.profile}{look}")
        device = choose_device(resolved.profile)
        photos = open_photos(resolved.experiment.data, root=ARTIFACTS, notify=notify)
        directory = None
        if resume:
            seeded, weights = resolved.experiment.training.seed, weights_digest(resolved.experiment.model)
            directory = newest_alike(resolved.fingerprint, seeded, photos.digest, weights)
            if directory is None:
                notify("no run of this experiment, seed and data to resume: starting one")
            elif directory.status() == "FINISHED":
                yield _finished(directory, notify)
                return
        if directory is None:
            prepared = prepare(resolved.experiment, _origin(resolved), photos, device=device)
            directory = begin_run(prepared, membership=_membership(trial))
        else:
            prepared = _prepare_again(directory, notify)

    mirror: MirrorHandle | None = None
    updates = proceed(prepared, directory, stop=stop)
    with closing(updates):
        for update in updates:
            if isinstance(update, Locked):  # no sooner: another process may be training this run, with its own mirror
                mirror = _mirror(directory, location, notify)
            if isinstance(update, Began):
                for warning in prepared.warnings:
                    notify(f"warning: {warning}")
            if isinstance(update, Ended):
                if mirror is None:
                    write_board(directory.path)
                elif not mirror.wait(MIRROR_PATIENCE_S):
                    notify("MLflow has not taken everything yet; `sweeps doctor --fix` sends what is missing")
                yield replace(update, record=with_mlflow_id(directory, update.record))
            else:
                yield update


def plan(
    experiment: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    data: Path | None = None,
    profile: str = "auto",
    seed: int | None = None,
    trial: str | None = None,
) -> Plan:
    """What `run` would do, in figures; trains nothing and writes nothing (`sweeps run --dry-run`)."""
    resolved = _resolved(experiment, overrides, data, profile, seed, trial)
    device = choose_device(resolved.profile)
    made = make_plan(resolved, device=device, artifacts=ARTIFACTS)
    return replace(made, cost=with_process(made.cost, device_type(device)))


def with_process(cost: Cost, on: DeviceType) -> Cost:
    """The cost with what the whole process will hold, by the runs that were measured on this device."""
    name = host_name() if on == "cpu" else next((gpu.name for gpu in visible_gpus()), "a GPU")
    calibration = calibrate(name, OUTPUTS, on=on)
    needed = calibration.peak(MemoryForecast(**cost.memory))
    return replace(cost, process_bytes=needed, calibration_runs=calibration.num_runs)


def _resolved(
    experiment: str | Path | None,
    overrides: Sequence[str],
    data: Path | None,
    profile: str,
    seed: int | None,
    trial: str | None,
) -> Resolved:
    """What is to be trained: an experiment on this machine, or what a trial trained.

    Raises:
        UserError: Neither or both are named, or what is named cannot be trained.
    """
    if trial is not None:
        if experiment is not None or overrides or data is not None or profile != "auto":
            raise UserError(
                f"--trial {trial} trains that trial's settings as they are, so nothing but a seed can be given too",
                hint="leave the rest out",
            )
        return trial_settings(trial, seed=seed)
    if experiment is None:
        raise UserError("which experiment?", hint="`sweeps spec list` shows them")
    return resolve(experiment, overrides=overrides, profile=profile, machine=detect_machine(), data=data, seed=seed)


def _membership(trial: str | None) -> Membership | None:
    """A single run, which names the trial that its settings came from."""
    return Membership(tags={"crack_sweeps.settings_of": trial}) if trial is not None else None


def tell_profile(resolved: Resolved, notify: Notify) -> None:
    """Say which profile was laid over the file, and what it changed that matters."""
    if resolved.quick_look:
        notify(
            f"profile {resolved.profile}: a quick look on a machine without a GPU "
            f"({len(resolved.changed_by_profile)} settings changed, weights from scratch; `--dry-run` lists them). "
            "Not to be compared with full runs."
        )
    else:
        notify(f"profile {resolved.profile}")


def _origin(resolved: Resolved) -> Origin:
    return Origin(
        source=str(resolved.source),
        profile=resolved.profile,
        quick_look=resolved.quick_look,
        overrides=resolved.overrides,
        fingerprint=resolved.fingerprint,
    )


def _finished(run: RunDirectory, notify: Notify) -> Ended:
    """Nothing is left to train."""
    notify(f"{run.name} is finished")
    try:
        if not is_slim(run) and slim(run):
            notify("it died while giving back its optimizer's state, which is done now")
    except (CheckpointError, DiskFull) as error:
        notify(f"warning: {error.message}")
    return Ended(read_record(run))


def _prepare_again(run: RunDirectory, notify: Notify) -> Prepared:
    """The training of an unfinished run, exactly as it began. Its checkpoint holds every weight, once there is one."""
    refuse_over(run)
    refuse_trial(run)
    refuse_if_running(run)
    experiment, origin = stored_experiment(run)
    device = choose_device(origin.profile)
    refuse_other_precision(run, experiment.training, device)
    photos = open_photos(experiment.data, root=ARTIFACTS, notify=notify)
    refuse_other_data(run, photos.digest)
    prepared = prepare(experiment, origin, photos, device=device, has_checkpoint=has_checkpoint(run))
    return replace(prepared, weights_sha256=run.read_environment()["weights_sha256"])


def _mirror(run: RunDirectory, location: StoreLocation, notify: Notify) -> MirrorHandle | None:
    """Start sending to MLflow and TensorBoard, unless the store lies where SQLite is not safe."""
    try:
        require_local(location)
    except StoreError as error:
        notify(f"warning: {error.message}; training without the mirror. {error.hint or ''}".rstrip())
        return None
    return start_mirror(run.path)
