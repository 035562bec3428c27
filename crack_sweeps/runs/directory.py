"""The directory of one run: its name, its files, its lock, and how to find it again."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from crack_sweeps.errors import RunNotFound, UserError
from crack_sweeps.runs.events import first_event, read_events

OUTPUTS = Path("artifacts/outputs")
_NAME = re.compile(r"\.?\d{8}-\d{6}-.+-[0-9a-f]{6}(\.unfinished-\d+)?")  # the latter was put aside by its study
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED", "PRUNED"]


@dataclass(frozen=True)
class RunDirectory:
    """`artifacts/outputs/YYYYMMDD-HHMMSS-NAME-XXXXXX/`; the directory's name is the run's identity."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved experiment."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Machine, versions, commit, data, and where each setting came from."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """The record: what `sweeps run --json` prints."""
        return self.path / "metrics.json"

    @property
    def events(self) -> Path:
        """The append-only log that the trackers are fed from."""
        return self.path / "events.jsonl"

    @property
    def scores(self) -> Path:
        """Scores of each validation image."""
        return self.path / "scores.parquet"

    @property
    def test_scores(self) -> Path:
        """Scores of each test image; only a study's finalists have them."""
        return self.path / "scores_test.parquet"

    @property
    def curve(self) -> Path:
        """Pixels of all validation images by probability: precision and recall at any threshold."""
        return self.path / "curve.json"

    @property
    def test_curve(self) -> Path:
        """The same of the test images; only a study's finalists have it."""
        return self.path / "curve_test.json"

    @property
    def vram(self) -> Path:
        """Memory: forecast, measured peaks, and how they were measured."""
        return self.path / "vram.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of best and latest weights."""
        return self.path / "checkpoints"

    @property
    def predictions(self) -> Path:
        """Folder of pictures."""
        return self.path / "predictions"

    @property
    def logs(self) -> Path:
        """Folder of curves and of the mirror's own log."""
        return self.path / "logs"

    def lock(self) -> FileLock:
        """Held by the process that trains this run, for as long as it does."""
        return FileLock(self.path / ".lock")

    def is_running(self) -> bool:
        """Whether a living process holds the lock."""
        lock = self.lock()
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def has_begun(self) -> bool:
        """Whether it got as far as its first event, which everything that is told of it rests on."""
        try:
            if not (self.events.is_file() and self.environment.is_file()):
                return False
            created = first_event(self.events)
        except (ValueError, PermissionError):  # `sweeps doctor` tells
            return False
        return created is not None and created.get("kind") == "created"

    def status(self) -> Status:
        """How the run stands: its last end, or RUNNING if none was written since its last attempt began."""
        status: Status = "RUNNING"
        for event in read_events(self.events):
            if event["kind"] == "ended":
                status = event["status"]
            elif event["kind"] == "attempt":
                status = "RUNNING"
        return status

    def read_environment(self) -> dict[str, Any]:
        """Content of environment.json.

        Raises:
            UserError: The file is missing or damaged.
        """
        try:
            content: dict[str, Any] = json.loads(self.environment.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(f"{self.environment}: cannot be read ({error})") from error
        return content


def new_run_name(name: str) -> str:
    """A name for a run: two of the same second differ in their last six characters."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{secrets.token_hex(3)}"


def create_run_directory(name: str, *, outputs: Path = OUTPUTS) -> RunDirectory:
    """A new directory that nothing else has."""
    while True:
        try:
            return reserved_run_directory(new_run_name(name), outputs=outputs)
        except FileExistsError:
            continue


def reserved_run_directory(run_name: str, *, outputs: Path = OUTPUTS) -> RunDirectory:
    """The directory of a run whose name was chosen before.

    Raises:
        FileExistsError: It is there already.
    """
    path = outputs / run_name
    path.mkdir(parents=True)
    for folder in ("checkpoints", "predictions", "logs", "tensorboard"):
        (path / folder).mkdir()
    return RunDirectory(path)


def all_runs(*, outputs: Path = OUTPUTS) -> Iterator[RunDirectory]:
    """Runs that got as far as their first event, newest first."""
    yield from (run for run in _directories(outputs) if run.has_begun())


def leftovers(*, outputs: Path = OUTPUTS) -> Iterator[RunDirectory]:
    """Directories of runs that died before their first event, or whose files are damaged, newest first."""
    for run in _directories(outputs):
        if _NAME.fullmatch(run.name) and run.path.is_dir() and not run.has_begun():
            yield run


def _directories(outputs: Path) -> Iterator[RunDirectory]:
    if outputs.is_dir():
        yield from (RunDirectory(path) for path in sorted(outputs.iterdir(), key=lambda p: p.name, reverse=True))


def find_run(wanted: str, *, outputs: Path = OUTPUTS) -> RunDirectory:
    """The run that a name, a path, an MLflow run id or a unique prefix of either means.

    Raises:
        RunNotFound: None or several answer to it.
    """
    wanted = wanted.rstrip("/")
    if wanted == str(outputs / Path(wanted).name):
        wanted = Path(wanted).name
    matches = [
        run
        for run in all_runs(outputs=outputs)
        if run.name.startswith(wanted) or (mlflow_id(run) or "").startswith(wanted)
    ]
    exact = [run for run in matches if wanted in (run.name, mlflow_id(run))]
    if len(exact) == 1:
        return exact[0]
    if not wanted or not matches:
        newest = next(all_runs(outputs=outputs), None)
        hint = f"the newest run is {newest.name}" if newest else f"there is no run under {outputs} yet"
        raise RunNotFound(f"no run is named `{wanted}`", hint=hint)
    if len(matches) > 1:
        names = ", ".join(run.name for run in matches[:3])
        raise RunNotFound(
            f"`{wanted}` means {len(matches)} runs: {names}{', ...' if len(matches) > 3 else ''}",
            hint="type more of the name",
        )
    return matches[0]


def mlflow_id(run: RunDirectory) -> str | None:
    """MLflow's id of the run, once the mirror has made it there."""
    path = run.path / "tracking.json"
    if not path.is_file():
        return None
    run_id: str | None = json.loads(path.read_bytes()).get("run_id")
    return run_id
