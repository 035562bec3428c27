"""What events say, each figure once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crack_sweeps.runs.events import read_events
from crack_sweeps.tracking.state import TRACKING, TrackingState, left_open, read_state, unsent, write_state
from crack_sweeps.tracking.story import EventTail, Story, param_text, safe_key, tag_text


def told(run: Any) -> tuple[Story, list[tuple[str, int, float]]]:
    story = Story()
    chapters = [story.tell(event) for event in read_events(run.path / "events.jsonl")]
    return story, [(point.key, point.step, point.value) for chapter in chapters for point in chapter.points]


def test_an_epoch_told_again_by_a_resumed_training_counts_once(here: Path, make_run: Callable[..., Any]) -> None:
    run = make_run().created().attempt().epoch(1).epoch(2).attempt(2).epoch(2, lr=1.0).epoch(3)
    _, points = told(run)
    assert [step for key, step, _ in points if key == "val/crack_iou"] == [1, 2, 3]
    assert ("lr", 2, 1.0) not in points


def test_final_figures_told_again_count_once_and_stand_beside_the_last_epoch(
    here: Path, make_run: Callable[..., Any]
) -> None:
    run = make_run().created().attempt().epoch(1)
    run.log.append("metrics", metrics={"best/crack_iou": 0.5, "train/loss": 0.1}, step=1)
    run.log.append("metrics", metrics={"best/crack_iou": 0.6, "test/crack_iou": None}, step=1)
    _, points = told(run)
    assert [point for point in points if point[0] == "best/crack_iou"] == [("best/crack_iou", 1, 0.5)]
    assert [value for key, _, value in points if key == "train/loss"] == [1.0, 0.1]
    assert not [point for point in points if point[0] == "test/crack_iou"]


def test_the_summary_says_how_it_ended_and_with_what(here: Path, make_run: Callable[..., Any]) -> None:
    run = make_run().created().attempt().epoch(1)
    run.log.append("note", level="warning", text="rate 18 is dead on a map of 8 cells")
    run.log.append("note", level="info", text="amp is off")
    run.log.append("metrics", metrics={"best/crack_iou": 0.51234}, step=1)
    story, _ = told(run.finish("KILLED", "SIGTERM"))
    summary = story.summary(run.path)
    assert summary.startswith("**KILLED** after 1 epoch.")
    assert "Reason: SIGTERM." in summary
    assert "| best/crack_iou | 0.5123 |" in summary
    assert "- rate 18 is dead on a map of 8 cells" in summary
    assert story.notes[1] == "info: amp is off"


def test_a_line_still_being_written_waits_for_its_newline(here: Path) -> None:
    path = here / "events.jsonl"
    tail = EventTail(path)
    assert tail.read() == []
    first, second = (json.dumps({"seq": seq, "kind": "tags"}) for seq in (0, 1))
    path.write_text(f"{first}\n{second[:5]}")
    assert [event["seq"] for event in tail.read()] == [0]
    assert tail.read() == []
    path.write_text(f"{first}\n{second}\n")
    assert [event["seq"] for event in tail.read()] == [1]


def test_an_edited_log_is_refused(here: Path) -> None:
    path = here / "events.jsonl"
    path.write_text('{"seq": 1, "kind": "tags"}\n')
    with pytest.raises(ValueError, match="event 1 where 0 was expected"):
        EventTail(path).read()


def test_values_are_written_as_yaml_does_and_cut_where_mlflow_would_refuse() -> None:
    assert [param_text(value) for value in (True, None, 1e-4, "x", [1, 6])] == ["true", "null", "0.0001", "x", "[1, 6]"]
    assert len(param_text("x" * 7000)) == 6000
    assert len(tag_text("x" * 9000)) == 8000
    assert safe_key("data.rates[0]:é/x y") == "data.rates_0___/x y"


def test_unsent_counts_events_after_the_last_sent_one(here: Path, make_run: Callable[..., Any]) -> None:
    run = make_run().created().attempt().epoch(1)
    assert unsent(run.path) == 3
    write_state(run.path, TrackingState(store="mlruns/mlflow.db", next_seq=2))
    assert unsent(run.path) == 1
    (run.path / TRACKING).write_text('{"store": "mlru')
    assert read_state(run.path) is None
    assert unsent(run.path) == 3


def test_a_run_is_left_open_only_if_its_last_training_is_dead_and_silent(
    here: Path, make_run: Callable[..., Any], dead_pid: int
) -> None:
    run = make_run().created().attempt(pid=dead_pid)
    assert not left_open(run.path), "it is not in the store at all"
    write_state(run.path, TrackingState(store="x", run_id="1"))
    assert left_open(run.path)
    run.attempt(2)
    assert not left_open(run.path)
    run.attempt(3, pid=dead_pid).finish()
    assert not left_open(run.path)
