"""Find the run to go on with, and bring back exactly what it was."""

from __future__ import annotations

from pathlib import Path

import torch

from crack_sweeps.errors import DeviceError, UserError
from crack_sweeps.runs.directory import OUTPUTS, RunDirectory, all_runs
from crack_sweeps.runs.preparation import Origin, precision_name
from crack_sweeps.specs.experiment import Experiment, Training
from crack_sweeps.specs.loading import load_resolved
from crack_sweeps.training.checkpoints import LATEST, PREVIOUS
from crack_sweeps.training.precision import resolve_amp


def newest_alike(
    fingerprint: str, seed: int, data_digest: str, weights_sha256: str | None, *, outputs: Path = OUTPUTS
) -> RunDirectory | None:
    """The newest run of the same mathematics, seed, data and first weights, whatever its status."""
    wanted = (fingerprint, seed, data_digest, weights_sha256)
    for run in all_runs(outputs=outputs):
        facts = run.read_environment()
        if facts.get("study") is not None:  # its study goes on with it
            continue
        if (facts["fingerprint"], facts["seed"], facts["data"]["digest"], facts["weights_sha256"]) == wanted:
            return run
    return None


def refuse_if_running(run: RunDirectory) -> None:
    """Two processes never train one run.

    Raises:
        UserError: Another process holds the run's lock.
    """
    if run.is_running():
        raise being_trained(run)


def being_trained(run: RunDirectory) -> UserError:
    """What to say where another process holds the run's lock."""
    return UserError(f"run `{run.name}` is being trained by another process", hint="wait for it, or stop it first")


def refuse_over(run: RunDirectory) -> None:
    """A run that is over keeps its weights alone, and nothing goes on from them.

    Raises:
        UserError: It was pruned, or finished, maybe by another process a moment ago.
    """
    status = run.status()
    if status == "FINISHED":
        raise UserError(f"run `{run.name}` is finished", hint=f"its record is {run.metrics}")
    if status == "PRUNED":
        raise UserError(
            f"run `{run.name}` was pruned: its optimizer's state is gone, so nothing can go on with it",
            hint=_hint_alone(run) or "start a new run",
        )


def refuse_trial(run: RunDirectory) -> None:
    """A study goes on with its trials itself: it waits for each epoch, and the budget and the ledger are its own.

    Raises:
        UserError: The run is a study's.
    """
    of = run.read_environment().get("study")
    if of is None:
        return
    hint = _hint_alone(run)
    if run.status() in ("RUNNING", "KILLED"):
        hint = f"`sweeps status {of['name']}` shows the command that goes on with it; {hint}"
    raise UserError(f"run `{run.name}` is a trial of study {of['name']}, which alone goes on with it", hint=hint)


def _hint_alone(run: RunDirectory) -> str | None:
    of = run.read_environment().get("study")
    if of is None:
        return None
    return f"`sweeps run --trial {of['name']}/{of['arm']}/{of['number']}` trains the same settings by themselves"


def stored_experiment(run: RunDirectory) -> tuple[Experiment, Origin]:
    """The experiment that a run began with, and where its settings came from."""
    facts = run.read_environment()
    origin = Origin(
        source=facts["experiment_file"],
        profile=facts["profile"],
        quick_look=facts["quick_look"],
        overrides=tuple(facts["overrides"]),
        fingerprint=facts["fingerprint"],
    )
    return load_resolved(run.config), origin


def has_checkpoint(run: RunDirectory) -> bool:
    """Whether it has a state to go on from, whole or not."""
    return any((run.checkpoints / name).exists() for name in (LATEST, PREVIOUS))


def refuse_other_precision(run: RunDirectory, training: Training, device: torch.device) -> None:
    """A run goes on in the precision that it began in: `auto` is another one on another device.

    Raises:
        DeviceError: This device computes in another, or not in that one.
    """
    facts = run.read_environment()
    hint = f"go on with it on a device like its own ({facts['device_name']}), or start a new run"
    try:
        precision = precision_name(resolve_amp(training, device))
    except DeviceError as error:  # whose own hint is to change a setting, which a resumed run cannot
        raise DeviceError(error.message, hint=hint) from error
    if precision != facts["precision"]:
        raise DeviceError(
            f"run `{run.name}` began in {facts['precision']}; here it would go on in {precision}", hint=hint
        )


def refuse_other_data(run: RunDirectory, digest: str) -> None:
    """A run goes on with the photos it began with.

    Raises:
        UserError: The photos, masks or splits have changed since.
    """
    began_with = run.read_environment()["data"]["digest"]
    if digest != began_with:
        raise UserError(
            f"run `{run.name}` began with data {began_with[:12]}, now it is {digest[:12]}: photos or masks changed",
            hint="put the files back as they were, or start a new run",
        )
