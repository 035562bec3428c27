"""What `sweeps doctor` says of broken runs, and that none keeps the others from being sent."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from crack_sweeps import doctor
from crack_sweeps.runs.directory import OUTPUTS
from crack_sweeps.tracking import mirror
from crack_sweeps.tracking.state import read_state, unsent


def make(make_run: Callable[..., Any], name: str) -> Any:
    run = make_run(name)
    (run.path / "environment.json").write_text("{}")
    return run


def told() -> dict[str, doctor.Finding]:
    return {finding.subject: finding for finding in doctor.examine()}


def test_a_run_that_died_at_its_first_event_is_told_and_keeps_no_other_from_being_sent(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    whole = make(make_run, "20261122-120000-small-abcdef").created().attempt().finish()
    empty = make(make_run, "20261122-120001-small-abcdef")
    headless = make(make_run, "20261122-120002-small-abcdef").attempt()  # by an earlier version, which resumed it
    before = told()
    assert before[empty.path.name].text == "died before its first event: not a run"
    assert (before[headless.path.name].verdict, before["runs"].text) == ("warning", f"1 under {OUTPUTS}")
    (fixed,) = doctor.fix()
    assert (fixed.subject, fixed.text) == (whole.path.name, "sent 3 events")
    assert shown().only_run().info.status == "FINISHED"
    assert empty.path.is_dir(), "nothing is deleted"


def test_a_run_with_an_edited_file_is_told_and_the_others_are_sent(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(make_run, "20261122-120000-small-abcdef").created().attempt().finish()
    odd = make(make_run, "20261122-120001-small-abcdef").created().attempt().finish()
    edited = make(make_run, "20261122-120002-small-abcdef").created()
    edited.log.close()
    with (edited.path / "events.jsonl").open("a") as file:
        file.write("nonsense\n")
    assert told()[edited.path.name].verdict == "error"

    send = mirror.send

    def stumble(run_dir: Path, **options: Any) -> None:
        if run_dir == odd.path:
            raise KeyError("run")
        send(run_dir, **options)

    monkeypatch.setattr(mirror, "send", stumble)
    fixed = {finding.subject: finding for finding in doctor.fix()}
    assert {subject: finding.verdict for subject, finding in fixed.items()} == {
        edited.path.name: "error",
        odd.path.name: "error",
        whole.path.name: "ok",
    }
    assert "KeyError: 'run'" in fixed[odd.path.name].text
    assert unsent(whole.path) == 0
    assert shown().only_run().info.status == "FINISHED"


def test_weights_without_their_events_are_to_be_kept(with_store: Path, make_run: Callable[..., Any]) -> None:
    run = make(make_run, "20261122-120000-small-abcdef").created().attempt().finish()
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / "best_model.pth").write_bytes(b"weights")
    (run.path / "metrics.json").write_text("{}")
    (run.path / "events.jsonl").unlink()
    finding = told()[run.path.name]
    assert finding.verdict == "error"
    assert finding.text == "lost its events.jsonl, and holds checkpoints/best_model.pth and metrics.json"
    assert "keep it" in str(finding.remedy)


@pytest.mark.parametrize("record", ["{half", "{}", None])
def test_the_damaged_record_of_a_finished_run_is_an_error(
    with_store: Path, make_run: Callable[..., Any], record: str | None
) -> None:
    run = make(make_run, "20261122-120000-small-abcdef").created().attempt().finish()
    if record is not None:
        (run.path / "metrics.json").write_text(record)
    (finding,) = (f for f in doctor.examine() if f.subject == run.path.name and f.verdict == "error")
    assert "its record is damaged" in finding.text
    assert "metrics.json" in finding.text
    assert f"sweeps run {run.path}/config.yaml" in str(finding.remedy)


def test_a_directory_of_somebody_else_is_told_and_keeps_no_other_from_being_sent(
    with_store: Path, make_run: Callable[..., Any], make_study: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(make_run, "20261122-120000-small-abcdef").created().attempt().finish()
    closed = make(make_run, "20261122-120001-small-abcdef").created().attempt().finish()
    study = make_study().created().attempt()
    lock = FileLock.acquire

    def acquire(self: FileLock, *arguments: Any, **options: Any) -> Any:
        if Path(self.lock_file).parent in (closed.path, study.path):
            raise PermissionError(errno.EACCES, "Permission denied", self.lock_file)
        return lock(self, *arguments, **options)

    monkeypatch.setattr(FileLock, "acquire", acquire)
    for findings in (told(), {finding.subject: finding for finding in doctor.fix()}):
        for subject, path in ((closed.path.name, closed.path), ("study toy", study.path)):
            assert findings[subject].verdict == "error"
            assert findings[subject].text == f"cannot be used: Permission denied ({path / '.lock'})"
    assert unsent(whole.path) == 0
    assert told()["runs"].text.startswith("2 under")


def test_what_was_sent_to_a_store_that_was_deleted_is_sent_anew_once_and_nested_as_it_was(
    with_store: Path, make_run: Callable[..., Any], make_study: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    study = make_study().created().attempt()
    trial = study.trial(0).attempt().finish()
    again = study.trial(0, seed=1, parent=trial).attempt().finish()
    study.finish()
    single = make(make_run, "20261122-120000-single-abcdef").created().attempt().finish()
    for run in (trial, again):
        (run.path / "environment.json").write_text("{}")
    code = "from crack_sweeps import doctor; print(*doctor.fix())"
    command = [sys.executable, "-c", code]  # another process: SQLite keeps files open
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert all(unsent(run.path) == 0 for run in (study, trial, again, single)), done.stdout + done.stderr
    assert told()["store"].verdict == "ok"

    for file in (with_store / "mlruns").glob("mlflow.db*"):
        file.unlink()
    finding = told()["store"]
    assert finding.verdict == "warning"
    assert finding.text == ("3 runs and 1 study were sent to mlruns/mlflow.db, which is gone or was made anew since")
    assert finding.remedy == "sweeps doctor --fix sends them anew"
    fixed = {finding.subject: finding.text for finding in doctor.fix()}
    assert set(fixed) == {"study toy", again.path.name, single.path.name}, "the seed sent its parent first"
    assert shown().tree("toy") == {"study toy": None, "toy/0": "study toy", "toy/0 seed 1": "toy/0"}
    assert shown().only_run().info.status == "FINISHED"
    assert list(doctor.fix()) == []
    assert told()["store"].verdict == "ok"

    with closing(sqlite3.connect("mlruns/mlflow.db")) as database:  # as if it had been made anew a day later
        database.execute("UPDATE experiments SET creation_time = creation_time + 86400000")
        database.execute("UPDATE runs SET run_uuid = 'x' WHERE run_uuid = ?", (_run_id(single),))
        database.commit()
    assert told()["store"].text.startswith("1 run was sent to")


def test_a_damaged_store_is_an_error_that_leaves_runs_alone(with_store: Path, make_run: Callable[..., Any]) -> None:
    run = make(make_run, "20261122-120000-small-abcdef").created().attempt().finish()
    Path("mlruns/mlflow.db").write_bytes(b"not a database " * 99)
    for findings in (told(), {finding.subject: finding for finding in doctor.fix()}):
        assert findings["store"].verdict == "error"
        assert findings["store"].text.startswith("mlruns/mlflow.db: is damaged (")
        assert "sweeps doctor --fix" in str(findings["store"].remedy)
    assert unsent(run.path) == 3


def _run_id(run: Any) -> str:
    state = read_state(run.path)
    assert state is not None
    assert state.run_id is not None
    return state.run_id
