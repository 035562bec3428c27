"""A finished run's network with its best weights, ready to predict whole photos on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from crack_sweeps.deploy.eight_fold import EightFold
from crack_sweeps.deploy.trained import TrainedRun
from crack_sweeps.errors import CheckpointError, DeviceError
from crack_sweeps.evaluation.evaluate import predictor
from crack_sweeps.evaluation.tiles import Predict
from crack_sweeps.models.build import build_model
from crack_sweeps.models.segmenter import Segmenter
from crack_sweeps.runs.preparation import make_deterministic
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.loading import profile_name
from crack_sweeps.specs.profiles import PROFILES
from crack_sweeps.training.checkpoints import CheckpointFolder
from crack_sweeps.training.device import choose_device
from crack_sweeps.training.forecast import without_weights
from crack_sweeps.training.nvml import detect_machine
from crack_sweeps.training.precision import resolve_amp

Notify = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Network:
    """A network at work.

    Args:
        predict: From a photo to the probability of crack at each of its pixels.
        device: Where it computes, as torch writes it.
        precision: The type that it computes with, such as `bfloat16`.
        tile_px: Side of a tile.
    """

    predict: Predict
    device: str
    precision: str
    tile_px: int


def load_network(trained: TrainedRun, *, profile: str, tta: bool, notify: Notify) -> Network:
    """The network exactly as it was trained, with its best weights, on this machine's device.

    Args:
        trained: A finished run.
        profile: Says on which device, and how many tiles it takes at once; `auto` looks at the machine.
        tta: See each tile in its eight flips and rotations.
        notify: Told what differs from the training.

    Raises:
        CheckpointError: The weights are damaged, or are not those of config.yaml.
        DeviceError: The profile's GPU is not there.
    """
    name = profile_name(profile, detect_machine())
    device = choose_device(name)
    experiment = trained.experiment
    make_deterministic(experiment.training.deterministic, device)
    segmenter = _with_best_weights(trained).to(device)
    if experiment.training.channels_last:
        segmenter.to(memory_format=torch.channels_last)  # as in training
    amp_dtype = _amp_dtype(experiment, device, notify)
    most = PROFILES[name].micro_batch if name in PROFILES else None
    batch_size = experiment.training.batch_size
    return Network(
        predict=predictor(
            EightFold(segmenter) if tta else segmenter,
            tile_px=experiment.tile_px,
            overlap=experiment.evaluation.tile_overlap,
            device=device,
            batch_size=min(batch_size, most) if most is not None else batch_size,
            amp_dtype=amp_dtype,
            notify=notify,
            remedy="end what else runs on it, or use the processor: --profile cpu",
        ),
        device=str(device),
        precision="float32" if amp_dtype is None else str(amp_dtype).removeprefix("torch."),
        tile_px=experiment.tile_px,
    )


def _with_best_weights(trained: TrainedRun) -> Segmenter:
    folder = CheckpointFolder(trained.run.checkpoints)
    try:
        state = folder.load_best()["model"]
    except CheckpointError as error:
        hint = error.hint or "put the file back from a copy, or name another run"
        raise CheckpointError(error.message, hint=hint) from error
    segmenter = build_model(without_weights(trained.experiment).model)
    try:
        segmenter.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder.best}: its weights do not belong to the network of {trained.run.config}",
            hint="one of the two files was changed after the training: put it back as it was",
        ) from error
    return segmenter


def _amp_dtype(experiment: Experiment, device: torch.device, notify: Notify) -> torch.dtype | None:
    """As in training, where this device computes with that type; a run may be put to work on a lesser one."""
    try:
        return resolve_amp(experiment.training, device)
    except DeviceError:
        notify(f"{device} does not compute with {experiment.training.amp_dtype}, as the training did: float32 here")
        return None
