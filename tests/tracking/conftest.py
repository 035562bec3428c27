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
            **{**trainer.told(), **({"pid": pid} if pid is not None else {})},
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


STUDY_TAGS = {"crack_sweeps.study": "toy"}


class Study(Run):
    """Writes a study's events as its coordinator does, and makes its trials' runs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.runs: list[Run] = []

    def created(self, **changes: Any) -> Study:
        name = self.path.name
        super().created(experiment=name.partition("@")[0], shown_as=f"study {name}", tags=STUDY_TAGS, **changes)
        return self

    def trial(self, number: int, *, seed: int = 0, parent: Run | None = None) -> Run:
        """Name a trial's run and begin it."""
        run = self.named(number, seed=seed)
        return self.begin(run, shown_as=f"{self.path.name}/{number}" + (f" seed {seed}" if seed else ""), parent=parent)

    def named(self, number: int, *, seed: int = 0) -> Path:
        """Name a trial's run, which is not there yet."""
        path = Path(f"artifacts/outputs/20261122-12000{number}-small-{seed:06x}")
        self.log.append("trial", arm="small", number=number, run=path.name, run_dir=path.as_posix())
        return path

    def begin(self, path: Path, *, shown_as: str, parent: Run | None = None, **changes: Any) -> Run:
        above = (parent or self).path
        self.runs.append(Run(path))
        return self.runs[-1].created(
            experiment=self.path.name.partition("@")[0],
            shown_as=shown_as,
            parent={"run": above.name, "dir": above.as_posix()},
            **changes,
        )

    def told(self, num_trials: int, best: float) -> Study:
        """The best so far."""
        self.log.append("metrics", metrics={"best/crack_iou": best, "num_trials": num_trials}, step=num_trials)
        return self

    def close(self) -> None:
        for run in [self, *self.runs]:
            run.log.close()


@pytest.fixture
def make_study() -> Iterator[Callable[..., Study]]:
    studies: list[Study] = []

    def make(name: str = "toy") -> Study:
        studies.append(Study(Path("studies") / name))
        return studies[-1]

    yield make
    for study in studies:
        study.close()


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

    def named(self, experiment: str) -> dict[str, Any]:
        """The experiment's runs by the name that they are shown under; a doubled one is an error."""
        runs = self.runs(experiment)
        by_name = {run.info.run_name: run for run in runs}
        assert len(by_name) == len(runs)
        return by_name

    def tree(self, experiment: str) -> dict[str, str | None]:
        """Each run's parent, by the names that they are shown under."""
        names = {run.info.run_id: run.info.run_name for run in self.runs(experiment)}
        parents = {
            run.info.run_name: run.data.tags.get("mlflow.parentRunId") for run in self.named(experiment).values()
        }
        return {name: names[parent] if parent else None for name, parent in parents.items()}

    def points(self, key: str, run: Any = None) -> list[tuple[int, float]]:
        history = self.client.get_metric_history((run or self.only_run()).info.run_id, key)
        return sorted((metric.step, metric.value) for metric in history)

    def artifacts(self, folder: str | None = None) -> set[str]:
        return {entry.path for entry in self.client.list_artifacts(self.only_run().info.run_id, folder)}


@pytest.fixture
def shown() -> Callable[[], Shown]:
    return Shown


@pytest.fixture
def dead_pid() -> int:
    return DEAD_PID
