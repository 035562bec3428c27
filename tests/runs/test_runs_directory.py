"""Run directories: unique names, found by name, prefix, path or MLflow id, never the wrong one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from crack_sweeps.errors import RunNotFound
from crack_sweeps.runs.directory import RunDirectory, all_runs, create_run_directory, find_run, leftovers
from crack_sweeps.runs.events import EventLog


def make(outputs: Path, name: str, *, mlflow_run_id: str | None = None) -> RunDirectory:
    run = RunDirectory(outputs / name)
    run.path.mkdir(parents=True)
    run.environment.write_text("{}")
    log = EventLog(run.events)
    log.append("created", run=name)
    log.close()
    if mlflow_run_id:
        (run.path / "tracking.json").write_text(json.dumps({"run_id": mlflow_run_id}))
    return run


def test_a_new_directory_is_named_by_time_experiment_and_six_random_characters(tmp_path: Path) -> None:
    names = {create_run_directory("unet_small", outputs=tmp_path).name for _ in range(20)}
    assert len(names) == 20
    assert all(re.fullmatch(r"\d{8}-\d{6}-unet_small-[0-9a-f]{6}", name) for name in names)


def test_a_run_is_found_by_name_prefix_path_and_mlflow_id(tmp_path: Path) -> None:
    wanted = make(tmp_path, "20260101-000000-a-111111", mlflow_run_id="0123abcd")
    make(tmp_path, "20260102-000000-b-222222", mlflow_run_id="9999ffff")
    for word in (wanted.name, "20260101", str(wanted.path), f"{wanted.path}/", "0123", "0123abcd"):
        assert find_run(word, outputs=tmp_path) == wanted


def test_an_ambiguous_prefix_names_the_candidates(tmp_path: Path) -> None:
    make(tmp_path, "20260101-000000-a-111111")
    make(tmp_path, "20260101-000001-a-222222")
    with pytest.raises(RunNotFound, match=r"means 2 runs: .*222222.*111111"):
        find_run("20260101", outputs=tmp_path)


@pytest.mark.parametrize("word", ["nothing", "", "../../etc"])
def test_an_unknown_run_is_an_error_that_names_the_newest(tmp_path: Path, word: str) -> None:
    newest = make(tmp_path, "20260102-000000-b-222222")
    with pytest.raises(RunNotFound) as caught:
        find_run(word, outputs=tmp_path)
    assert newest.name in (caught.value.hint or "")


def test_a_directory_that_died_before_its_first_event_is_no_run(tmp_path: Path) -> None:
    create_run_directory("a", outputs=tmp_path)
    assert list(all_runs(outputs=tmp_path)) == []


WHOLE = '{"seq": 0, "time_ms": 1, "kind": "created", "run": "a"}\n'


@pytest.mark.parametrize(
    "events", [None, "", WHOLE[:-1], WHOLE[:20], WHOLE.replace("created", "attempt"), "nonsense\n"]
)
def test_a_directory_without_a_whole_first_event_is_a_leftover_and_no_run(tmp_path: Path, events: str | None) -> None:
    whole = make(tmp_path, "20260101-000000-a-111111")
    broken = RunDirectory(tmp_path / "20260102-000000-a-222222")
    broken.path.mkdir()
    broken.environment.write_text("{}")
    if events is not None:
        broken.events.write_text(events)
    (tmp_path / "20260102-000000-a-222222.log").write_text("")
    (tmp_path / "my notes").mkdir()
    assert list(all_runs(outputs=tmp_path)) == [whole]
    assert list(leftovers(outputs=tmp_path)) == [broken]
    with pytest.raises(RunNotFound):
        find_run("20260102", outputs=tmp_path)


def test_status_follows_the_last_attempt(tmp_path: Path) -> None:
    run = make(tmp_path, "20260101-000000-a-111111")
    log = EventLog(run.events)
    seen = []
    for kind, fields in (
        ("attempt", {}), ("ended", {"status": "KILLED"}), ("attempt", {}), ("ended", {"status": "FINISHED"}),
    ):  # fmt: skip
        log.append(kind, **fields)
        seen.append(run.status())
    log.close()
    assert seen == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]


def test_a_held_lock_means_that_the_run_is_running(tmp_path: Path) -> None:
    run = make(tmp_path, "20260101-000000-a-111111")
    assert not run.is_running()
    with run.lock().acquire(blocking=False):
        assert run.is_running()
    assert not run.is_running()
