"""Start a mirror beside a training or a study, as a process of its own that no signal to those reaches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from crack_sweeps.runs.events import read_events
from crack_sweeps.tracking.state import EVENTS, Trainer

LOG = Path("logs") / "mirror.log"
_POLL_S = 0.1


@dataclass(frozen=True)
class MirrorHandle:
    """A mirror that was started."""

    pid: int
    process: subprocess.Popen[bytes]

    def wait(self, timeout_s: float) -> bool:
        """Wait until everything was sent.

        Returns:
            Whether it was. False: the mirror is still trying (and goes on doing so), or it gave up; the events stay in
            the run directory either way, and `send` completes them later.
        """
        deadline = time.monotonic() + timeout_s
        while (code := self.process.poll()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return code == 0


def start_mirror(run_dir: Path) -> MirrorHandle:
    """Follow the run's events into MLflow and TensorBoard until it has ended. Returns at once.

    The mirror writes to `logs/mirror.log` only, has its own session (Ctrl-C and a closed terminal stay with the
    training) and a low priority. Whoever starts it is taken for the run's process until an attempt names another.
    """
    return _start(run_dir, "--follow")


def start_study_mirror(study_dir: Path) -> MirrorHandle:
    """The same for a study: one process follows its events and those of every run that they name.

    It ends when the study has ended, or its coordinator and the runs' processes are dead, and everything is sent.
    """
    return _start(study_dir, "--study")


def start_sending(run_dir: Path) -> MirrorHandle:
    """Send what is new of a run that has ended, such as an evaluation; it ends when that is done or in vain."""
    return _start(run_dir)


def _start(folder: Path, *mode: str) -> MirrorHandle:
    log = folder / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    trainer = Trainer.this_process()
    command = [sys.executable, "-m", "crack_sweeps.tracking.mirror", os.fspath(folder), *mode]
    command += ["--trainer", json.dumps(trainer.told()), "--first-seq", str(_num_events(folder))]
    # One thread and no GPU: the mirror converts weights once and must take nothing from the training.
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with log.open("ab") as output:
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS
            flags |= subprocess.BELOW_NORMAL_PRIORITY_CLASS
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, creationflags=flags
            )
        else:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, start_new_session=True
            )
    _STARTED.append(process)
    return MirrorHandle(pid=process.pid, process=process)


_STARTED: list[subprocess.Popen[bytes]] = []  # kept: a Popen that is collected while its child lives warns about it


def _num_events(folder: Path) -> int:
    """Number of the next event: attempts and ends before it are not of the process that starts a mirror now."""
    return sum(1 for _ in read_events(folder / EVENTS))
