"""`sweeps run` from the outside: what it prints, what it leaves, how it is interrupted and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

TINY = [
    *("run", "unet_small", "--profile", "cpu", "--data", "photos"),
    *("model.encoder_cfg.depth=3", "model.decoder_cfg.channels=[16,8,8]", "data.crop_px=32", "data.num_workers=0"),
    *("training.batch_size=2", "evaluation.num_overlays=1"),
]
SHORT = [*TINY, "training.steps_per_epoch=2"]
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1"}


def sweeps_process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "crack_sweeps", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRON, **options)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_shows_spec_data_cost_and_plan_and_writes_nothing(sweeps: Callable, here: Path, photos: Path) -> None:
    before = files_below(here)
    answer = sweeps(*SHORT, "training.epochs=2", "--dry-run")
    assert answer.code == 0, answer.err
    for expected in (
        "architecture: unet",
        "6 train",
        "parameters",
        "peak memory",
        "fingerprint",
        "disk",
        "steps per epoch",
    ):
        assert expected in answer.out, expected
    plan = json.loads(sweeps(*SHORT, "training.epochs=2", "--dry-run", "--json").out)
    assert plan["cost"]["memory"]["total_bytes"] > 0
    assert (plan["epochs"], plan["steps_per_epoch"]) == (2, 2)
    assert files_below(here) == before


def test_a_run_leaves_everything_and_prints_one_object(here: Path, photos: Path) -> None:
    process = sweeps_process(*SHORT, "training.epochs=2", "--json")
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    record = json.loads(out)
    expected = ["run", "run_id", "run_dir", "status", "fingerprint", "threshold", "metrics", "vram", "duration_s"]
    assert set(expected) <= record.keys()
    assert record["status"] == "FINISHED"
    assert 0 < record["metrics"]["val/crack_iou"] <= 1
    assert "epoch   2/2" in err
    run = Path(record["run_dir"])
    assert run.name == record["run"]
    for name in (
        *("config.yaml", "metrics.json", "environment.json", "events.jsonl", "scores.parquet", "vram.json"),
        *("curve.json", "checkpoints/best_model.pth", "checkpoints/latest_model.pth", "logs/training.png"),
    ):
        assert (run / name).stat().st_size > 0, name
    assert list((run / "predictions").glob("*.png"))
    assert list((run / "tensorboard").iterdir())
    assert_in_mlflow(record)
    again = sweeps_process(*SHORT, "training.epochs=2", "--json", "--resume")
    out, err = again.communicate(timeout=250)
    assert again.returncode == 0, err
    assert json.loads(out) == record, "a finished run is printed, not trained again"


def assert_in_mlflow(record: dict[str, Any]) -> None:
    """FINISHED, with parameters, metrics, tags, data set and artifacts; asked in a process of its own."""
    code = (
        "import json, sys; from mlflow import MlflowClient; c = MlflowClient('sqlite:///mlruns/mlflow.db');"
        "r = c.get_run(sys.argv[1]); print(json.dumps([r.info.status, r.data.params, r.data.metrics, r.data.tags,"
        "[a.path for a in c.list_artifacts(sys.argv[1])], [d.dataset.digest for d in r.inputs.dataset_inputs]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, record["run_id"]], capture_output=True, text=True, check=True)
    status, params, metrics, tags, artifacts, digests = json.loads(done.stdout)
    assert status == "FINISHED"
    assert params["training.loss.focal_weight"] == "0.6"
    assert metrics["best/crack_iou"] == pytest.approx(record["metrics"]["val/crack_iou"])
    assert {
        "train/loss",
        "val/crack_iou",
        "val/crack_f1",
        "lr",
        "images_per_s",
        "memory/peak_rss_bytes",
    } <= metrics.keys()
    assert tags["crack_sweeps.run"] == record["run"]
    assert tags["memory_source"] == "rss"
    assert {"config.yaml", "overlays", "curves"} <= set(artifacts)
    assert len(digests) == 1


def wait_for(process: subprocess.Popen[str], word: str) -> str:
    """Read talk until a line holds the word."""
    assert process.stderr is not None
    said = ""
    while word not in said:
        line = process.stderr.readline()
        assert line, f"ended before {word!r}: {said}"
        said += line
    return said


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_sigterm_stores_a_checkpoint_and_the_resumed_run_ends_with_the_same_weights(here: Path, photos: Path) -> None:
    long = [*TINY, "training.epochs=4", "training.steps_per_epoch=12"]
    process = sweeps_process(*long)
    wait_for(process, "epoch   1/4")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 143, err
    assert "KILLED (SIGTERM)" in out
    assert "sweeps run --resume-from" in err
    resumed = sweeps_process(*long, "--resume", "--json")
    out, err = resumed.communicate(timeout=250)
    assert resumed.returncode == 0, err
    record = json.loads(out)
    assert len(list(Path("artifacts/outputs").iterdir())) == 1
    whole = sweeps_process(*long, "--json")
    undisturbed = json.loads(whole.communicate(timeout=250)[0])
    weights = [
        torch.load(Path(r["run_dir"]) / "checkpoints/latest_model.pth", weights_only=True)["model"]
        for r in (record, undisturbed)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert record["metrics"] == undisturbed["metrics"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_each_signal_has_its_exit_code(here: Path, photos: Path, number: signal.Signals, code: int) -> None:
    process = sweeps_process(*SHORT, "training.epochs=50")
    wait_for(process, "epoch   1/50")
    process.send_signal(number)
    err = process.communicate(timeout=250)[1]
    assert process.returncode == code, err
    (run,) = Path("artifacts/outputs").iterdir()
    assert json.loads((run / "metrics.json").read_text())["status"] == "KILLED"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_second_interrupt_kills_at_once(here: Path, photos: Path) -> None:
    process = sweeps_process(*TINY, "training.epochs=50", "training.steps_per_epoch=5000")
    wait_for(process, "training ")
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    wait_for(process, "once more kills")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sixteen_runs_at_once_on_a_fresh_store_all_finish(here: Path, photos: Path) -> None:
    processes = [sweeps_process(*SHORT, "training.epochs=1", "--json", "--seed", str(seed)) for seed in range(16)]
    records = [json.loads(process.communicate(timeout=1500)[0]) for process in processes]
    assert {record["status"] for record in records} == {"FINISHED"}
    assert len({record["run"] for record in records}) == 16
    subprocess.run([sys.executable, "-m", "crack_sweeps", "doctor", "--fix"], check=True, env=ENVIRON)
    code = (
        "from mlflow import MlflowClient; c = MlflowClient('sqlite:///mlruns/mlflow.db');"
        "print([r.info.status for r in c.search_runs([c.get_experiment_by_name('runs').experiment_id])])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("FINISHED") == 16
    assert done.stdout.count("RUNNING") == 0


def test_an_estimate_says_what_the_whole_process_will_hold(sweeps: Callable) -> None:
    told = sweeps("estimate", "unet_small", "--profile", "cpu")
    assert "process in all" in told.out
    assert "a rule of thumb until runs on this device are measured" in told.out
    cost = json.loads(sweeps("estimate", "unet_small", "--profile", "cpu", "--json").out)
    assert cost["process_bytes"] > cost["memory"]["total_bytes"] > 0
    assert cost["calibration_runs"] == 0
