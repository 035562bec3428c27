"""A study's trials in Optuna's storage: written so that a crash leaves each step done or not done, and read back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from crack_sweeps.errors import StoreError, StudyError
from crack_sweeps.specs.study import Objective
from crack_sweeps.specs.study_loading import Arm
from crack_sweeps.study.distributions import encoded_suggestion
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import Outcome, Trial
from crack_sweeps.tracking.location import mask, network_file_system

Answer = TypeVar("Answer")

MEMORY = "memory"  # the one constraint of every trial: forecast peak over budget, minus 1
BUSY_TIMEOUT_S = 60  # with SQLite's 5 s, trials are lost under load; with 60 s none was
PATIENCE_S = 120.0  # how long a database may be away, as PostgreSQL is when it restarts
FIRST_PAUSE_S = 0.1

STATES: Mapping[Outcome, TrialState] = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "rejected": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "out_of_memory": TrialState.PRUNED,
}


class Store:
    """The trials of a study, one Optuna study per arm.

    Args:
        url: SQLAlchemy's address of the database.
        name: The study's, with its version.
        arms: What is searched.
        objective: Which way is better.

    Raises:
        StoreError: The database cannot be opened, or is not Optuna's.
    """

    def __init__(self, url: str, name: str, arms: tuple[Arm, ...], objective: Objective) -> None:
        self._shown = mask(url)
        self._arms = {arm.name: arm for arm in arms}
        direction = StudyDirection.MAXIMIZE if objective.direction == "maximize" else StudyDirection.MINIMIZE
        with quiet_optuna():
            try:
                self._storage = _open(url)
                self._study_ids = {arm: self._study_id(f"{name}/{arm}", direction) for arm in self._arms}
            except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, ImportError) as error:
                text = mask(str(error).strip().splitlines()[0])
                raise StoreError(f"{self._shown}: cannot be used ({text})", hint="check --storage") from error
        self._ids: dict[tuple[str, int], int] = {}

    def trials(self, arm: str) -> list[Trial]:
        """All trials of an arm by number."""
        found = self._try(lambda: self._storage.get_all_trials(self._study_ids[arm], deepcopy=False))
        self._ids |= {(arm, frozen.number): frozen._trial_id for frozen in found}
        return [_read(arm, frozen) for frozen in sorted(found, key=lambda frozen: frozen.number)]

    def add(self, trial: Trial) -> None:
        """A new trial, whole, in one transaction.

        Raises:
            StudyError: Another process has added trials to this study in the meantime.
        """
        arm = self._arms[trial.arm]
        params, distributions = encoded_suggestion(arm.space, trial.suggestion)
        frozen = create_trial(
            state=STATES[trial.outcome],
            value=trial.value,
            params=params,
            distributions=distributions,
            user_attrs=_attributes(trial),
            intermediate_values=dict(trial.intermediate),
            constraints=None if trial.excess is None else {MEMORY: trial.excess},
        )
        trial_id = self._try_once(trial, frozen)
        number = self._storage.get_trial(trial_id).number
        if number != trial.number:
            raise StudyError(
                f"{self._shown}: trial {trial.number} became {number}: another coordinator writes to this study",
                hint="stop the other one; `sweeps status` names it",
            )
        self._ids[trial.arm, trial.number] = trial_id

    def report(self, trial: Trial, epoch: int, value: float) -> None:
        """The objective after an epoch."""
        trial_id = self._ids[trial.arm, trial.number]
        self._try(lambda: self._storage.set_trial_intermediate_value(trial_id, epoch, value))

    def note(self, trial: Trial, **facts: Any) -> None:
        """More facts about a trial."""
        trial_id = self._ids[trial.arm, trial.number]
        self._set_attributes(trial_id, facts)

    def finish(self, trial: Trial) -> None:
        """The trial's outcome and facts first, its state last: what is half done is done again."""
        trial_id = self._ids[trial.arm, trial.number]
        self._set_attributes(trial_id, _attributes(trial))
        value = trial.value
        if value is None and STATES[trial.outcome] == TrialState.PRUNED and trial.intermediate:
            value = trial.intermediate[max(trial.intermediate)]  # as Optuna itself writes a pruned trial
        values = None if value is None else [value]
        self._try(lambda: self._storage.set_trial_state_values(trial_id, STATES[trial.outcome], values))

    def _set_attributes(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self._try(partial(self._storage.set_trial_user_attr, trial_id, key, value))

    def close(self) -> None:
        """Give the connections back."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _study_id(self, name: str, direction: StudyDirection) -> int:
        try:
            return self._storage.get_study_id_from_name(name)
        except KeyError:
            return self._storage.create_new_study([direction], name)

    def _try_once(self, trial: Trial, frozen: FrozenTrial) -> int:
        """Creating is not repeatable: after an error, look whether it was done all the same."""
        study_id = self._study_ids[trial.arm]

        def create() -> int:
            for known in self._storage.get_all_trials(study_id, deepcopy=False)[trial.number :]:
                if known.user_attrs.get("run") == trial.facts.get("run") and known.number == trial.number:
                    return known._trial_id
            return self._storage.create_new_trial(study_id, frozen)

        try:
            return self._storage.create_new_trial(study_id, frozen)
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.OperationalError):
            return self._try(create)

    def _try(self, call: Callable[[], Answer]) -> Answer:
        """Optuna repeats no call that failed: a database that restarts, or that is locked, would lose a trial."""
        deadline, pause_s = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S
        while True:
            try:
                return call()
            except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.OperationalError) as error:
                if time.monotonic() > deadline:
                    text = mask(str(error).strip().splitlines()[0])
                    raise StoreError(
                        f"{self._shown}: no answer for {PATIENCE_S:.0f} s ({text})",
                        hint="the same command goes on with the study when it is back",
                    ) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)


def sqlite_url(path: Path) -> str:
    """The address of a SQLite file."""
    return f"sqlite:///{os.path.abspath(path)}"


def database_of(folder: StudyFolder) -> Path:
    """Where Optuna's SQLite file is; SWEEPS_STORE moves it to a local disk.

    Raises:
        StoreError: It would be on a network file system, where SQLite loses writes.
    """
    moved = os.environ.get("SWEEPS_STORE")
    path = Path(moved) / "studies" / folder.name / "optuna.db" if moved else folder.database
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = network_file_system(path)
    if kind is not None:
        raise StoreError(
            f"{path.parent} is on a network file system ({kind}), where SQLite loses trials",
            hint="name a local folder with SWEEPS_STORE=/local/folder, or a server with --storage",
        )
    return path


def _open(url: str) -> RDBStorage:
    if not url.startswith("sqlite"):
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": BUSY_TIMEOUT_S}})
    with storage.engine.connect() as connection:  # a mode of the file: readers and the writer no longer wait
        connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))
    return storage


def _attributes(trial: Trial) -> dict[str, Any]:
    return {"outcome": trial.outcome, "suggestion": dict(trial.suggestion), **trial.facts}


def _read(arm: str, frozen: FrozenTrial) -> Trial:
    facts = dict(frozen.user_attrs)
    suggestion = facts.pop("suggestion")
    told: Outcome = facts.pop("outcome")
    outcome: Outcome = told if frozen.state.is_finished() else "running"  # the state is written last
    return Trial(
        arm=arm,
        number=frozen.number,
        suggestion=suggestion,
        outcome=outcome,
        value=frozen.value if outcome == "complete" else None,
        intermediate=dict(frozen.intermediate_values),
        excess=frozen.constraints.get(MEMORY),
        facts=facts,
    )


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna says nothing but errors while the block runs: its lines would stand in the study's table."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
