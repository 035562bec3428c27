"""What automatic mixed precision means on this device."""

from __future__ import annotations

import torch

from crack_sweeps.errors import DeviceError
from crack_sweeps.specs.experiment import Training

BFLOAT16_CUDA_CAPABILITY = (8, 0)  # Ampere; older cards emulate it, slower than float32
BFLOAT16_CPU_FEATURES = ("avx512_bf16", "amx_bf16", "sve_bf16")


def resolve_amp(training: Training, device: torch.device) -> torch.dtype | None:
    """The type that autocast uses; None is float32 throughout.

    bfloat16 needs no loss scaling and is preferred; float16, with scaling, serves older CUDA cards. On a CPU without
    bfloat16 arithmetic `auto` is float32: emulated, it would be slower than what it replaces.

    Raises:
        DeviceError: The experiment names a type that the device does not compute with.
    """
    if not training.use_amp:
        return None
    if training.amp_dtype == "bfloat16":
        if not has_bfloat16(device):
            raise DeviceError(
                f"`training.amp_dtype` is bfloat16, which {_describe(device)} does not compute with",
                hint="training.amp_dtype=auto takes what the device has",
            )
        return torch.bfloat16
    if training.amp_dtype == "float16":
        if device.type != "cuda":
            raise DeviceError(
                f"`training.amp_dtype` is float16, which needs a CUDA GPU, and this training is on {_describe(device)}",
                hint="training.amp_dtype=auto takes what the device has",
            )
        return torch.float16
    if has_bfloat16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else None


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes with bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= BFLOAT16_CUDA_CAPABILITY
    features = torch.cpu.get_capabilities()
    return any(features.get(name, False) for name in BFLOAT16_CPU_FEATURES)


def _describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
