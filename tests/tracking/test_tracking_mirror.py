"""The mirror as a process of its own: it follows, dies, is started again, and sees the training die."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crack_sweeps.tracking import mirror, patience
from crack_sweeps.tracking.feed import Feed
from crack_sweeps.tracking.quiet import quiet_mlflow
from crack_sweeps.tracking.start import start_mirror
from crack_sweeps.tracking.state import Trainer, read_state, unsent


def follow(run: Any, starter: Trainer | None = None, **settings: Any) -> None:
    """The mirror's loop in this process, without its start."""
    mirror.follow(run.path, starter or Trainer.this_process(), poll_s=0.01, **settings)


def test_a_mirror_follows_a_run_to_its_end_and_is_done_with_it(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    run = make_run().created()
    handle = start_mirror(run.path)
    assert not handle.wait(0.0), "the run has not ended"
    if hasattr(os, "getsid"):
        assert os.getsid(handle.pid) == handle.pid, "Ctrl-C in the terminal does not reach it"
    run.attempt().epoch(1).epoch(2).finish()
    assert handle.wait(120)
    assert shown().only_run().info.status == "FINISHED"
    assert shown().points("val/crack_iou") == [(1, 0.1), (2, 0.2)]
    assert "everything was sent" in (run.path / "logs" / "mirror.log").read_text()


@pytest.mark.slow
def test_a_mirror_killed_at_random_moments_and_started_again_doubles_nothing(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    run = make_run().created().attempt()
    chance = random.Random(0)
    for epoch in range(1, 9):
        handle = start_mirror(run.path)
        until = time.monotonic() + chance.uniform(1.0, 8.0)
        while time.monotonic() < until:
            time.sleep(0.05)
        run.epoch(epoch)
        time.sleep(chance.uniform(0.0, 0.5))
        os.kill(handle.pid, signal.SIGKILL)
        assert not handle.wait(10)
    handle = start_mirror(run.path)
    run.finish()
    assert handle.wait(120)
    assert shown().only_run().info.status == "FINISHED"
    assert shown().points("val/crack_iou") == [(epoch, epoch / 10) for epoch in range(1, 9)]


def test_a_training_that_dies_ends_the_mirror_and_the_run_is_killed(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as training:
        run = make_run().created().attempt(pid=training.pid).epoch(1)
        training.kill()
        training.wait()
        follow(run)
    assert shown().only_run().info.status == "KILLED"
    assert shown().points("val/crack_iou") == [(1, 0.1)]


def test_a_training_that_dies_before_its_first_attempt_ends_the_mirror_too(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any], dead_pid: int
) -> None:
    this = Trainer.this_process()
    follow(make_run().created(), Trainer(dead_pid, this.started, this.host))
    assert shown().only_run().info.status == "KILLED"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a start is known by its date alone")
@pytest.mark.parametrize("fields", [(), ("process_boot", "process_ticks")], ids=["now", "told by date alone"])
def test_a_step_of_the_clock_is_not_the_training_s_death(
    here: Path, make_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, fields: tuple[str, ...]
) -> None:
    import psutil

    this = Trainer.this_process()
    run = make_run().created()
    told = {key: value for key, value in this.told().items() if key not in fields}
    run.log.append("attempt", attempt=1, resumed_from_step=None, **told)
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600)
    feed = Feed(run.path, None, starter=this)
    assert not feed.is_dead_after_reading()
    assert feed.trainer == this


def test_the_mirror_of_a_resumed_run_does_not_take_the_old_end_for_the_new(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run().created().attempt().epoch(1).finish("KILLED", "SIGINT")
    pauses = 0

    def resume_meanwhile(_: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 1:
            assert shown().only_run().info.status == "KILLED"
            run.attempt(2)
        elif pauses == 2:
            assert shown().only_run().info.status == "RUNNING"
            run.epoch(2).finish()

    monkeypatch.setattr(mirror.time, "sleep", resume_meanwhile)
    follow(run, first_seq=4)
    assert pauses == 2
    assert shown().only_run().info.status == "FINISHED"


def test_the_mirror_outlives_a_server_that_is_down_at_the_start_and_in_the_middle(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_mlflow()
    from mlflow import MlflowClient

    run = make_run().created().attempt()
    log_batch, get_experiment_by_name = MlflowClient.log_batch, MlflowClient.get_experiment_by_name
    outages: list[str] = []

    def down_at_first(self: Any, name: str) -> Any:
        if outages.count("start") < 2:
            outages.append("start")
            raise ConnectionError("no route")
        return get_experiment_by_name(self, name)

    def down_in_the_middle(self: Any, *arguments: Any, **named: Any) -> Any:
        result = log_batch(self, *arguments, **named)
        if named.get("metrics") and outages.count("middle") < 2:
            outages.append("middle")
            raise ConnectionError("the answer was lost")
        return result

    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", down_at_first)
    monkeypatch.setattr(MlflowClient, "log_batch", down_in_the_middle)
    run.epoch(1).epoch(2).finish()
    follow(run)
    assert outages == ["start", "start", "middle", "middle"]
    assert shown().only_run().info.status == "FINISHED"
    assert shown().points("val/crack_iou") == [(1, 0.1), (2, 0.2)]


def test_the_mirror_gives_up_some_time_after_the_end_and_leaves_the_events(
    here: Path, make_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)
    run = make_run().created().attempt().finish()
    with pytest.raises(mirror.MirrorError, match="gave up"):
        follow(run, give_up_s=0.1)
    assert unsent(run.path) == 3
    assert read_state(run.path) is None


def test_two_mirrors_of_one_run_do_not_work_at_once(with_store: Path, make_run: Callable[..., Any]) -> None:
    from filelock import FileLock

    run = make_run().created()
    (run.path / "logs").mkdir()
    with (
        FileLock(run.path / mirror.LOCK),
        pytest.raises(mirror.MirrorError, match="sending this run right now"),
    ):
        mirror.send(run.path, patience_s=0.05)


def test_the_ui_is_a_command_on_loopback_and_refuses_a_server(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crack_sweeps.errors import StoreError
    from crack_sweeps.tracking.ui import HOST, ui_command

    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port = int(listener.getsockname()[1])
    assert ui_command(port)[-2:] == ["--port", str(port)]
    assert HOST == "127.0.0.1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host")
    with pytest.raises(StoreError, match=r"http://\*\*\*@host"):
        ui_command(port)


def test_the_ui_opens_on_the_trainings_of_the_experiment_that_ran_last(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    from crack_sweeps.tracking.connection import StoreConnection
    from crack_sweeps.tracking.ui import _newest_experiment, page

    assert _newest_experiment(StoreConnection()) is None
    assert page(5001, None) == "http://127.0.0.1:5001/#/experiments?workflowType=machine_learning"
    for name, experiment in (("20261122-120000-a-abcdef", "older"), ("20261122-120001-b-abcdef", "newer")):
        mirror.send(make_run(name).created(experiment=experiment).attempt().finish().path)
        time.sleep(0.002)  # MLflow orders runs by the millisecond
    newest = _newest_experiment(StoreConnection())
    assert newest == shown().client.get_experiment_by_name("newer").experiment_id
    assert page(5001, newest) == f"http://127.0.0.1:5001/#/experiments/{newest}/runs?workflowType=machine_learning"


def test_a_browser_is_opened_on_a_desktop_and_never_over_ssh_or_into_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    from crack_sweeps.tracking.ui import has_desktop

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert has_desktop({"DISPLAY": ":0"})
    assert has_desktop({"WAYLAND_DISPLAY": "wayland-0"})
    assert not has_desktop({})
    assert not has_desktop({"DISPLAY": ":0", "SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"})
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert not has_desktop({"DISPLAY": ":0"})
