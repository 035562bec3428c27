"""A study's trials in Optuna's storage: written so that a crash leaves each step done or not done, and read back."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from crack_sweeps.errors import StoreError, StudyError
from crack_sweeps.runs.events import read_events
from crack_sweeps.specs.study import Objective
from crack_sweeps.specs.study_loading import Arm
from crack_sweeps.study.distributions import encoded_suggestion
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import Outcome, Trial
from crack_sweeps.study.ledger import read_rows
from crack_sweeps.tracking.location import mask, network_file_system

Answer = TypeVar("Answer")

MEMORY = "memory"  # the one constraint of every trial: forecast peak over budget, minus 1
BUSY_TIMEOUT_S = 60  # with SQLite's 5 s, trials are lost under load; with 60 s none was
PATIENCE_S = 120.0  # how long a database may be away, as PostgreSQL is when it restarts
FIRST_PAUSE_S = 0.1
_SQLITE = "sqlite"
OWNER = "crack_sweeps.owner"  # the attribute of an Optuna study that says whose it is

STATES: Mapping[Outcome, TrialState] = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "rejected": TrialState.PRUNED,
    "invalid": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "out_of_memory": TrialState.PRUNED,
}


class Store:
    """The trials of a study, one Optuna study per arm.

    Two people may give their studies one name in one database, and a study's folder may be deleted and begun anew: so
    each Optuna study bears the mark of the folder whose trials it has, and no other folder may have them. One without
    a mark, as they were before there were marks, becomes that of the first folder that knows of trials itself.

    Args:
        url: SQLAlchemy's address of the database.
        name: The study's, with its version.
        arms: What is searched.
        objective: Which way is better.
        owner: The folder whose trials these are; None asks for no mark, and leaves none.
        make: Make what is missing there; otherwise an arm that is not there has no trials.
        patience_s: How long a server that does not answer may be away while the store is opened.
        notify: Told when an answer is waited for.

    Raises:
        StoreError: The database cannot be opened, is not Optuna's, or has another study of this name.
    """

    def __init__(
        self,
        url: str,
        name: str,
        arms: tuple[Arm, ...],
        objective: Objective,
        *,
        owner: StudyFolder | None = None,
        make: bool = True,
        patience_s: float = PATIENCE_S,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._shown, self._name, self._notify = mask(url), name, notify
        self._arms = {arm.name: arm for arm in arms}
        self._ids: dict[tuple[str, int], int] = {}
        direction = StudyDirection.MAXIMIZE if objective.direction == "maximize" else StudyDirection.MINIMIZE
        if url.startswith(_SQLITE):  # a file that is busy is waited for by SQLite itself, one that is not there never
            patience_s = 0
        with quiet_optuna():
            try:
                self._storage = self._try(lambda: _open(url), patience_s)
                self._study_ids = self._try(self._find, patience_s)
                if owner is not None:
                    for arm in self._study_ids:
                        self._require_own(arm, owner)
                if make:
                    for arm in self._arms:
                        self._try(partial(self._make, arm, direction, owner), patience_s)
            except ImportError as error:
                raise StoreError(
                    f"{self._shown}: cannot be used: its driver is not installed ({error.__cause__ or error})",
                    hint="uv pip install 'psycopg[binary]' for PostgreSQL; an address may name another driver, "
                    "mysql+pymysql://... for example",
                ) from error
            except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
                text = mask(str(error).strip().splitlines()[0])
                raise StoreError(f"{self._shown}: cannot be used ({text})", hint=_how_to_name(url)) from error

    def trials(self, arm: str) -> list[Trial]:
        """All trials of an arm by number."""
        if arm not in self._study_ids:
            return []
        found = self._try(lambda: self._storage.get_all_trials(self._study_ids[arm], deepcopy=False))
        self._ids |= {(arm, frozen.number): frozen._trial_id for frozen in found}
        return [_read(arm, frozen) for frozen in sorted(found, key=lambda frozen: frozen.number)]

    def require_free(self) -> None:
        """Refuse to begin a study here where another of its name has been begun.

        Raises:
            StoreError: There is one.
        """
        for arm in self._study_ids:
            mark = self._mark(arm)
            if mark is not None or self.trials(arm):
                raise self._taken(mark)

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
        self._try(partial(self._end, trial_id, STATES[trial.outcome], values))

    def _end(self, trial_id: int, state: TrialState, values: list[float] | None) -> None:
        """Once is as good as twice: an answer may be lost after the database has done what it was told."""
        try:
            self._storage.set_trial_state_values(trial_id, state, values)
        except optuna.exceptions.UpdateFinishedTrialError as error:
            stored = self._storage.get_trial(trial_id)
            if (stored.state, stored.values) != (state, values):
                raise self._told_otherwise(stored) from error

    def _set_attributes(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self._try(partial(self._set_attribute, trial_id, key, value))

    def _set_attribute(self, trial_id: int, key: str, value: Any) -> None:
        try:
            self._storage.set_trial_user_attr(trial_id, key, value)
        except optuna.exceptions.UpdateFinishedTrialError as error:
            stored = self._storage.get_trial(trial_id)
            if key not in stored.user_attrs or stored.user_attrs[key] != json.loads(json.dumps(value)):
                raise self._told_otherwise(stored) from error

    def _told_otherwise(self, stored: FrozenTrial) -> StudyError:
        return StudyError(
            f"{self._shown}: trial {stored.number} has ended otherwise ({stored.state.name.lower()}) in the meantime: "
            "another coordinator writes to this study",
            hint="stop the other one; `sweeps status` names it",
        )

    def close(self) -> None:
        """Give the connections back."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _find(self) -> dict[str, int]:
        """Optuna's studies by arm, as far as there are any."""
        found: dict[str, int] = {}
        for arm in self._arms:
            with suppress(KeyError):
                found[arm] = self._storage.get_study_id_from_name(f"{self._name}/{arm}")
        return found

    def _make(self, arm: str, direction: StudyDirection, owner: StudyFolder | None) -> None:
        """An arm's study and its mark, so far as they are missing; a crash in between leaves an empty one without."""
        if arm not in self._study_ids:
            try:
                self._study_ids[arm] = self._storage.create_new_study([direction], f"{self._name}/{arm}")
            except optuna.exceptions.DuplicatedStudyError:  # by us, and the answer was lost; or by another just now
                self._study_ids |= self._find()
        if owner is not None and self._mark(arm) is None:
            self._storage.set_study_user_attr(self._study_ids[arm], OWNER, _mark_of(owner))
        if owner is not None:
            self._require_own(arm, owner)

    def _mark(self, arm: str) -> dict[str, str] | None:
        return self._storage.get_study_user_attrs(self._study_ids[arm]).get(OWNER)

    def _require_own(self, arm: str, owner: StudyFolder) -> None:
        mark = self._mark(arm)
        if mark is None and (not self.trials(arm) or _knows_of_trials(owner)):
            return
        if mark != _mark_of(owner):
            raise self._taken(mark)

    def _taken(self, mark: Mapping[str, str] | None) -> StoreError:
        since = f", begun {mark['began']}," if mark is not None else ""
        return StoreError(
            f"{self._shown}: another study named {self._name}{since} has its trials there",
            hint="give this one another `name` in its file, or another --storage",
        )

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

    def _try(self, call: Callable[[], Answer], patience_s: float = PATIENCE_S) -> Answer:
        """Optuna repeats no call that failed: a database that restarts, or that is locked, would lose a trial."""
        deadline, pause_s = time.monotonic() + patience_s, FIRST_PAUSE_S
        while True:
            try:
                return call()
            except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.OperationalError) as error:
                if not patience_s:
                    raise
                text = mask(str(error).strip().splitlines()[0])
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"{self._shown}: no answer for {patience_s:.0f} s ({text})",
                        hint="the same command goes on with the study when it is back",
                    ) from error
                if pause_s == FIRST_PAUSE_S:
                    self._notify(f"warning: {self._shown}: no answer ({text}); waiting for up to {patience_s:.0f} s")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)


