"""What the driver is asked, and what is made of its answers."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from crack_sweeps.errors import DeviceError
from crack_sweeps.training import nvml

GIB = 2**30


def test_the_pretended_driver_has_the_functions_of_the_real_one(driver):
    functions = [name for name in dir(driver) if name.startswith("nvml")]
    assert len(functions) > 10
    for name in functions:
        real = inspect.signature(getattr(pynvml, name)).parameters.values()
        needed = [parameter for parameter in real if parameter.default is parameter.empty]
        assert len(inspect.signature(getattr(driver, name)).parameters) == len(needed), name


def test_a_machine_without_driver_has_no_gpu(driver):
    for missing in (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED):
        driver.init_error = missing
        assert nvml.gpus() == []
        assert nvml.process_memory_bytes(1, 0) is None
        assert nvml.detect_machine({}).gpu_name is None


def test_a_driver_that_does_not_answer_is_an_error_with_a_remedy(driver):
    driver.init_error = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    with pytest.raises(DeviceError, match="does not answer") as caught:
        nvml.gpus()
    assert "restart" in caught.value.hint


def test_a_card_that_is_lost_is_left_out_and_named_and_the_others_are_used(driver):
    lost = driver.add(uuid="GPU-aa")
    driver.add(uuid="GPU-bb")
    lost.error = pynvml.NVML_ERROR_GPU_IS_LOST
    assert [gpu.index for gpu in nvml.gpus()] == [1]
    assert list(nvml.silent_gpus()) == [0]
    assert "lost" in nvml.silent_gpus()[0].lower()
    for visible in ({}, {"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "1"}):
        assert [gpu.uuid for gpu in nvml.visible_gpus(visible)] == ["GPU-bb"]
    assert nvml.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    with pytest.raises(DeviceError, match="does not answer"):  # and no training on the processor in its place
        nvml.visible_gpus({"CUDA_VISIBLE_DEVICES": "0"})
    driver.cards[1].error = pynvml.NVML_ERROR_GPU_IS_LOST
    with pytest.raises(DeviceError, match="does not answer"):
        nvml.gpus()


def test_an_error_in_the_middle_closes_the_session_and_is_told(driver):
    driver.add()
    driver.process_error = pynvml.NVML_ERROR_GPU_IS_LOST
    with pytest.raises(DeviceError, match="does not answer"):
        nvml.process_memory_bytes(1, 0)
    assert driver.open_sessions == 0


def test_a_card_is_described_with_its_driver(driver):
    driver.add(uuid="GPU-aa", name="NVIDIA H200", total_bytes=141 * GIB, free_bytes=140 * GIB)
    assert nvml.gpus() == [nvml.Gpu(0, "GPU-aa", "NVIDIA H200", 141 * GIB, 140 * GIB, "570.86.15")]


def test_names_in_bytes_are_read_as_text(driver):
    driver.add(name=b"Tesla T4")
    assert nvml.gpus()[0].name == "Tesla T4"


def test_instances_stand_in_place_of_a_card_that_is_cut_up(driver):
    small = driver.instance(uuid="MIG-1", name="NVIDIA A100 MIG 1g.5gb", total_bytes=5 * GIB)
    large = driver.instance(uuid="MIG-2", name="NVIDIA A100 MIG 3g.20gb", total_bytes=20 * GIB)
    driver.add(uuid="GPU-whole", total_bytes=8 * GIB)
    driver.add(uuid="GPU-cut", instances=[small, None, large])
    assert [(gpu.index, gpu.uuid) for gpu in nvml.gpus()] == [(0, "GPU-whole"), (1, "MIG-1"), (1, "MIG-2")]


def test_a_card_that_could_be_cut_up_and_is_not_stands_for_itself(driver):
    driver.add(uuid="GPU-whole", instances=[None, None], mig_enabled=False)
    assert [gpu.uuid for gpu in nvml.gpus()] == ["GPU-whole"]


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (None, ["GPU-aa11", "GPU-aa22", "GPU-bb33"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", ["GPU-aa22"]),
        ("2,0", ["GPU-bb33", "GPU-aa11"]),
        ("0, 1", ["GPU-aa11", "GPU-aa22"]),
        ("0,7,1", ["GPU-aa11"]),
        ("0,0", ["GPU-aa11"]),
        ("GPU-bb", ["GPU-bb33"]),
        ("GPU-aa", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(driver, wanted, seen):
    for uuid in ("GPU-aa11", "GPU-aa22", "GPU-bb33"):
        driver.add(uuid=uuid)
    environment = {} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted}
    assert [gpu.uuid for gpu in nvml.visible_gpus(environment)] == seen


def test_the_machine_is_described_by_the_first_visible_card(driver):
    driver.add(name="NVIDIA GeForce RTX 4060", total_bytes=8 * GIB)
    driver.add(name="NVIDIA H200", total_bytes=141 * GIB)
    machine = nvml.detect_machine({"CUDA_VISIBLE_DEVICES": "1"})
    assert (machine.gpu_name, machine.gpu_memory_bytes) == ("NVIDIA H200", 141 * GIB)
    assert machine.num_cpus == nvml.usable_cpus()


def test_a_process_is_charged_with_all_its_entries_and_no_others(driver):
    driver.add(processes=[(10, 3 * GIB), (11, 5 * GIB), (10, 1 * GIB)])
    assert nvml.process_memory_bytes(10, 0) == 4 * GIB


def test_a_process_on_a_cut_up_card_is_charged_over_its_instances(driver):
    instances = [driver.instance(processes=[(10, GIB)]), driver.instance(processes=[(11, 2 * GIB)])]
    driver.add(instances=instances)
    assert nvml.process_memory_bytes(11, 0) == 2 * GIB


def test_an_empty_list_of_processes_is_no_figure_not_zero(driver):
    driver.add(processes=[])
    assert nvml.process_memory_bytes(os.getpid(), 0) is None


def test_a_process_whose_size_the_driver_does_not_know_has_no_figure(driver):
    driver.add(processes=[(10, None)])
    assert nvml.process_memory_bytes(10, 0) is None


def test_a_driver_that_refuses_the_list_gives_no_figure(driver):
    driver.add(refuses_process_list=True)
    assert nvml.process_memory_bytes(10, 0) is None


def test_processors_are_those_of_the_affinity_where_no_quota_is_set(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3, 4, 5}, raising=False)
    assert nvml.usable_cpus(tmp_path) == 6


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", 6), ("250000 100000", 3), ("10000 100000", 1), ("1600000 100000", 6)]
)
def test_a_quota_of_cgroup_2_limits_the_processors(tmp_path: Path, monkeypatch, quota, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(6)), raising=False)
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert nvml.usable_cpus(tmp_path) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("-1", 6), ("200000", 2)])
def test_a_quota_of_cgroup_1_limits_the_processors(tmp_path: Path, monkeypatch, quota, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(6)), raising=False)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    assert nvml.usable_cpus(tmp_path) == cpus


def test_asking_the_driver_loads_no_torch():
    code = "import sys, crack_sweeps.training.nvml as n; n.detect_machine(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.gpu
def test_the_real_driver_knows_the_card_that_torch_computes_on():
    import torch

    from crack_sweeps.training.device import choose_device

    device = choose_device("gpu-8gb")
    properties = torch.cuda.get_device_properties(device)
    first = nvml.visible_gpus()[0]
    assert first.uuid.endswith(str(properties.uuid))
    assert first.name == properties.name
    assert first.total_bytes >= properties.total_memory
