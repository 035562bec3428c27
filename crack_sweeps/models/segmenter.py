"""What every model here is: a photo in, crack logits of the same size out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CRACK_PRIOR = 0.03  # median share of crack pixels in the public sets

Fact = str | int | float | bool | tuple[int, ...]


class Segmenter(nn.Module, ABC):
    """A network with its own normalisation, so that nobody outside needs to know its encoder's.

    Attributes:
        encoder: What pretrained weights are for; everything else starts from scratch.
        min_batch_size: Fewest crops that it can be trained on at once; 2 where batch norm follows a global pooling.
    """

    encoder: nn.Module
    mean_311: Tensor
    std_311: Tensor
    min_batch_size = 1

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean_311", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std_311", torch.tensor(std).view(3, 1, 1), persistent=False)

    def normalise(self, image_B3HW: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """From [0, 1] to the mean and deviation that the encoder was trained with."""
        return (image_B3HW - self.mean_311) / self.std_311

    @abstractmethod
    def forward(self, image_B3HW: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
        """Logits of "this pixel is crack", before any sigmoid.

        Args:
            image_B3HW: RGB in [0, 1].
        """

    @abstractmethod
    def encoder_stages(self) -> list[list[nn.Parameter]]:
        """The encoder's parameters from input to deep, one list a resolution, for layer decay."""

    @abstractmethod
    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Recompute activations in backward in place of keeping them: the same gradients, less memory, slower."""

    @abstractmethod
    def built(self) -> dict[str, Fact]:
        """What this network is, read back from its modules, never from the spec that it was built from."""


def start_at_prior(head: nn.Conv2d, prior: float = CRACK_PRIOR) -> None:
    """Begin by calling every pixel crack with its prior probability (Lin et al. 2017, section 4.1).

    From a bias of 0 the first epochs go into learning that nearly everything is background.
    """
    assert head.bias is not None
    nn.init.constant_(head.bias, -math.log((1.0 - prior) / prior))


def stages_by_resolution(features: nn.Module, stage_ends: Sequence[str]) -> list[list[nn.Parameter]]:
    """Cut a timm feature extractor into stages, each of which ends with a module that gives a feature map.

    Args:
        features: Modules in the order in which they run.
        stage_ends: Names of those modules as timm's `feature_info` has them; its extractors flatten the first dot.
    """
    ends = {*stage_ends, *(name.replace(".", "_", 1) for name in stage_ends)}
    stages: list[list[nn.Parameter]] = [[]]
    inside_end: str | None = None
    for name, module in features.named_modules():
        if inside_end is not None and not name.startswith(f"{inside_end}."):
            stages.append([])
            inside_end = None
        if name in ends:
            inside_end = name
        stages[-1].extend(module.parameters(recurse=False))
    return [stage for stage in stages if stage]


def count_batch_statistics_once(model: nn.Module) -> None:
    """Keep activation checkpointing from feeding a batch twice into the running statistics of batch norm.

    The second time is the recomputation, which runs inside backward. Safe to call again.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(
            isinstance(hook, _RestInBackward) for hook in module._forward_pre_hooks.values()
        ):
            assert module.momentum is not None
            module.register_forward_pre_hook(_RestInBackward(module.momentum))


class _RestInBackward:
    """A hook before batch norm. It only sets what the module reads: a recomputation may stop before any later hook."""

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum

    def __call__(self, module: nn.Module, _args: object) -> None:
        assert isinstance(module, _BatchNorm)
        in_backward = torch._C._current_graph_task_id() != -1
        module.momentum = 0.0 if in_backward else self.momentum
        if in_backward and module.num_batches_tracked is not None:
            module.num_batches_tracked -= 1  # the module adds 1 again
