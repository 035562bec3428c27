"""A study in MLflow: its own run, the trials under it, the extra seeds under those, each once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crack_sweeps import doctor
from crack_sweeps.errors import MirrorError
from crack_sweeps.tracking import mirror, patience, study_mirror
from crack_sweeps.tracking.start import start_study_mirror
from crack_sweeps.tracking.state import Trainer, all_sent, read_state, unsent
from crack_sweeps.tracking.study_mirror import follow_study

SCRIPTS = Path(__file__).parent
TREE = {"study toy": None, "toy/0": "study toy", "toy/1": "study toy", "toy/0 seed 1": "toy/0"}


def follow(study: Any, starter: Trainer | None = None, **settings: Any) -> None:
    """The mirror's loop in this process, without its start."""
    follow_study(study.path, starter or Trainer.this_process(), poll_s=0.01, **settings)


def a_whole_study(study: Any) -> Any:
    """Two trials, one of them pruned, and an extra seed of the first."""
    study.created().attempt()
    first = study.trial(0).attempt().epoch(1).finish()
    study.told(1, 0.1)
    study.trial(1).attempt().epoch(1).finish("PRUNED", "rung 1: worse than two thirds")
    study.told(2, 0.1)
    study.trial(0, seed=1, parent=first).attempt().epoch(1).finish()
    return study.told(3, 0.2).finish()


def assert_whole(shown: Any) -> None:
    runs = shown.named("toy")
    assert shown.tree("toy") == TREE
    assert {name: run.info.status for name, run in runs.items()} == {
        "study toy": "FINISHED",
        "toy/0": "FINISHED",
        "toy/1": "KILLED",
        "toy/0 seed 1": "FINISHED",
    }
    states = {name: run.data.tags.get("crack_sweeps.trial_state") for name, run in runs.items()}
    assert states == {"study toy": None, "toy/0": "COMPLETE", "toy/1": "PRUNED", "toy/0 seed 1": "COMPLETE"}
    assert runs["toy/1"].data.tags["crack_sweeps.reason"] == "rung 1: worse than two thirds"
    assert runs["study toy"].data.tags["crack_sweeps.run"] == "study:toy"
    assert runs["toy/0"].data.tags["crack_sweeps.run"] == "20261122-120000-small-000000"
    assert shown.points("best/crack_iou", runs["study toy"]) == [(1, 0.1), (2, 0.1), (3, 0.2)]
    assert shown.points("num_trials", runs["study toy"]) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert shown.points("val/crack_iou", runs["toy/1"]) == [(1, 0.1)]
    assert runs["study toy"].data.tags["mlflow.note.content"].startswith("**FINISHED** after 3 trials.")


