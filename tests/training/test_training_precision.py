"""Mixed precision is what the device has, and never what it has not."""

from __future__ import annotations

import pytest
import torch

from crack_sweeps.errors import DeviceError
from crack_sweeps.specs.experiment import Training
from crack_sweeps.training.precision import resolve_amp

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def device_with(monkeypatch):
    """Pretend a processor's features and a card's compute capability."""

    def pretend(*, features: tuple[str, ...] = (), capability: tuple[int, int] = (7, 5)) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(features, True))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Tesla T4")

    return pretend


@pytest.mark.parametrize(
    ("amp_dtype", "device", "features", "capability", "expected"),
    [
        ("auto", CUDA, (), (8, 0), torch.bfloat16),
        ("auto", CUDA, (), (9, 0), torch.bfloat16),
        ("auto", CUDA, (), (7, 5), torch.float16),
        ("float16", CUDA, (), (8, 0), torch.float16),
        ("bfloat16", CUDA, (), (8, 0), torch.bfloat16),
        ("auto", CPU, ("avx512_bf16",), (7, 5), torch.bfloat16),
        ("auto", CPU, ("amx_bf16",), (7, 5), torch.bfloat16),
        ("auto", CPU, ("avx512_f",), (7, 5), None),
        ("bfloat16", CPU, ("avx512_bf16",), (7, 5), torch.bfloat16),
    ],
)
def test_the_type_that_is_used(device_with, amp_dtype, device, features, capability, expected):
    device_with(features=features, capability=capability)
    assert resolve_amp(Training(amp_dtype=amp_dtype), device) is expected


@pytest.mark.parametrize(
    ("amp_dtype", "device", "named"),
    [("bfloat16", CUDA, "Tesla T4"), ("bfloat16", CPU, "this CPU"), ("float16", CPU, "this CPU")],
)
def test_a_type_that_the_device_has_not_is_refused(device_with, amp_dtype, device, named):
    device_with()
    with pytest.raises(DeviceError, match=named) as caught:
        resolve_amp(Training(amp_dtype=amp_dtype), device)
    assert "training.amp_dtype=auto" in caught.value.hint


@pytest.mark.parametrize("amp_dtype", ["auto", "bfloat16", "float16"])
def test_without_amp_everything_is_float32(device_with, amp_dtype):
    device_with(features=("avx512_bf16",), capability=(9, 0))
    for device in (CPU, CUDA):
        assert resolve_amp(Training(use_amp=False, amp_dtype=amp_dtype), device) is None


def test_this_machines_processor_can_be_asked():
    assert resolve_amp(Training(), CPU) in (None, torch.bfloat16)


@pytest.mark.gpu
def test_a_real_card_computes_in_the_type_that_was_resolved():
    dtype = resolve_amp(Training(), CUDA)
    with torch.autocast("cuda", dtype=dtype):
        assert torch.nn.Linear(8, 8, device=CUDA)(torch.ones(1, 8, device=CUDA)).dtype is dtype