def require_usable(url: str, name: str, arms: tuple[Arm, ...], objective: Objective) -> None:
    """See that a study which has not begun could keep its trials somewhere; makes no study there.

    Raises:
        StoreError: The database cannot be opened, or has another study of this name.
    """
    with closing(Store(url, name, arms, objective, make=False, patience_s=0)) as store:
        store.require_free()


def sqlite_url(path: Path) -> str:
    """The address of a SQLite file."""
    return f"sqlite:///{os.path.abspath(path)}"


def database_of(folder: StudyFolder) -> Path:
    """Where Optuna's SQLite file is or will be; SWEEPS_STORE moves it to a local disk.

    Raises:
        StoreError: It would be on a network file system, where SQLite loses writes.
    """
    moved = os.environ.get("SWEEPS_STORE")
    path = Path(moved) / "studies" / folder.name / "optuna.db" if moved else folder.database
    kind = network_file_system(path)
    if kind is not None:
        raise StoreError(
            f"{path.parent} is on a network file system ({kind}), where SQLite loses trials",
            hint="name a local folder with SWEEPS_STORE=/local/folder, or a server with --storage",
        )
    return path


def own_url(folder: StudyFolder) -> str:
    """The address of a study's own SQLite file, whose folder is made.

    Raises:
        StoreError: As `database_of` does.
    """
    path = database_of(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    return sqlite_url(path)


def address_of(folder: StudyFolder, given: str | None) -> str | None:
    """Where a study's trials are stored; None where that has a password, which no file keeps, and it was not given.

    Args:
        folder: The study's.
        given: An address as it was typed; it counts if it is the study's.

    Raises:
        StoreError: As `database_of` does.
    """
    kept: str | None = folder.read_facts().get("storage")
    if kept is None:
        return sqlite_url(database_of(folder))
    if given is not None and mask(given) == kept:
        return given
    return None if "***" in kept else kept


def _how_to_name(url: str) -> str:
    """What to do about an address that cannot be used."""
    if url.startswith("postgres://"):
        return "SQLAlchemy calls it postgresql://"
    if re.match(r"[a-z0-9+]+://", url) is None:
        return "--storage takes an address such as postgresql://me@server/db or sqlite:///studies.db"
    return "check --storage: its server, name and rights"


def _mark_of(folder: StudyFolder) -> dict[str, str]:
    """What tells a folder apart; before folders had ids, the second in which it was begun did."""
    facts = folder.read_facts()
    return {"id": facts.get("id", ""), "began": facts["began"], "space": facts["space"], "rest": facts["rest"]}


def _knows_of_trials(folder: StudyFolder) -> bool:
    told = (event["kind"] == "trial" for event in read_events(folder.events))
    return any(True for _ in read_rows(folder)) or any(told)


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
