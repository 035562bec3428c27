"""What `sweeps doctor` says of broken runs, and that none keeps the others from being sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crack_sweeps import doctor
from crack_sweeps.runs.directory import OUTPUTS
from crack_sweeps.tracking import mirror
from crack_sweeps.tracking.state import unsent


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
