"""What a crash left between store, ledger and runs is found and put right; twice is once, and nothing goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crack_sweeps import doctor
from crack_sweeps.runs.directory import OUTPUTS
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.study_loading import ResolvedStudy
from crack_sweeps.study.folder import STUDIES, StudyFolder
from crack_sweeps.study.ledger import read_rows
from crack_sweeps.study.repair import Flaw, repair
from crack_sweeps.study.store import sqlite_url

if TYPE_CHECKING:
    from stand_in_study import Bench

GIB = 1 << 30


@pytest.fixture
def searched(bench: Bench) -> tuple[ResolvedStudy, StudyFolder]:
    """A study of six trials and a rejection or more."""

    def bytes_of(experiment: Experiment) -> int:
        return 2 * GIB if experiment.training.loss.dice_weight == 0.4 else GIB // 2

    def objective(experiment: Experiment, epoch: int) -> float:
        return min(0.9, 30 * experiment.training.learning_rate) * (1 - 0.5**epoch)

    study = bench.resolve(trials=6)
    _, trials, folder = bench.run(study, objective, bytes_of=bytes_of, budget_bytes=GIB)
    for order in trials.orders:  # what a real trial writes of itself
        run = Path("artifacts/outputs") / order.run_name
        (run / "environment.json").write_text(json.dumps({"study": order.membership["study"]}))
    return study, folder


def flaws(folder: StudyFolder, *, write: bool) -> list[Flaw]:
    return list(repair(folder, sqlite_url(folder.database), outputs=Path("artifacts/outputs"), write=write))


def test_a_study_that_ended_well_has_no_flaw(searched: tuple[ResolvedStudy, StudyFolder]) -> None:
    assert flaws(searched[1], write=False) == []


def test_a_lost_ledger_is_written_anew(searched: tuple[ResolvedStudy, StudyFolder]) -> None:
    folder = searched[1]
    before = {row["trial"]: without_place(row) for row in read_rows(folder)}
    folder.ledger.rename(folder.path / "aside")
    assert len(flaws(folder, write=False)) == len(before)
    assert not list(read_rows(folder)), "looking changes nothing"
    assert len(flaws(folder, write=True)) == len(before)
    assert {row["trial"]: without_place(row) for row in read_rows(folder)} == before
    assert flaws(folder, write=True) == []


def test_a_lost_database_is_rebuilt_from_runs_and_ledger(
    bench: Bench, searched: tuple[ResolvedStudy, StudyFolder]
) -> None:
    study, folder = searched
    before = [(t.number, t.suggestion, t.outcome, t.value) for t in bench.trials(study, folder)]
    for path in folder.path.glob("optuna.db*"):
        path.rename(path.with_name(f"aside-{path.name}"))
    [flaw] = flaws(folder, write=False)
    assert "is gone" in flaw.text
    assert not folder.database.exists(), "looking makes nothing"
    assert len(flaws(folder, write=True)) == len(before)
    assert [(t.number, t.suggestion, t.outcome, t.value) for t in bench.trials(study, folder)] == before
    assert flaws(folder, write=True) == []


def test_a_trial_that_was_given_up_stays_so_though_its_run_has_not_ended(bench: Bench) -> None:
    study = bench.resolve(trials=2)
    _, trials, folder = bench.run(study, lambda _, epoch: 0.1 * epoch)
    run = Path("artifacts/outputs") / trials.orders[1].run_name
    for order in trials.orders:
        belongs = json.dumps({"study": order.membership["study"]})
        (Path("artifacts/outputs") / order.run_name / "environment.json").write_text(belongs)
    events = [line for line in (run / "events.jsonl").read_bytes().splitlines(True) if b'"ended"' not in line]
    (run / "events.jsonl").write_bytes(b"".join(events))
    rows = folder.ledger.read_text().splitlines()
    given_up = json.loads(rows[1]) | {"outcome": "failed", "value": None, "reason": "3 attempts in vain"}
    folder.ledger.write_text(rows[0] + "\n" + json.dumps(given_up) + "\n")
    for path in folder.path.glob("optuna.db*"):
        path.rename(path.with_name(f"aside-{path.name}"))
    flaws(folder, write=True)
    trial = bench.trials(study, folder)[1]
    assert (trial.outcome, trial.value, trial.facts["reason"]) == ("failed", None, "3 attempts in vain")


def test_a_trial_whose_coordinator_died_before_it_told_is_told(bench: Bench) -> None:
    study = bench.resolve(trials=4)
    asked = iter([None] * 6 + ["SIGTERM"] * 100)
    _, _, folder = bench.run(study, lambda _, epoch: 0.1 * epoch, stop=lambda: next(asked))
    running = next(trial for trial in bench.trials(study, folder) if trial.outcome == "running")
    run = Path("artifacts/outputs") / running.facts["run"]
    (run / "metrics.json").write_text(
        json.dumps({"metrics": {"val/crack_iou": 0.5}, "reason": None, "duration_s": 1.0, "vram": {}})
    )
    events = (run / "events.jsonl").read_bytes().splitlines()
    heard = {"kind": "epoch", "seq": len(events) - 1, "time_ms": 0, "epoch": 7, "metrics": {"val/crack_iou": 0.4}}
    ended = {**json.loads(events[-1]), "seq": len(events), "status": "FINISHED", "reason": None}
    (run / "events.jsonl").write_bytes(
        b"\n".join([*events[:-1], json.dumps(heard).encode(), json.dumps(ended).encode()]) + b"\n"
    )

    found = flaws(folder, write=True)
    assert [flaw.text for flaw in found][:1] == ["its run is over (complete), the store says running"]
    told = bench.trials(study, folder)[running.number]
    assert (told.outcome, told.value) == ("complete", 0.5)
    assert told.intermediate == {**running.intermediate, 7: 0.4}, "the run had reported an epoch that nobody heard of"
    assert next(row for row in read_rows(folder) if row["number"] == told.number)["num_epochs"] == 7
    assert flaws(folder, write=True) == []


def without_place(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("seq", "time_ms")}


# --- the doctor ----------------------------------------------------------------------------------


def test_the_doctor_looks_where_a_study_keeps_its_trials(searched: tuple[ResolvedStudy, StudyFolder]) -> None:
    folder = searched[1]
    folder.database.rename("elsewhere.db")
    folder.add_facts(storage="sqlite:///elsewhere.db")
    assert list(doctor._books(STUDIES, OUTPUTS, None, write=False)) == []
    folder.ledger.rename(folder.path / "aside")
    assert {finding.verdict for finding in doctor._books(STUDIES, OUTPUTS, None, write=False)} == {"warning"}
    assert list(doctor._books(STUDIES, OUTPUTS, None, write=True))
    assert list(doctor._books(STUDIES, OUTPUTS, None, write=False)) == []


def test_the_doctor_says_where_it_could_not_look(searched: tuple[ResolvedStudy, StudyFolder]) -> None:
    searched[1].add_facts(storage="postgresql://***@nowhere.invalid/db")
    [finding] = doctor._books(STUDIES, OUTPUTS, None, write=False)
    assert finding.verdict == "warning"
    assert finding.remedy == "sweeps doctor --storage postgresql://***@nowhere.invalid/db, with its password"
    [finding] = doctor._books(STUDIES, OUTPUTS, "postgresql://me:hunter2secret@nowhere.invalid/db", write=False)
    assert (finding.verdict, "were not looked at" in finding.text) == ("warning", True)
    assert "hunter2secret" not in finding.text


def test_runs_of_a_deleted_study_of_the_same_name_are_not_taken_for_this_ones(
    searched: tuple[ResolvedStudy, StudyFolder],
) -> None:
    folder = searched[1]
    folder.ledger.rename(folder.path / "aside")
    folder.database.rename("aside.db")
    folder.add_facts(began="2999-01-01T00:00:00+0000")
    assert flaws(folder, write=True) == []


def test_the_doctor_names_a_damaged_file_and_looks_at_the_rest(searched: tuple[ResolvedStudy, StudyFolder]) -> None:
    folder = searched[1]
    folder.ledger.write_bytes(b"half a line\n" + folder.ledger.read_bytes())
    for write in (False, True):
        [finding] = doctor._books(STUDIES, OUTPUTS, None, write=write)
        assert finding.verdict == "error"
        assert "ledger.jsonl: is damaged (line 1 is no event" in finding.text
        assert finding.remedy is not None
        assert finding.remedy.startswith("move it aside")
    folder.events.write_bytes(b"half a line\n" + folder.events.read_bytes())
    told = [finding.text for finding in doctor._runs(OUTPUTS, STUDIES)]
    assert any("events.jsonl: line 1 is no event" in text for text in told)
    assert told[-1].startswith("6 under")
