"""A light convolutional stem: skips at full and half resolution, where thin cracks live and SwinV2 sees nothing."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from crack_sweeps.models.convolution import ConvNormAct, Norm


class Stem(nn.Module):
    """One convolution at /1, one down to /2: at these sizes width and depth would dominate the cost of the model."""

    def __init__(self, full_channels: int, half_channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.to_full = ConvNormAct(3, full_channels, norm=norm)
        self.to_half = ConvNormAct(full_channels, half_channels, stride=2, norm=norm)

    def forward(
        self, image_B3HW: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B f H W"], Float[Tensor, "B h H//2 W//2"]]:
        full_BFHW: Tensor = self.to_full(image_B3HW)
        half_BHhw: Tensor = self.to_half(full_BFHW)
        return full_BFHW, half_BHhw
