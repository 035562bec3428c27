"""AdamW and the course of its learning rate: which parameter learns how fast, and what never decays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from crack_sweeps.specs.experiment import Training

if TYPE_CHECKING:
    from crack_sweeps.models.segmenter import Segmenter

# SwinV2's scale of the cosine attention and the MLP of its position bias have two or three dimensions, and yet
# their authors do not decay them (Liu et al. 2022, and `no_weight_decay` of timm's models); the same for tables of
# positions in other transformers.
NEVER_DECAYED = ("logit_scale", "cpb_mlp", "relative_position", "pos_embed")
POLY_POWER = 0.9  # Chen et al. 2017, DeepLab
FUSED_DEVICES = ("cpu", "cuda")


def build_optimizer(model: Segmenter, training: Training) -> torch.optim.AdamW:
    """AdamW over every trainable parameter of the model, each in exactly one group.

    Groups run from the input to the output, so the last one is the decoder's. Beside torch's own keys each has
    `name` and `peak_lr`; at step n the loop sets `lr = peak_lr * learning_rate_factor(...)(n)`.

    Args:
        model: The network, already on its device, so that the fused kernel can be chosen.
        training: Learning rates and weight decay.
    """
    groups = parameter_groups(model, training)
    parameters = [parameter for group in groups for parameter in group["params"]]
    fused = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in parameters)
    return torch.optim.AdamW(groups, lr=training.learning_rate, weight_decay=training.weight_decay, fused=fused)


def parameter_groups(model: Segmenter, training: Training) -> list[dict[str, Any]]:
    """The optimizer's groups: one per encoder stage and one for the rest, each split into decayed and not decayed."""
    stage_of = _stages(model)
    num_stages = len(model.encoder_stages())
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        stage = stage_of.get(id(parameter), num_stages)
        decayed = is_decayed(name, parameter)
        if (stage, decayed) not in groups:
            peak_lr = _peak_learning_rate(stage, num_stages, training)
            place = f"encoder.{stage}" if stage < num_stages else "decoder"
            groups[stage, decayed] = {
                "name": place if decayed else f"{place}.no_decay",
                "params": [],
                "lr": peak_lr,
                "peak_lr": peak_lr,
                "weight_decay": training.weight_decay if decayed else 0.0,
            }
        groups[stage, decayed]["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay pulls at it: matrices and kernels yes; norms, biases and position tables no."""
    return parameter.ndim > 1 and not any(word in name for word in NEVER_DECAYED)


def learning_rate_factor(training: Training, total_steps: int) -> Callable[[int], float]:
    """What the peak learning rates are multiplied with at a step, as a function of the step alone.

    Nothing is carried from step to step, so resuming needs the step's number and no state. The rate rises linearly
    through the warm-up, is at its peak in the warm-up's last step, and reaches `min_lr_fraction` in the last step of
    all (a constant schedule stays at the peak).

    Args:
        training: Schedule, share of warm-up, last rate.
        total_steps: Optimizer steps of the whole training.
    """
    assert total_steps > 0, total_steps
    last = total_steps - 1
    num_warmup = min(round(training.warmup_fraction * total_steps), last)
    peak = max(num_warmup - 1, 0)

    def factor(step: int) -> float:
        assert step >= 0, step
        if step < num_warmup:
            return (step + 1) / num_warmup
        progress = min((step - peak) / (last - peak), 1.0) if last > peak else 0.0
        shape = SCHEDULES[training.schedule](progress)
        return training.min_lr_fraction + (1 - training.min_lr_fraction) * shape

    return factor


# From 1 at the peak to 0 at the end, as a function of the share of the way.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "poly": lambda progress: (1 - progress) ** POLY_POWER,
    "constant": lambda _progress: 1.0,
}


def _stages(model: Segmenter) -> dict[int, int]:
    """Each encoder parameter's stage, 0 at the input. The stages must be a partition of the encoder."""
    stages = model.encoder_stages()
    stage_of = {id(parameter): stage for stage, parameters in enumerate(stages) for parameter in parameters}
    assert len(stage_of) == sum(map(len, stages)), "a parameter is in two encoder stages"
    assert stage_of.keys() == {id(p) for p in model.encoder.parameters()}, "encoder_stages() is not the whole encoder"
    return stage_of


def _peak_learning_rate(stage: int, num_stages: int, training: Training) -> float:
    """The deepest encoder stage learns at the encoder's rate; each one nearer to the input slower by layer_decay."""
    if stage == num_stages:
        return training.learning_rate
    slower = training.layer_decay ** (num_stages - 1 - stage)
    return training.learning_rate * training.encoder_lr_multiplier * slower
