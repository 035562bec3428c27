"""Put a run's events into MLflow so that each arrives exactly once, whatever dies when."""

from __future__ import annotations

import getpass
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crack_sweeps.errors import SweepsError
from crack_sweeps.runs.events import Event
from crack_sweeps.tracking.connection import StoreConnection
from crack_sweeps.tracking.location import mask
from crack_sweeps.tracking.state import Status, TrackingState, is_study, read_state, state_in, write_state
from crack_sweeps.tracking.story import Chapter, Point, Story, param_text, safe_key, tag_text

RUN_TAG = "crack_sweeps.run"
PARENT_TAG = "mlflow.parentRunId"
STATE_TAG = "crack_sweeps.trial_state"
_DESCRIPTION_TAG = "mlflow.note.content"
_POINTS_PER_BATCH = 1000  # MLflow's limits for one request
_PARAMS_PER_BATCH = 100
_TAGS_PER_BATCH = 100
_LONGEST_DIGEST = 36
_MERGED = frozenset({"epoch", "metrics", "tags", "note", "trial", "evaluation"})  # kinds whose events share requests

# How a run may end: as MLflow calls it, and as Optuna calls a trial that ended so. An interrupted trial has not ended.
_STATUS: dict[str, Status] = {"FINISHED": "FINISHED", "PRUNED": "KILLED", "KILLED": "KILLED", "FAILED": "FAILED"}
_TRIAL_STATE = {"FINISHED": "COMPLETE", "PRUNED": "PRUNED", "FAILED": "FAIL", "KILLED": ""}

log = logging.getLogger(__name__)


