"""Atrous spatial pyramid pooling (Chen et al. 2017): one map seen at several distances at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_sweeps.models.convolution import ConvNormAct, Norm


def dead_rates(map_cells: int, rates: Sequence[int]) -> tuple[int, ...]:
    """The rates whose off-centre taps all fall outside the map, so that their 3x3 kernel is a 1x1 in disguise.

    Args:
        map_cells: Side of the map that the ASPP sits on, cells.
        rates: Dilations; 1 stands for a plain 1x1 convolution and is never dead.
    """
    return tuple(rate for rate in rates if rate > 1 and rate >= map_cells)


class ImagePooling(nn.Module):
    """The map's mean, back at every cell.

    No normalisation: on a 1x1 map batch norm fails at batch 1, and group norm would leave nothing but signs.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x_BCHW: Float[Tensor, "B c H W"]) -> Float[Tensor, "B d H W"]:
        pooled_BD11: Tensor = self.project(x_BCHW.mean(dim=(2, 3), keepdim=True)).relu()
        return pooled_BD11.expand(-1, -1, x_BCHW.shape[2], x_BCHW.shape[3])


class ASPP(nn.Module):
    """A branch for each rate and one for the whole image, joined by a 1x1 convolution."""

    def __init__(
        self, in_channels: int, out_channels: int, atrous_rates: Sequence[int], *, dropout: float, norm: Norm
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            ConvNormAct(in_channels, out_channels, 1, norm=norm)
            if rate == 1
            else ConvNormAct(in_channels, out_channels, 3, dilation=rate, norm=norm)
            for rate in atrous_rates
        )
        self.pooling = ImagePooling(in_channels, out_channels)
        self.project = ConvNormAct((len(atrous_rates) + 1) * out_channels, out_channels, 1, norm=norm)
        self.dropout = nn.Dropout(dropout)

    @property
    def atrous_rates(self) -> tuple[int, ...]:
        """Read back from the convolutions."""
        return tuple(branch.conv.dilation[0] for branch in self.branches if isinstance(branch, ConvNormAct))

    def forward(self, x_BCHW: Float[Tensor, "B c H W"]) -> Float[Tensor, "B d H W"]:
        seen = [branch(x_BCHW) for branch in self.branches]  # of each rate: B d H W
        seen.append(self.pooling(x_BCHW))
        joined_BDHW: Tensor = self.dropout(self.project(torch.cat(seen, dim=1)))  # B (rates+1)*d H W -> B d H W
        return joined_BDHW
