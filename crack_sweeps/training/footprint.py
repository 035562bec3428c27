"""The memory of a training step as plain data, so that a process without torch can read a forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeviceType = Literal["cuda", "cpu"]


@dataclass(frozen=True)
class MemoryForecast:
    """What a training step holds at its peak, in bytes, part by part."""

    parameters_bytes: int  # with buffers
    gradients_bytes: int
    optimizer_bytes: int
    ema_bytes: int
    activations_bytes: int  # kept for the backward pass: the batch, maps, low-precision copies of weights
    largest_temporary_bytes: int  # above the activations: gradients of maps, and a block that is computed anew
    overhead_bytes: int
    total_bytes: int
