"""How long trainings take, from past runs on this device, and what the pruner lets through of them."""

from __future__ import annotations

import json
import math
import random
import statistics
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from crack_sweeps.data.images import image_size
from crack_sweeps.data.photos import PhotoSet
from crack_sweeps.errors import SweepsError
from crack_sweeps.runs.directory import RunDirectory, all_runs
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.loading import load_resolved
from crack_sweeps.specs.study import Objective, Pruner
from crack_sweeps.study.history import Trial
from crack_sweeps.study.pruning import judge, rungs
from crack_sweeps.training.footprint import DeviceType

MAX_SIMULATED = 60  # trials that the pruner is tried on
NUM_PAST = 20  # runs of this kind that hours are estimated from
NEWEST = 300  # runs that are looked at for them
_BACKWARD = 2  # a backward pass costs about two forward passes

# Without past runs: crops that a device trains per second, of which side, by a net of how many weights. CPU: the hybrid
# with SwinV2-tiny, window 8, one of two AVX-512 cores in float32 (LOG). CUDA: no measurement stands behind it.
ASSUMED: dict[DeviceType, tuple[float, int, float, str]] = {
    "cpu": (2.45, 128, 31e6, "2.5 crops of 128 px a second and core by the hybrid with SwinV2-tiny"),
    "cuda": (80.0, 256, 31e6, "80 crops of 256 px a second and GPU by the hybrid with SwinV2-tiny, a guess"),
}


@dataclass(frozen=True)
class Pace:
    """How fast a device trains.

    Args:
        rate: Seconds for one pixel to pass forward through one weight.
        based_on: Where that comes from.
    """

    rate: float
    based_on: str

    @classmethod
    def of(cls, profile: str, photos: PhotoSet, outputs: Path, *, on: DeviceType, device: str, threads: int) -> Pace:
        """From the newest runs with this profile on this device; from an assumption where there is none."""
        runs = islice(all_runs(outputs=outputs), NEWEST)
        rates = islice(
            (r for run in runs if (r := _rate(run, profile, photos, on, device, threads)) is not None), NUM_PAST
        )
        found = list(rates)
        if found:
            return cls(
                statistics.median(found),
                f"{len(found)} past run{'' if len(found) == 1 else 's'} with profile {profile} on {device}",
            )
        crops, side_px, weights, words = ASSUMED[on]
        per_device = crops * (threads if on == "cpu" else 1)
        return cls(1 / (per_device * side_px**2 * (1 + _BACKWARD) * weights), f"assumed: {words}; no run here to go by")


def _rate(run: RunDirectory, profile: str, photos: PhotoSet, on: DeviceType, device: str, threads: int) -> float | None:
    """A run's seconds a pixel and weight; None if it tells nothing about this study's."""
    try:
        facts = run.read_environment()
        if (facts["profile"], facts["device_name"]) != (profile, device) or not run.metrics.is_file():
            return None
        record = json.loads(run.metrics.read_bytes())
        num_epochs, seconds = int(record["num_epochs"]), float(record["duration_s"])
        if record["status"] not in ("FINISHED", "PRUNED") or not num_epochs or not seconds:
            return None
        work = Work.of(load_resolved(run.config), int(facts["num_params"]), photos)
        pixels = num_epochs * work.epoch + (work.final if record["status"] == "FINISHED" else 0.0)
        scale = facts["torch_threads"] / threads if on == "cpu" else 1.0
        return seconds / pixels * scale
    except (SweepsError, OSError, ValueError, KeyError, TypeError):  # of an older version, or cut short: no figure
        return None


@dataclass(frozen=True)
class Work:
    """What a training computes, in pixels that pass forward through one weight.

    Args:
        epoch: An epoch with its validation.
        final: The scores at the end.
    """

    epoch: float
    final: float

    @classmethod
    def of(cls, experiment: Experiment, num_params: float, photos: PhotoSet) -> Work:
        """Of an experiment on these photos."""
        training, scoring = experiment.training, experiment.evaluation
        num_train, num_val = len(photos.split("train")), len(photos.split("val"))
        # As a run counts them; its function stands beside torch, which a plan needs not.
        steps = training.steps_per_epoch or math.ceil(num_train / training.effective_batch)
        passes = 1 + _BACKWARD + (1 if training.activation_checkpointing else 0)
        trained = passes * steps * training.effective_batch * experiment.crop_px**2
        photo = _photo_pixels(photos) / (1 - scoring.tile_overlap) ** 2
        scored = min(num_val, scoring.images_per_epoch or num_val) * photo
        return cls(num_params * (trained + scored), num_params * num_val * photo)


def _photo_pixels(photos: PhotoSet) -> float:
    """Mean over a few validation photos, from their headers."""
    some = photos.split("val")[:8]
    return statistics.fmean(math.prod(image_size(photo.image)[0]) for photo in some) if some else 0.0


def pruning_share(
    pruner: Pruner, objective: Objective, *, num_epochs: int, num_trials: int, seed: int, arm: str
) -> tuple[float, float]:
    """What the pruner lets through of trials whose order never changes and is random, one after another.

    Returns:
        The share of whole trainings' epochs that are trained, and the share of trials that come to their end.
    """
    rng = random.Random(seed)
    looks = {*rungs(pruner, num_epochs), min(pruner.min_epochs, num_epochs), num_epochs}
    looks |= {max(1, round(num_epochs * share / 10)) for share in range(1, 10)}
    past: list[Trial] = []
    for number in range(max(1, min(num_trials, MAX_SIMULATED))):
        value, trial = rng.random(), Trial(arm, number, {}, "running")
        for epoch in sorted(looks):
            trial = replace(trial, intermediate={**trial.intermediate, epoch: value})
            if not judge(trial, past, pruner=pruner, objective=objective, num_epochs=num_epochs, seed=seed).go_on:
                trial = replace(trial, outcome="pruned")
                break
        else:
            trial = replace(trial, outcome="complete", value=value)
        past.append(trial)
    epochs = statistics.fmean(max(trial.intermediate) / num_epochs for trial in past)
    return epochs, statistics.fmean(trial.outcome == "complete" for trial in past)
