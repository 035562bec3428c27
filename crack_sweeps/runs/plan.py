"""What a run would do, in figures: for `--dry-run` and `estimate`. Trains nothing, writes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from crack_sweeps.data.open import open_photos
from crack_sweeps.data.photos import SPLITS
from crack_sweeps.models.build import build_model
from crack_sweeps.models.cost import count_parameters, flops
from crack_sweeps.runs.preparation import steps_per_epoch
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.loading import Resolved, dump
from crack_sweeps.training.forecast import DeviceType, device_type, forecast, without_weights
from crack_sweeps.training.precision import resolve_amp

_BYTES_PER_WEIGHT = 4  # checkpoints hold float32


@dataclass(frozen=True)
class Cost:
    """What a model costs before anything is trained.

    Args:
        num_params: Weights that can be trained.
        flops_per_crop: Multiplications and additions of one forward pass over one crop, each counted as one.
        memory: Forecast peak of training, in bytes, by what it is for.
        process_bytes: What the whole process will hold, context and libraries included; None where nobody asked.
        calibration_runs: Runs on this device that `process_bytes` is calibrated by; with 0 it is a rule of thumb.
    """

    experiment: str
    architecture: str
    num_params: int
    flops_per_crop: int
    crop_px: int
    batch_size: int
    memory: dict[str, Any]
    process_bytes: int | None = None
    calibration_runs: int = 0


@dataclass(frozen=True)
class Plan:
    """What `sweeps run` would do."""

    source: str
    profile: str
    quick_look: bool
    changed_by_profile: dict[str, Any]
    fingerprint: str
    config: str
    data: dict[str, Any]
    cost: Cost
    device: str
    precision: str
    epochs: int
    steps_per_epoch: int | None
    crops_per_epoch: int | None
    disk_peak_bytes: int
    disk_final_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


def estimate_cost(experiment: Experiment, *, on: DeviceType, amp_dtype: torch.dtype | None) -> Cost:
    """Parameters, FLOPs and forecast memory; no GPU needed, no weights downloaded.

    Args:
        on: Whose rules of mixed precision the forecast follows.
        amp_dtype: Type of mixed precision there; None is float32.
    """
    model = build_model(without_weights(experiment).model)
    return Cost(
        experiment=experiment.name,
        architecture=experiment.model.architecture,
        num_params=count_parameters(model),
        flops_per_crop=flops(model, experiment.crop_px),
        crop_px=experiment.crop_px,
        batch_size=experiment.training.batch_size,
        memory=asdict(forecast(experiment, model=model, device_type=on, amp_dtype=amp_dtype)),
    )


def make_plan(resolved: Resolved, *, device: torch.device, artifacts: Path) -> Plan:
    """Open the data, cost the model, count the steps."""
    experiment = resolved.experiment
    training = experiment.training
    photos = open_photos(experiment.data, root=artifacts, draw=False)
    if photos is None:
        data: dict[str, Any] = {"name": "builtin", "digest": None, "note": "not drawn yet: the first run draws it"}
        steps = training.steps_per_epoch
    else:
        counts = {f"num_{split}": len(photos.split(split)) for split in SPLITS}
        data = {
            "name": photos.name,
            **counts,
            "digest": photos.digest,
            "mask_rule": photos.mask_rule,
            "warnings": photos.warnings,
        }
        steps = steps_per_epoch(experiment, counts["num_train"])
    amp_dtype = resolve_amp(training, device)
    cost = estimate_cost(experiment, on=device_type(device), amp_dtype=amp_dtype)
    weights = cost.num_params * _BYTES_PER_WEIGHT
    state = weights * (4 if training.ema_decay is not None else 3)  # weights, two AdamW moments, averaged weights
    return Plan(
        source=str(resolved.source),
        profile=resolved.profile,
        quick_look=resolved.quick_look,
        changed_by_profile={key: list(change) for key, change in resolved.changed_by_profile.items()},
        fingerprint=resolved.fingerprint,
        config=dump(experiment),
        data=data,
        cost=cost,
        device=str(device),
        precision="float32" if amp_dtype is None else str(amp_dtype).removeprefix("torch."),
        epochs=training.epochs,
        steps_per_epoch=steps,
        crops_per_epoch=steps * training.effective_batch if steps else None,
        disk_peak_bytes=3 * state + weights,  # latest, the one before, one being written; best
        disk_final_bytes=3 * weights,  # latest and best weights, and the model in MLflow
    )
