"""A study's store belongs to one folder, and a database that answers late or not at all loses no trial."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage

from crack_sweeps.errors import StoreError, StudyError
from crack_sweeps.specs.study_loading import Identity, ResolvedStudy
from crack_sweeps.study import store as store_module
from crack_sweeps.study.folder import StudyFolder, open_folder
from crack_sweeps.study.history import Trial
from crack_sweeps.study.ledger import Ledger, row_of
from crack_sweeps.study.store import Store, require_usable

if TYPE_CHECKING:
    from stand_in_study import Bench

URL = "sqlite:///shared.db"


@pytest.fixture
def study(bench: Bench) -> ResolvedStudy:
    return bench.resolve()


def begun(study: ResolvedStudy, person: str) -> StudyFolder:
    """The study's folder where one of several people works."""
    return open_folder(study, Identity("space", "rest", "main"), {"storage": URL}, root=Path(person)).folder


def opened(study: ResolvedStudy, folder: StudyFolder | None, **how: Any) -> Store:
    return Store(URL, "toy", study.all_arms, study.spec.objective, owner=folder, **how)


def one_trial(study: ResolvedStudy, **facts: Any) -> Trial:
    suggestion = {
        "training.learning_rate": 0.001,
        "training.loss.dice_weight": 0.4,
        "training.loss.focal_gamma": 1,
    }
    return Trial(study.arms[0].name, 0, suggestion, "running", facts={"run": "a-run", **facts})


# --- whose it is ---------------------------------------------------------------------------------


def test_two_people_with_one_name_in_one_database_do_not_take_each_others_trials(study: ResolvedStudy) -> None:
    alice, bob = begun(study, "alice"), begun(study, "bob")
    with closing(opened(study, alice)):
        pass
    with pytest.raises(StoreError, match=r"another study named toy, begun .* has its trials there") as caught:
        opened(study, bob)
    assert caught.value.exit_code == 2
    assert caught.value.hint == "give this one another `name` in its file, or another --storage"
    with closing(opened(study, alice)) as store:
        assert store.trials(study.arms[0].name) == []


def test_a_folder_that_was_deleted_and_begun_anew_does_not_take_the_old_ones_trials(study: ResolvedStudy) -> None:
    first = begun(study, "alice")
    with closing(opened(study, first)) as store:
        store.add(one_trial(study))
    shutil.rmtree(first.path)
    with pytest.raises(StoreError, match="another study named toy"):
        opened(study, begun(study, "alice"))


def test_before_a_study_begins_a_database_that_has_its_name_is_refused_and_nothing_is_made(
    study: ResolvedStudy,
) -> None:
    require_usable(URL, "toy", study.all_arms, study.spec.objective)
    with closing(opened(study, None, make=False)) as store:
        assert store.trials(study.arms[0].name) == []
    assert optuna.get_all_study_names(URL) == []
    with closing(opened(study, begun(study, "alice"))):
        pass
    with pytest.raises(StoreError, match="another study named toy"):
        require_usable(URL, "toy", study.all_arms, study.spec.objective)


def test_a_store_from_before_there_were_marks_becomes_that_of_the_first_folder_that_knows_of_trials(
    study: ResolvedStudy,
) -> None:
    trial = one_trial(study)
    with closing(opened(study, None)) as store:
        store.add(trial)
    alice, bob = begun(study, "alice"), begun(study, "bob")
    with pytest.raises(StoreError, match="another study named toy has its trials there"):
        opened(study, alice)
    for folder in (alice, bob):
        with closing(Ledger(folder)) as ledger:
            ledger.add(row_of(trial, name="toy/0", outputs=Path("artifacts/outputs")))
    with closing(opened(study, alice)) as store:
        assert [known.number for known in store.trials(trial.arm)] == [0]
    with pytest.raises(StoreError, match="another study named toy, begun"):
        opened(study, bob)


