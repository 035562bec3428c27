"""A study of two arms, killed at any moment, ends with its trials and finalists as if nothing had happened."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from crack_sweeps.runs.events import read_events
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.ledger import read_rows
from crack_sweeps.study.store import Store, sqlite_url
from crack_sweeps.training.checkpoints import load

SCRIPT = Path(__file__).with_name("kill_a_study.py")
REPO = SCRIPT.parents[2]


@dataclass(frozen=True)
class Searched:
    """A study after its end: what must be equal, and how many deaths it took."""

    trials: Sequence[tuple[Any, ...]]
    deaths: int
    folder: StudyFolder


def search(
    here: Path, toy: str, photos: Path, *, seed: int, who: str, kills: int, mirror: bool = False, jobs: int = 1
) -> Searched:
    """Search the toy study to its end in this folder, through so many kills."""
    (here / "studies").mkdir(parents=True)
    (here / "studies" / "toy.yaml").write_text(toy)
    (here / "studies" / "other.yaml").write_text((REPO / "experiments" / "unet_small.yaml").read_text())
    environ = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    for name in ("MLFLOW_TRACKING_URI", "SWEEPS_STORE"):
        environ.pop(name, None)
    arguments = ["toy", photos, seed, who, kills, int(mirror), jobs]
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        cwd=here,
        env=environ,
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deaths = sum(map(int, done.stdout.splitlines()[-1].split()))
    folder = StudyFolder(here / "studies" / "toy")
    return Searched(stored(folder, here / "artifacts/outputs"), deaths, folder)


def stored(folder: StudyFolder, outputs: Path) -> list[tuple[Any, ...]]:
    """Of each trial: arm, number, parameters, state, value, intermediate values, seed, digest of the best weights."""
    study = folder.read_study()
    with closing(Store(sqlite_url(folder.database), folder.name, study.all_arms, study.spec.objective)) as store:
        trials = [trial for arm in study.all_arms for trial in store.trials(arm.name)]
    return [
        (
            trial.arm,
            trial.number,
            dict(trial.suggestion),
            trial.outcome,
            trial.value,
            dict(trial.intermediate),
            trial.facts["seed"],
            weights(outputs / trial.facts["run"]),
        )
        for trial in trials
    ]


def weights(run: Path) -> str:
    model = load(run / "checkpoints" / "best_model.pth")["model"]
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in model.values())).hexdigest()


def assert_whole(searched: Searched) -> None:
    """No trial lost, doubled or left running, in the store, the ledger, the journal and on disk."""
    keys = [(arm, number) for arm, number, *_ in searched.trials]
    for arm in {arm for arm, _ in keys}:
        numbers = [number for of_arm, number in keys if of_arm == arm]
        assert numbers == list(range(len(numbers)))
    assert all(trial[3] in ("complete", "pruned") for trial in searched.trials)
    assert sorted((row["arm"], row["number"]) for row in read_rows(searched.folder)) == sorted(keys)
    told = [(e["arm"], e["number"]) for e in read_events(searched.folder.events) if e["kind"] == "trial"]
    assert sorted(told) == sorted(keys)
    outputs = searched.folder.path.parents[1] / "artifacts/outputs"
    assert len([path for path in outputs.iterdir() if path.is_dir() and not path.name.startswith(".")]) == len(keys)


@pytest.fixture(scope="session")
def duel(toy: str) -> str:
    """The toy study with a baseline, and one more training of the best of both arms."""
    own = "{model.encoder_cfg.depth: 3, model.decoder_cfg.channels: [16, 8, 8]}"
    arms = f"baselines: [{{base: ./other.yaml, settings: {own}}}]"
    return toy.replace("finalists: {seeds: 0}", f"finalists: {{seeds: 1}}\n{arms}").replace("trials: 8", "trials: 4")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, duel: str, photos: Path) -> Searched:
    return search(tmp_path_factory.mktemp("undisturbed") / "here", duel, photos, seed=0, who="nobody", kills=0)


@pytest.mark.timeout(600)
def test_killed_fifteen_times_it_ends_with_the_same_trials_and_weights(
    tmp_path: Path, duel: str, photos: Path, undisturbed: Searched
) -> None:
    killed = search(tmp_path / "here", duel, photos, seed=1, who="both", kills=15)
    assert killed.deaths >= 15
    assert killed.trials == undisturbed.trials
    assert_whole(killed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("who", ["coordinator", "trials", "both"])
def test_killed_a_hundred_times_it_ends_with_the_same_trials_and_weights(
    tmp_path: Path, duel: str, photos: Path, undisturbed: Searched, who: str
) -> None:
    deaths = 0
    for seed in range(20):
        killed = search(tmp_path / str(seed), duel, photos, seed=100 + seed, who=who, kills=34)
        assert killed.trials == undisturbed.trials
        assert_whole(killed)
        deaths += killed.deaths
        if deaths >= 34:
            break
    assert deaths >= 34


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_at_once_and_killed_thirty_times_it_loses_doubles_and_leaves_nothing(
    tmp_path: Path, duel: str, photos: Path
) -> None:
    """Which suggestion follows which result depends on the clock here, so nothing is compared with another study."""
    killed = search(tmp_path / "here", duel, photos, seed=5, who="both", kills=30, jobs=2)
    assert killed.deaths >= 30
    assert_whole(killed)
    study = killed.folder.read_study()
    trained = {arm.name: [trial for trial in killed.trials if trial[0] == arm.name] for arm in study.all_arms}
    for arm in study.arms:
        assert len(trained[arm.name]) >= 4
        assert [trial[3] for trial in trained[arm.final().name]] == ["complete"]
    settings = [(arm, sorted(suggestion.items()), seed) for arm, _, suggestion, _, _, _, seed, _ in killed.trials]
    assert all(settings.count(each) == 1 for each in settings), "no settings trained twice with one seed"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_with_a_real_encoder_killed_twenty_times_it_ends_the_same(tmp_path: Path, duel: str, photos: Path) -> None:
    real = duel.replace("base: unet_small", "base: swinv2_hybrid")
    for line in ("model.encoder_cfg.depth: 3", "model.decoder_cfg.channels: [16, 8, 8]"):
        real = real.replace(f"  {line}\n", "")
    real = real.replace("  data.crop_px: 32", HYBRID)
    undisturbed = search(tmp_path / "undisturbed", real, photos, seed=0, who="nobody", kills=0)
    killed = search(tmp_path / "killed", real, photos, seed=7, who="both", kills=20)
    assert killed.deaths >= 20
    assert killed.trials == undisturbed.trials
    assert_whole(killed)


HYBRID = """\
  data.crop_px: 64
  model.encoder_cfg.img_size: 64
  model.encoder_cfg.model_name: swinv2_tiny_window8_256
  model.encoder_cfg.pretrained: false
  model.bottleneck_cfg.stride: 16
  model.bottleneck_cfg.atrous_rates: [1, 2]
  model.bottleneck_cfg.out_channels: 32"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_life_is_told_to_one_mlflow_tree(tmp_path: Path, duel: str, photos: Path, undisturbed: Searched) -> None:
    killed = search(tmp_path / "here", duel, photos, seed=3, who="coordinator", kills=4, mirror=True)
    assert killed.trials == undisturbed.trials
    code = (
        "from mlflow import MlflowClient; c = MlflowClient('sqlite:///mlruns/mlflow.db');"
        "e = c.get_experiment_by_name('toy'); rs = c.search_runs([e.experiment_id]);"
        "print(len(rs), sorted({r.info.status for r in rs}), sum('mlflow.parentRunId' in r.data.tags for r in rs))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "here", capture_output=True, text=True)
    num_runs, num_pruned = len(killed.trials), sum(trial[3] == "pruned" for trial in killed.trials)
    statuses = "['FINISHED', 'KILLED']" if num_pruned else "['FINISHED']"
    assert done.stdout.strip() == f"{num_runs + 1} {statuses} {num_runs}", done.stdout + done.stderr
