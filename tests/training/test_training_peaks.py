"""Peaks are real, begin anew where asked, and say where they come from."""

from __future__ import annotations

import gc
import os
import threading
import time
import warnings
from types import SimpleNamespace

import psutil
import pynvml
import pytest
import torch

from crack_sweeps.errors import DeviceError
from crack_sweeps.training import device as device_module
from crack_sweeps.training import peaks
from crack_sweeps.training.device import choose_device
from crack_sweeps.training.peaks import PeakMeter

MIB = 2**20
CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
UUID = "11111111-2222-3333-4444-555555555555"


def test_the_resident_set_peak_holds_what_was_freed_again():
    with PeakMeter(CPU) as meter:
        before = meter.read()["memory/peak_rss_bytes"]
        block = bytearray(os.urandom(1)) * (200 * MIB)
        del block
        peak = meter.read()["memory/peak_rss_bytes"]
    assert peak >= before + 190 * MIB
    assert meter.source == "rss"


def test_a_reset_forgets_the_peak_before_it():
    with PeakMeter(CPU) as meter:
        block = bytearray(b"x") * (200 * MIB)
        high = meter.read()["memory/peak_rss_bytes"]
        del block
        meter.reset()
        assert meter.read()["memory/peak_rss_bytes"] <= high - 150 * MIB


def test_sampling_alone_sees_a_peak_that_lasts(monkeypatch):
    monkeypatch.setattr(peaks, "_clear_kernel_peak", lambda: False)
    with PeakMeter(CPU, interval_s=0.01) as meter:
        before = meter.read()["memory/peak_rss_bytes"]
        block = bytearray(b"x") * (200 * MIB)
        time.sleep(0.2)
        del block
        assert meter.read()["memory/peak_rss_bytes"] >= before + 190 * MIB


def test_no_thread_is_left_behind():
    with PeakMeter(CPU):
        assert "memory-peaks" in {thread.name for thread in threading.enumerate()}
    assert "memory-peaks" not in {thread.name for thread in threading.enumerate()}


def test_a_second_of_sampling_costs_less_than_five_milliseconds():
    with PeakMeter(CPU) as meter:
        began = time.thread_time()
        for _ in range(5):
            meter._sample()
        assert time.thread_time() - began < 0.005


@pytest.fixture
def allocator(monkeypatch):
    """torch's CUDA allocator, pretended."""
    state = SimpleNamespace(reserved=100 * MIB, peak_reserved=300 * MIB, peak_allocated=200 * MIB, resets=0)

    def reset(_device):
        state.resets += 1

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: SimpleNamespace(uuid=UUID))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: state.reserved)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _device: state.peak_reserved)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: state.peak_allocated)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    return state


def test_on_a_gpu_the_driver_counts_this_process_on_the_card_with_torchs_uuid(driver, allocator):
    driver.add(uuid="GPU-other", processes=[(os.getpid(), 900 * MIB)])
    card = driver.add(uuid=f"GPU-{UUID}", processes=[(os.getpid(), 400 * MIB)])
    with PeakMeter(CUDA, interval_s=0.01) as meter:
        card.processes = [(os.getpid(), 700 * MIB)]
        time.sleep(0.1)
        card.processes = [(os.getpid(), 450 * MIB)]
        assert meter.read() == {
            "vram/peak_allocated_bytes": 200 * MIB,
            "vram/peak_reserved_bytes": 300 * MIB,
            "vram/peak_process_bytes": 700 * MIB,
        }
        assert meter.source == "torch+nvml"
        meter.reset()
        assert meter.read()["vram/peak_process_bytes"] == 450 * MIB
        assert allocator.resets == 2  # on entering, and now


def test_in_a_container_with_an_empty_list_the_allocator_stands_alone(driver, allocator):
    driver.add(uuid=f"GPU-{UUID}", processes=[])
    with PeakMeter(CUDA) as meter:
        assert meter.read().keys() == {"vram/peak_allocated_bytes", "vram/peak_reserved_bytes"}
        assert meter.source == "torch"


