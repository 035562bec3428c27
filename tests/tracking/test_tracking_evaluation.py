"""Scores that a finished run is given later: they reach its place in MLflow once, and the run stays finished."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crack_sweeps.runs.events import read_events
from crack_sweeps.tracking import mirror
from crack_sweeps.tracking.state import TRACKING, read_state, unsent, write_state
from crack_sweeps.tracking.story import Story


def finished(make_run: Callable[..., Any]) -> Any:
    run = make_run().created().attempt().epoch(1)
    run.log.append("metrics", metrics={"best/crack_iou": 0.3, "test/crack_iou": 0.2}, step=1)
    return run.finish()


def evaluated(run: Any, **figures: float | None) -> Any:
    folder = run.path / "evaluations"
    folder.mkdir(exist_ok=True)
    (folder / "set-test.json").write_text(json.dumps(figures))
    metrics = {f"test/{name}": value for name, value in figures.items()}
    run.log.append("evaluation", name="test", metrics=metrics, step=1)
    run.log.append("artifact", path="evaluations/set-test.json", to="evaluations")
    return run


def points(run: Any) -> list[tuple[str, float]]:
    story = Story()
    told = [story.tell(event) for event in read_events(run.path / "events.jsonl")]
    return [(point.key, point.value) for chapter in told if chapter.kind == "evaluation" for point in chapter.points]


def test_only_what_differs_from_what_was_told_is_told(here: Path, make_run: Callable[..., Any]) -> None:
    run = finished(make_run)
    evaluated(run, crack_iou=0.2, cldice=0.5)  # as its finalist's own scoring had it, and a new figure
    evaluated(run, crack_iou=0.2, cldice=0.5)
    evaluated(run, crack_iou=0.25, cldice=0.5)
    evaluated(run, crack_iou=0.2, cldice=None)
    assert points(run) == [("test/cldice", 0.5), ("test/crack_iou", 0.25), ("test/crack_iou", 0.2)]


def test_the_summary_shows_an_evaluations_headline_alone(here: Path, make_run: Callable[..., Any]) -> None:
    run = evaluated(finished(make_run), crack_iou=0.25, cldice=0.5)
    story = Story()
    for event in read_events(run.path / "events.jsonl"):
        story.tell(event)
    summary = story.summary(run.path)
    assert "| test/crack_iou | 0.25 |" in summary
    assert "| best/crack_iou | 0.3 |" in summary
    assert "cldice" not in summary


def test_an_evaluation_after_the_end_is_sent_once_and_the_run_stays_finished(
    with_store: Path, make_run: Callable[..., Any], shown: Callable[[], Any]
) -> None:
    run = finished(make_run)
    mirror.send(run.path)
    ended = shown().only_run().info.end_time
    evaluated(run, crack_iou=0.25, cldice=0.5)
    before = read_state(run.path)
    assert unsent(run.path) == 2
    mirror.send(run.path)
    assert unsent(run.path) == 0
    write_state(run.path, before)  # killed before it wrote down what was sent
    mirror.send(run.path)
    (run.path / TRACKING).unlink()  # and everything anew, as into a store that nobody knows to be the same
    mirror.send(run.path)
    there = shown()
    assert there.only_run().info.status == "FINISHED"
    assert there.only_run().info.end_time == ended
    assert there.points("test/crack_iou") == [(1, 0.2), (1, 0.25)]
    assert there.only_run().data.metrics["test/crack_iou"] == 0.25
    assert there.points("test/cldice") == [(1, 0.5)]
    assert there.artifacts("evaluations") == {"evaluations/set-test.json"}
    assert "| test/crack_iou | 0.25 |" in there.only_run().data.tags["mlflow.note.content"]
