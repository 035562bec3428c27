"""How far a run or a study has been sent: `tracking.json`. Read by everybody, written by the mirror alone."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from crack_sweeps import durable
from crack_sweeps.runs import events
from crack_sweeps.runs.events import Event, read_events
from crack_sweeps.runs.process import Trainer as Trainer
from crack_sweeps.tracking.location import StoreLocation

EVENTS = "events.jsonl"
TRACKING = "tracking.json"
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]  # as MLflow calls them


@dataclass(frozen=True)
class TrackingState:
    """Where a run stands in its store.

    Args:
        store: The store it was sent to, as `StoreLocation.shown`.
        experiment_id: MLflow's, None until the run exists there.
        run_id: MLflow's, None until the run exists there.
        next_seq: Number of the first event that was not sent.
        status: What MLflow shows.
    """

    store: str
    experiment_id: str | None = None
    run_id: str | None = None
    next_seq: int = 0
    status: Status = "RUNNING"


def read_state(run_dir: Path) -> TrackingState | None:
    """What was sent so far; None where nothing was, or where the file is damaged: sending again doubles nothing."""
    path = run_dir / TRACKING
    if not path.exists():
        return None
    try:
        return TrackingState(**json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        return None


def write_state(run_dir: Path, state: TrackingState) -> None:
    """Replace `tracking.json` in one step."""
    durable.write_text(run_dir / TRACKING, json.dumps(asdict(state), indent=1) + "\n")


def state_in(run_dir: Path, location: StoreLocation) -> TrackingState:
    """The state in this store: another one than before starts at the first event, since MLflow is only a mirror."""
    state = read_state(run_dir)
    if state is None or state.store != location.shown:
        return TrackingState(store=location.shown)
    return state


def unsent(run_dir: Path) -> int:
    """Number of events that have not reached the store that they were first sent to."""
    state = read_state(run_dir)
    return sum(1 for _ in read_events(run_dir / EVENTS, state.next_seq if state is not None else 0))


def all_sent(run_dir: Path, location: StoreLocation) -> TrackingState | None:
    """The state of a run that has ended in this store and has nothing left to send; None otherwise. Parses nothing."""
    state = read_state(run_dir)
    if state is None or state.store != location.shown or state.status == "RUNNING":
        return None
    path = run_dir / EVENTS
    return state if path.exists() and path.read_bytes().count(b"\n") == state.next_seq else None


def first_event(run_dir: Path) -> Event | None:
    """The first event, once it is written."""
    return events.first_event(run_dir / EVENTS)


def is_study(created: Event) -> bool:
    """Whether a `created` event is a study's: its folder is named after the MLflow experiment, with a version or none.

    A training's directory is named by time, name and chance, and its experiment after the study (or `runs`).
    """
    return str(created["run"]).partition("@")[0] == str(created["experiment"])


def left_open(run_dir: Path) -> bool:
    """Whether the run is shown as running although its process is dead, or never began its first attempt.

    Of a run without an attempt the answer holds only while nobody has its lock.
    """
    state = read_state(run_dir)
    if state is None or state.run_id is None or state.status != "RUNNING":
        return False
    attempt: Event | None = None
    ended = False
    for event in read_events(run_dir / EVENTS):
        if event["kind"] == "attempt":
            attempt, ended = event, False
        elif event["kind"] == "ended":
            ended = True
    return not ended and (attempt is None or Trainer.of(attempt).is_dead())
