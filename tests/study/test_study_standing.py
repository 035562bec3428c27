"""How a study stands is read from its files: rightly after any end, quickly, and without Optuna or torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from hand_made_study import DEAD, ELSEWHERE, NOON_MS, HandMadeStudy, append, at
from three_arm_study import ThreeArms

from crack_sweeps.errors import UserError
from crack_sweeps.runs.directory import OUTPUTS
from crack_sweeps.study.standing import NUM_RECENT, StudyReader, go_on_command, is_better, peak_bytes, seconds_left
from crack_sweeps.tracking.state import Trainer


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMadeStudy:
    monkeypatch.chdir(tmp_path)
    return HandMadeStudy()


def test_a_finished_study_is_counted_by_outcome_and_its_best_trial_named(toy: HandMadeStudy) -> None:
    toy.attempt()
    toy.trial(0, 0.2, 0.3, outcome="complete", value=0.3, ended="FINISHED")
    toy.trial(1, 0.5, 0.4, outcome="complete", value=0.5, ended="FINISHED")
    toy.trial(2, 0.1, outcome="pruned", ended="PRUNED", reason="below its rung")
    toy.trial(3, outcome="rejected", run=False, excess=0.2, reason="needs too much")
    toy.trial(4, 0.1, 0.9, outcome="failed", ended="FAILED", reason="the loss is NaN")
    toy.end()
    standing = StudyReader(toy.folder).read()
    assert (standing.state, standing.num_trained, standing.num_trials) == ("finished", 4, 8)
    assert standing.counts == {"complete": 2, "pruned": 1, "rejected": 1, "invalid": 0, "failed": 1, "out_of_memory": 0}
    assert standing.best is not None
    assert standing.best["trial"] == "toy/1", "a failed trial's last value is no score"
    assert standing.hours == pytest.approx(70 / 3600)
    assert (standing.running, standing.seconds_left) == ((), None)
    json.dumps(standing.as_dict(), allow_nan=False)


def test_a_running_trial_is_shown_with_its_epochs_memory_and_time_left(toy: HandMadeStudy) -> None:
    toy.attempt()
    toy.trial(0, 0.2, 0.3, outcome="complete", value=0.3, ended="FINISHED")  # 20 s
    run = toy.trial(1, 0.6, 0.4)
    at(OUTPUTS / str(run) / "events.jsonl", NOON_MS)
    standing = StudyReader(toy.folder).read(now=NOON_MS / 1000 + 4)
    (trial,) = standing.running
    assert (trial.trial, trial.epoch, trial.total_epochs, trial.value, trial.best) == ("toy/1", 2, 5, 0.4, 0.6)
    assert trial.suggestion["training.loss.dice_weight"] == 0.4
    assert (trial.peak_bytes, trial.needed_bytes) == (2 * 2**20, 2**30)
    assert trial.process is not None
    assert trial.process.alive
    assert trial.epoch_age_s == pytest.approx(4)
    assert trial.seconds_left == pytest.approx(3 * 10 - 4)
    # 7 trials of 20 s are left, and the one under way has taken 2 epochs of 10 s and 4 s more
    assert standing.seconds_left == pytest.approx(7 * 20 - 24)
    assert standing.state == "running"


def test_a_trial_whose_run_does_not_exist_yet_is_shown_all_the_same(toy: HandMadeStudy) -> None:
    toy.attempt()
    name = "20260101-120000-toy-000-abcdef"
    append(toy.folder.events, "trial", arm=toy.arm.name, number=0, run=name, run_dir=str(OUTPUTS / name))
    (trial,) = StudyReader(toy.folder).read().running
    assert (trial.run, trial.epoch, trial.total_epochs, trial.value, trial.process) == (name, 0, None, None, None)


@pytest.mark.parametrize(
    ("status", "reason", "state"),
    [("FINISHED", None, "finished"), ("KILLED", "SIGTERM", "stopped"), ("FAILED", "StudyError: x", "failed")],
)
def test_the_last_end_tells_the_state(toy: HandMadeStudy, status: str, reason: str | None, state: str) -> None:
    toy.attempt()
    toy.end(status, reason)
    standing = StudyReader(toy.folder).read()
    assert (standing.state, standing.reason) == (state, reason)


def test_a_coordinator_that_died_leaves_an_interrupted_study_whose_trials_wait(toy: HandMadeStudy) -> None:
    toy.attempt(DEAD)
    toy.trial(0, 0.2, trainer=DEAD)
    standing = StudyReader(toy.folder).read()
    assert standing.state == "interrupted"
    assert standing.coordinator is not None
    assert standing.coordinator.alive is False
    assert [trial.trial for trial in standing.running] == ["toy/0"]
    assert standing.seconds_left is None
    assert standing.go_on == "sweeps study toy --profile none --trials 8 --seeds 0"


def test_a_coordinator_of_another_machine_may_live(toy: HandMadeStudy) -> None:
    toy.attempt(ELSEWHERE)
    standing = StudyReader(toy.folder).read()
    assert standing.state == "running"
    assert standing.coordinator is not None
    assert standing.coordinator.alive is None


def test_a_study_that_ended_runs_again_as_soon_as_a_new_coordinator_has_its_lease(toy: HandMadeStudy) -> None:
    toy.attempt(DEAD)
    toy.end("KILLED", "SIGINT")
    reader = StudyReader(toy.folder)
    assert reader.read().state == "stopped"
    toy.attempt()
    assert reader.read().state == "running"


def test_the_budget_of_the_latest_command_counts(toy: HandMadeStudy) -> None:
    toy.attempt(trials=30, gpu_hours=2.5)
    standing = StudyReader(toy.folder).read()
    assert (standing.num_trials, standing.max_hours) == (30, 2.5)


def test_what_the_latest_command_typed_goes_on_and_what_nobody_typed_is_not_said(toy: HandMadeStudy) -> None:
    toy.attempt(jobs="auto", vram_budget="auto")
    assert "auto" not in StudyReader(toy.folder).read().go_on
    toy.attempt(jobs=2, vram_budget="8GiB")
    toy.folder.add_facts(storage="sqlite:///x.db")
    assert (
        StudyReader(toy.folder)
        .read()
        .go_on.endswith(" --trials 8 --seeds 0 --jobs 2 --vram-budget 8GiB --storage sqlite:///x.db")
    )


def test_a_second_reading_brings_what_is_new_and_no_line_that_is_still_being_written(toy: HandMadeStudy) -> None:
    toy.attempt()
    for number in range(NUM_RECENT):
        toy.trial(number, 0.2, outcome="complete", value=0.2, ended="FINISHED")
    reader = StudyReader(toy.folder)
    assert reader.read().num_trained == NUM_RECENT
    toy.trial(NUM_RECENT, 0.1, outcome="pruned", ended="PRUNED", reason="x")
    with toy.folder.ledger.open("a") as ledger:
        ledger.write('{"seq": 9, "kind": "tri')
    standing = reader.read()
    assert [row["trial"] for row in reader.news] == [f"toy/{NUM_RECENT}"]
    assert standing.num_trained == NUM_RECENT + 1
    assert [row["trial"] for row in standing.recent] == [f"toy/{n}" for n in range(1, NUM_RECENT + 1)]


def test_an_edited_ledger_is_named(toy: HandMadeStudy) -> None:
    toy.folder.ledger.write_text("not json\n")
    with pytest.raises(UserError, match=r"ledger\.jsonl") as error:
        StudyReader(toy.folder).read()
    assert "sweeps doctor --fix" in str(error.value.hint)


def test_time_left_is_what_trials_took_less_what_those_under_way_have_taken() -> None:
    assert seconds_left(10, mean_s=None, spent_s=0, jobs=2) is None
    assert seconds_left(10, mean_s=6, spent_s=12, jobs=2) == 24
    assert seconds_left(10, mean_s=6, spent_s=12, jobs=2, budget_s=20) == 4
    assert seconds_left(0, mean_s=6, spent_s=12, jobs=0) == 0


def test_finalists_take_as_long_as_a_complete_trial_and_no_budget_cuts_them_short() -> None:
    assert seconds_left(2, mean_s=6, spent_s=40, jobs=1, budget_s=0, finals=[3, None], final_s=10) == 13
    assert seconds_left(0, mean_s=6, spent_s=0, jobs=2, finals=[None, None]) == 6


def test_time_is_left_while_finalists_run_and_some_have_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trio = ThreeArms()
    append(trio.folder.events, "created", run="trio", experiment="trio")
    budget = {"trials": 1, "baseline_trials": 1, "seeds": 2, "gpu_hours": 0.05}
    append(trio.folder.events, "attempt", attempt=1, **Trainer.this_process().told(), **budget)
    for arm in ("hybrid", "unet", "deeplab"):
        trio.trial(arm, 0.2, fingerprint=f"{arm}-best")  # of 360 s each
    trio.finals("hybrid", [0.2, 0.3], seed=1000)
    trio.finals("unet", [0.2], seed=1000)
    reader = StudyReader(trio.folder)
    assert reader.read().seconds_left == sum(arm.num_finals_left for arm in reader.read().arms) * 360 > 0


def test_the_first_of_equal_values_stays_the_best() -> None:
    assert is_better(0.2, None, "maximize")
    assert not is_better(0.2, {"value": 0.2}, "maximize")
    assert is_better(0.3, {"value": 0.2}, "maximize")
    assert is_better(0.1, {"value": 0.2}, "minimize")


def test_the_highest_of_the_measured_peaks_counts() -> None:
    metrics = {"vram/peak_allocated_bytes": 1, "vram/peak_process_bytes": 3, "lr": 9, "free_bytes": 7}
    assert peak_bytes(metrics) == 3
    assert peak_bytes({"lr": 9}) is None


def test_the_command_that_goes_on_names_settings_and_profile(toy: HandMadeStudy) -> None:
    from dataclasses import replace

    study = replace(toy.study, overrides=("training.epochs=3", "data.path=my photos"), profile="cpu")
    plain = "sweeps study toy training.epochs=3 'data.path=my photos' --profile cpu"
    assert go_on_command(study) == plain
    budget = {"trials": 9, "baseline_trials": 0, "gpu_hours": None, "seeds": 3}
    assert go_on_command(study, budget) == f"{plain} --trials 9 --baseline-trials 0 --seeds 3"
    on = {"jobs": 2, "vram_budget": "8GiB"}
    masked = "postgresql://***@server/db"
    assert go_on_command(study, on, storage=masked) == f"{plain} --jobs 2 --vram-budget 8GiB --storage '{masked}'"
    assert go_on_command(replace(study, overrides=(), source=Path("x/mine.yaml"))).split()[2] == "x/mine.yaml"


def test_reading_loads_neither_optuna_nor_torch_nor_mlflow() -> None:
    code = "import sys, crack_sweeps.study.standing, crack_sweeps.study.comparison; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "crack_sweeps.study.standing" in loaded
    assert {"torch", "optuna", "mlflow", "numpy", "rich"} & set(loaded) == set()


@pytest.mark.benchmark
def test_ten_thousand_trials_are_read_in_two_seconds(toy: HandMadeStudy) -> None:
    toy.attempt()
    toy.trial(0, 0.2, outcome="complete", value=0.2, ended="FINISHED")
    row, told = (json.loads(path.read_text().splitlines()[-1]) for path in (toy.folder.ledger, toy.folder.events))
    row["metrics"] = {f"val/figure_{n}": n / 7 for n in range(20)}
    with toy.folder.ledger.open("a") as ledger, toy.folder.events.open("a") as events:
        for n in range(1, 10_000):
            ledger.write(json.dumps({**row, "seq": n, "trial": f"toy/{n}", "number": n}) + "\n")
            events.write(json.dumps({**told, "seq": n + 2, "number": n}) + "\n")
    began = time.perf_counter()
    standing = StudyReader(toy.folder).read()
    took = time.perf_counter() - began
    print(f"status of 10,000 trials: {took:.2f} s")
    assert standing.num_trained == 10_000
    assert took <= 2.0