def test_a_crash_between_a_study_and_its_mark_is_made_good(study: ResolvedStudy) -> None:
    with closing(opened(study, None)):
        pass
    with closing(opened(study, begun(study, "alice"))):
        pass
    with pytest.raises(StoreError, match="another study"):
        opened(study, begun(study, "bob"))


# --- answers that are lost -----------------------------------------------------------------------


def lose_answers(monkeypatch: pytest.MonkeyPatch, method: str, *, done: bool, times: int = 1) -> list[int]:
    """The database breaks off after (or before) it has done what it was told, so many times."""
    real: Callable[..., Any] = getattr(RDBStorage, method)
    calls: list[int] = []

    def flaky(self: RDBStorage, *args: Any, **kwargs: Any) -> Any:
        calls.append(0)
        if len(calls) > times:
            return real(self, *args, **kwargs)
        if done:
            real(self, *args, **kwargs)
        raise sqlalchemy.exc.OperationalError("x", None, Exception("server closed the connection"))

    monkeypatch.setattr(RDBStorage, method, flaky)
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.001)
    return calls


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("method", ["set_trial_state_values", "set_trial_user_attr", "create_new_trial"])
def test_a_trial_whose_answer_was_lost_is_told_once(
    study: ResolvedStudy, monkeypatch: pytest.MonkeyPatch, method: str, done: bool
) -> None:
    calls = lose_answers(monkeypatch, method, done=done)
    trial = one_trial(study)
    said: list[str] = []
    with closing(opened(study, begun(study, "alice"), notify=said.append)) as store:
        store.add(trial)
        over = Trial(trial.arm, 0, trial.suggestion, "complete", 0.5, facts={**trial.facts, "reason": None})
        store.finish(over)
        store.finish(over)
        [told] = store.trials(trial.arm)
    assert (told.outcome, told.value) == ("complete", 0.5)
    assert calls
    assert all("waiting for up to 120 s" in line for line in said)


def test_a_trial_that_another_coordinator_has_ended_otherwise_is_an_error_in_words(study: ResolvedStudy) -> None:
    trial = one_trial(study)
    with closing(opened(study, begun(study, "alice"))) as store:
        store.add(trial)
        store.finish(Trial(trial.arm, 0, trial.suggestion, "complete", 0.5, facts=trial.facts))
        with pytest.raises(StudyError, match=r"trial 0 has ended otherwise \(complete\)"):
            store.finish(Trial(trial.arm, 0, trial.suggestion, "complete", 0.6, facts=trial.facts))


@pytest.mark.parametrize("done", [True, False])
def test_a_server_that_restarts_while_the_store_is_opened_is_waited_for(
    study: ResolvedStudy, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    monkeypatch.setattr(store_module, "_SQLITE", "not what this is")
    lose_answers(monkeypatch, "create_new_study", done=done)
    said: list[str] = []
    with closing(opened(study, begun(study, "alice"), notify=said.append)) as store:
        assert store.trials(study.arms[0].name) == []
    assert len(said) == 1
    lose_answers(monkeypatch, "get_study_id_from_name", done=done, times=9)
    with pytest.raises(StoreError, match="cannot be used"):
        opened(study, None, patience_s=0)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [("postgres://h/db", "postgresql://"), ("foo", "--storage takes an address such as postgresql://me@server/db")],
)
def test_an_address_that_is_none_is_shown_how_to_write_one(study: ResolvedStudy, url: str, remedy: str) -> None:
    with pytest.raises(StoreError, match="cannot be used") as caught:
        Store(url, "toy", study.all_arms, study.spec.objective)
    assert remedy in (caught.value.hint or "")


def test_a_driver_that_is_missing_is_named_with_what_to_install(study: ResolvedStudy) -> None:
    with pytest.raises(StoreError, match=r"^mysql://\*\*\*@server/db: .* not installed \(No module named 'MySQLdb'\)$"):
        Store("mysql://me:hunter2@server/db", "toy", study.all_arms, study.spec.objective)