def test_a_study_arrives_as_a_tree_and_a_second_mirror_changes_nothing(
    with_store: Path, make_study: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    study = a_whole_study(make_study())
    follow(study)
    assert_whole(shown())
    assert [unsent(run.path) for run in [study, *study.runs]] == [0, 0, 0, 0]
    follow(study)
    for run in [study, *study.runs]:
        (run.path / "tracking.json").unlink()
    follow(study)
    assert_whole(shown())


def kill_at_every_step(study: Any) -> int:
    """Deaths of the mirror until everything was sent."""
    script = [sys.executable, str(SCRIPTS / "kill_at_every_step.py"), str(study.path)]
    return int(subprocess.run(script, capture_output=True, text=True, check=True, timeout=280).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="dies in forked processes")
def test_a_study_mirror_killed_after_every_change_sends_each_thing_once(
    with_store: Path, make_study: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    assert kill_at_every_step(a_whole_study(make_study())) >= 40
    assert_whole(shown())


class Death(BaseException):
    """Ends a mirror where it stands, as a signal does: nobody catches it, and nothing is written after it."""


def test_a_study_mirror_that_dies_after_every_change_of_the_store_sends_each_thing_once(
    with_store: Path, make_study: Callable[..., Any], shown: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    study = a_whole_study(make_study())
    died_at: set[tuple[str, str | None, int]] = set()
    calls: list[tuple[str, str | None]] = []

    def mortal(name: str, function: Callable[..., Any], run_of: Callable[..., str | None]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            calls.append((name, run_of(result, *args)))
            moment = (*calls[-1], calls.count(calls[-1]))
            if moment not in died_at:
                died_at.add(moment)
                raise Death
            return result

        return wrapped

    for name in ("log_batch", "log_inputs", "set_terminated", "update_run"):
        by_id = mortal(name, getattr(MlflowClient, name), lambda _result, _self, run_id, *_: run_id)
        monkeypatch.setattr(MlflowClient, name, by_id)
    made = mortal("create_run", MlflowClient.create_run, lambda result, *_: result.info.run_id)
    monkeypatch.setattr(MlflowClient, "create_run", made)
    while True:
        calls.clear()
        try:
            follow(study)
        except Death:
            continue
        break
    assert len(died_at) >= 20
    assert {name for name, *_ in died_at} >= {"create_run", "log_batch", "log_inputs", "set_terminated"}
    assert_whole(shown())


def test_the_study_mirror_follows_runs_as_they_come_resumes_them_and_ends_with_the_study(
    with_store: Path,
    make_study: Callable[..., Any],
    shown: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    dead_pid: int,
) -> None:
    study = make_study().created().attempt()
    path = study.named(0)
    study.named(7)  # its directory never appears

    def status() -> tuple[str, str | None]:
        run = shown().named("toy")["toy/0"]
        return run.info.status, run.data.tags.get("crack_sweeps.trial_state")

    def the_directory_appears() -> None:
        assert set(shown().named("toy")) == {"study toy"}
        study.begin(path, shown_as="toy/0").attempt().epoch(1)

    def it_is_interrupted() -> None:
        assert status() == ("RUNNING", None)
        study.runs[0].finish("KILLED", "SIGTERM")

    def it_is_adopted_and_dies() -> None:
        assert status() == ("KILLED", "")
        study.runs[0].attempt(2, pid=dead_pid).epoch(1).epoch(2)

    def it_is_adopted_again() -> None:
        assert status() == ("KILLED", "")
        study.runs[0].attempt(3)

    def it_ends() -> None:
        assert status() == ("RUNNING", "")
        study.runs[0].epoch(3).finish()
        study.told(1, 0.3)

    def the_study_ends() -> None:
        assert status() == ("FINISHED", "COMPLETE")
        study.finish()

    steps = [the_directory_appears, it_is_interrupted, it_is_adopted_and_dies, it_is_adopted_again, it_ends]
    steps.append(the_study_ends)
    monkeypatch.setattr(study_mirror.time, "sleep", lambda _: steps.pop(0)())
    follow(study)
    assert not steps
    run = shown().named("toy")["toy/0"]
    assert shown().points("val/crack_iou", run) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert run.data.tags["crack_sweeps.attempts"] == "3"
    assert shown().tree("toy") == {"study toy": None, "toy/0": "study toy"}


def test_nothing_of_a_killed_coordinator_stays_running_and_the_next_one_opens_it_again(
    with_store: Path, make_study: Callable[..., Any], shown: Callable[[], Any], dead_pid: int
) -> None:
    study = make_study().created().attempt(pid=dead_pid)
    study.trial(0).attempt(pid=dead_pid).epoch(1)
    study.trial(1)  # killed between its first event and its first attempt
    follow(study)
    assert {run.info.status for run in shown().runs("toy")} == {"KILLED"}
    study.attempt(2)
    for run in study.runs:
        run.attempt(2).epoch(2).finish()
    follow(study.told(2, 0.2).finish(), first_seq=4)
    assert {run.info.status for run in shown().runs("toy")} == {"FINISHED"}


def test_a_new_coordinators_mirror_is_not_over_with_the_attempt_of_the_one_that_was_killed(
    with_store: Path,
    make_study: Callable[..., Any],
    shown: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    dead_pid: int,
) -> None:
    study = make_study().created().attempt(pid=dead_pid)
    pauses: list[float] = []

    def resume(pause_s: float) -> None:
        pauses.append(pause_s)
        study.attempt(2).finish()

    monkeypatch.setattr(study_mirror.time, "sleep", resume)
    follow(study, first_seq=2)
    assert len(pauses) == 1
    assert shown().named("toy")["study toy"].info.status == "FINISHED"


def test_a_trials_run_sent_alone_sends_what_it_is_nested_under_first(
    with_store: Path, make_study: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    study = a_whole_study(make_study())
    mirror.send(study.runs[2].path)  # the extra seed
    assert shown().tree("toy") == {"study toy": None, "toy/0": "study toy", "toy/0 seed 1": "toy/0"}
    for run in [study, *study.runs]:
        mirror.send(run.path)
    assert_whole(shown())
    assert not (study.path / "tensorboard").exists()


def test_a_parent_whose_folder_is_gone_is_found_in_mlflow_and_one_that_is_nowhere_is_done_without(
    with_store: Path, make_study: Callable[..., Any], shown: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    study = a_whole_study(make_study())
    mirror.send(study.path)
    study.close()
    shutil.rmtree(study.path)
    mirror.send(study.runs[0].path)
    assert shown().tree("toy")["toy/0"] == "study toy"
    other = make_study("other").created().attempt()
    run = other.trial(5).attempt().finish()
    other.close()
    shutil.rmtree(other.path)
    mirror.send(run.path)
    assert shown().tree("other") == {"other/5": None}
    assert "not nested" in caplog.text


def test_versions_of_a_study_share_an_experiment_and_not_a_run(
    with_store: Path, make_study: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    for name in ("toy", "toy@2"):
        study = make_study(name).created().attempt()
        study.log.append("metrics", metrics={"num_trials": 0}, step=0)
        mirror.send(study.finish().path)
    tags = {run.info.run_name: run.data.tags["crack_sweeps.run"] for run in shown().runs("toy")}
    assert tags == {"study toy": "study:toy", "study toy@2": "study:toy@2"}


def test_a_run_that_somebody_deleted_in_mlflow_does_not_stop_the_study(
    with_store: Path, make_study: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    study = make_study().created().attempt()
    run = study.trial(0).attempt()
    mirror.send(run.path)
    shown().client.delete_run(shown().named("toy")["toy/0"].info.run_id)
    run.finish()
    study.trial(1).attempt().epoch(1).finish()
    study.finish()
    with pytest.raises(MirrorError, match=r"000000: .*active"):
        follow(study)
    (run.path / "environment.json").write_text("{}")
    (finding,) = doctor.fix()
    assert (finding.subject, finding.verdict) == (run.path.name, "warning")
    assert {name: run.info.status for name, run in shown().named("toy").items()} == {
        "study toy": "FINISHED",
        "toy/1": "FINISHED",
    }


def test_while_the_store_is_down_curves_are_drawn_ended_runs_are_let_go_and_all_arrives_later(
    with_store: Path, make_study: Callable[..., Any], shown: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    study = make_study().created().attempt()
    run = study.trial(0).attempt().epoch(1)
    log_batch = MlflowClient.log_batch
    outages: list[str] = []

    def down(self: Any, *arguments: Any, **named: Any) -> Any:
        if len(outages) < 4:
            outages.append("down")
            raise ConnectionError("no route")
        return log_batch(self, *arguments, **named)

    open_feeds: list[int] = []
    read_open_runs = study_mirror._Study.read_open_runs

    def watched(self: Any) -> None:
        read_open_runs(self)
        open_feeds.append(sum(run._feed is not None for run in self._runs.values()))
        if len(open_feeds) == 1:
            run.epoch(2).finish()
            study.told(1, 0.2).finish()

    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(MlflowClient, "log_batch", down)
    monkeypatch.setattr(study_mirror._Study, "read_open_runs", watched)
    follow(study)
    assert len(outages) == 4
    assert open_feeds[-1] == 0
    assert shown().points("val/crack_iou", shown().named("toy")["toy/0"]) == [(1, 0.1), (2, 0.2)]


def test_a_run_that_another_process_is_sending_is_left_to_it_and_waited_for(
    with_store: Path, make_study: Callable[..., Any], shown: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    study = make_study().created().attempt()
    run = study.trial(0).attempt().finish()
    study.finish()
    (run.path / "logs").mkdir()
    lock = FileLock(run.path / mirror.LOCK)
    lock.acquire()
    pauses = 0

    def let_go(_: float) -> None:
        nonlocal pauses
        pauses += 1
        assert set(shown().named("toy")) == {"study toy"}
        if pauses == 2:
            lock.release()

    monkeypatch.setattr(study_mirror.time, "sleep", let_go)
    follow(study)
    assert pauses == 2
    assert shown().named("toy")["toy/0"].info.status == "FINISHED"


def test_a_finished_run_is_not_looked_at_again_and_a_settled_one_is_not_read_again(
    with_store: Path, make_study: Callable[..., Any]
) -> None:
    study = a_whole_study(make_study())
    follow(study)
    location = mirror.StoreConnection().location
    assert all(all_sent(run.path, location) for run in study.runs)
    run = study_mirror._Run(study.runs[0].path)
    assert run.step(mirror.StoreConnection(), study_is_over=False) is False
    assert run.is_final
    study.runs[1].log.append("tags", tags={"seen": "yes"})
    assert all_sent(study.runs[1].path, location) is None


@pytest.mark.skipif(not hasattr(os, "getsid"), reason="sessions are POSIX")
def test_a_study_mirror_of_its_own_process_is_killed_started_again_and_done_with_the_study(
    with_store: Path, make_study: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    study = make_study().created().attempt()
    run = study.trial(0).attempt().epoch(1)
    handle = start_study_mirror(study.path)
    assert os.getsid(handle.pid) == handle.pid, "Ctrl-C in the terminal does not reach it"
    deadline = time.monotonic() + 120
    while (state := read_state(run.path)) is None or state.run_id is None:
        assert time.monotonic() < deadline, (study.path / "logs" / "mirror.log").read_text()
        time.sleep(0.05)
    os.kill(handle.pid, signal.SIGKILL)
    assert not handle.wait(10)
    handle = start_study_mirror(study.path)
    run.epoch(2).finish()
    study.told(1, 0.2).finish()
    assert handle.wait(120)
    assert "everything was sent" in (study.path / "logs" / "mirror.log").read_text()
    assert shown().tree("toy") == {"study toy": None, "toy/0": "study toy"}
    assert shown().points("val/crack_iou", shown().named("toy")["toy/0"]) == [(1, 0.1), (2, 0.2)]


def test_the_doctor_sends_studies_and_their_runs_once_leaves_living_ones_alone_and_goes_past_a_mirror_at_work(
    with_store: Path, make_study: Callable[..., Any], shown: Callable[[], Any], dead_pid: int
) -> None:
    from filelock import FileLock

    study = a_whole_study(make_study())
    living = make_study("living").created().attempt()
    killed = make_study("killed").created().attempt(pid=dead_pid)
    for run in study.runs:
        (run.path / "environment.json").write_text("{}")
    (study.runs[0].path / "logs").mkdir()
    with FileLock(living.path / ".lock"), FileLock(study.runs[0].path / mirror.LOCK):
        told = {(finding.subject, finding.text) for finding in doctor.examine()}
        assert ("study toy", "9 events are not in MLflow") in told
        assert "study living" not in {subject for subject, _ in told}
        mirror.send(study.path)
        fixed = {finding.subject: finding.text for finding in doctor.fix()}
    busy, other, seed = (run.path.name for run in study.runs)
    assert fixed == {
        busy: "left to the mirror that is at work on it",
        seed: "left to the mirror that is at work on it",  # on what it is nested under
        other: "sent 4 events",
        "study killed": "sent 2 events",
    }
    assert shown().named("killed")["study killed"].info.status == "KILLED"
    assert {finding.subject for finding in doctor.fix()} == {seed, "study living"}, "the seed sent its parent first"
    assert list(doctor.fix()) == []
    assert_whole(shown())
    killed.close()
