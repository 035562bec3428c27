"""A study's disk is planned by hand-checked sums, and nothing is launched into the reserve."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crack_sweeps.study.disk import RUN_FILES_BYTES, checkpoint_bytes, disk_shortage, ended_bytes, study_disk
from crack_sweeps.training.footprint import MemoryForecast

GB = 1_000_000_000


def test_a_study_of_three_by_hand() -> None:
    # Two have ended with best and last weights; one runs with three states and its best weights.
    plan = study_disk(weights_bytes=100, state_bytes=300, trials=3, jobs=1)
    assert plan.peak_bytes - 3 * RUN_FILES_BYTES == 2 * 200 + (3 * 300 + 100)
    assert plan.final_bytes - 3 * RUN_FILES_BYTES == 3 * 200


def test_no_more_run_at_once_than_there_are() -> None:
    assert study_disk(100, 300, trials=2, jobs=8) == study_disk(100, 300, trials=2, jobs=2)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 1000), st.integers(1, 64))
def test_the_peak_is_never_below_the_end_and_grows_with_jobs(weights: int, more: int, trials: int, jobs: int) -> None:
    plan = study_disk(weights, weights + more, trials, jobs)
    assert plan.peak_bytes >= plan.final_bytes == trials * ended_bytes(weights)
    assert study_disk(weights, weights + more, trials, jobs + 1).peak_bytes >= plan.peak_bytes


def test_file_sizes_follow_from_a_forecast() -> None:
    forecast = MemoryForecast(100, 90, 180, 95, 1000, 50, 0, 1515)
    assert checkpoint_bytes(forecast) == (100, 100 + 180 + 95)


@pytest.mark.slow
def test_the_files_of_a_training_are_no_larger_than_planned(tmp_path: Path) -> None:
    import torch

    from crack_sweeps.models.build import build_model
    from crack_sweeps.specs.experiment import Experiment
    from crack_sweeps.training.forecast import forecast
    from crack_sweeps.training.optimiser import build_optimizer

    encoder = {"model_name": "resnet18", "pretrained": False}
    spec = Experiment.model_validate({"name": "x", "model": {"architecture": "unet", "encoder_cfg": encoder}})
    model = build_model(spec.model)
    optimizer = build_optimizer(model, spec.training)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.save(model.state_dict(), tmp_path / "weights")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state")
    weights, state = checkpoint_bytes(forecast(spec, model=model))
    assert (tmp_path / "weights").stat().st_size == pytest.approx(weights, rel=0.01)
    assert (tmp_path / "state").stat().st_size == pytest.approx(state, rel=0.01)


def test_room_for_the_need_and_the_reserve_allows_a_launch(tmp_path: Path) -> None:
    assert disk_shortage(tmp_path, 2 * GB, free=lambda _: 7 * GB) is None
    assert disk_shortage(tmp_path, 0, free=lambda _: 5 * GB) is None


def test_a_byte_less_forbids_it_in_a_sentence_with_all_three_figures(tmp_path: Path) -> None:
    why = disk_shortage(tmp_path, 2 * GB, free=lambda _: 7 * GB - 1)
    assert why == f"the disk that holds {tmp_path} has 7.0 GB free, but 2.0 GB are needed and 5.0 GB must stay free"
    why = disk_shortage(tmp_path, free=lambda _: 1 * GB)
    assert why == f"the disk that holds {tmp_path} has 1.0 GB free, but 5.0 GB must stay free"


def test_a_folder_that_is_not_there_yet_is_asked_for_by_the_one_above(tmp_path: Path) -> None:
    asked: list[Path] = []
    assert disk_shortage(tmp_path / "a" / "b", free=lambda path: asked.append(path) or 9 * GB) is None
    assert asked == [tmp_path]


def test_the_real_disk_answers(tmp_path: Path) -> None:
    assert disk_shortage(tmp_path, reserve_bytes=0) is None
    assert "must stay free" in (disk_shortage(tmp_path, reserve_bytes=10**18) or "")
