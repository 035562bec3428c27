"""One short name for the mathematics of an experiment: equal where the same would be trained, different otherwise."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from crack_sweeps.specs.augmentations import parse_augmentation
from crack_sweeps.specs.experiment import Experiment, HybridModel

# Names, seeds, speed, places: what may differ between two runs of one experiment.
NO_MATHEMATICS = (
    "name",
    "training.seed",
    "training.activation_checkpointing",
    "training.amp_dtype",
    "training.channels_last",
    "training.compile",
    "training.deterministic",
    "data.path",
    "data.num_workers",
    "data.cache_gib",
    "data.loader_timeout_s",
    "evaluation.num_overlays",
)
# Settings of a loss term that say nothing while its weight is 0.
TERMS = {"focal_weight": "focal_", "dice_weight": "dice_", "tversky_weight": "tversky_", "cldice_weight": "cldice_"}


def canonical(experiment: Experiment) -> dict[str, Any]:
    """The mathematics of an experiment as nested JSON values with sorted keys: one form for all ways of writing it."""
    spec: dict[str, Any] = experiment.model_dump(mode="json")
    for dotted in NO_MATHEMATICS:
        *groups, key = dotted.split(".")
        group = spec
        for name in groups:
            group = group[name]
        del group[key]
    # A checkpoint file stands for the download that it replaces; its path is a place.
    encoder = spec["model"]["encoder_cfg"]
    encoder["pretrained"] = encoder["pretrained"] or encoder["checkpoint_path"] is not None
    del encoder["checkpoint_path"]
    # Which sets they are is in the data's digest; how they are mixed is in nothing else.
    sets = spec["data"].pop("sets")
    if sets is not None:
        spec["data"]["set_weights"] = [one["weight"] / max(other["weight"] for other in sets) for one in sets]
    spec["data"]["crop_px"], spec["evaluation"]["tile_px"] = experiment.crop_px, experiment.tile_px
    transform = spec["data"]["transform"]
    transform["augmentations"] = [parse_augmentation(text).canonical() for text in transform["augmentations"]]
    training = spec["training"]
    if not uses_batch_norm(experiment):
        # With GroupNorm and Dice per image, accumulation gives the gradient of the large batch.
        del training["batch_size"], training["gradient_accumulation_steps"]
        training["effective_batch"] = experiment.training.effective_batch
    training["loss"] = _weighed(training["loss"])
    if training["monitor"] == "val/crack_iou":  # what it was before there was the key
        del training["monitor"]
    ordered: dict[str, Any] = _sorted(spec)
    return ordered


def fingerprint(experiment: Experiment) -> str:
    """12 hexadecimal digits of the SHA-256 of the canonical form."""
    text = json.dumps(canonical(experiment), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def uses_batch_norm(experiment: Experiment) -> bool:
    """Whether statistics come from the micro-batch, so that its size is part of the mathematics."""
    return not isinstance(experiment.model, HybridModel) or experiment.model.norm == "batch"


def _weighed(loss: dict[str, Any]) -> dict[str, Any]:
    absent = tuple(prefix for weight, prefix in TERMS.items() if loss[weight] == 0)
    return {key: value for key, value in loss.items() if not absent or not key.startswith(absent)}


def _sorted(value: Any) -> Any:
    return {key: _sorted(value[key]) for key in sorted(value)} if isinstance(value, dict) else value
