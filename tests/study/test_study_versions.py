"""Versions of a study: each can be named, and a new one takes along what all earlier ones trained, once."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crack_sweeps.data.open import open_photos
from crack_sweeps.errors import StoreError, StudyNotFound
from crack_sweeps.runs.directory import OUTPUTS
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.study_loading import ResolvedStudy, identity
from crack_sweeps.study.folder import (
    STUDIES,
    Stored,
    StudyFolder,
    find_stored,
    find_study,
    open_folder,
    stored_study,
    why_anew,
)
from crack_sweeps.study.history import Trial
from crack_sweeps.study.imports import LEFT, import_trials, sources
from crack_sweeps.study.ledger import read_rows
from crack_sweeps.study.naming import find_trial
from crack_sweeps.study.standing import StudyReader
from crack_sweeps.study.store import Store, database_of, sqlite_url

if TYPE_CHECKING:
    from stand_in_study import Bench

NARROW, WIDE = "[0.4, 1.0]", "[0.0, 0.4, 1.0, 2.0]"


def objective(experiment: Experiment, epoch: int) -> float:
    return min(1.0, 10 * experiment.training.learning_rate + 0.01 * epoch)


def resolved(bench: Bench, toy: str, weights: str | None = None) -> ResolvedStudy:
    """The toy study, with other dice weights in its space."""
    text = toy if weights is None else toy.replace("[0.0, 0.4, 1.0]", weights)
    Path("studies/toy.yaml").write_text(text)
    return bench.resolve()


def begun(study: ResolvedStudy, storage: str | None = None) -> Stored:
    """Its version's folder."""
    photos = open_photos(study.arms[0].base.data, root=Path("artifacts"))
    return open_folder(study, identity(study, photos.digest), {"storage": storage})


def imported(study: ResolvedStudy, storage: str | None = None) -> tuple[StudyFolder, list[Trial], list[str]]:
    """Its version's folder, what came along, and what was said."""
    opened, said = begun(study, storage), []
    url = storage or sqlite_url(database_of(opened.folder))
    with closing(Store(url, opened.folder.name, study.all_arms, study.spec.objective, owner=opened.folder)) as store:
        before = sources(opened.before, storage)
        import_trials(before, study, store, outputs=OUTPUTS, notify=said.append)
        import_trials(before, study, store, outputs=OUTPUTS, notify=lambda _: None)
        return opened.folder, store.trials(study.arms[0].name), said


def dice(trials: list[Trial]) -> list[float]:
    return [trial.suggestion["training.loss.dice_weight"] for trial in trials]


# --- why there is another one --------------------------------------------------------------------


def test_a_new_version_says_what_makes_it_another_study_and_what_becomes_of_the_trials(bench: Bench, toy: str) -> None:
    first = resolved(bench, toy)
    opened = begun(first)
    digest = "0123456789abcdef"
    opened.folder.add_facts(data_digest=digest)
    assert why_anew(opened, first, digest) is None
    assert why_anew(begun(first), first, digest) is None, "it goes on"

    def told(study: ResolvedStudy, photos: str = digest) -> str:
        return why_anew(find_stored("toy", identity(study, "photos"), root=STUDIES), study, photos) or ""

    assert told(first, "fedcba9876543210") == (
        "this is another study than toy: photos or masks changed (digest 0123456789ab, now fedcba987654); "
        "its trials stay behind"
    )
    typed = bench.resolve(overrides=["training.steps_per_epoch=7"])
    was = first.arms[0].base.training.steps_per_epoch
    assert f"training.steps_per_epoch was {was}, is 7; its trials stay behind" in told(typed)
    narrow = resolved(bench, toy, NARROW)
    assert "space.training.loss.dice_weight was" in told(narrow)
    assert (why_anew(begun(narrow), narrow, digest) or "").endswith("those of its trials that still fit come along")


# --- names ---------------------------------------------------------------------------------------


def test_the_first_version_is_named_by_its_number_and_a_bare_name_is_the_newest(bench: Bench, toy: str) -> None:
    study = resolved(bench, toy)
    _, _, first = bench.run(study, objective)
    assert (first.typed, find_study("toy").name, find_study("toy@1").name) == ("toy", "toy", "toy")
    old = bench.trials(study, first)
    newer = resolved(bench, toy, NARROW)
    second, _, _ = imported(newer)
    bench.run(newer, objective)
    assert [find_study(name).name for name in ("toy", "toy@1", "toy@2", "studies/toy@1/")] == [
        "toy@2",
        "toy",
        "toy@2",
        "toy",
    ]
    assert (first.typed, second.typed) == ("toy@1", "toy@2")
    assert stored_study("toy") == first
    with pytest.raises(StudyNotFound):
        find_study("toy@3")
    with pytest.raises(StudyNotFound, match="study other is gone"):
        stored_study("other")

    told = old[2]
    run = OUTPUTS / str(told.facts["run"])
    membership = {"name": "toy", "arm": told.arm, "number": 2, "suggestion": {}, "facts": {}}
    (run / "environment.json").write_text(json.dumps({"study": membership}))
    for wanted in (run.name, "toy@1/2", f"toy@1/{told.arm}/2"):
        found = find_trial(wanted)
        assert found.row is not None
        assert (found.name, found.row["trial"], found.row["run"]) == ("toy@1/2", "toy@1/2", run.name)
    assert find_trial("toy/2").name == "toy@2/2"
    standing = StudyReader(first).read()
    assert standing.study == "toy@1"
    assert standing.best is not None
    assert standing.best["trial"].startswith("toy@1/")
    assert all(row["trial"].startswith("toy@1/") for row in standing.recent)


