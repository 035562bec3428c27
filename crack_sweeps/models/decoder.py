"""The CNN decoder: from the bottleneck back to full resolution, one skip at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crack_sweeps.models.cbam import CBAM
from crack_sweeps.models.convolution import ConvNormAct, Norm
from crack_sweeps.models.upsample import UPSAMPLES, Upsample, UpsampleMode


class DecoderStage(nn.Module):
    """Double the map, join the skip of that size, two convolutions, attention.

    Channels are reduced before the map grows, where a 1x1 convolution costs a quarter.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        *,
        use_cbam: bool,
        upsample_mode: UpsampleMode,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, out_channels, 1)
        self.upsample: Upsample = UPSAMPLES[upsample_mode](out_channels)
        self.fuse = ConvNormAct(out_channels + skip_channels, out_channels, norm=norm)
        self.refine = ConvNormAct(out_channels, out_channels, norm=norm)
        self.attention = CBAM(out_channels) if use_cbam else nn.Identity()

    @property
    def out_channels(self) -> int:
        """Read back from the convolution."""
        return self.refine.conv.out_channels

    @property
    def skip_channels(self) -> int:
        """Read back from the convolution; 0 where there is no skip."""
        return self.fuse.conv.in_channels - self.reduce.out_channels

    @property
    def upsample_mode(self) -> UpsampleMode:
        """Read back from the module that does it."""
        return self.upsample.mode_name

    def forward(
        self, x_BCHW: Float[Tensor, "B c H W"], skip_BSHW: Float[Tensor, "B s 2*H 2*W"] | None
    ) -> Float[Tensor, "B d 2*H 2*W"]:
        x = self.upsample(self.reduce(x_BCHW))  # B c H W -> B d H W -> B d 2H 2W
        if skip_BSHW is not None:
            x = torch.cat([x, skip_BSHW], dim=1)  # B d+s 2H 2W
        x = self.refine(self.fuse(x))  # B d 2H 2W
        attended: Tensor = self.attention(x)
        return attended


class Decoder(nn.Module):
    """Stages from deep to shallow, each twice the size of the one before.

    Args:
        in_channels: Of the bottleneck's map.
        skip_channels: Of each stage's skip, deep to shallow; 0 where there is none.
        out_channels: Of each stage, deep to shallow.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: Sequence[int],
        out_channels: Sequence[int],
        *,
        use_cbam: bool,
        upsample_mode: UpsampleMode,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.checkpointing = False
        self.stages = nn.ModuleList(
            DecoderStage(before, skip, after, use_cbam=use_cbam, upsample_mode=upsample_mode, norm=norm)
            for before, skip, after in zip([in_channels, *out_channels[:-1]], skip_channels, out_channels, strict=True)
        )

    def forward(self, x_BCHW: Float[Tensor, "B c h w"], skips: Sequence[Tensor | None]) -> Float[Tensor, "B d H W"]:
        for stage, skip in zip(self.stages, skips, strict=True):
            if self.checkpointing and torch.is_grad_enabled():
                x_BCHW = checkpoint(stage, x_BCHW, skip, use_reentrant=False)
            else:
                x_BCHW = stage(x_BCHW, skip)
        return x_BCHW
