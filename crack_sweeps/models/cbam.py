"""Convolutional block attention (Woo et al. 2018): which channels matter, then which places."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

REDUCTION = 16  # the paper's
MIN_HIDDEN = 4  # narrow maps at full resolution would be left with a single hidden unit
KERNEL_PX = 7  # the paper's best


class ChannelAttention(nn.Module):
    """A weight in (0, 1) for each channel, from its mean and its maximum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // REDUCTION, MIN_HIDDEN)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels))

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 1 1"]:
        # amax shares the gradient among equal maxima: deterministic on CUDA, which adaptive max pooling is not
        weight_BC: Tensor = self.mlp(x_BCHW.mean(dim=(2, 3))) + self.mlp(x_BCHW.amax(dim=(2, 3)))
        return weight_BC.sigmoid()[:, :, None, None]


class SpatialAttention(nn.Module):
    """A weight in (0, 1) for each place, from the mean and the maximum over channels around it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, KERNEL_PX, padding=KERNEL_PX // 2)

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
        summary_B2HW = torch.cat([x_BCHW.mean(dim=1, keepdim=True), x_BCHW.amax(dim=1, keepdim=True)], dim=1)
        weight_B1HW: Tensor = self.conv(summary_B2HW)
        return weight_B1HW.sigmoid()


class CBAM(nn.Module):
    """Channel attention, then spatial attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention()

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        chosen_BCHW: Tensor = x_BCHW * self.channel(x_BCHW)
        placed_BCHW: Tensor = chosen_BCHW * self.spatial(chosen_BCHW)
        return placed_BCHW
