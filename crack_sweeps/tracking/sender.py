"""Put a run's events into MLflow so that each arrives exactly once, whatever dies when."""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crack_sweeps.errors import MirrorError, SweepsError
from crack_sweeps.runs.events import Event
from crack_sweeps.tracking.location import StoreLocation, mask, store_location
from crack_sweeps.tracking.quiet import quiet_mlflow
from crack_sweeps.tracking.state import TrackingState, read_state, state_in, write_state
from crack_sweeps.tracking.story import Chapter, Point, Story, param_text, safe_key, tag_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

RUN_TAG = "crack_sweeps.run"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # trainings, not chat bots
_DESCRIPTION_TAG = "mlflow.note.content"
_POINTS_PER_BATCH = 1000  # MLflow's limits for one request
_PARAMS_PER_BATCH = 100
_TAGS_PER_BATCH = 100
_LONGEST_DIGEST = 36
_MERGED = frozenset({"epoch", "metrics", "tags", "note"})  # kinds whose events share requests

# What no repetition cures. BAD_REQUEST is not among them: SQLAlchemy's conflicts between two writers arrive as that.
_HOPELESS = frozenset(
    {"INVALID_PARAMETER_VALUE", "INVALID_STATE", "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_DOES_NOT_EXIST"}
    | {"ENDPOINT_NOT_FOUND", "NOT_FOUND", "FEATURE_DISABLED", "UNAUTHORIZED"}
)

log = logging.getLogger(__name__)


class Unreachable(MirrorError):
    """The store did not answer; the same call may succeed later."""


@contextlib.contextmanager
def _speaking_to(location: StoreLocation) -> Iterator[None]:
    """Sort what goes wrong with the store into: try again later, or hopeless."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        text = mask(str(error)).strip().splitlines()[0][:300]
        if error.error_code in _HOPELESS:
            raise MirrorError(
                f"{location.shown} refused: {text}",
                hint="the run directory has everything; once the cause is mended, `sweeps doctor --fix` sends it",
            ) from error
        raise Unreachable(f"{location.shown}: {text}") from error
    except (OSError, SQLAlchemyError) as error:
        text = mask(str(error) or type(error).__name__).strip().splitlines()[0][:300]
        raise Unreachable(f"{location.shown}: {text}") from error


class RunSender:
    """One run on its way into one store.

    Every step either can be repeated without effect (metrics carry their original time, parameters and tags their
    value, artifacts their name) or looks first for what an earlier, killed attempt has made (the run by its tag, the
    model by its run). `tracking.json` moves on only after the store has the events.

    Raises:
        StoreError: The store cannot be used where it stands.
        Unreachable: It does not answer now.
        MirrorError: It refuses.
    """

    def __init__(self, run_dir: Path) -> None:
        quiet_mlflow()
        from mlflow import MlflowClient

        from crack_sweeps.tracking.store import prepare_store

        self.run_dir = run_dir
        self.location = store_location()
        with _speaking_to(self.location):
            prepare_store(self.location)
            self.client: MlflowClient = MlflowClient(tracking_uri=self.location.uri)
        self.state = state_in(run_dir, self.location)
        with _speaking_to(self.location):
            if self.state.run_id is not None and not self._exists(self.state.run_id):
                log.warning("run %s is no longer in %s: sending it anew", self.state.run_id, self.location.shown)
                self.state = TrackingState(store=self.location.shown)

    def send(self, chapters: Sequence[Chapter], story: Story) -> None:
        """Send what is not there yet, in order. Chapters before `state.next_seq` are passed over."""
        rest = [chapter for chapter in chapters if chapter.seq >= self.state.next_seq]
        with _speaking_to(self.location):
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
        with _speaking_to(self.location):
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
        self._set_tags(tags)
        if any(chapter.kind == "note" for chapter in chapters):
            self.client.log_text(self._run_id, "\n".join(story.notes) + "\n", "notes.txt")

    def _send_single(self, event: Event, story: Story) -> None:
        match event["kind"]:
            case "created":
                self._create(event)
            case "attempt":
                if self.state.status != "RUNNING":
                    self.client.update_run(self._run_id, status="RUNNING")
                    self.state = replace(self.state, status="RUNNING")
                self._set_tags({"crack_sweeps.attempts": str(event["attempt"])})
            case "artifact":
                self._send_artifact(event)
            case "model":
                self._send_model(event, story)
            case "ended":
                text = replace_ended(story, event).summary(self.run_dir)
                self._set_tags({_DESCRIPTION_TAG: text, "crack_sweeps.reason": event.get("reason") or ""})
                self.client.set_terminated(self._run_id, status=event["status"], end_time=event["time_ms"])
                self.state = replace(self.state, status=event["status"])
            case kind:
                log.warning("event %s is of the unknown kind %r: passed over", event["seq"], kind)

    def _create(self, event: Event) -> None:
        experiment = self._experiment(event["experiment"])
        tag_is_its_name = f"tags.`{RUN_TAG}` = '{event['run']}'"
        found = self.client.search_runs([experiment.experiment_id], filter_string=tag_is_its_name, max_results=1)
        if found:
            run = found[0]
        else:
            tags = {safe_key(key): tag_text(value) for key, value in event["tags"].items()}
            run = self.client.create_run(
                experiment.experiment_id,
                start_time=event["time_ms"],
                tags={**_source_tags(event["tags"]), **tags, RUN_TAG: event["run"]},
                run_name=event["run"],
            )
        self._commit(experiment_id=experiment.experiment_id, run_id=run.info.run_id, status=run.info.status)
        self._log_params(event["params"])
        self._log_dataset(event["dataset"])

    def _experiment(self, name: str) -> Experiment:
        """The experiment of that name; another mirror may make it at the same moment."""
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            root = self.location.artifacts
            folder = (root / name).absolute().as_uri() if root is not None else None
            try:
                made = self.client.create_experiment(name, artifact_location=folder, tags=EXPERIMENT_TAGS)
                return self.client.get_experiment(made)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self.client.get_experiment_by_name(name)
                assert experiment is not None, f"MLflow says that experiment {name} exists, and does not give it"
        if experiment.lifecycle_stage != "active":
            log.warning("experiment %s was deleted in MLflow: restored, since a new run belongs to it", name)
            self.client.restore_experiment(experiment.experiment_id)
        return experiment

    def _exists(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

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


def _source_tags(tags: dict[str, Any]) -> dict[str, str]:
    """What MLflow's own columns show: source, commit, user."""
    found = {"mlflow.source.name": "sweeps run", "mlflow.source.type": "LOCAL"}
    commit = tags.get("crack_sweeps.commit")
    if commit and commit != "none":
        found["mlflow.source.git.commit"] = str(commit)
    try:
        found["mlflow.user"] = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container without a name for its user: the column stays empty
        log.info("this user has no name")
    return found
