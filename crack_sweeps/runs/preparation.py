"""All that can be wrong before a training begins is found here, while nothing has been written yet."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch

from crack_sweeps.data.photos import SPLITS, PhotoSet
from crack_sweeps.errors import DataError, WeightsError
from crack_sweeps.models.build import build_model
from crack_sweeps.models.cost import count_parameters
from crack_sweeps.models.hybrid import dead_rate_warnings
from crack_sweeps.models.segmenter import Segmenter
from crack_sweeps.specs.experiment import Experiment, HybridModel, SmpModel
from crack_sweeps.training.checkpoints import sha256
from crack_sweeps.training.forecast import MemoryForecast, device_type, forecast, without_weights
from crack_sweeps.training.heap import keep_freed_memory
from crack_sweeps.training.precision import resolve_amp


@dataclass(frozen=True)
class Origin:
    """Where an experiment's settings came from."""

    source: str
    profile: str
    quick_look: bool
    overrides: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class Prepared:
    """Everything a training needs, checked and in memory."""

    experiment: Experiment
    origin: Origin
    photos: PhotoSet
    model: Segmenter
    num_params: int
    device: torch.device
    amp_dtype: torch.dtype | None
    steps_per_epoch: int
    forecast: MemoryForecast
    weights_sha256: str | None
    warnings: tuple[str, ...]

    @property
    def precision(self) -> str:
        """What it computes in, as environment.json has it."""
        return precision_name(self.amp_dtype)


def prepare(
    experiment: Experiment,
    origin: Origin,
    photos: PhotoSet,
    *,
    device: torch.device,
    foreseen: MemoryForecast | None = None,
    has_checkpoint: bool = False,
) -> Prepared:
    """Build the model and check it; its weights depend on `training.seed` alone.

    Args:
        foreseen: The memory forecast, where it was made already.
        has_checkpoint: A checkpoint will bring every weight, so the file that the encoder began with is not asked for.

    Raises:
        DataError: There is nothing to train or to validate on.
        WeightsError: Pretrained weights are missing or belong to another model.
    """
    if not photos.split("train") or not photos.split("val"):
        counts = ", ".join(f"{len(photos.split(split))} {split}" for split in SPLITS)
        raise DataError(f"{photos.root}: {counts}: there must be photos to train and to validate on")
    make_deterministic(experiment.training.deterministic, device)
    if device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(experiment.training.seed)
    model = build_model((without_weights(experiment) if has_checkpoint else experiment).model)
    model.to(device)
    if experiment.training.channels_last:
        model.to(memory_format=torch.channels_last)
    amp_dtype = resolve_amp(experiment.training, device)
    if foreseen is None:
        foreseen = forecast(experiment, model=model, device_type=device_type(device), amp_dtype=amp_dtype)
    return Prepared(
        experiment=experiment,
        origin=origin,
        photos=photos,
        model=model,
        num_params=count_parameters(model),
        device=device,
        amp_dtype=amp_dtype,
        steps_per_epoch=steps_per_epoch(experiment, len(photos.split("train"))),
        forecast=foreseen,
        weights_sha256=None if has_checkpoint else weights_digest(experiment.model),
        warnings=(*photos.warnings, *rate_warnings(experiment.model)),
    )


def precision_name(amp_dtype: torch.dtype | None) -> str:
    """The type that most is computed in, in torch's words."""
    return "float32" if amp_dtype is None else str(amp_dtype).removeprefix("torch.")


def weights_digest(model: HybridModel | SmpModel) -> str | None:
    """Digest of the file that the encoder starts from, where one was named; a path says nothing about its content.

    Raises:
        WeightsError: There is no such file.
    """
    path = model.encoder_cfg.checkpoint_path
    if path is None:
        return None
    if not path.is_file():
        raise WeightsError(f"model.encoder_cfg.checkpoint_path: {path}: no such file", hint="check the path")
    return sha256(path)


def rate_warnings(model: HybridModel | SmpModel) -> list[str]:
    """What is odd about a model that can be trained all the same."""
    return dead_rate_warnings(model) if isinstance(model, HybridModel) else []


def steps_per_epoch(experiment: Experiment, num_train: int) -> int:
    """Optimizer steps in an epoch: as set, or as many as show each training photo once (the last ones seen anew)."""
    training = experiment.training
    return training.steps_per_epoch or math.ceil(num_train / training.effective_batch)


def make_deterministic(on: bool, device: torch.device) -> None:
    """Ask torch for operations that give the same bits each time, and say where it has none (a warning names it)."""
    if on and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as torch's note on reproducibility asks
    torch.use_deterministic_algorithms(on, warn_only=True)
    # A debugging aid, on by default beside determinism, that costs a pass over each new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not on
