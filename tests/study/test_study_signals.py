"""Signals at a study's real process: the first stops it with checkpoints, the second at once; each time it goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from crack_sweeps.runs.events import read_events
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import Trial
from crack_sweeps.study.ledger import read_rows
from crack_sweeps.study.store import Store, sqlite_url

REPO = Path(__file__).resolve().parents[2]
EPOCHS = 12
PATIENCE_S = 240.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]


class Search:
    """`sweeps study toy` in a process group of its own, as a shell starts it."""

    def __init__(self, here: Path, photos: Path) -> None:
        environ = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
        for name in ("MLFLOW_TRACKING_URI", "SWEEPS_STORE"):
            environ.pop(name, None)
        flags = ["--data", str(photos), "--profile", "none", "--trials", "2", "--jobs", "1"]
        self.said = here / "said"
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "crack_sweeps", "study", "toy", f"training.epochs={EPOCHS}", *flags],
                cwd=here,
                env=environ,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, text: str) -> None:
        """Wait for it to say this."""
        wait_for(lambda: text in self.said.read_text() or self.process.poll() is not None)
        assert text in self.said.read_text(), self.said.read_text()

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


@pytest.fixture
def begin(here: Path, photos: Path) -> Iterator[Callable[[], Search]]:
    toy = here / "studies" / "toy.yaml"
    toy.write_text(toy.read_text().replace("{name: hyperband, min_epochs: 1, reduction_factor: 2}", "{name: none}"))
    begun: list[Search] = []

    def start() -> Search:
        begun.append(Search(here, photos))
        return begun[-1]

    yield start
    for search in begun:
        with contextlib.suppress(ProcessLookupError):  # trials outlive a coordinator that failed a test
            os.killpg(search.process.pid, signal.SIGKILL)


def stored() -> list[Trial]:
    folder = StudyFolder(Path("studies/toy"))
    study = folder.read_study()
    with closing(Store(sqlite_url(folder.database), folder.name, study.all_arms, study.spec.objective)) as store:
        return store.trials(study.arms[0].name)


def trainers() -> list[int]:
    """Processes that have worked on the first trial and live."""
    events = read_events(Path("artifacts/outputs") / stored()[0].facts["run"] / "events.jsonl")
    return [event["pid"] for event in events if event["kind"] == "attempt" and psutil.pid_exists(event["pid"])]


def assert_it_goes_on_to_the_end(begin: Callable[[], Search], epochs_before: int) -> None:
    again = begin()
    assert again.end() == 0, again.said.read_text()
    assert "toy/0 goes on after epoch" in again.said.read_text()
    assert f"toy/0 epoch 1/{EPOCHS}" not in again.said.read_text(), "what was stored is not trained again"
    trials = stored()
    assert [(trial.outcome, len(trial.intermediate)) for trial in trials] == [("complete", EPOCHS)] * 2
    assert epochs_before < EPOCHS
    assert [row["number"] for row in read_rows(StudyFolder(Path("studies/toy")))] == [0, 1]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_first_signal_stores_a_checkpoint_and_the_same_command_goes_on(
    begin: Callable[[], Search], name: str, code: int
) -> None:
    search = begin()
    search.until("toy/0 epoch 2/")
    number = getattr(signal, name)
    if name == "SIGINT":
        os.killpg(search.process.pid, number)  # Ctrl-C reaches all of a terminal's processes
    else:
        search.process.send_signal(number)
    assert search.end() == code, search.said.read_text()
    assert f"KILLED ({name})" in search.said.read_text()
    assert not trainers()
    first = stored()[0]
    assert first.outcome == "running"
    assert (Path("artifacts/outputs") / first.facts["run"] / "checkpoints").is_dir()
    assert_it_goes_on_to_the_end(begin, len(first.intermediate))


def test_the_second_signal_ends_it_at_once_and_the_same_command_goes_on(begin: Callable[[], Search]) -> None:
    search = begin()
    search.until("toy/0 epoch 2/")
    for pid in trainers():
        os.kill(pid, signal.SIGSTOP)  # so that the first signal alone would take a minute
    search.process.send_signal(signal.SIGINT)
    search.until("once more kills at once")
    began = time.monotonic()
    search.process.send_signal(signal.SIGINT)
    assert search.end() == -signal.SIGINT
    assert time.monotonic() - began < 10
    first = stored()[0]
    assert first.outcome == "running"
    assert_it_goes_on_to_the_end(begin, len(first.intermediate))
