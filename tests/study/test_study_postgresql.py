"""A study in a real PostgreSQL, whose server dies and comes back."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crack_sweeps.study.history import Trial
from crack_sweeps.study.updates import EpochDone

if TYPE_CHECKING:
    from stand_in_study import Bench

OWNER = "postgres" if hasattr(os, "getuid") and os.getuid() == 0 else None  # the server refuses to run as root


@dataclass(frozen=True)
class Server:
    """A server of the tests' own."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://sweeps@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *arguments: str) -> None:
        command = [self.programs / program, "-D", self.folder / "data", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=OWNER, cwd=self.folder, timeout=60)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self.run("pg_ctl", "-o", options, "-l", str(self.folder / "log"), "-w", "start")

    def crash(self) -> None:
        self.run("pg_ctl", "-m", "immediate", "stop")


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg")
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    if found is None:
        pytest.skip("no PostgreSQL server is installed (Debian: postgresql)")
    with tempfile.TemporaryDirectory(prefix="pg-") as name, socket.socket() as probe:  # a socket's path must be short
        folder = Path(name)
        if OWNER is not None:
            shutil.chown(folder, OWNER)
        probe.bind(("127.0.0.1", 0))
        server = Server(Path(found).parent, folder, probe.getsockname()[1])
        probe.close()
        server.run("initdb", "-A", "trust", "-U", "sweeps", "--no-sync")
        server.start()
        yield server
        server.crash()


def told(trials: list[Trial]) -> list[Trial]:
    """Trials without the names of their runs, which hold the time."""
    return [replace(trial, facts={**trial.facts, "run": None}) for trial in trials]


@pytest.mark.slow
def test_a_server_that_crashes_during_a_study_costs_nothing(bench: Bench, server: Server) -> None:
    def objective(experiment: Any, epoch: int) -> float:
        return 0.1 * epoch + 0.01 * experiment.training.loss.dice_weight

    study = bench.resolve(trials=6)
    comes_back: list[threading.Timer] = []

    def hear(update: Any) -> None:
        if isinstance(update, EpochDone) and update.trial.number in (1, 4) and update.epoch == 2:
            server.crash()
            comes_back.append(threading.Timer(1.5, server.start))
            comes_back[-1].start()

    _, trials, folder = bench.run(study, objective, on_update=hear, storage=server.url)
    for timer in comes_back:
        timer.join()
    assert len(comes_back) == 2
    assert len(trials.orders) == 6  # no trial died with the server
    stored = bench.trials(study, folder, storage=server.url)
    shutil.rmtree(folder.path)
    _, _, folder = bench.run(study, objective)
    assert told(stored) == told(bench.trials(study, folder))
