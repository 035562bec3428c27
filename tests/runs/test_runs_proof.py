"""What is about to be trained is read back and compared with what was asked for; a difference stops it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from crack_sweeps.errors import TrainingError
from crack_sweeps.models.build import build_model
from crack_sweeps.runs.proof import prove, prove_suggestion
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.loading import resolve
from crack_sweeps.training.loop import TrainingState


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    small = ["model.encoder_cfg.depth=3", "model.decoder_cfg.channels=[16,8,8]", "training.encoder_lr_multiplier=0.1"]
    return resolve("unet_small", overrides=small, profile="none").experiment


@pytest.fixture
def state(experiment: Experiment) -> TrainingState:
    model = build_model(experiment.model)
    return TrainingState(model, experiment.training, device=torch.device("cpu"), amp_dtype=None, steps_per_epoch=1)


def test_what_was_built_as_asked_for_passes(state: TrainingState, experiment: Experiment) -> None:
    prove(state, experiment)


def _other_rate(state: TrainingState) -> None:
    state.optimizer.param_groups[-1]["peak_lr"] *= 2


def _other_encoder_rate(state: TrainingState) -> None:
    for group in state.optimizer.param_groups:
        if group["name"].startswith("encoder"):
            group["peak_lr"] *= 10


def _other_decay(state: TrainingState) -> None:
    for group in state.optimizer.param_groups:
        group["weight_decay"] = 0.5


def _other_batch(state: TrainingState) -> None:
    state.progress.micro_batch *= 2


def _other_loss(state: TrainingState) -> None:
    loss = state.training.loss.model_copy(update={"dice_weight": 0.123})
    state.training = state.training.model_copy(update={"loss": loss})


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (_other_rate, "training.learning_rate"),
        (_other_encoder_rate, "training.encoder_lr_multiplier"),
        (_other_decay, "training.weight_decay"),
        (_other_batch, "training.batch_size"),
        (_other_loss, "other settings than the experiment's"),
    ],
)
def test_what_was_built_otherwise_is_stopped(
    state: TrainingState, experiment: Experiment, damage: Callable[[TrainingState], None], names: str
) -> None:
    damage(state)
    with pytest.raises(TrainingError, match=names):
        prove(state, experiment)


def test_a_suggestion_that_did_not_reach_the_experiment_is_stopped(experiment: Experiment) -> None:
    prove_suggestion({"training.learning_rate": experiment.training.learning_rate}, experiment)
    prove_suggestion({"model.decoder_cfg.channels": (16, 8, 8)}, experiment)
    with pytest.raises(TrainingError, match=r"suggested as 0\.5, but the experiment has"):
        prove_suggestion({"training.learning_rate": 0.5}, experiment)
    with pytest.raises(TrainingError, match="has nothing"):
        prove_suggestion({"training.no_such_rate": 0.5}, experiment)
