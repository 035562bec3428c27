"""Bilinear upsampling with torch's own forward pass and, on a GPU, a gradient that has the same bits twice."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class BilinearUpsample(nn.Upsample):
    """`nn.Upsample(mode="bilinear")`, fast where deterministic algorithms are asked for.

    CUDA's own backward pass adds atomically, in any order. Asked for a deterministic one, torch 2.15 replaces the
    forward pass too: by four gathers of float32 maps, whose gradient is sorted and put back index by index.
    Interpolation is linear, so its gradient is two small matrix products, which are deterministic and cheap.

    Args:
        factor: Times that height and width grow.
        align_corners: As torch's: whether the outermost pixels' centres lie on each other.
    """

    def __init__(self, factor: int, *, align_corners: bool) -> None:
        super().__init__(scale_factor=factor, mode="bilinear", align_corners=align_corners)
        self.factor = factor

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C oH oW"]:
        if x_BCHW.is_cpu or torch.compiler.is_compiling() or not torch.are_deterministic_algorithms_enabled():
            return super().forward(x_BCHW)
        raised_BCHW: Tensor = _Bilinear.apply(x_BCHW, self.factor, bool(self.align_corners))
        return raised_BCHW


def make_upsampling_deterministic(network: nn.Module) -> None:
    """Replace each bilinear `nn.Upsample` by whole numbers inside a network of somebody else's; it has no weights."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if type(child) not in (nn.Upsample, nn.UpsamplingBilinear2d) or child.mode != "bilinear":
                continue
            factor = child.scale_factor
            if isinstance(factor, int | float) and float(factor).is_integer():
                setattr(parent, name, BilinearUpsample(int(factor), align_corners=bool(child.align_corners)))


class _Bilinear(torch.autograd.Function):
    """The native kernel forwards; backwards the transpose of what it multiplies rows and columns with."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, factor: int, align_corners: bool) -> Tensor:
        ctx.factor, ctx.align_corners = factor, align_corners
        scale = [float(factor)] * 2  # given as F.interpolate gives it, so that the kernel finds the same positions
        raised_BCHW: Tensor = torch.ops.aten.upsample_bilinear2d.vec(x_BCHW, None, align_corners, scale)
        return raised_BCHW

    @staticmethod
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor, None, None]:
        dtype, device = grad_BCHW.dtype, grad_BCHW.device
        height, width = (size // ctx.factor for size in grad_BCHW.shape[2:])
        exact = all(_is_exact(size, ctx.factor, ctx.align_corners, dtype) for size in (height, width))
        if not exact:  # thirds in half precision would bend the whole gradient
            grad_BCHW = grad_BCHW.float()
        rows_hH = _weights(height, ctx.factor, ctx.align_corners, grad_BCHW.dtype, device)
        cols_wW = _weights(width, ctx.factor, ctx.align_corners, grad_BCHW.dtype, device)
        if grad_BCHW.is_contiguous(memory_format=torch.channels_last):
            grad_BHwC = cols_wW @ grad_BCHW.permute(0, 2, 3, 1)
            grad_BhwC = (rows_hH @ grad_BHwC.flatten(2)).view(len(grad_BCHW), height, width, -1)
            return grad_BhwC.permute(0, 3, 1, 2).to(dtype), None, None
        return (rows_hH @ (grad_BCHW @ cols_wW.T)).to(dtype), None, None


@cache
def _weights(size: int, factor: int, align_corners: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """How much each new pixel (columns) takes of each old one (rows) along one side; kept, a few KB, on the device."""
    sides_S11S = torch.eye(size, dtype=torch.float64).view(size, 1, 1, size)
    raised_S11T = torch.ops.aten.upsample_bilinear2d.vec(sides_S11S, None, align_corners, [1.0, float(factor)])
    weights_ST: Tensor = raised_S11T.view(size, size * factor).to(device, dtype)
    return weights_ST


@cache
def _is_exact(size: int, factor: int, align_corners: bool, dtype: torch.dtype) -> bool:
    """Whether that type holds the weights as they are, as any does those of doubling: quarters."""
    cpu = torch.device("cpu")
    weights_ST = _weights(size, factor, align_corners, torch.float64, cpu)
    return dtype.itemsize >= 4 or torch.equal(weights_ST.to(dtype).double(), weights_ST)
