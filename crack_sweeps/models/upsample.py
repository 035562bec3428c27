"""Three ways for a map to double its size, none of which starts as a checkerboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_sweeps.models.interpolation import BilinearUpsample

UpsampleMode = Literal["bilinear", "transposed", "pixel_shuffle"]


class Bilinear(BilinearUpsample):
    """Interpolation without weights."""

    mode_name: UpsampleMode = "bilinear"

    def __init__(self, channels: int) -> None:
        super().__init__(2, align_corners=False)
        self.channels = channels


class Transposed(nn.ConvTranspose2d):
    """A transposed 4x4 convolution that starts as bilinear interpolation of each channel (Long et al. 2015)."""

    mode_name: UpsampleMode = "transposed"

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=4, stride=2, padding=1)
        side_4 = torch.tensor([0.25, 0.75, 0.75, 0.25])
        diagonal = torch.arange(channels)
        with torch.no_grad():
            self.weight.zero_()
            self.weight[diagonal, diagonal] = torch.outer(side_4, side_4)
        _start_unbiased(self)


class PixelShuffle(nn.Sequential):
    """A convolution to four times the channels, unfolded into 2x2 pixels (Shi et al. 2016).

    All four start alike (ICNR, Aitken et al. 2017): nearest-neighbour at first, so no checkerboard to unlearn.
    """

    mode_name: UpsampleMode = "pixel_shuffle"

    def __init__(self, channels: int) -> None:
        conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        with torch.no_grad():
            conv.weight.copy_(conv.weight[::4].repeat_interleave(4, dim=0))
        _start_unbiased(conv)
        super().__init__(conv, nn.PixelShuffle(2))

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 2*H 2*W"]:
        conv, shuffle = self
        out_BCHW: Tensor = shuffle(conv(x_BCHW))  # B C H W -> B 4C H W -> B C 2H 2W
        return out_BCHW


def _start_unbiased(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)


Upsample = Bilinear | Transposed | PixelShuffle

UPSAMPLES: dict[UpsampleMode, Callable[[int], Upsample]] = {
    "bilinear": Bilinear,
    "transposed": Transposed,
    "pixel_shuffle": PixelShuffle,
}
