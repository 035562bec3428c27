"""What reaches MLflow: everything, in its place, once."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crack_sweeps.errors import MirrorError
from crack_sweeps.runs.events import EventLog
from crack_sweeps.tracking import mirror, patience
from crack_sweeps.tracking.state import TRACKING, TrackingState, read_state, unsent, write_state

SCRIPTS = Path(__file__).parent


def a_whole_life(run: Any, dead_pid: int) -> Any:
    """Created, trained, killed, resumed with one epoch told again, finished."""
    run.created().attempt(pid=dead_pid).epoch(1).epoch(2).finish("KILLED", "SIGTERM")
    run.attempt(2, resumed_from_step=5).epoch(2).epoch(3)
    run.log.append("note", level="warning", text="micro-batch halved")
    run.log.append("tags", tags={"crack_sweeps.memory_source": "rss"})
    run.log.append("metrics", metrics={"best/crack_iou": 0.3}, step=3)
    run.log.append("artifact", path="predictions", to="overlays")
    run.log.append("artifact", path="config.yaml", to="")
    return run.finish()


def assert_whole(shown: Any) -> None:
    run = shown.only_run()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == run.data.tags["crack_sweeps.run"] == "20261122-120000-small-abcdef"
    assert shown.points("val/crack_iou") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert shown.points("train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert shown.points("best/crack_iou") == [(3, 0.3)]
    assert run.data.params == {
        "training.epochs": "2",
        "model.encoder_cfg.pretrained": "false",
        "data.path": "null",
    }
    assert run.data.tags["crack_sweeps.attempts"] == "2"
    assert run.data.tags["crack_sweeps.memory_source"] == "rss"
    assert run.data.tags["mlflow.source.git.commit"] == "abc123"
    assert run.data.tags["mlflow.note.content"].startswith("**FINISHED** after 3 epochs.")
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("builtin", "d" * 36)
    assert shown.artifacts() == {"config.yaml", "notes.txt", "overlays"}
    assert shown.artifacts("overlays") == {"overlays/best.png"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.05)


def test_a_run_arrives_whole_and_sending_it_again_changes_nothing(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any], dead_pid: int
) -> None:
    run = a_whole_life(make_run(), dead_pid)
    mirror.send(run.path)
    assert_whole(shown())
    end = shown().only_run().info.end_time
    state = read_state(run.path)
    assert state is not None
    assert state.run_id == shown().only_run().info.run_id
    assert unsent(run.path) == 0
    mirror.send(run.path)
    (run.path / TRACKING).unlink()
    mirror.send(run.path)
    assert_whole(shown())
    assert shown().only_run().info.end_time == end
    assert read_state(run.path) == state


def kill_at_every_step(run: Any) -> int:
    """Deaths of the sender until everything was sent."""
    script = [sys.executable, str(SCRIPTS / "kill_at_every_step.py"), str(run.path)]
    return int(subprocess.run(script, capture_output=True, text=True, check=True, timeout=280).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="dies in forked processes")
def test_a_sender_of_a_whole_life_killed_after_every_change_sends_each_thing_once(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any], dead_pid: int
) -> None:
    assert kill_at_every_step(a_whole_life(make_run(), dead_pid)) >= 25
    assert_whole(shown())


def test_figures_that_are_not_finite_arrive_and_are_not_doubled(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    run = make_run().created().attempt()
    run.log.close()
    with (run.path / "events.jsonl").open("a") as file:  # our log refuses them; another writer may not
        file.write(
            '{"seq": 2, "time_ms": 5, "kind": "epoch", "epoch": 1, "step": 1, "metrics": {"a": NaN, "b": -Infinity}}\n'
        )
    for _ in range(2):
        mirror.send(run.path)
        write_state(run.path, TrackingState(store="mlruns/mlflow.db"))
    (a,), (b,) = shown().points("a"), shown().points("b")
    assert math.isnan(a[1])
    assert b[1] < -1e300


def test_more_than_one_request_holds_arrives_whole(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    run = make_run().created(params={f"p{i}": "x" * 7000 for i in range(230)}).attempt()
    for epoch in range(1, 5):
        run.epoch(epoch, **{f"m{i}": float(i) for i in range(300)})
    run.log.append("tags", tags={f"t{i}": "y" * 9000 for i in range(110)})
    mirror.send(run.finish().path)
    data = shown().only_run().data
    assert len(data.params) == 230
    assert set(map(len, data.params.values())) == {6000}
    assert len(data.metrics) == 302
    assert shown().points("m299") == [(epoch, 299.0) for epoch in range(1, 5)]
    assert len([tag for tag in data.tags if tag.startswith("t")]) == 110


def test_a_training_that_died_silently_is_shown_as_killed_and_a_resumed_one_as_running_again(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any], dead_pid: int
) -> None:
    run = make_run().created().attempt(pid=dead_pid).epoch(1)
    mirror.send(run.path)
    assert shown().only_run().info.status == "KILLED"
    assert "died without ending" in shown().only_run().data.tags["mlflow.note.content"]
    run.attempt(2)
    mirror.send(run.path)
    assert shown().only_run().info.status == "RUNNING"
    run.epoch(2).finish("FAILED", "loss is not finite")
    mirror.send(run.path)
    assert shown().only_run().info.status == "FAILED"
    assert shown().only_run().data.tags["crack_sweeps.reason"] == "loss is not finite"
    assert shown().points("val/crack_iou") == [(1, 0.1), (2, 0.2)]


def test_a_server_that_is_down_costs_nothing_and_gets_everything_later(
    with_store: Path,
    make_run: Callable[..., Any],
    shown: Callable[[], Any],
    dead_pid: int,
    monkeypatch: pytest.MonkeyPatch,
    impatient: None,
) -> None:
    run = a_whole_life(make_run(), dead_pid)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:pa55word@127.0.0.1:9")  # port 9: nobody listens
    with pytest.raises(MirrorError) as caught:
        mirror.send(run.path, patience_s=0.2)
    assert "http://***@127.0.0.1:9" in caught.value.message
    assert "pa55word" not in caught.value.message
    assert unsent(run.path) == 14
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    mirror.send(run.path)
    assert_whole(shown())


@pytest.fixture
def flaky_server(with_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    database = f"sqlite:///{with_store.as_posix()}/mlruns/mlflow.db?timeout=60"
    command = [sys.executable, str(SCRIPTS / "flaky_server.py"), database, "0.15"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        yield database
        server.kill()


@pytest.mark.slow
def test_a_server_that_loses_requests_and_answers_gets_each_thing_once(
    flaky_server: str,
    make_run: Callable[..., Any],
    shown: Callable[[], Any],
    dead_pid: int,
    monkeypatch: pytest.MonkeyPatch,
    impatient: None,
) -> None:
    run = a_whole_life(make_run(), dead_pid)
    Path("down").touch()
    with pytest.raises(MirrorError):
        mirror.send(run.path, patience_s=0.1)
    Path("down").unlink()
    mirror.send(run.path, patience_s=120)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", flaky_server)
    assert_whole(shown())


def test_a_run_deleted_from_the_store_for_good_is_sent_anew(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any], dead_pid: int
) -> None:
    run = a_whole_life(make_run(), dead_pid)
    write_state(run.path, TrackingState("mlruns/mlflow.db", "1", "0" * 32, next_seq=14, status="FINISHED"))
    mirror.send(run.path)
    assert_whole(shown())


def test_a_run_that_somebody_deleted_in_mlflow_stays_deleted(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    run = make_run().created().attempt()
    mirror.send(run.path)
    shown().client.delete_run(shown().only_run().info.run_id)
    run.epoch(1).finish()
    with pytest.raises(MirrorError, match="active"):
        mirror.send(run.path)
    assert shown().runs() == []


def test_a_deleted_experiment_is_restored_for_a_new_run(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    client = shown().client
    client.delete_experiment(client.create_experiment("runs"))
    mirror.send(make_run().created().attempt().finish().path)
    assert shown().only_run().info.status == "FINISHED"


def test_artifacts_that_are_gone_or_outside_do_not_stop_the_rest(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    Path("secret.txt").write_text("x")
    run = make_run().created().attempt()
    for path in ("gone.png", "../../../secret.txt", str(Path("secret.txt").absolute())):
        run.log.append("artifact", path=path, to="")
    mirror.send(run.finish().path)
    assert shown().only_run().info.status == "FINISHED"
    assert shown().artifacts() == set()
    assert "gone.png is gone" in caplog.text
    assert caplog.text.count("outside the run directory") == 2


def test_curves_for_tensorboard_are_made_anew_each_time(
    with_store: Path, make_run: Callable[..., Any], dead_pid: int
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = a_whole_life(make_run(), dead_pid)
    for _ in range(2):
        mirror.send(run.path)
    assert len(list((run.path / "tensorboard").iterdir())) == 1
    curves = EventAccumulator(str(run.path / "tensorboard"))
    curves.Reload()
    found = [(scalar.step, round(scalar.value, 6)) for scalar in curves.Scalars("val/crack_iou")]
    assert found == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_nothing_secret_reaches_the_run_directory_or_the_store(
    with_store: Path, make_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"AWS_SECRET_ACCESS_KEY": "planted-key-1234", "MLFLOW_TRACKING_TOKEN": "planted-token-1234"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    run = make_run().created()
    run.log.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://planted-user:planted-pass@127.0.0.1:9")
    command = [sys.executable, "-m", "crack_sweeps.tracking.mirror", str(run.path)]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "http://***@127.0.0.1:9" in failed.stderr
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    run.log = EventLog(run.path / "events.jsonl")
    mirror.send(run.attempt().finish().path)
    everything = failed.stderr + failed.stdout
    everything += "".join(path.read_bytes().decode("latin-1") for path in Path().rglob("*") if path.is_file())
    assert "20261122-120000-small" in everything
    assert "planted" not in everything
