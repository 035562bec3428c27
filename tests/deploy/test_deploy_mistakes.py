"""What a new user types wrong for `evaluate` and `predict`: one line that names it, a hint that helps, exit 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trained_run import Workshop

from crack_sweeps.deploy import trained
from crack_sweeps.runs.events import EventLog
from crack_sweeps.training import checkpoints

MISTAKES = {
    "run": (["predict", "tyo", "in", "--out", "out"], "tyo", "the newest run is"),
    "study in place of a trial": (["predict", "toy", "in", "--out", "out"], "toy is a study", "toy/0"),
    "trial": (["predict", "toy/7", "in", "--out", "out"], "no trial 7", "toy/0"),
    "no such photos": (["predict", "toy/0", "nothing", "--out", "out"], "nothing", "folder of photos"),
    "folder without photos": (["predict", "toy/0", "empty", "--out", "out"], "empty: no photos in it", ".jpg"),
    "file that is no photo": (["predict", "toy/0", "in/notes.txt", "--out", "out"], "notes.txt", ".jpg"),
    "out is a file": (["predict", "toy/0", "in", "--out", "in/notes.txt"], "in/notes.txt", "folder"),
    "no out": (["predict", "toy/0", "in"], "--out", "sweeps COMMAND --help"),
    "no size": (["predict", "toy/0", "in", "--out", "out", "--mm-per-px", "0"], "--mm-per-px 0", "0.25"),
    "size that is no number": (["predict", "toy/0", "in", "--out", "out", "--mm-per-px", "nan"], "nan", "0.25"),
    "threshold": (["predict", "toy/0", "in", "--out", "out", "--threshold", "50"], "--threshold 50", "validation"),
    "profile": (["predict", "toy/0", "in", "--out", "out", "--profile", "gpu-8g"], "gpu-8g", "gpu-8gb"),
    "profile for a GPU": (
        ["predict", "toy/0", "in", "--out", "out", "--profile", "gpu-8gb"],
        "gpu-8gb",
        "--profile cpu",
    ),
    "run to score": (["evaluate", "tyo", "--split", "val"], "tyo", "the newest run is"),
    "no photos to score": (["evaluate", "toy/0"], "which photos", "--split val"),
    "split": (["evaluate", "toy/0", "--split", "tset"], "tset", "test"),
    "data": (["evaluate", "toy/0", "--data", "nothing"], "nothing", "folder"),
    "data without masks": (["evaluate", "toy/0", "--data", "in"], "without masks", ""),
    "setting of the model": (
        ["evaluate", "toy/0", "--split", "val", "training.epochs=3"],
        "training.epochs",
        "data.mask",
    ),
    "setting of own photos": (["evaluate", "toy/0", "--split", "val", "data.mask.threshold=9"], "data.mask", "--data"),
    "no such setting": (["evaluate", "toy/0", "--data", "in", "data.mask.treshold=9"], "treshold", "threshold"),
    "fine threshold": (["evaluate", "toy/0", "--split", "val", "--threshold", "0.123"], "0.123", "validation"),
}


def assert_one_line(answer: Any) -> None:
    assert answer.code == 2, answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    lines = answer.err.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("error: "))
    rest = lines[first + 1 :]
    assert len(rest) == 2, answer.err
    assert rest[0] == ""
    assert rest[1].startswith("hint: ")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_a_hint_and_writes_nothing(
    workshop: Workshop, sweeps: Callable, mistake: str
) -> None:
    Path("empty").mkdir()
    Path("in").mkdir()
    Path("in/notes.txt").touch()
    Path("in/a.jpg").touch()
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    arguments, named, remedy = MISTAKES[mistake]
    answer = sweeps(*arguments)
    assert_one_line(answer)
    assert named in answer.err
    assert remedy in answer.err
    after = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file() and path.name != ".lock"}
    assert after.keys() <= before.keys(), "a refused command wrote something"


def ended(workshop: Workshop, status: str | None) -> None:
    """The run as if it had ended so; None is killed in the middle."""
    events = workshop.run.events.read_bytes().splitlines(keepends=True)
    assert json.loads(events[-1])["kind"] == "ended"
    workshop.run.events.write_bytes(b"".join(events[:-1]))
    if status is not None:
        log = EventLog(workshop.run.events)
        log.append("ended", status=status, reason="because")
        log.close()


@pytest.mark.parametrize(
    ("status", "said", "remedy"),
    [
        (None, "did not finish", "the command that began study toy goes on with it"),
        ("KILLED", "did not finish", "study toy"),
        ("PRUNED", "was pruned", "sweeps run --trial toy/unet_small/0"),
        ("FAILED", "failed", "name a run that finished"),
    ],
)
@pytest.mark.parametrize("command", [["evaluate", "--split", "val"], ["predict", "a.jpg", "--out", "out"]])
def test_a_run_that_did_not_finish_says_what_to_do(
    workshop: Workshop, sweeps: Callable, command: list[str], status: str | None, said: str, remedy: str
) -> None:
    Path("a.jpg").touch()
    ended(workshop, status)
    answer = sweeps(command[0], "toy/0", *command[1:])
    assert_one_line(answer)
    assert said in answer.err
    assert remedy in answer.err


def test_a_single_run_that_did_not_finish_can_be_gone_on_with(workshop: Workshop, sweeps: Callable) -> None:
    ended(workshop, "KILLED")
    facts = json.loads(workshop.run.environment.read_bytes())
    workshop.run.environment.write_text(json.dumps({**facts, "study": None}))
    answer = sweeps("evaluate", workshop.run.name, "--split", "val")
    assert_one_line(answer)
    assert f"sweeps run --resume-from {workshop.run.name}" in answer.err


def test_a_run_in_training_is_left_alone(workshop: Workshop, sweeps: Callable) -> None:
    ended(workshop, None)
    with workshop.run.lock():
        answer = sweeps("evaluate", "toy/0", "--split", "val")
    assert_one_line(answer)
    assert "still being trained" in answer.err


def test_weights_that_are_gone_damaged_or_of_another_network_are_named(workshop: Workshop, sweeps: Callable) -> None:
    best = workshop.run.checkpoints / trained.BEST_WEIGHTS
    assert best.name == checkpoints.BEST
    content = best.read_bytes()
    best.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    answer = sweeps("evaluate", "toy/0", "--split", "val")
    assert_one_line(answer)
    assert f"{best}: damaged (its SHA-256" in answer.err
    best.write_bytes(content)
    config = workshop.run.config.read_text()
    assert "[16, 8, 8]" in config
    workshop.run.config.write_text(config.replace("[16, 8, 8]", "[24, 8, 8]"))
    answer = sweeps("evaluate", "toy/0", "--split", "val")
    assert_one_line(answer)
    assert "do not belong to the network" in answer.err
    workshop.run.config.write_text(config)
    best.unlink()
    answer = sweeps("evaluate", "toy/0", "--split", "val")
    assert_one_line(answer)
    assert f"{best}: the run's best weights are gone" in answer.err


@pytest.mark.parametrize("command", [["evaluate", "toy/0"], ["predict", "toy/0", "nothing", "--out", "out"]])
def test_a_mistake_is_told_before_torch_is_loaded(workshop: Workshop, command: list[str]) -> None:
    code = "import sys; from crack_sweeps.cli.app import run_command_line; code = run_command_line(sys.argv[1:]);"
    code += "print(code, 'torch' in sys.modules, 'cv2' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True, env=environ
    )
    assert done.stdout == "2 False False\n", done.stderr
