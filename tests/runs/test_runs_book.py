"""What is told of a run: each thing once, and what a killed attempt left out by the next one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crack_sweeps import api
from crack_sweeps.runs.book import RunBook
from crack_sweeps.runs.events import EventLog, read_events
from crack_sweeps.runs.preparation import Prepared, prepare
from crack_sweeps.runs.training_run import begin_run, proceed
from crack_sweeps.specs.loading import resolve
from crack_sweeps.training.device import choose_device
from crack_sweeps.training.loop import Progress


@pytest.fixture
def prepared(here: Path, photos: Path, tiny: list[str]) -> Callable[[], Prepared]:
    def make() -> Prepared:
        resolved = resolve("unet_small", overrides=tiny, profile="cpu", data=photos)
        found = api.open_photos(resolved.experiment.data, root=Path("artifacts"), notify=lambda _: None)
        made = prepare(resolved.experiment, api._origin(resolved), found, device=choose_device("cpu"))
        return replace(made, warnings=("odd",))

    return make


def leave_at_once(made: Prepared, run: Any) -> None:
    with closing(proceed(made, run, stop=lambda: None)) as updates:
        next(updates)
        next(updates)


def test_files_and_warnings_are_told_once_whatever_the_attempt_that_died_had_told(
    prepared: Callable[[], Prepared],
) -> None:
    run = begin_run(prepared())
    assert [event["kind"] for event in read_events(run.events)] == ["created"]
    with closing(EventLog(run.events)) as log:  # an attempt that died after the first of its files
        log.append("attempt", attempt=1, pid=1, process_started=1.0, host="x", resumed_from_step=None)
        log.append("artifact", path="config.yaml", to="")
    for _ in range(2):
        leave_at_once(prepared(), run)
    events = list(read_events(run.events))
    assert [event["path"] for event in events if event["kind"] == "artifact"] == ["config.yaml", "environment.json"]
    assert [event["text"] for event in events if event["kind"] == "note"] == ["odd"]
    assert [event["attempt"] for event in events if event["kind"] == "attempt"] == [1, 2, 3]


def test_recomputed_activations_are_told_also_where_the_batch_stayed_as_it_was(
    prepared: Callable[[], Prepared],
) -> None:
    made = prepared()
    run = begin_run(made)
    with closing(EventLog(run.events)) as log:
        book = RunBook(run, made, log)
        book.progress = Progress(micro_batch=made.experiment.training.batch_size)
        book.note("something else")
        assert not [event for event in read_events(run.events) if event["kind"] == "tags"]
        book.progress.activation_checkpointing = True
        book.note("out of memory: activations are computed anew")
        book.note("and again")
    [tags] = [event["tags"] for event in read_events(run.events) if event["kind"] == "tags"]
    assert tags["crack_sweeps.activation_checkpointing"] == "true"
    assert "crack_sweeps.micro_batch" in tags, "by which the calibration knows such a run"


def test_a_directory_that_is_being_made_is_locked(
    prepared: Callable[[], Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    from crack_sweeps.runs import training_run
    from crack_sweeps.runs.directory import leftovers

    locked: list[bool] = []
    describe = training_run.describe_environment

    def look(device: Any) -> dict[str, Any]:
        locked.extend(run.is_running() for run in leftovers())
        return describe(device)

    monkeypatch.setattr(training_run, "describe_environment", look)
    run = begin_run(prepared())
    assert locked == [True]
    assert not run.is_running()
    assert list(leftovers()) == []
