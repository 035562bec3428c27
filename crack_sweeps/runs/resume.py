"""Find the run to go on with, and bring back exactly what it was."""

from __future__ import annotations

from pathlib import Path

from crack_sweeps.errors import UserError
from crack_sweeps.runs.directory import OUTPUTS, RunDirectory, all_runs
from crack_sweeps.runs.preparation import Origin
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.loading import load_resolved


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
        raise UserError(f"run `{run.name}` is being trained by another process", hint="wait for it, or stop it first")


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
