"""A plan says what a study would do, where each figure comes from, and leaves no trace."""

from __future__ import annotations

import json
import random
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from crack_sweeps.data.open import open_photos
from crack_sweeps.data.photos import PhotoSet
from crack_sweeps.errors import SpecError, StudyError
from crack_sweeps.runs.events import EventLog
from crack_sweeps.search import plan_study
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.loading import dump
from crack_sweeps.specs.study import Choices, Objective, Pruner, Range
from crack_sweeps.specs.study_loading import ResolvedStudy, identity, resolve_study
from crack_sweeps.study.calibration import Calibration
from crack_sweeps.study.folder import find_stored, open_folder
from crack_sweeps.study.forecasts import shape_key
from crack_sweeps.study.pace import Pace, Work, pruning_share
from crack_sweeps.study.packing import Packer, Slot
from crack_sweeps.study.plan import StudyPlan, make_study_plan, scratch_forecaster
from crack_sweeps.study.survey import draw_suggestion
from crack_sweeps.training.footprint import MemoryForecast

GIB = 1 << 30
REPO = Path(__file__).resolve().parents[2]
OUTPUTS = Path("artifacts/outputs")
NO_OVERHEAD = Calibration("a processor", 0, 0, None)
SPACE = """\
name: toy
base: unet_small
settings:
  training.epochs: 9
  training.steps_per_epoch: 2
  training.gradient_accumulation_steps: 1
  data.crop_px: 32
  evaluation.tile_overlap: 0.0
space:
  training.batch_size: {choices: [2, 4, 8]}
  training.learning_rate: {low: 0.0003, high: 0.03, log: true}
  training.loss.focal_alpha: {choices: [null, 0.25, 0.5, 0.75]}
  model.decoder_cfg.channels: {choices: [[16, 8, 8, 8], [16, 16, 8, 8]]}
pruner: {name: none}
budget: {trials: 8}
finalists: {seeds: 0}
"""


def forecast(total: int, parameters: int = 4_000_000) -> MemoryForecast:
    return MemoryForecast(parameters, 0, 2 * parameters, 0, total - 3 * parameters, 0, 0, total)


def a_gib_a_crop(experiment: Experiment) -> MemoryForecast:
    return forecast(experiment.training.batch_size * GIB)


