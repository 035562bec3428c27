"""What a model costs before it runs: parameters, and FLOPs for one image."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Weights that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def flops(model: nn.Module, size_px: int) -> int:
    """Floating-point operations of one forward pass over one image, by torch's convention.

    A multiply-accumulate counts as 2, so tables that print GMACs show half of this; only matrix products,
    convolutions and attention are counted. On the meta device: nothing is computed and no map is allocated.
    """
    training = model.training
    counter = FlopCounterMode(display=False)
    shapes = {name: tensor.to("meta") for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    model.eval()
    with torch.no_grad(), counter:
        functional_call(model, shapes, (torch.empty(1, 3, size_px, size_px, device="meta"),))
    model.train(training)
    return int(counter.get_total_flops())