def test_another_process_with_our_number_is_not_taken_for_us(driver, allocator):
    driver.add(uuid=f"GPU-{UUID}", processes=[(os.getpid(), allocator.reserved - 1)])
    with PeakMeter(CUDA) as meter:
        assert "vram/peak_process_bytes" not in meter.read()
        assert meter.source == "torch"


def test_a_driver_that_dies_in_the_middle_does_not_stop_the_training(driver, allocator):
    driver.add(uuid=f"GPU-{UUID}", processes=[(os.getpid(), 400 * MIB)])
    with PeakMeter(CUDA, interval_s=0.01) as meter:
        driver.process_error = pynvml.NVML_ERROR_GPU_IS_LOST
        time.sleep(0.05)
        assert meter.read()["vram/peak_process_bytes"] == 400 * MIB


def test_without_a_driver_library_a_gpu_is_still_measured_by_torch(driver, allocator):
    driver.init_error = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    with PeakMeter(CUDA) as meter:
        assert meter.source == "torch"


# --- choosing the device ---------------------------------------------------------------------------


def test_the_cpu_profile_asks_nobody(driver, monkeypatch):
    driver.init_error = pynvml.NVML_ERROR_UNKNOWN
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked about CUDA"))
    assert choose_device("cpu") == CPU


def test_a_gpu_profile_takes_the_first_visible_gpu_numbered_as_nvidia_smi_does(driver, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "x")  # noted, so that it is put back as it was
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    assert choose_device("gpu-8gb") == CUDA
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_without_a_profile_it_is_a_gpu_where_one_is_visible_and_else_the_processor(driver, monkeypatch):
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("none") == CPU
    driver.add()
    assert choose_device("none") == CUDA
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_device("none") == CPU


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def test_a_gpu_profile_without_a_gpu_is_an_error(driver, no_cuda):
    with pytest.raises(DeviceError, match="this machine shows none") as caught:
        choose_device("gpu-24gb")
    assert "--profile cpu" in caught.value.hint


def test_a_hidden_gpu_is_named(driver, no_cuda, monkeypatch):
    driver.add(name="NVIDIA H200")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceError, match="hides the NVIDIA H200"):
        choose_device("gpu-80gb")


def test_a_cpu_build_of_torch_beside_a_gpu_is_an_error_with_the_remedy(driver, no_cuda, monkeypatch):
    driver.add(name="NVIDIA H200")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceError, match="build without CUDA") as caught:
        choose_device("gpu-80gb")
    assert "torch torchvision" in caught.value.hint


def test_a_driver_too_old_is_named_with_what_torch_says(driver, monkeypatch):
    driver.add(name="NVIDIA H200")
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

    def complaining():
        warnings.warn("The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    monkeypatch.setattr(device_module.torch.cuda, "is_available", complaining)
    with pytest.raises(DeviceError, match=r"driver 570\.86\.15 .*too old") as caught:
        choose_device("gpu-80gb")
    assert "CUDA 13.2" in caught.value.hint


@pytest.mark.gpu
def test_on_a_real_gpu_the_peaks_hold_what_was_allocated_and_freed():
    device = choose_device("gpu-8gb")
    gc.collect()
    before = torch.cuda.memory_allocated(device)  # workspaces of earlier tests, and what a failed one's frames hold
    with PeakMeter(device, interval_s=0.01) as meter:
        block = torch.ones(256 * MIB, dtype=torch.uint8, device=device)
        torch.cuda.synchronize(device)
        time.sleep(0.1)
        del block
        found = meter.read()
        assert found["vram/peak_allocated_bytes"] >= before + 256 * MIB
        assert found["vram/peak_reserved_bytes"] >= found["vram/peak_allocated_bytes"]
        if meter.source == "torch+nvml":
            assert found["vram/peak_process_bytes"] >= 256 * MIB
        torch.cuda.empty_cache()
        meter.reset()
        assert meter.read()["vram/peak_allocated_bytes"] < before + 256 * MIB


def test_the_figure_is_this_processs():
    with PeakMeter(CPU) as meter:
        assert meter.read()["memory/peak_rss_bytes"] >= psutil.Process().memory_info().rss * 0.9