@pytest.fixture(autouse=True)
def few_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the suggestions are enough for these spaces."""
    monkeypatch.setattr("crack_sweeps.study.survey.NUM_DRAWN", 130)


@pytest.fixture
def photo_set(photos: Path, here: Path) -> PhotoSet:
    (here / "studies" / "toy.yaml").write_text(SPACE)
    study = resolve_study("toy", profile="none", data=photos)
    return open_photos(study.arms[0].base.data)


def resolved(photos: Path, **flags: Any) -> ResolvedStudy:
    return resolve_study("toy", profile="none", data=photos, **flags)


def plan(study: ResolvedStudy, photo_set: PhotoSet | None, **changes: Any) -> StudyPlan:
    """On a host with 5 GiB free and 4 processors."""
    slot = Slot(None, 0, "host memory", 20 * GIB, int(5.001 / 0.95 * GIB), 4)
    stored = find_stored(study.spec.name, identity(study, photo_set.digest) if photo_set is not None else None)
    settings: dict[str, Any] = {
        "on": "cpu",
        "packer": Packer(lambda: [slot], jobs=study.spec.jobs, limit_bytes=study.spec.memory_budget_bytes),
        "calibration": NO_OVERHEAD,
        "peak": a_gib_a_crop,
        "outputs": OUTPUTS,
    }
    return make_study_plan(study, photo_set, stored, **(settings | changes))


def begin(study: ResolvedStudy, photo_set: PhotoSet, **decided: Any) -> Any:
    facts = {"memory_budget_bytes": 5 * GIB, "calibration": asdict(NO_OVERHEAD)} | decided
    return open_folder(study, identity(study, photo_set.digest), facts).folder


def row(number: int, outcome: str = "complete", **suggestion: Any) -> dict[str, Any]:
    said = {"training.batch_size": 2, "training.learning_rate": 0.001, "training.loss.focal_alpha": None}
    said |= {"model.decoder_cfg.channels": [16, 8, 8, 8], **suggestion}
    facts = {"value": None, "seed": 0, "fingerprint": f"{number}", "duration_s": 1800.0}
    return {"arm": "unet_small", "number": number, "outcome": outcome, "suggestion": said, **facts}


def tree(folder: Path) -> dict[str, Any]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


# --- the space -----------------------------------------------------------------------------------


def test_drawn_suggestions_hold_every_kind_of_value_and_meet_conditions() -> None:
    space = {
        "a": Choices(choices=("x", (1, 2))),
        "b": Range(low=2, high=8, step=3, when={"a": "x"}),
        "c": Range(low=0.001, high=0.1, log=True),
    }
    rng = random.Random(0)
    drawn = [draw_suggestion(space, rng) for _ in range(200)]
    assert {json.dumps(one["a"]) for one in drawn} == {'"x"', "[1, 2]"}
    assert {one.get("b") for one in drawn if one["a"] == "x"} == {2, 5, 8}
    assert all("b" not in one for one in drawn if one["a"] != "x")
    below = sum(one["c"] < 0.01 for one in drawn)
    assert 75 < below < 125  # by magnitude: half of them
    assert all(0.001 <= one["c"] <= 0.1 for one in drawn)


def test_a_value_that_never_fits_is_named_and_those_that_matter_nothing_are_not(
    photos: Path, photo_set: PhotoSet
) -> None:
    memory = plan(resolved(photos), photo_set).arms[0].memory
    assert [(found.key, found.value, found.share) for found in memory.rejected_values] == [
        ("training.batch_size", 8, 1.0)
    ]
    assert memory.rejected_share == pytest.approx(1 / 3, abs=0.08)
    assert (memory.lowest_bytes, memory.highest_bytes) == (2 * GIB, 8 * GIB)


def test_a_value_that_fits_beside_some_others_alone_has_its_share(photos: Path, photo_set: PhotoSet) -> None:
    def deep_is_large(experiment: Experiment) -> MemoryForecast:
        large = experiment.training.batch_size == 8 and experiment.model.decoder_cfg.channels[1] == 16  # type: ignore[union-attr]
        return forecast(9 * GIB if large else GIB)

    found = plan(resolved(photos), photo_set, peak=deep_is_large).arms[0].memory.rejected_values
    shares = {(value.key, json.dumps(value.value)): value.share for value in found}
    assert shares["training.batch_size", "8"] == pytest.approx(1 / 2, abs=0.15)
    assert shares["model.decoder_cfg.channels", "[16, 16, 8, 8]"] == pytest.approx(1 / 3, abs=0.12)
    assert len(shares) == 2


def test_each_shape_is_forecast_once(photos: Path, photo_set: PhotoSet) -> None:
    asked: list[str] = []

    def counted(experiment: Experiment) -> MemoryForecast:
        asked.append(shape_key(experiment, "cpu"))
        return a_gib_a_crop(experiment)

    memory = plan(resolved(photos), photo_set, peak=counted).arms[0].memory
    assert len(asked) == len(set(asked)) <= 13  # 3 batches, 2 decoders, alpha or none; and the base
    assert memory.num_shapes == memory.num_forecast == 12


def test_without_time_for_the_space_the_base_stands_for_it_and_no_value_is_accused(
    photos: Path, photo_set: PhotoSet
) -> None:
    found = plan(resolved(photos, memory_budget="1GiB"), photo_set, patience_s=-1.0)
    assert found.arms[0].memory.num_forecast <= 1
    assert found.arms[0].memory.rejected_values == ()
    assert "of 12 shapes forecast" in str(found.rows())


def test_what_cannot_be_built_is_told_and_a_forecaster_in_trouble_is_not_hidden(
    photos: Path, photo_set: PhotoSet
) -> None:
    def refuses(experiment: Experiment) -> MemoryForecast:
        if experiment.training.batch_size == 4:  # the base's is 8
            raise SpecError("four is too few")
        return a_gib_a_crop(experiment)

    found = plan(resolved(photos), photo_set, peak=refuses)
    assert found.arms[0].memory.failed == ("four is too few",)
    assert ("  cannot be built", "four is too few") in found.rows()

    def dies(experiment: Experiment) -> MemoryForecast:
        if experiment.training.batch_size == 4:
            raise StudyError("it died")
        return a_gib_a_crop(experiment)

    with pytest.raises(StudyError, match="it died"):
        plan(resolved(photos), photo_set, peak=dies)


# --- what is there -------------------------------------------------------------------------------


def test_a_study_that_has_begun_goes_on_with_what_it_decided(photos: Path, photo_set: PhotoSet) -> None:
    study = resolved(photos)
    folder = begin(study, photo_set, memory_budget_bytes=3 * GIB)
    log = EventLog(folder.ledger)
    for number, outcome in enumerate(["complete", "pruned", "rejected", "failed"]):
        log.append("trial", **row(number, outcome))
    log.close()
    before = tree(folder.path)
    found = plan(study, photo_set)
    assert (found.stored, found.arms[0].num_done, found.arms[0].num_left) == (True, 3, 5)
    assert found.memory_budget_bytes == 3 * GIB
    assert ("  trials", "8: 3 done, 5 to go") in found.rows()
    assert tree(folder.path) == before


def test_a_finished_study_says_how_to_go_on(photos: Path, photo_set: PhotoSet) -> None:
    study = resolved(photos, trials=1)
    log = EventLog(begin(study, photo_set).ledger)
    log.append("trial", **row(0))
    log.close()
    found = plan(study, photo_set)
    assert found.time is not None
    assert found.time.training_hours == 0
    assert "--trials" in dict(found.rows())["note"]


def test_a_changed_space_would_be_a_new_version_that_takes_along_what_fits(
    photos: Path, here: Path, photo_set: PhotoSet
) -> None:
    log = EventLog(begin(resolved(photos), photo_set).ledger)
    log.append("trial", **row(0))
    log.append("trial", **row(1, **{"training.batch_size": 8}))
    log.close()
    (here / "studies" / "toy.yaml").write_text(SPACE.replace("[2, 4, 8]", "[2, 4]"))
    before = tree(here)
    found = plan(resolved(photos), photo_set)
    assert (found.study, found.stored) == ("toy@2", False)
    assert (found.arms[0].num_done, found.arms[0].num_imported, found.arms[0].num_left) == (0, 1, 7)
    assert tree(here) == before


def test_a_set_that_is_not_drawn_yet_leaves_counts_and_hours_open(photos: Path, photo_set: PhotoSet) -> None:
    found = plan(resolved(photos), None)
    assert found.time is None
    assert "not drawn yet" in dict(found.rows())["data"]


# --- packing, time, disk -------------------------------------------------------------------------


@pytest.mark.parametrize(("gib", "jobs", "at_once"), [(1, "auto", 4), (2, "auto", 2), (4, "auto", 1), (1, 3, 3)])
def test_as_many_run_at_once_as_fit(photos: Path, photo_set: PhotoSet, gib: int, jobs: Any, at_once: int) -> None:
    study = resolved(photos, jobs=jobs)
    found = plan(study, photo_set, peak=lambda _: forecast(int(gib * GIB)))
    assert found.at_once == at_once


def test_disk_is_that_of_the_largest_checkpoint(photos: Path, photo_set: PhotoSet) -> None:
    small = plan(resolved(photos), photo_set, peak=lambda _: forecast(GIB, parameters=10_000_000))
    large = plan(resolved(photos), photo_set, peak=lambda _: forecast(GIB, parameters=20_000_000))
    trials = small.arms[0].num_trials
    assert large.disk_final_bytes - small.disk_final_bytes == trials * 2 * 10_000_000  # best and last weights


def past_run(experiment: Experiment, number: int = 0, **changes: Any) -> None:
    path = OUTPUTS / f"20260101-00000{number}-x-abcdef"
    path.mkdir(parents=True)
    environment = {"profile": "none", "device_name": "a processor", "torch_threads": 2, "num_params": 1000}
    record = {"status": "FINISHED", "num_epochs": 9, "duration_s": 100.0}
    (path / "config.yaml").write_text(dump(experiment))
    (path / "environment.json").write_text(json.dumps({k: changes.get(k, v) for k, v in environment.items()}))
    (path / "metrics.json").write_text(json.dumps({k: changes.get(k, v) for k, v in record.items()}))
    with closing(EventLog(path / "events.jsonl")) as log:
        log.append("created")


def test_work_is_counted_in_pixels_by_weights(photos: Path, photo_set: PhotoSet) -> None:
    base = resolved(photos).arms[0].base
    work = Work.of(base, 1000, photo_set)
    num_val = len(photo_set.split("val"))
    crops = 3 * 2 * base.training.effective_batch * 32**2  # forward once, backward for two; two steps
    assert work.epoch == 1000 * (crops + num_val * 64 * 48)
    assert work.final == 1000 * num_val * 64 * 48


def test_hours_come_from_past_runs_of_this_profile_and_device(photos: Path, photo_set: PhotoSet) -> None:
    base = resolved(photos).arms[0].base
    past_run(base)
    past_run(base, 1, device_name="another processor", duration_s=1.0)
    past_run(base, 2, profile="gpu-8gb", duration_s=1.0)
    past_run(base, 3, status="FAILED", duration_s=1.0)
    work = Work.of(base, 1000, photo_set)
    settings: dict[str, Any] = {"on": "cpu", "device": "a processor"}
    pace = Pace.of("none", photo_set, OUTPUTS, threads=2, **settings)
    assert pace.rate == pytest.approx(100 / (9 * work.epoch + work.final))
    assert pace.based_on == "1 past run with profile none on a processor"
    assert Pace.of("none", photo_set, OUTPUTS, threads=1, **settings).rate == pytest.approx(2 * pace.rate)


def test_a_pruned_run_counts_without_the_scores_that_it_never_made(photos: Path, photo_set: PhotoSet) -> None:
    base = resolved(photos).arms[0].base
    past_run(base, status="PRUNED", num_epochs=3)
    pace = Pace.of("none", photo_set, OUTPUTS, on="cpu", device="a processor", threads=2)
    assert pace.rate == pytest.approx(100 / (3 * Work.of(base, 1000, photo_set).epoch))


def test_without_past_runs_the_assumption_is_named(photos: Path, photo_set: PhotoSet) -> None:
    found = plan(resolved(photos), photo_set)
    assert found.time is not None
    assert found.time.based_on.startswith("assumed")
    assert found.time.training_hours > 0


def test_gpu_hours_end_a_study_before_its_trials(photos: Path, photo_set: PhotoSet) -> None:
    past_run(resolved(photos).arms[0].base, duration_s=1e6)
    found = plan(resolved(photos, gpu_hours=1.5), photo_set).time
    assert found is not None
    assert found.capped
    assert found.training_hours == 1.5


def test_trials_that_share_a_gpu_may_take_turns(photos: Path, photo_set: PhotoSet) -> None:
    slot = Slot("GPU-1", 0, "a card", 10 * GIB, 10 * GIB, 8)
    found = plan(
        resolved(photos),
        photo_set,
        on="cuda",
        packer=Packer(lambda: [slot], jobs="auto", limit_bytes=None),
        peak=lambda _: forecast(GIB),
    ).time
    assert found is not None
    assert found.most_hours == pytest.approx(4 * found.least_hours)
    assert found.most_hours == pytest.approx(found.training_hours)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_pruner_itself_says_what_it_lets_through(direction: Any) -> None:
    objective = Objective(direction=direction)
    settings: dict[str, Any] = {"num_epochs": 100, "num_trials": 60, "seed": 0, "arm": "x"}
    assert pruning_share(Pruner(name="none"), objective, **settings) == (1.0, 1.0)
    epochs, complete = pruning_share(Pruner(name="hyperband", min_epochs=5), objective, **settings)
    assert 0.3 < epochs < 0.85
    assert 0.2 < complete < epochs
    # 5 of 60 begin before the median judges; of the others half stop at epoch 5, and then fewer as the bar rises.
    epochs, complete = pruning_share(Pruner(name="median", min_epochs=5), objective, **settings)
    assert 0.1 < complete < 0.6
    assert epochs == pytest.approx(complete + (1 - complete) * 0.05, abs=0.05)


def test_a_budget_above_the_machine_counts_as_the_machines(photos: Path, photo_set: PhotoSet) -> None:
    study = resolved(photos, memory_budget="999GiB")
    slot = Slot(None, 0, "host memory", 8 * GIB, 8 * GIB, 1)
    packer = Packer(lambda: [slot], limit_bytes=study.spec.memory_budget_bytes)
    assert plan(study, photo_set, packer=packer).memory_budget_bytes == packer.most_bytes() < 8 * GIB


# --- as a whole ----------------------------------------------------------------------------------


def test_a_plan_prints_as_rows_and_as_json(photos: Path, photo_set: PhotoSet) -> None:
    found = plan(resolved(photos, memory_budget="3GiB"), photo_set)
    printed = json.loads(json.dumps(found.as_dict()))
    assert printed["arms"][0]["num_left"] == 8
    rows = found.rows()
    names = [name.strip() for name, _ in rows]
    assert set(found.arms[0].space) <= set(names)
    said = {"trials", "then, scored on test", "peak at the base", "peak over the space", "rejected", "time", "pace"}
    assert {*said, "disk"} <= set(names)
    assert all(isinstance(value, str) and "\n" not in value for _, value in rows)


def test_the_studys_own_forecasts_are_known_and_the_plans_are_not_kept(
    photos: Path, photo_set: PhotoSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = resolved(photos)
    folder = begin(study, photo_set)
    base = study.arms[0].base
    known = {"forecasts": {shape_key(base, "cpu"): asdict(forecast(GIB))}}
    folder.forecasts.write_text(json.dumps(known))
    before = tree(folder.path)
    stored = find_stored(study.spec.name, identity(study, photo_set.digest))
    with scratch_forecaster(stored, "cpu") as forecaster:
        assert forecaster.peak(base) == forecast(GIB)
        monkeypatch.setattr(forecaster, "_ask", lambda experiment: forecast(2 * GIB))
        other = base.model_copy(update={"training": base.training.model_copy(update={"batch_size": 77})})
        assert forecaster.peak(other) == forecast(2 * GIB)
    assert tree(folder.path) == before


@pytest.mark.slow
def test_a_dry_run_on_this_machine_writes_nothing(photos: Path, here: Path) -> None:
    before = tree(here)
    found = plan_study("toy", data=photos, profile="cpu", overrides=["training.steps_per_epoch=1"])
    assert found.arms[0].memory.num_forecast >= 1
    assert found.time is not None
    assert found.time.training_hours > 0
    assert tree(here) == before


def test_baselines_and_finalists_are_in_the_plan_with_what_they_cost(
    here: Path, photos: Path, photo_set: PhotoSet
) -> None:
    (here / "studies" / "other.yaml").write_text((REPO / "experiments" / "unet_small.yaml").read_text())
    (here / "studies" / "toy.yaml").write_text(SPACE + "baselines: [{base: ./other.yaml}]\n")
    alone, both = (plan(resolved(photos, seeds=seeds), photo_set) for seeds in (0, 3))
    assert [(arm.name, arm.num_trials, arm.num_finals) for arm in both.arms] == [("unet_small", 8, 3), ("other", 8, 3)]
    assert alone.time is not None
    assert both.time is not None
    longest = both.time.full_trial_s / 3600
    assert both.time.training_hours - alone.time.training_hours == pytest.approx(6 * longest, rel=0.35)
    assert ("  then, scored on test", "3 of its best settings") in both.rows()
    assert any("until all have trained as long" in text for text in both.notes)
    shipped = plan(resolved(photos, seeds=3, baseline_trials=0), photo_set)
    assert [(arm.num_trials, arm.num_finals) for arm in shipped.arms] == [(8, 3), (0, 3)]
    assert ("  trials", "none: its settings stand as shipped") in shipped.rows()
    assert any("budgets differ" in text for text in shipped.notes)
