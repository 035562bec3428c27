"""The coordinator decides, stores, and tells: trials stand in, store and ledger are real."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from stand_in_study import StandInForecaster

from crack_sweeps.errors import (
    CheckpointError,
    DiskFull,
    NotFiniteError,
    NothingFits,
    OutOfMemory,
    SpecError,
    StudyError,
)
from crack_sweeps.runs.events import read_events
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.study.comparison import explain
from crack_sweeps.study.disk import disk_shortage
from crack_sweeps.study.ledger import read_rows
from crack_sweeps.study.packing import Slot
from crack_sweeps.study.proposals import why_invalid
from crack_sweeps.study.store import Store
from crack_sweeps.study.updates import EpochDone, Launched, Notice, Rejected, StudyEnded, TrialEnded
from crack_sweeps.training.footprint import MemoryForecast

if TYPE_CHECKING:
    from stand_in_study import Bench

GIB = 1 << 30


def good_at(rate: float) -> Any:
    """An objective that is best at one learning rate and rises with the epochs."""

    def objective(experiment: Experiment, epoch: int) -> float:
        off = abs(math.log10(experiment.training.learning_rate / rate))
        return max(0.0, 0.8 - 0.3 * off) * (1 - 0.5**epoch)

    return objective


def test_a_study_trains_as_many_trials_as_it_was_told_to(bench: Bench) -> None:
    study = bench.resolve(trials=8)
    updates, _, folder = bench.run(study, good_at(0.003))
    ended = [update for update in updates if isinstance(update, TrialEnded)]
    assert len(ended) == 8
    assert isinstance(updates[-1], StudyEnded)
    assert updates[-1].reason is None
    assert [row["number"] for row in read_rows(folder)] == list(range(8))
    best = max(row["value"] for row in read_rows(folder) if row["value"] is not None)
    assert updates[-1].best is not None
    assert updates[-1].best["value"] == best


def test_the_same_command_again_goes_on_to_the_remaining_trials(bench: Bench) -> None:
    _, first, _ = bench.run(bench.resolve(trials=3), good_at(0.003))
    _, second, folder = bench.run(bench.resolve(trials=5), good_at(0.003))
    _, third, _ = bench.run(bench.resolve(trials=5), good_at(0.003))
    assert [len(trials.orders) for trials in (first, second, third)] == [3, 2, 0]
    assert len(list(read_rows(folder))) == 5


def test_searched_in_two_sittings_it_suggests_the_same(bench: Bench, tmp_path: Path) -> None:
    bench.run(bench.resolve(trials=5), good_at(0.003))
    study = bench.resolve(trials=9)
    _, _, folder = bench.run(study, good_at(0.003))
    sittings = [trial.suggestion for trial in bench.trials(study, folder)]
    folder.path.rename(tmp_path / "aside")
    _, _, anew = bench.run(study, good_at(0.003))
    assert [trial.suggestion for trial in bench.trials(study, anew)] == sittings


def test_pruned_is_pruned_with_its_reason_and_the_verdict_is_stored_before_it_is_told(bench: Bench) -> None:
    study = bench.resolve(trials=12)
    _, _, folder = bench.run(study, good_at(0.003))
    pruned = [trial for trial in bench.trials(study, folder) if trial.outcome == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial.value is None
        assert trial.facts["stop"] == trial.facts["reason"]
        assert max(trial.intermediate) < 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_is_a_reason_and_never_a_score(bench: Bench, bad: float) -> None:
    study = bench.resolve(trials=2)
    _, _, folder = bench.run(study, lambda _, epoch: bad if epoch == 2 else 0.5)
    for trial in bench.trials(study, folder):
        assert trial.outcome == "failed"
        assert trial.value is None
        assert "val/crack_iou is" in trial.facts["reason"]


def test_a_trial_that_fails_says_why_and_the_study_goes_on(bench: Bench) -> None:
    def objective(experiment: Experiment, epoch: int) -> float:
        if experiment.training.loss.dice_weight == 0.0:
            raise NotFiniteError("loss is nan in epoch 1")
        return 0.5

    study = bench.resolve(trials=10)
    updates, _, folder = bench.run(study, objective)
    outcomes = [trial.outcome for trial in bench.trials(study, folder)]
    assert 0 < outcomes.count("failed") < 10
    assert updates[-1].num_failed == outcomes.count("failed")
    reasons = {trial.facts["reason"] for trial in bench.trials(study, folder) if trial.outcome == "failed"}
    assert reasons == {"loss is nan in epoch 1"}


def unbuildable_at(dice_weight: float) -> Any:
    """Memory of a suggestion, of which nothing can be built at this weight."""

    def bytes_of(experiment: Experiment) -> int:
        if experiment.training.loss.dice_weight == dice_weight:
            raise SpecError("unet_small: no training step can be built of its settings (ValueError: no pattern)")
        return 1 << 20

    return bytes_of


def test_settings_that_nothing_can_be_built_of_are_invalid_and_cost_no_training(bench: Bench) -> None:
    study = bench.resolve(trials=6)
    updates, trials, folder = bench.run(study, good_at(0.003), bytes_of=unbuildable_at(0.4))
    assert (updates[-1].reason, updates[-1].num_trained, updates[-1].num_failed) == (None, 6, 0)
    lost = [trial for trial in bench.trials(study, folder) if trial.suggestion["training.loss.dice_weight"] == 0.4]
    assert lost
    assert {trial.outcome for trial in lost} == {"invalid"}
    assert all("(ValueError: no pattern)" in trial.facts["reason"] for trial in lost)
    assert all(order.experiment.training.loss.dice_weight != 0.4 for order in trials.orders)
    assert len(trials.orders) == 6
    rows = [row for row in read_rows(folder) if row["outcome"] == "invalid"]
    assert [row["number"] for row in rows] == [trial.number for trial in lost]
    assert explain(f"toy/{lost[0].number}").said.startswith("invalid, nothing can be trained with its settings")


def with_a_pair_that_does_not_go_together() -> None:
    toy = Path("studies/toy.yaml")
    gamma = "  training.loss.focal_gamma: {low: 0, high: 3, step: 1}"
    toy.write_text(toy.read_text().replace(gamma, "  training.loss.focal_weight: {choices: [0.0, 0.6]}"))


def test_two_settings_that_do_not_go_together_are_invalid_once_and_then_avoided(bench: Bench) -> None:
    with_a_pair_that_does_not_go_together()  # a loss of no terms
    study = bench.resolve(trials=12)
    updates, trials, folder = bench.run(study, good_at(0.003))
    assert (updates[-1].num_trained, updates[-1].num_failed, len(trials.orders)) == (12, 0, 12)
    invalid = [trial for trial in bench.trials(study, folder) if trial.outcome == "invalid"]
    assert len(invalid) == 1, "the first is told; its like are drawn anew"
    assert "dice_weight" in invalid[0].facts["reason"]


@pytest.mark.parametrize("unbuildable", [False, True])
def test_a_study_with_invalid_suggestions_is_the_same_in_two_sittings(
    bench: Bench, tmp_path: Path, unbuildable: bool
) -> None:
    bytes_of = unbuildable_at(0.4) if unbuildable else unbuildable_at(math.inf)
    with_a_pair_that_does_not_go_together()
    bench.run(bench.resolve(trials=3), good_at(0.003), bytes_of=bytes_of)
    study = bench.resolve(trials=7)
    _, _, folder = bench.run(study, good_at(0.003), bytes_of=bytes_of)
    sittings = [(trial.suggestion, trial.outcome) for trial in bench.trials(study, folder)]
    assert "invalid" in {outcome for _, outcome in sittings}
    folder.path.rename(tmp_path / "aside")
    _, _, anew = bench.run(study, good_at(0.003), bytes_of=bytes_of)
    assert [(trial.suggestion, trial.outcome) for trial in bench.trials(study, anew)] == sittings


def test_where_all_is_invalid_it_is_the_persons_mistake_and_says_why(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crack_sweeps.study.coordinator.MAX_REJECTIONS", 10)

    def bytes_of(_: Experiment) -> int:
        raise SpecError("no network of that name")

    with pytest.raises(SpecError, match=r"10 suggestions in a row are invalid, the last: no network of that name"):
        bench.run(bench.resolve(trials=2), good_at(0.003), bytes_of=bytes_of)


def test_what_the_suggestion_set_of_the_model_stands_before_a_reason_that_names_none_of_it() -> None:
    suggestion = {"model.encoder_cfg.model_name": "vit", "training.learning_rate": 0.1}
    told = why_invalid(SpecError("no step (ValueError: no pattern)"), suggestion)
    assert told == "model.encoder_cfg.model_name: vit, no step (ValueError: no pattern)"
    named = "toy.yaml: training.learning_rate: 0.1 is not so"
    assert why_invalid(SpecError(named), suggestion) == named


def test_a_forecaster_in_trouble_ends_the_study(bench: Bench) -> None:
    def bytes_of(_: Experiment) -> int:
        raise StudyError("the process that forecasts memory died")

    with pytest.raises(StudyError, match="died"):
        bench.run(bench.resolve(trials=2), good_at(0.003), bytes_of=bytes_of)


def test_out_of_memory_is_an_outcome_of_its_own(bench: Bench) -> None:
    def objective(experiment: Experiment, epoch: int) -> float:
        raise OutOfMemory("out of memory in epoch 1, step 1, with micro-batch 1 and activation checkpointing")

    study = bench.resolve(trials=2)
    _, _, folder = bench.run(study, objective)
    assert [trial.outcome for trial in bench.trials(study, folder)] == ["out_of_memory"] * 2


def test_what_is_over_the_budget_is_rejected_before_launch_and_costs_no_training(bench: Bench) -> None:
    def bytes_of(experiment: Experiment) -> int:
        return 2 * GIB if experiment.training.loss.dice_weight == 0.4 else GIB // 2

    study = bench.resolve(trials=6)
    updates, trials, folder = bench.run(study, good_at(0.003), bytes_of=bytes_of, budget_bytes=GIB)
    rejected = [update for update in updates if isinstance(update, Rejected)]
    assert rejected
    assert all("needs 2.00 GiB by forecast, the budget is 1.00 GiB" in r.trial.facts["reason"] for r in rejected)
    assert len(trials.orders) == 6
    assert all(order.experiment.training.loss.dice_weight != 0.4 for order in trials.orders)
    stored = bench.trials(study, folder)
    assert all(trial.excess is not None for trial in stored), "each trial has the constraint"
    assert sum(trial.outcome == "rejected" for trial in stored) == len(rejected)


def test_where_nothing_fits_it_says_what_the_smallest_needs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crack_sweeps.study.coordinator.MAX_REJECTIONS", 15)
    with pytest.raises(NothingFits, match=r"suggestions in a row need more than the memory budget of 1.00 GiB; the "):
        bench.run(bench.resolve(), good_at(0.003), bytes_of=lambda _: 3 * GIB, budget_bytes=GIB)


def test_a_budget_lowered_below_a_trial_that_has_begun_is_an_error_and_no_wait_for_ever(bench: Bench) -> None:
    study = bench.resolve(trials=2)
    asked = iter([None, None] + ["SIGTERM"] * 100)
    bench.run(study, good_at(0.003), bytes_of=lambda _: 3 * GIB, budget_bytes=4 * GIB, stop=lambda: next(asked))
    told = r"toy/0 has begun and needs 3.00 GiB by forecast, but --vram-budget is 2.00 GiB"
    with pytest.raises(NothingFits, match=told) as caught:
        bench.run(study, good_at(0.003), bytes_of=lambda _: 3 * GIB, budget_bytes=2 * GIB, limit_bytes=2 * GIB)
    assert caught.value.hint == "go on with --vram-budget 3GiB or more"
    small = (Slot(None, 0, "host memory", 2 * GIB, 2 * GIB, 1),)
    with pytest.raises(NothingFits, match=r"but this machine has 1.90 GiB for one trial"):
        bench.run(study, good_at(0.003), bytes_of=lambda _: 3 * GIB, budget_bytes=4 * GIB, slots=small)
    updates, _, folder = bench.run(study, good_at(0.003), bytes_of=lambda _: 3 * GIB, budget_bytes=4 * GIB)
    assert updates[-1].reason is None
    assert [trial.number for trial in bench.trials(study, folder)] == [0, 1]


def test_a_trial_that_never_began_and_does_not_fit_any_more_is_rejected(bench: Bench) -> None:
    def bytes_of(experiment: Experiment) -> int:
        return 20 * GIB if experiment.training.loss.dice_weight == 0.4 else GIB // 2

    study = bench.resolve(trials=6)
    with pytest.raises(NothingFits, match=r"needs 20.00 GiB by forecast, but this machine has 7.60 GiB"):
        bench.run(study, good_at(0.003), bytes_of=bytes_of, budget_bytes=80 * GIB)
    updates, _, folder = bench.run(study, good_at(0.003), bytes_of=bytes_of, budget_bytes=7 * GIB)
    assert updates[-1].reason is None
    stuck = next(t for t in bench.trials(study, folder) if t.suggestion["training.loss.dice_weight"] == 0.4)
    assert stuck.outcome == "rejected"
    assert stuck.facts["reason"] == "needs 20.00 GiB by forecast, the budget is 7.00 GiB"


def test_what_was_rejected_under_a_smaller_budget_is_open_again_under_a_larger_one(bench: Bench) -> None:
    def bytes_of(experiment: Experiment) -> int:
        return 2 * GIB if experiment.training.loss.dice_weight == 0.4 else GIB // 2

    def objective(experiment: Experiment, epoch: int) -> float:
        return 0.2 * epoch * (2 if experiment.training.loss.dice_weight == 0.4 else 1)

    bench.run(bench.resolve(trials=6), objective, bytes_of=bytes_of, budget_bytes=GIB)
    study = bench.resolve(trials=20)
    _, trials, _ = bench.run(study, objective, bytes_of=bytes_of, budget_bytes=4 * GIB)
    assert sum(order.experiment.training.loss.dice_weight == 0.4 for order in trials.orders) > 7


def test_a_stop_is_heard_between_two_rejections(bench: Bench) -> None:
    forecasts: list[int] = []

    def bytes_of(_: Experiment) -> int:
        forecasts.append(1)
        return 3 * GIB

    updates, _, _ = bench.run(
        bench.resolve(), good_at(0.003), bytes_of=bytes_of, stop=lambda: "SIGINT" if len(forecasts) == 3 else None
    )
    assert updates[-1].reason == "SIGINT"
    assert len(forecasts) == 3


def test_memory_that_others_hold_for_now_is_waited_for_and_the_limit_is_named(bench: Bench) -> None:
    study = bench.resolve(trials=1)
    free = iter([8 * GIB] + [GIB] * 6)

    def look() -> Sequence[Slot]:
        return (Slot(None, 0, "host memory", 8 * GIB, next(free, 8 * GIB), 1),)

    updates, _, _ = bench.run(
        study, good_at(0.003), bytes_of=lambda _: 2 * GIB, budget_bytes=4 * GIB, look=look, limit_bytes=4 * GIB
    )
    told = [update.text for update in updates if isinstance(update, Notice)]
    assert len(told) == 1
    assert told[0].startswith("toy/0 waits for memory: it needs 2.00 GiB; host memory: 0 trials")
    assert "4.0 GiB for one (--vram-budget)" in told[0]
    assert updates[-1].reason is None


def test_a_trial_that_filled_the_disk_goes_on_from_its_checkpoint_once_there_is_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    full: list[int] = []
    looks = iter(range(100))

    def objective(experiment: Experiment, epoch: int) -> float:
        if epoch == 2 and not full:
            full.append(next(looks) + 3)
            raise DiskFull("last_state: no space left")
        return 0.1 * epoch

    def free(_: Path) -> int:
        return 10**12 if not full or next(looks) > full[0] else 10**9

    monkeypatch.setitem(disk_shortage.__kwdefaults__, "free", free)
    study = bench.resolve(trials=2)
    updates, trials, folder = bench.run(study, objective)
    told = [update.text for update in updates if isinstance(update, Notice)]
    assert told[0] == "toy/0: last_state: no space left; it is gone on with once there is room"
    assert "has 1.0 GB free" in told[1]
    assert [order.key[1] for order in trials.orders] == [0, 0, 1]
    assert bench.trials(study, folder)[0].outcome == "complete"


def test_a_disk_without_room_ends_a_study_at_once_and_the_same_command_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = bench.resolve(trials=2)
    with monkeypatch.context() as short:
        short.setitem(disk_shortage.__kwdefaults__, "free", lambda _: 10**9)
        with pytest.raises(DiskFull, match=r"has 1\.0 GB free, but .* 5\.0 GB must stay free$") as caught:
            bench.run(study, good_at(0.003))
    assert caught.value.hint == "make room; the same command goes on"
    updates, trials, _ = bench.run(study, good_at(0.003))
    assert (updates[-1].reason, updates[-1].num_trained) == (None, 2)
    assert [order.key[1] for order in trials.orders] == [0, 1]  # the suggestion that found no room is trained first


def test_a_disk_that_fills_between_trials_is_waited_for_a_while(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setitem(disk_shortage.__kwdefaults__, "free", lambda _: 10**9 if ended else 10**12)
    monkeypatch.setattr("crack_sweeps.study.coordinator.DISK_PATIENCE_S", 0.2)

    def hear(update: Any) -> None:
        if isinstance(update, TrialEnded | Notice):
            ended.append(type(update).__name__)

    with pytest.raises(DiskFull, match=r"must stay free for "):
        bench.run(bench.resolve(trials=2), good_at(0.003), on_update=hear)
    assert ended == ["TrialEnded", "Notice"]


def test_waiting_for_memory_does_not_count_as_waiting_for_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[float] = []
    memory = iter([8 * GIB] * 3)

    def look() -> Sequence[Slot]:
        return (Slot(None, 0, "host memory", 8 * GIB, next(memory, 8 * GIB if len(ended) else GIB), 2),)

    def hear(update: Any) -> None:
        if isinstance(update, TrialEnded):
            ended.append(time.monotonic())
        if isinstance(update, EpochDone):
            time.sleep(0.2)  # while the other waits for memory

    def free(_: Path) -> int:
        return 10**9 if ended and time.monotonic() - ended[0] < 0.1 else 10**12

    toy = Path("studies/toy.yaml")
    toy.write_text(toy.read_text().replace("jobs: 1", "jobs: 2"))
    monkeypatch.setitem(disk_shortage.__kwdefaults__, "free", free)
    monkeypatch.setattr("crack_sweeps.study.coordinator.DISK_PATIENCE_S", 0.5)
    study = bench.resolve(trials=2)
    updates, _, _ = bench.run(
        study, good_at(0.003), bytes_of=lambda _: 5 * GIB, budget_bytes=6 * GIB, look=look, on_update=hear
    )
    told = [update.text for update in updates if isinstance(update, Notice)]
    assert ["waits for memory" in text for text in told] == [True, False]
    assert "must stay free" in told[1]
    assert updates[-1].reason is None


def test_a_damaged_checkpoint_fails_its_trial_and_no_other(bench: Bench) -> None:
    def objective(experiment: Experiment, epoch: int) -> float:
        if epoch == 2 and experiment.training.seed == 0 and not damaged:
            damaged.append(1)
            raise CheckpointError("latest_model.pth: damaged")
        return 0.1 * epoch

    damaged: list[int] = []
    study = bench.resolve(trials=3)
    _, _, folder = bench.run(study, objective)
    assert [trial.outcome for trial in bench.trials(study, folder)] == ["failed", "complete", "complete"]


def test_a_run_whose_files_are_damaged_fails_its_trial_and_the_study_goes_on(bench: Bench) -> None:
    study = bench.resolve(trials=3)
    asked = iter([None] * 2 + ["SIGTERM"] * 100)
    _, first, folder = bench.run(study, good_at(0.003), stop=lambda: next(asked))
    events = Path("artifacts/outputs") / first.orders[0].run_name / "events.jsonl"
    events.write_bytes(events.read_bytes() + b"half a line\n")
    updates, _, _ = bench.run(study, good_at(0.003))
    assert updates[-1].num_trained == 3
    failed = bench.trials(study, folder)[0]
    assert failed.outcome == "failed"
    assert "events.jsonl: line " in failed.facts["reason"]


def test_a_repeat_takes_a_seed_that_none_of_its_like_has(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Path("studies/toy.yaml")
    text = toy.read_text()
    start = text.index("  training.learning_rate:")
    toy.write_text(text[:start] + "  training.loss.dice_weight: {choices: [0.4]}\n" + text[text.index("sampler:") :])
    study = bench.resolve(trials=3)
    _, _, folder = bench.run(bench.resolve(trials=1), good_at(0.003))
    read = Store.trials

    def imported(store: Store, arm: str) -> list[Any]:  # the run with seed 0 did not come along from an earlier version
        found = read(store, arm)
        return [replace(found[0], facts={**found[0].facts, "seed": 1}), *found[1:]] if found else found

    monkeypatch.setattr(Store, "trials", imported)
    bench.run(study, good_at(0.003))
    assert [trial.facts["seed"] for trial in bench.trials(study, folder)] == [1, 0, 2]


def test_trials_under_way_train_to_their_end_where_nothing_more_fits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crack_sweeps.study.coordinator.MAX_REJECTIONS", 2)
    toy = Path("studies/toy.yaml")
    toy.write_text(toy.read_text().replace("jobs: 1", "jobs: 2"))
    first: list[float] = []

    def bytes_of(experiment: Experiment) -> int:
        first.append(experiment.training.learning_rate)
        return 1 << 20 if first[-1] == first[0] else 2 * GIB

    slots = [Slot(None, 0, "host memory", 8 * GIB, 8 * GIB, 4)]
    study, told = bench.resolve(trials=3), []
    with pytest.raises(NothingFits, match="suggestions in a row need more than the memory budget"):
        bench.run(study, good_at(0.003), bytes_of=bytes_of, slots=slots, on_update=told.append)
    notices = [update.text for update in told if isinstance(update, Notice)]
    assert len(notices) == 1
    assert notices[0].endswith("; trials under way train to their end")
    assert [update.trial.outcome for update in told if isinstance(update, TrialEnded)] == ["complete"]


def test_a_disk_that_is_full_whatever_it_says_fails_the_trial_in_the_end(bench: Bench) -> None:
    def objective(experiment: Experiment, epoch: int) -> float:
        raise DiskFull("last_state: no space left")

    study = bench.resolve(trials=1)
    _, trials, folder = bench.run(study, objective)
    assert len(trials.orders) == 3
    trial = bench.trials(study, folder)[0]
    assert trial.outcome == "failed"
    assert trial.facts["reason"] == "3 attempts at epoch 1 in vain, the last time: last_state: no space left"


def test_what_trials_under_way_will_write_counts_before_another_is_launched(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = Path("studies/toy.yaml")
    toy.write_text(toy.read_text().replace("jobs: 1", "jobs: 4"))
    mb = 10**6  # weights of 100 MB: 300 of states, 100 of weights and 5 of files while a trial runs
    monkeypatch.setitem(disk_shortage.__kwdefaults__, "free", lambda _: 5000 * mb + 2 * 405 * mb)
    monkeypatch.setattr(StandInForecaster, "peak", lambda *_: MemoryForecast(100 * mb, 0, 0, 0, 0, 0, 0, 100 * mb))
    slots = [Slot(None, 0, "host memory", 8 * GIB, 8 * GIB, 4)]
    _, trials, _ = bench.run(bench.resolve(trials=6), good_at(0.003), slots=slots)
    assert trials.num_at_once == 2


def test_a_repeated_suggestion_becomes_an_extra_seed_under_the_first(bench: Bench) -> None:
    toy = Path("studies/toy.yaml")
    text = toy.read_text()
    start = text.index("  training.learning_rate:")
    small = "  training.loss.dice_weight: {choices: [0.0, 1.0]}\n"
    toy.write_text(text[:start] + small + text[text.index("sampler:") :])
    study = bench.resolve(trials=6)
    _, trials, folder = bench.run(study, lambda e, _: 0.5 + 0.1 * e.training.loss.dice_weight)
    by_setting: dict[float, list[Any]] = {}
    for trial in bench.trials(study, folder):
        by_setting.setdefault(trial.suggestion["training.loss.dice_weight"], []).append(trial)
    for repeats in by_setting.values():
        assert [trial.facts["seed"] for trial in repeats] == list(range(len(repeats)))
        assert [trial.facts["repeat_of"] for trial in repeats] == [None] + [repeats[0].number] * (len(repeats) - 1)
    first = {order.key[1]: order for order in trials.orders}
    for repeats in by_setting.values():
        for trial in repeats[1:]:
            assert first[trial.number].membership["parent"]["run"] == repeats[0].facts["run"]


def test_asked_to_stop_the_trials_leave_and_the_next_coordinator_adopts_them(bench: Bench) -> None:
    study = bench.resolve(trials=4)
    asked = iter([None] * 6 + ["SIGTERM"] * 100)
    updates, first, folder = bench.run(study, good_at(0.003), stop=lambda: next(asked))
    assert isinstance(updates[-1], StudyEnded)
    assert updates[-1].reason == "SIGTERM"
    running = [trial for trial in bench.trials(study, folder) if trial.outcome == "running"]
    assert len(running) == 1
    updates, second, folder = bench.run(study, good_at(0.003))
    adopted = [update for update in updates if isinstance(update, Launched) and update.adopted]
    assert [update.trial.number for update in adopted] == [running[0].number]
    assert second.orders[0].run_name == first.orders[-1].run_name
    assert [trial.number for trial in bench.trials(study, folder)] == [0, 1, 2, 3]
    assert all(trial.outcome != "running" for trial in bench.trials(study, folder))


def test_an_epoch_that_is_told_twice_is_stored_once(bench: Bench) -> None:
    study = bench.resolve(trials=4)
    asked = iter([None] * 6 + ["SIGTERM"] * 100)
    bench.run(study, good_at(0.003), stop=lambda: next(asked))
    updates, _, folder = bench.run(study, good_at(0.003))  # the stand-in tells all epochs of the adopted trial again
    assert any(isinstance(update, EpochDone) for update in updates)
    for trial in bench.trials(study, folder):
        assert list(trial.intermediate) == sorted(set(trial.intermediate))


def test_on_four_cards_trials_are_packed_by_forecast_and_never_above_a_budget(bench: Bench) -> None:
    cards = [Slot(f"GPU-{i}", i, "fake", 8 * GIB, 8 * GIB, 4) for i in range(4)]
    toy = Path("studies/toy.yaml")
    toy.write_text(toy.read_text().replace("jobs: 1", "jobs: auto"))

    def bytes_of(experiment: Experiment) -> int:
        return int((2.5 if experiment.training.loss.dice_weight == 0.4 else 5.0) * GIB)

    study = bench.resolve(trials=16)
    _, trials, _ = bench.run(study, good_at(0.003), bytes_of=bytes_of, budget_bytes=7 * GIB, slots=cards)
    assert trials.num_at_once > 4, "small trials share a card"
    assert {order.gpu for order in trials.orders} == {card.gpu for card in cards}
    for running in trials.seen_at_launch:
        for card in cards:
            on_card = [order for order in running.values() if order.gpu == card.gpu]
            assert sum(bytes_of(order.experiment) for order in on_card) <= 0.95 * 8 * GIB
            assert sum(order.memory_fraction or 9 for order in on_card) <= 1.0


def test_each_order_carries_what_is_to_be_proved(bench: Bench) -> None:
    study = bench.resolve(trials=3)
    _, trials, _ = bench.run(study, good_at(0.003))
    for order in trials.orders:
        assert order.experiment.training.learning_rate == order.suggestion["training.learning_rate"]
        assert order.membership["study"]["suggestion"] == order.suggestion
        assert order.membership["tags"]["crack_sweeps.trial"] == f"toy/{order.key[1]}"


def test_the_journal_names_each_trial_once_and_figures_grow(bench: Bench) -> None:
    bench.run(bench.resolve(trials=3), good_at(0.003))
    _, _, folder = bench.run(bench.resolve(trials=6), good_at(0.003))
    events = list(read_events(folder.events))
    named = [event["number"] for event in events if event["kind"] == "trial"]
    assert named == list(range(6))
    steps = [event["step"] for event in events if event["kind"] == "metrics"]
    assert steps == sorted(set(steps))
    assert _last(events, "metrics")["metrics"]["num_trials"] == 6
    assert [event["status"] for event in events if event["kind"] == "ended"] == ["FINISHED", "FINISHED"]


def _last(events: Sequence[Any], kind: str) -> Any:
    return [event for event in events if event["kind"] == kind][-1]
