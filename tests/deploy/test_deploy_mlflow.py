"""An evaluation reaches the run's place in MLflow by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from trained_run import Workshop

import crack_sweeps
from crack_sweeps.deploy import attach, evaluate
from crack_sweeps.tracking.state import unsent

REPO = Path(__file__).resolve().parents[2]
ASK = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient("sqlite:///mlruns/mlflow.db")
run = client.get_run(sys.argv[1])
history = [metric.value for metric in client.get_metric_history(sys.argv[1], "test/crack_iou")]
files = [file.path for file in client.list_artifacts(sys.argv[1], "evaluations")]
print(json.dumps([run.info.status, run.data.metrics, history, files]))
"""


@pytest.mark.slow
def test_an_evaluation_is_sent_at_once_and_the_same_again_doubles_nothing(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "SWEEPS_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setattr(evaluate, "send", attach.send)
    first = crack_sweeps.evaluate_run("toy/0", split="test")
    assert first.run_id is not None
    assert crack_sweeps.evaluate_run(first.run_id[:8], split="test").run == first.run, "found by its MLflow id too"
    assert unsent(workshop.run.path) == 0
    asked = subprocess.run([sys.executable, "-c", ASK, first.run_id], capture_output=True, text=True, check=True)
    status, metrics, history, files = json.loads(asked.stdout)
    assert status == "FINISHED"
    assert metrics["test/crack_iou"] == first.metrics["crack_iou"]
    assert metrics["test/cldice_image"] == first.metrics["cldice_image"]
    assert metrics["best/crack_iou"] == workshop.record.metrics["val/crack_iou"]
    assert history == [first.metrics["crack_iou"]]
    assert sorted(files) == ["evaluations/set-test.json", "evaluations/set-test.parquet"]


def test_a_store_that_cannot_be_told_costs_no_scores(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    from crack_sweeps.errors import StoreError

    def refuse(_: object) -> None:
        raise StoreError("mlruns lies on a network file system", hint="set SWEEPS_STORE")

    monkeypatch.setattr(attach, "require_local", refuse)
    monkeypatch.setattr(evaluate, "send", attach.send)
    said: list[str] = []
    *_, record = evaluate.evaluating("toy/0", split="val", notify=said.append)
    assert record.metrics["num_images"] == 1
    assert record.run_id is None
    assert any("MLflow was not told. set SWEEPS_STORE" in line for line in said)
    assert (workshop.run.path / "evaluations" / "set-val.json").is_file()
