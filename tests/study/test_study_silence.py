"""A trial that says nothing any more is ended, and gone on with from its checkpoint; a slow one is waited for."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from crack_sweeps.errors import StudyError
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.events import EventLog
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.study import local
from crack_sweeps.study.executor import Gone, Lives
from crack_sweeps.study.ledger import read_rows
from crack_sweeps.study.local import LocalExecutor, end_orphan
from crack_sweeps.study.silence import LONGEST_LOOK_S, Patience, Silence
from crack_sweeps.study.updates import Notice

if TYPE_CHECKING:
    from stand_in_study import Bench

SHORT = Patience(first_s=0.05, least_s=0.05, leave_s=0.05)


def good(_: Experiment, epoch: int) -> float:
    return 0.1 * epoch


def notices(updates: list[Any]) -> list[str]:
    return [update.text for update in updates if isinstance(update, Notice)]


# --- how long is too long ------------------------------------------------------------------------


def silent(silence: Silence, start: float, seconds: float) -> bool:
    """Looked at each second."""
    return any(silence.look(start + second) for second in range(1, int(seconds) + 1))


def test_before_the_first_epoch_half_an_hour_is_granted() -> None:
    assert not silent(Silence(Patience(), 0.0), 0, 1800)
    assert silent(Silence(Patience(), 0.0), 0, 1801)


@pytest.mark.parametrize(("epoch_s", "granted"), [(1.0, 600), (29.0, 600), (60.0, 1200)])
def test_after_it_ten_minutes_or_twenty_of_its_longest_epochs(epoch_s: float, granted: int) -> None:
    silence = Silence(Patience(), 0.0)
    silence.broken(5.0, epoch_s=epoch_s)
    silence.broken(6.0, epoch_s=epoch_s / 2)
    assert not silent(silence, 6, granted)
    assert silence.look(6 + granted + 1)


def test_any_word_ends_the_silence() -> None:
    silence = Silence(Patience(), 0.0)
    assert not silent(silence, 0, 1700)
    silence.broken(1700.0)
    assert not silent(silence, 1700, 1800)


def test_asked_to_leave_it_has_a_minute_and_one_epoch() -> None:
    silence = Silence(Patience(), 0.0)
    silence.asked_to_leave(0.0)
    assert not silent(silence, 0, 60)
    assert silence.look(61.0)
    silence.broken(100.0, epoch_s=30.0)
    assert not silent(silence, 100, 90)
    assert silence.look(191.0)


def test_time_in_which_nobody_listened_does_not_count() -> None:
    """The machine slept, or the coordinator waited for its database: the trial's words are yet to be heard."""
    silence = Silence(Patience(), 0.0)
    assert not silence.look(7 * 3600.0)
    assert silence.seconds == LONGEST_LOOK_S


# --- what the coordinator does -------------------------------------------------------------------


def test_a_trial_that_hangs_once_is_ended_and_gone_on_with(bench: Bench) -> None:
    study, hung = bench.resolve(trials=2), []

    def hangs(_: Experiment, epoch: int) -> bool:
        if epoch == 2 and not hung:
            hung.append(epoch)
            return True
        return False

    updates, trials, folder = bench.run(study, good, hangs=hangs, patience=SHORT)
    assert notices(updates) == ["toy/0: its process was ended as it said nothing for 0 s; it is gone on with"]
    assert [order.key[1] for order in trials.orders] == [0, 0, 1]
    assert all(trial.outcome != "running" for trial in bench.trials(study, folder))
    assert bench.trials(study, folder)[0].outcome == "complete"


def test_a_trial_that_always_hangs_is_to_blame_and_the_others_go_on(bench: Bench) -> None:
    study = bench.resolve(trials=2)
    first: list[float] = []

    def hangs(experiment: Experiment, epoch: int) -> bool:
        first.append(experiment.training.learning_rate)
        return epoch == 2 and experiment.training.learning_rate == first[0]

    updates, _, folder = bench.run(study, good, hangs=hangs, patience=SHORT)
    failed, other = bench.trials(study, folder)
    assert failed.outcome == "failed"
    assert failed.facts["reason"] == (
        "3 attempts at epoch 2 in vain, the last time: its process was ended as it said nothing for 0 s"
    )
    assert other.outcome != "failed"
    assert updates[-1].num_failed == 1


