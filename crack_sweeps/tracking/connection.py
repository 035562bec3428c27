"""The open store: one client for every run that is sent into it, and what its silence and its refusals mean."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING

from crack_sweeps.errors import MirrorError
from crack_sweeps.tracking.location import StoreLocation, mask, store_location
from crack_sweeps.tracking.quiet import quiet_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # trainings, not chat bots

# What no repetition cures. BAD_REQUEST is not among them: SQLAlchemy's conflicts between two writers arrive as that.
_HOPELESS = frozenset(
    {"INVALID_PARAMETER_VALUE", "INVALID_STATE", "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_DOES_NOT_EXIST"}
    | {"ENDPOINT_NOT_FOUND", "NOT_FOUND", "FEATURE_DISABLED", "UNAUTHORIZED"}
)

log = logging.getLogger(__name__)


class Unreachable(MirrorError):
    """The store did not answer; the same call may succeed later."""


class Refused(MirrorError):
    """The store answered no; the same call would fail again."""


@contextlib.contextmanager
def speaking_to(location: StoreLocation) -> Iterator[None]:
    """Sort what goes wrong with the store into: try again later, or hopeless.

    Raises:
        Unreachable: It does not answer now.
        Refused: It says no.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        text = mask(str(error)).strip().splitlines()[0][:300]
        if error.error_code in _HOPELESS:
            raise Refused(
                f"{location.shown} refused: {text}",
                hint="the run directory has everything; once the cause is mended, `sweeps doctor --fix` sends it",
            ) from error
        raise Unreachable(f"{location.shown}: {text}") from error
    except (OSError, SQLAlchemyError, sqlite3.OperationalError) as error:
        text = mask(str(error) or type(error).__name__).strip().splitlines()[0][:300]
        raise Unreachable(f"{location.shown}: {text}") from error


class StoreConnection:
    """The store that the environment names, made ready and open.

    Raises:
        StoreError: The store cannot be used where it stands.
        Unreachable: It does not answer now.
        Refused: It says no.
    """

    def __init__(self) -> None:
        quiet_mlflow()
        from mlflow import MlflowClient

        from crack_sweeps.tracking.store import prepare_store

        self.location = store_location()
        with speaking_to(self.location):
            prepare_store(self.location)
            self.client: MlflowClient = MlflowClient(tracking_uri=self.location.uri)

    def speaking(self) -> contextlib.AbstractContextManager[None]:
        """Sort what goes wrong inside into `Unreachable` and `MirrorError`."""
        return speaking_to(self.location)

    def experiment(self, name: str) -> Experiment:
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

    def find_run(self, experiment_id: str, tag: str, value: str) -> str | None:
        """MLflow's id of the run that has this tag; None where there is none."""
        condition = f"tags.`{tag}` = '{value}'"
        found = self.client.search_runs([experiment_id], filter_string=condition, max_results=1)
        return str(found[0].info.run_id) if found else None

    def has_run(self, run_id: str) -> bool:
        """Whether a run of this id exists, deleted ones in the bin included."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True
