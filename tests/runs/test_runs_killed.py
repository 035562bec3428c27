"""A training that is killed at any moment and resumed ends as if nothing had happened."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.events import read_events
from crack_sweeps.runs.record import read_record
from crack_sweeps.tracking.state import unsent
from crack_sweeps.training.checkpoints import load

SCRIPT = Path(__file__).with_name("kill_a_training.py")
REPO = SCRIPT.parents[2]
TIMED = ("images_per_s", "epoch_s", "memory/peak_rss_bytes")  # what a clock or the system decides


def train(
    here: Path, photos: Path, *, seed: int = 0, workers: int = 0, mirror: bool = False, longest: int = 0
) -> tuple[int, RunDirectory]:
    """The number of deaths and the one run that was left by a training with lives of at most `longest` moments."""
    here.mkdir(exist_ok=True)
    environ = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    arguments = [photos, seed, workers, int(mirror), longest]
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        cwd=here,
        env=environ,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deaths, *finished = done.stdout.splitlines()[-1].split()
    whole = [RunDirectory(here / "artifacts/outputs" / name) for name in finished]
    runs = [run for run in whole if run.has_begun()]
    assert len(runs) == 1, "a resume started a second run"
    return int(deaths), runs[0]


def assert_alike(one: RunDirectory, other: RunDirectory) -> None:
    """Weights bit for bit, each epoch told once with the same figures, the same record."""
    for name in ("best_model.pth", "latest_model.pth"):
        ours, theirs = load(one.checkpoints / name), load(other.checkpoints / name)
        assert ours["epoch"] == theirs["epoch"]
        for key, tensor in ours["model"].items():
            assert torch.equal(tensor, theirs["model"][key]), f"{name}: {key}"
    assert epochs(one) == epochs(other)
    a, b = read_record(one), read_record(other)
    assert (a.metrics, a.threshold, a.best_epoch, a.status) == (b.metrics, b.threshold, b.best_epoch, b.status)


def epochs(run: RunDirectory) -> list[tuple[int, dict[str, Any]]]:
    told = [event for event in read_events(run.events) if event["kind"] == "epoch"]
    return [(e["epoch"], {k: v for k, v in e["metrics"].items() if k not in TIMED}) for e in told]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> RunDirectory:
    return train(tmp_path_factory.mktemp("undisturbed"), photos)[1]


@pytest.mark.parametrize("seed", [1])
def test_killed_again_and_again_it_ends_with_the_same_weights(
    here: Path, photos: Path, undisturbed: RunDirectory, seed: int
) -> None:
    deaths, run = train(here, photos, seed=seed, longest=40)
    assert deaths >= 3
    assert_alike(run, undisturbed)
    kinds = [event["kind"] for event in read_events(run.events)]
    assert (kinds.count("created"), kinds.count("metrics"), kinds.count("model")) == (1, 1, 1)
    assert kinds.count("attempt") >= 2


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_many_moments_with_any_number_of_workers(
    here: Path, photos: Path, undisturbed: RunDirectory, seed: int, workers: int
) -> None:
    deaths, run = train(here, photos, seed=100 + seed, workers=workers, longest=30 + 8 * seed)
    assert deaths >= 2
    assert_alike(run, undisturbed)


@pytest.mark.slow
def test_each_moment_of_a_training_is_survived(here: Path, photos: Path, undisturbed: RunDirectory) -> None:
    """Lives of exactly 1, 2, 3 ... moments would never end, so the first life is cut at each, the rest at random."""
    for longest in (26, 27, 28):
        deaths, run = train(here / str(longest), photos, seed=longest, longest=longest)
        assert deaths >= 5
        assert_alike(run, undisturbed)


@pytest.mark.slow
def test_every_life_is_told_to_one_mlflow_run(here: Path, photos: Path, undisturbed: RunDirectory) -> None:
    deaths, run = train(here, photos, seed=3, mirror=True, longest=40)
    assert deaths >= 2
    assert_alike(run, undisturbed)
    deadline = time.monotonic() + 120  # the last life may have died after its last event, and its mirror outlives it
    while unsent(run.path) and time.monotonic() < deadline:
        time.sleep(0.2)
    code = (
        "from mlflow import MlflowClient; c = MlflowClient('sqlite:///mlruns/mlflow.db');"
        "rs = c.search_runs([e.experiment_id for e in c.search_experiments()]);"
        "print(len(rs), rs[0].info.status, len(c.get_metric_history(rs[0].info.run_id, 'train/loss')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "FINISHED", "3"], done.stdout
