"""The event log: numbered, append-only, whole after any crash."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crack_sweeps.runs.events import EventLog, read_events


def test_events_come_back_in_order_with_numbers(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("created", run="a")
    log.append("note", text="ä")
    log.close()
    events = list(read_events(tmp_path / "events.jsonl"))
    assert [(e["seq"], e["kind"]) for e in events] == [(0, "created"), (1, "note")]
    assert events[1]["text"] == "ä"
    assert [e["seq"] for e in read_events(tmp_path / "events.jsonl", from_seq=1)] == [1]


def test_a_line_torn_by_a_crash_at_any_byte_is_no_event_and_the_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.append("created", run="a")
    first = path.stat().st_size
    log.append("note", text="lost or not")
    log.close()
    whole = path.read_bytes()
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        assert len(list(read_events(path))) == 1
        log = EventLog(path)
        assert log.append("note", text="again")["seq"] == 1
        log.close()
        assert [e["seq"] for e in read_events(path)] == [0, 1]


def test_a_figure_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        log.append("epoch", metrics={"val/crack_iou": float("nan")})
    assert log.append("note", text="goes on")["seq"] == 0
    log.close()


def test_a_log_with_a_missing_event_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"seq": 0, "kind": "created"}\n{"seq": 2, "kind": "note"}\n')
    with pytest.raises(ValueError, match="expected 1"):
        list(read_events(path))


def test_a_run_without_events_has_none(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "events.jsonl")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_an_event_without_room_leaves_nothing_behind_that_a_later_one_would_bring_along(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.append("created", run="a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.append("epoch", metrics={f"val/figure_{number}": number / 7 for number in range(40)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log.append("ended", status="FAILED")["seq"] == 1
    log.close()
    assert [event["kind"] for event in read_events(path)] == ["created", "ended"]