class RunSender:
    """One run, or a study's own run, on its way into one store.

    Every step either can be repeated without effect (metrics carry their original time, parameters and tags their
    value, artifacts their name) or looks first for what an earlier, killed attempt has made (the run by its tag, the
    model by its run). `tracking.json` moves on only after the store has the events.

    Args:
        run_dir: The run's directory, or the study's.
        store: Where to; shared by all senders of a process.

    Raises:
        Unreachable: The store does not answer now.
        Refused: It says no.
    """

    def __init__(self, run_dir: Path, store: StoreConnection) -> None:
        self.run_dir = run_dir
        self.store = store
        self.client = store.client
        self.state = state_in(run_dir, store.location)
        with store.speaking():
            if self.state.run_id is not None and not store.has_run(self.state.run_id):
                log.warning("run %s is no longer in %s: sending it anew", self.state.run_id, store.location.shown)
                self.state = TrackingState(store=store.location.shown)

    def send(self, chapters: Sequence[Chapter], story: Story) -> None:
        """Send what is not there yet, in order. Chapters before `state.next_seq` are passed over."""
        rest = [chapter for chapter in chapters if chapter.seq >= self.state.next_seq]
        with self.store.speaking():
            while rest:
                count = next((i for i, chapter in enumerate(rest) if chapter.kind not in _MERGED), len(rest))
                if count:
                    self._send_merged(rest[:count], story)
                else:
                    count = 1
                    self._send_single(rest[0].event, story)
                self._commit(next_seq=rest[count - 1].seq + 1)
                rest = rest[count:]

    def close_as_killed(self, story: Story, time_ms: int) -> None:
        """Say that the training died without a word. A later attempt opens the run again."""
        if self.state.run_id is None or self.state.status != "RUNNING":
            return
        with self.store.speaking():
            text = story.summary(self.run_dir) + "\n\nThe training process died without ending the run."
            self.client.set_tag(self.state.run_id, _DESCRIPTION_TAG, tag_text(text.replace("RUNNING", "KILLED", 1)))
            self.client.set_terminated(self.state.run_id, status="KILLED", end_time=time_ms)
        self._commit(status="KILLED")

    def _commit(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        if self.state != read_state(self.run_dir):
            write_state(self.run_dir, self.state)

    @property
    def _run_id(self) -> str:
        assert self.state.run_id is not None, "`created` is the first event"
        return self.state.run_id

    # --- the events ---

    def _send_merged(self, chapters: Sequence[Chapter], story: Story) -> None:
        self._log_points([point for chapter in chapters for point in chapter.points])
        tags: dict[str, Any] = {}
        for chapter in chapters:
            if chapter.kind == "tags":
                tags.update(chapter.event["tags"])
            elif chapter.kind == "evaluation" and story.ended is not None:
                tags[_DESCRIPTION_TAG] = story.summary(self.run_dir)
        self._set_tags(tags)
        if any(chapter.kind == "note" for chapter in chapters):
            self.client.log_text(self._run_id, "\n".join(story.notes) + "\n", "notes.txt")

    def _send_single(self, event: Event, story: Story) -> None:
        match event["kind"]:
            case "created":
                self._create(event)
            case "attempt":
                tags = {"crack_sweeps.attempts": str(event["attempt"])}
                if self.state.status != "RUNNING":
                    self.client.update_run(self._run_id, status="RUNNING")
                    self.state = replace(self.state, status="RUNNING")
                    tags |= {"crack_sweeps.reason": "", **self._trial_state(story, "")}
                self._set_tags(tags)
            case "artifact":
                self._send_artifact(event)
            case "model":
                self._send_model(event, story)
            case "ended":
                status = _STATUS[event["status"]]
                text = replace_ended(story, event).summary(self.run_dir)
                tags = {_DESCRIPTION_TAG: text, "crack_sweeps.reason": event.get("reason") or ""}
                self._set_tags({**tags, **self._trial_state(story, _TRIAL_STATE[event["status"]])})
                self.client.set_terminated(self._run_id, status=status, end_time=event["time_ms"])
                self.state = replace(self.state, status=status)
            case kind:
                log.warning("event %s is of the unknown kind %r: passed over", event["seq"], kind)

    def _trial_state(self, story: Story, state: str) -> dict[str, str]:
        """How the trial stands, as a tag; a run that is nobody's child is no trial."""
        return {STATE_TAG: state} if story.created is not None and story.created.get("parent") else {}

    def _create(self, event: Event) -> None:
        experiment_id = str(self.store.experiment(event["experiment"]).experiment_id)
        name = identity(event)
        run_id = self.store.find_run(experiment_id, RUN_TAG, name)
        if run_id is None:
            tags = {safe_key(key): tag_text(value) for key, value in event["tags"].items()}
            source = "sweeps study" if is_study(event) or event.get("parent") else "sweeps run"
            run = self.client.create_run(
                experiment_id,
                start_time=event["time_ms"],
                tags={
                    **_source_tags(source, event["tags"]),
                    **tags,
                    **self._parent(event, experiment_id),
                    RUN_TAG: name,
                },
                run_name=event.get("shown_as") or event["run"],
            )
            run_id = str(run.info.run_id)
            status: Status = "RUNNING"
        else:
            status = self.client.get_run(run_id).info.status
        self._commit(experiment_id=experiment_id, run_id=run_id, status=status)
        self._log_params(event["params"])
        self._log_dataset(event["dataset"])

    def _parent(self, event: Event, experiment_id: str) -> dict[str, str]:
        """The tag that nests the run. The parent was sent before; if its folder is gone, MLflow may still have it."""
        parent = event.get("parent")
        if not parent:
            return {}
        run_id = state_in(Path(parent["dir"]), self.store.location).run_id
        for name in (parent["run"], study_tag(parent["run"])):
            run_id = run_id or self.store.find_run(experiment_id, RUN_TAG, name)
        if run_id is None:
            log.warning("%s: its parent %s is neither on disk nor in MLflow: not nested", event["run"], parent["run"])
            return {}
        return {PARENT_TAG: run_id}

    def _log_params(self, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        entries = [Param(safe_key(key), param_text(value)) for key, value in params.items()]
        for first in range(0, len(entries), _PARAMS_PER_BATCH):
            self.client.log_batch(self._run_id, params=entries[first : first + _PARAMS_PER_BATCH])

    def _log_points(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        entries = [Metric(point.key, point.value, point.time_ms, point.step) for point in points]
        for first in range(0, len(entries), _POINTS_PER_BATCH):
            self.client.log_batch(self._run_id, metrics=entries[first : first + _POINTS_PER_BATCH])

    def _set_tags(self, tags: dict[str, Any]) -> None:
        from mlflow.entities import RunTag

        entries = [RunTag(safe_key(key), tag_text(value)) for key, value in tags.items()]
        for first in range(0, len(entries), _TAGS_PER_BATCH):
            self.client.log_batch(self._run_id, tags=entries[first : first + _TAGS_PER_BATCH])

    def _log_dataset(self, dataset: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entry = Dataset(
            name=str(dataset["name"]),
            digest=str(dataset["digest"])[:_LONGEST_DIGEST],
            source_type="local",
            source=json.dumps({"uri": mask(str(dataset["source"]))}),
            profile=json.dumps({key: value for key, value in dataset.items() if key.startswith(("num_", "digest"))}),
        )
        used = DatasetInput(entry, tags=[InputTag("mlflow.data.context", "training")])
        self.client.log_inputs(self._run_id, datasets=[used])

    def _send_artifact(self, event: Event) -> None:
        path = self.run_dir / event["path"]
        if not path.resolve().is_relative_to(self.run_dir.resolve()):
            log.warning("artifact %s lies outside the run directory: passed over", event["path"])
        elif path.is_dir():
            self.client.log_artifacts(self._run_id, str(path), event["to"] or None)
        elif path.is_file():
            self.client.log_artifact(self._run_id, str(path), event["to"] or None)
        else:
            log.warning("artifact %s is gone: passed over", event["path"])

    def _send_model(self, event: Event, story: Story) -> None:
        from crack_sweeps.tracking.model import log_model

        assert self.state.experiment_id is not None
        try:
            model_id = log_model(
                self.client,
                run_dir=self.run_dir,
                run_id=self._run_id,
                experiment_id=self.state.experiment_id,
                event=event,
                step=story.last_epoch,
            )
        except SweepsError as error:  # a damaged checkpoint costs the model, not the rest of the run
            log.warning("model %s was not logged: %s", event["path"], error)
            self._set_tags({"crack_sweeps.model_error": str(error)})
        else:
            self._set_tags({"crack_sweeps.model_id": model_id})


def replace_ended(story: Story, event: Event) -> Story:
    """The story as it stood at this end: with everything told in one go, a later attempt has reset it."""
    return replace(story, ended=event)


def study_tag(folder_name: str) -> str:
    """The value of `crack_sweeps.run` on the run of the study in this folder: `study:NAME`, `study:NAME@2`."""
    return f"study:{folder_name}"


def identity(created: Event) -> str:
    """What the run is found by in MLflow, as the value of `crack_sweeps.run`: its own name, or its study's."""
    return study_tag(created["run"]) if is_study(created) else str(created["run"])


def _source_tags(source: str, tags: dict[str, Any]) -> dict[str, str]:
    """What MLflow's own columns show: source, commit, user."""
    found = {"mlflow.source.name": source, "mlflow.source.type": "LOCAL"}
    commit = tags.get("crack_sweeps.commit")
    if commit and commit != "none":
        found["mlflow.source.git.commit"] = str(commit)
    try:
        found["mlflow.user"] = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container without a name for its user: the column stays empty
        log.info("this user has no name")
    return found
