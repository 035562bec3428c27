"""Where a training runs: the processor, or the first visible NVIDIA GPU, and never one in place of the other."""

from __future__ import annotations

import os
import warnings

import torch

from crack_sweeps.errors import DeviceError
from crack_sweeps.training import nvml


def choose_device(profile: str) -> torch.device:
    """The device that a profile means: `cpu`, or the first GPU that `CUDA_VISIBLE_DEVICES` leaves visible.

    Apple's GPU (MPS) is not used: without deterministic algorithms there, no training could be resumed bit for bit;
    on such a machine the profile is cpu.

    Args:
        profile: A profile's name, not `auto`; `none` is a GPU where one is visible, else the processor. Call this
            before anything else touches CUDA: it makes CUDA number the cards as nvidia-smi does, unless
            `CUDA_DEVICE_ORDER` says otherwise.

    Raises:
        DeviceError: A GPU profile, and no GPU that torch can use.
    """
    assert profile != "auto", "choose the profile first"
    if profile == "cpu" or (profile == "none" and not nvml.visible_gpus()):
        return torch.device("cpu")
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    usable, complaint = _torch_sees_a_gpu()
    if usable:
        return torch.device("cuda", 0)
    raise _why_not(profile, complaint)


def _torch_sees_a_gpu() -> tuple[bool, str]:
    """Whether torch can use a GPU and, where it cannot, what it says about that."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    return usable, "; ".join(str(warning.message).splitlines()[0] for warning in caught)


def _why_not(profile: str, complaint: str) -> DeviceError:
    on_cpu = "or train on the processor with --profile cpu"
    all_gpus = nvml.gpus()
    if not all_gpus:
        return DeviceError(
            f"profile {profile} needs an NVIDIA GPU, and this machine shows none (Apple's GPU is not used)",
            hint="in a container, start it with the GPU (docker run --gpus all), " + on_cpu,
        )
    if not nvml.visible_gpus():
        hidden_by = os.environ["CUDA_VISIBLE_DEVICES"]
        return DeviceError(
            f"profile {profile} needs a GPU, and CUDA_VISIBLE_DEVICES={hidden_by!r} hides the {all_gpus[0].name}",
            hint="unset CUDA_VISIBLE_DEVICES or set it to 0, " + on_cpu,
        )
    gpu = all_gpus[0]
    if torch.version.cuda is None:
        return DeviceError(
            f"the machine has a {gpu.name}, but torch {torch.__version__} is a build without CUDA",
            hint="install the CUDA build, torch and torchvision from the same index: "
            f"`uv pip install --reinstall torch torchvision`, {on_cpu}",
        )
    said = f" (torch says: {complaint})" if complaint else ""
    return DeviceError(
        f"the machine has a {gpu.name}, but torch {torch.__version__} for CUDA {torch.version.cuda} cannot use it "
        f"with driver {gpu.driver_version}{said}",
        hint=f"update NVIDIA's driver to one that supports CUDA {torch.version.cuda}, {on_cpu}",
    )