# --- what comes along ----------------------------------------------------------------------------


def test_a_wide_space_after_a_narrow_one_takes_along_the_trials_of_both_without_doubles(bench: Bench, toy: str) -> None:
    study = resolved(bench, toy)
    _, _, first = bench.run(study, objective)
    old = bench.trials(study, first)
    assert 0.0 in dice(old)
    narrow = resolved(bench, toy, NARROW)
    _, came, said = imported(narrow)
    assert dice(came) == [weight for weight in dice(old) if weight]
    assert said == [f"the space has changed: {len(came)} of 8 trials of toy@1 still fit and came along"]
    assert came[0].facts["imported_from"].startswith("toy@1/")
    _, _, second = bench.run(narrow, objective)
    own = bench.trials(narrow, second)[len(came) :]
    assert own
    wide = resolved(bench, toy, WIDE)
    _, came, said = imported(wide)
    assert [trial.facts["run"] for trial in came] == [trial.facts["run"] for trial in (*old, *own)]
    assert said == [
        f"the space has changed: {len(came)} of {len(came)} trials of toy@1 and toy@2 still fit and came along"
    ]


def test_another_storage_for_the_new_version_reads_the_old_ones_from_their_own(bench: Bench, toy: str) -> None:
    bench.run(resolved(bench, toy), objective)
    _, came, _ = imported(resolved(bench, toy, WIDE), "sqlite:///new.db")
    assert len(came) == 8


def test_an_old_storage_whose_password_nobody_typed_is_asked_for(bench: Bench, toy: str) -> None:
    first = begun(resolved(bench, toy), "postgresql://***@server/db").folder
    with pytest.raises(StoreError, match="needs its password") as caught:
        sources([first], "sqlite:///new.db")
    assert "postgresql://***@server/db (with its password)" in (caught.value.hint or "")
    [source] = sources([first], "postgresql://me:hunter2secret@server/db")
    assert "hunter2secret" in source.url


def test_an_old_database_that_is_gone_is_named_before_anything_begins(bench: Bench, toy: str) -> None:
    _, _, first = bench.run(resolved(bench, toy), objective)
    first.database.rename("aside.db")
    with pytest.raises(StoreError, match=r"its database .* is gone"):
        sources([first], None)


def test_an_import_that_is_complete_is_not_asked_for_again_when_the_old_folder_is_gone(bench: Bench, toy: str) -> None:
    _, _, first = bench.run(resolved(bench, toy), objective)
    newer = resolved(bench, toy, WIDE)
    second, _, _ = imported(newer)
    photos = open_photos(newer.arms[0].base.data, root=Path("artifacts"))
    known = identity(newer, photos.digest)
    assert find_stored("toy", known).before == (first,)
    shutil.rmtree(first.path)
    assert find_stored("toy", known).gone == ("toy",)
    second.add_facts(imported=True)
    found = find_stored("toy", known)
    assert (found.folder, found.exists, found.before, found.gone) == (second, True, (), ())


def test_trials_that_an_old_version_never_ended_are_ended_when_the_new_one_begins(bench: Bench, toy: str) -> None:
    study = resolved(bench, toy)
    asked = iter([None] * 6 + ["SIGTERM"] * 100)
    _, _, first = bench.run(study, objective, stop=lambda: next(asked))
    running = [trial for trial in bench.trials(study, first) if trial.outcome == "running"]
    assert running
    with first.lock():
        imported(resolved(bench, toy, NARROW))
    assert any(trial.outcome == "running" for trial in bench.trials(study, first)), "it is being searched"
    _, came, _ = imported(resolved(bench, toy, WIDE))
    [left] = [trial for trial in bench.trials(study, first) if trial.number == running[0].number]
    assert (left.outcome, left.facts["reason"]) == ("failed", LEFT)
    assert running[0].facts["run"] not in {trial.facts["run"] for trial in came}
    rows: dict[Any, Any] = {row["number"]: row for row in read_rows(first)}
    assert rows[left.number]["reason"] == LEFT
    again = resolved(bench, toy, "[0.0, 0.4, 1.0, 2.0, 3.0]")
    _, came, _ = imported(again)
    assert left.facts["run"] not in {trial.facts["run"] for trial in came}, "it says nothing of its settings"


def test_a_study_that_began_before_its_main_arm_was_written_down_goes_on_in_its_folder(bench: Bench, toy: str) -> None:
    study = resolved(bench, toy)
    folder = begun(study).folder
    facts = json.loads(folder.facts_file.read_text())
    assert facts.pop("main") == "unet_small"
    folder.facts_file.write_text(json.dumps(facts))
    assert begun(study).exists
    facts["main"] = "another"
    folder.facts_file.write_text(json.dumps(facts))
    assert begun(study).folder.name == "toy@2"