def test_the_hours_of_trainings_that_hang_count_though_they_leave_no_record(bench: Bench) -> None:
    study = bench.resolve(trials=9, gpu_hours=1e-5)  # 36 ms, less than one trial hangs until it is given up
    _, trials, folder = bench.run(study, good, hangs=lambda *_: True, patience=SHORT)
    [row] = read_rows(folder)
    assert row["outcome"] == "failed"
    assert row["duration_s"] > 0.1
    assert len(trials.orders) == 3


def test_a_trial_that_does_not_hear_the_stop_is_ended_and_stays_to_be_gone_on_with(bench: Bench) -> None:
    study = bench.resolve(trials=1)
    asked = iter([None, None] + ["SIGINT"] * 1_000_000)
    patience = Patience(leave_s=0.05)
    updates, _, folder = bench.run(
        study, good, hangs=lambda _, epoch: epoch == 2, patience=patience, stop=lambda: next(asked)
    )
    assert updates[-1].reason == "SIGINT"
    assert notices(updates) == [
        "toy/0: it said nothing for 0 s after it was asked to leave, so its process was ended; "
        "its last checkpoint stands"
    ]
    assert [trial.outcome for trial in bench.trials(study, folder)] == ["running"]
    updates, trials, _ = bench.run(study, good)
    assert [order.key[1] for order in trials.orders] == [0]
    assert [trial.outcome for trial in bench.trials(study, folder)] == ["complete"]


# --- processes -----------------------------------------------------------------------------------


class Order:
    """As much of an order as an executor of processes looks at."""

    key = ("toy", 0)


def hang_with_a_worker(order: Any, connection: Connection) -> None:
    """A trial that stops in mid-air, and whose worker holds the line to the coordinator open."""
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    connection.send(Lives(order.key))
    os.kill(os.getpid(), signal.SIGSTOP)


def die_beside_a_worker(order: Any, connection: Connection) -> None:
    """A trial that dies and leaves a worker behind for a while."""
    if os.fork() == 0:
        time.sleep(8)
        os._exit(0)
    connection.send(Lives(order.key))
    os._exit(7)


@pytest.fixture
def forking(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    """Forked from here: the functions above cannot be imported elsewhere."""
    import multiprocessing

    monkeypatch.setattr(local, "processes", lambda: multiprocessing.get_context("fork"))
    executor = LocalExecutor()
    yield executor
    executor.close()


def heard(executor: LocalExecutor, kind: type[Any]) -> Any:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for message in executor.wait(0.1):
            if isinstance(message, kind):
                return message
    raise AssertionError(f"no {kind.__name__}")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_one_that_is_stopped_in_mid_air_is_ended_with_its_workers(
    forking: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "begin_trial", hang_with_a_worker)
    forking.launch(Order())  # type: ignore[arg-type]
    assert heard(forking, Lives)
    forking.end(("toy", 0))
    assert heard(forking, Gone) == Gone(("toy", 0), -9)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_end_of_a_process_is_heard_while_a_worker_holds_its_line_open(
    forking: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "begin_trial", die_beside_a_worker)
    began = time.monotonic()
    forking.launch(Order())  # type: ignore[arg-type]
    assert heard(forking, Gone) == Gone(("toy", 0), 7)
    assert time.monotonic() - began < 6


def test_a_trial_at_work_on_another_machine_is_named_and_no_process_of_its_number_here_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_ORPHAN_PATIENCE_S", 0.1)
    with Popen([sys.executable, "-c", "input()"], stdin=-1) as innocent:
        run = RunDirectory(tmp_path)
        log = EventLog(run.events)
        where = {"pid": innocent.pid, "process_started": 1.0, "host": "node-b"}
        log.append("attempt", attempt=1, **where)
        log.close()
        with run.lock(), pytest.raises(StudyError, match="is being trained on node-b") as caught:
            end_orphan(RunDirectory(tmp_path))
        assert f"process {innocent.pid} there" in str(caught.value.hint)
        assert innocent.poll() is None
        innocent.kill()


def test_a_run_that_another_process_keeps_ends_the_attempt_and_not_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crack_sweeps.study import trial  # torch and the models, which the rest of this file needs not

    monkeypatch.setattr(trial, "LOCK_PATIENCE_S", 0.1)
    run, said = RunDirectory(tmp_path), []
    order, link = SimpleNamespace(key=("arm", 0)), SimpleNamespace(say=said.append)
    with run.lock(), pytest.raises(SystemExit, match="1"):
        trial._wait_for_the_lock(RunDirectory(tmp_path), order, link)
    assert [message.text for message in said] == [f"{run.name} is held by another process"]
