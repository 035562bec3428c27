"""A terminal that is closed under a training: a checkpoint and a KILLED run, or nothing at all under `nohup`."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("terminals of POSIX", allow_module_level=True)

LONG = [
    *("-m", "crack_sweeps", "run", "unet_small", "--profile", "cpu", "--data", "photos", "data.crop_px=32"),
    *("model.encoder_cfg.depth=3", "model.decoder_cfg.channels=[16,8,8]", "training.batch_size=2"),
    *("evaluation.num_overlays=1", "training.steps_per_epoch=12"),
]
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb", "COLUMNS": "200"}


def the_run() -> Path:
    (run,) = Path("artifacts/outputs").iterdir()
    return run


def status(run: Path) -> str:
    return str(json.loads((run / "metrics.json").read_text())["status"])


def steps_stored(run: Path) -> int:
    import torch

    progress = torch.load(run / "checkpoints" / "latest_model.pth", weights_only=True)["progress"]
    return int(progress["epoch"]) * 12 + int(progress["step_in_epoch"])


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_closed_terminal_leaves_a_checkpoint_of_that_moment_and_a_killed_run(
    here: Path, photos: Path, num_workers: int
) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(
            sys.executable, [sys.executable, *LONG, "training.epochs=200", f"data.num_workers={num_workers}"], ENVIRON
        )
    said = b""
    while b"epoch   2/200" not in said:
        said += os.read(terminal, 4096)
    os.close(terminal)  # its session gets SIGHUP, and each write to it is an error from now on
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    run = the_run()
    assert (code, status(run)) == (129, "KILLED"), (run / "events.jsonl").read_text()[-2000:]
    num_epochs = sum(json.loads(line)["kind"] == "epoch" for line in (run / "events.jsonl").read_text().splitlines())
    assert steps_stored(run) >= 12 * num_epochs >= 24


@pytest.mark.slow
def test_talk_into_a_pipe_that_nobody_reads_any_more_ends_nothing(here: Path, photos: Path) -> None:
    process = subprocess.Popen([sys.executable, *LONG, "training.epochs=4"], stderr=subprocess.PIPE, env=ENVIRON)
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(250) == 0
    assert status(the_run()) == "FINISHED"


@pytest.mark.slow
def test_under_nohup_a_training_goes_on_when_its_terminal_is_closed(here: Path, photos: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does for the program that it starts
    try:
        process = subprocess.Popen(
            [sys.executable, *LONG, "training.epochs=4"], stderr=subprocess.PIPE, text=True, env=ENVIRON,
            start_new_session=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.stderr is not None
    while "epoch   1/4" not in process.stderr.readline():
        pass
    os.killpg(process.pid, signal.SIGHUP)
    process.communicate(timeout=250)
    assert process.returncode == 0
    assert status(the_run()) == "FINISHED"
