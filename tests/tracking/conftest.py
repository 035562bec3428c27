"""A run directory with events, a store made once and copied, and a look into MLflow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crack_sweeps.runs.events import EventLog
from crack_sweeps.tracking.location import store_location
from crack_sweeps.tracking.quiet import quiet_mlflow
from crack_sweeps.tracking.state import Trainer

REPO = Path(__file__).resolve().parents[2]
DEAD_PID = 2**22 + 1  # above Linux's largest process number


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh store, made once: each making costs 2 s."""
    folder = tmp_path_factory.mktemp("store")
    code = "from crack_sweeps.tracking import location, store; store.prepare_store(location.store_location())"
    environ = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "SWEEPS_STORE")}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env={**environ, "PYTHONPATH": str(REPO)}, check=True)
    return folder / "mlruns"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no store named by the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("SWEEPS_STORE", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    return tmp_path


@pytest.fixture
def with_store(here: Path, made_store: Path) -> Path:
    """A working directory whose store exists."""
    shutil.copytree(made_store, here / "mlruns")
    return here


class Run:
    """Writes a run's events as a training does."""

    def __init__(self, path: Path) -> None:
        (path / "predictions").mkdir(parents=True)
        (path / "predictions" / "best.png").write_bytes(b"picture")
        (path / "config.yaml").write_text("name: small\n")
        self.path = path
        self.log = EventLog(path / "events.jsonl")

    def created(self, **changes: Any) -> Run:
        fields: dict[str, Any] = {
            "run": self.path.name,
            "experiment": "runs",
            "params": {"training.epochs": 2, "model.encoder_cfg.pretrained": False, "data.path": None},
            "tags": {"crack_sweeps.run": self.path.name, "crack_sweeps.commit": "abc123"},
            "dataset": {
                "name": "builtin", "digest": "d" * 64, "source": "x", "num_train": 3, "num_val": 2, "num_test": 1,
            },
        }  # fmt: skip
        self.log.append("created", **{**fields, **changes})
        return self

    def attempt(self, number: int = 1, *, pid: int | None = None, resumed_from_step: int | None = None) -> Run:
        trainer = Trainer.this_process()
        self.log.append(
            "attempt",
            attempt=number,
            pid=trainer.pid if pid is None else pid,
            process_started=trainer.started,
            host=trainer.host,
            resumed_from_step=resumed_from_step,
        )
        return self

    def epoch(self, epoch: int, **metrics: float) -> Run:
        figures = {"train/loss": 1 / epoch, "val/crack_iou": epoch / 10, **metrics}
        self.log.append("epoch", epoch=epoch, step=5 * epoch, metrics=figures)
        return self

    def finish(self, status: str = "FINISHED", reason: str | None = None) -> Run:
        self.log.append("ended", status=status, reason=reason)
        return self


@pytest.fixture
def make_run() -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def make(name: str = "20261122-120000-small-abcdef") -> Run:
        runs.append(Run(Path("artifacts/outputs") / name))
        return runs[-1]

    yield make
    for run in runs:
        run.log.close()


class Shown:
    """What MLflow shows."""

    def __init__(self) -> None:
        quiet_mlflow()
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=store_location().uri)

    def runs(self, experiment: str = "runs") -> list[Any]:
        found = self.client.get_experiment_by_name(experiment)
        return list(self.client.search_runs([found.experiment_id])) if found else []

    def only_run(self) -> Any:
        (run,) = self.runs()
        return run

    def points(self, key: str) -> list[tuple[int, float]]:
        history = self.client.get_metric_history(self.only_run().info.run_id, key)
        return sorted((metric.step, metric.value) for metric in history)

    def artifacts(self, folder: str | None = None) -> set[str]:
        return {entry.path for entry in self.client.list_artifacts(self.only_run().info.run_id, folder)}


@pytest.fixture
def shown() -> Callable[[], Shown]:
    return Shown


@pytest.fixture
def dead_pid() -> int:
    return DEAD_PID
