"""Convolution, normalisation, activation: the block that ASPP, stem and decoder are made of."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["group", "batch"]

CHANNELS_PER_GROUP = 8  # divides every width here, because widths are multiples of it; Wu & He 2018 find 8..16 alike


def round_channels(width: float) -> int:
    """The nearest width that can be normalised in whole groups, never 0."""
    return max(CHANNELS_PER_GROUP, CHANNELS_PER_GROUP * round(width / CHANNELS_PER_GROUP))


class GroupNorm(nn.GroupNorm):
    """Group normalisation that stays in autocast's type.

    Autocast on CUDA would run it in float32 and so keep float32 maps for backward, twice the memory; the kernel's
    own sums are float32 either way.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not (x_BCHW.is_cuda and torch.is_autocast_enabled("cuda")):
            return super().forward(x_BCHW)
        with torch.autocast("cuda", enabled=False):
            weight_C, bias_C = self.weight.to(x_BCHW.dtype), self.bias.to(x_BCHW.dtype)
            return F.group_norm(x_BCHW, self.num_groups, weight_C, bias_C, self.eps)


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """With group norm a sample's gradient does not depend on its neighbours in the batch, so accumulation is exact."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return GroupNorm(channels // CHANNELS_PER_GROUP, channels)


class ConvNormAct(nn.Sequential):
    """A convolution that keeps the map's size (or divides it by the stride), then normalisation, then ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_px: int = 3, *, norm: Norm, stride: int = 1, dilation: int = 1
    ) -> None:
        padding = dilation * (kernel_px // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_px, stride, padding, dilation, bias=False),
            make_norm(norm, out_channels),
            nn.ReLU(inplace=True),
        )

    @property
    def conv(self) -> nn.Conv2d:
        """The convolution itself."""
        conv = self[0]
        assert isinstance(conv, nn.Conv2d)
        return conv
