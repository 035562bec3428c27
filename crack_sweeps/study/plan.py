"""What a study would do, in figures: for `sweeps study --dry-run`. Trains nothing, writes nothing."""

from __future__ import annotations

import json
import math
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from crack_sweeps.console import human_bytes, human_seconds
from crack_sweeps.data.images import image_size
from crack_sweeps.data.photos import SPLITS, PhotoSet
from crack_sweeps.errors import SpecError, StudyError, SweepsError
from crack_sweeps.runs.directory import RunDirectory, all_runs
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.loading import load_resolved
from crack_sweeps.specs.study import Choices, Objective, Parameter, Pruner, described, exists, identified, unfrozen
from crack_sweeps.specs.study_loading import Arm, ResolvedStudy, settle
from crack_sweeps.study.calibration import Calibration
from crack_sweeps.study.disk import checkpoint_bytes, disk_shortage, study_disk
from crack_sweeps.study.distributions import axis
from crack_sweeps.study.finalists import complete_trial, num_over, winner_of
from crack_sweeps.study.folder import Stored, StudyFolder
from crack_sweeps.study.forecasts import Forecaster, shape_key
from crack_sweeps.study.history import TRAINED, Trial
from crack_sweeps.study.imports import is_carried, told_apart_by, translated
from crack_sweeps.study.ledger import read_rows, trial_name
from crack_sweeps.study.packing import Packer, Placement
from crack_sweeps.study.pruning import judge, rungs
from crack_sweeps.training.footprint import DeviceType, MemoryForecast

NUM_DRAWN = 400  # random suggestions that stand for the space; each takes 2 ms
MAX_SHAPES = 24  # forecast for a plan; one takes up to 2 s
MOST = 0.9  # of a value's suggestions, those that must have been forecast to judge it
PATIENCE_S = 15.0  # after which no further shape is traced, so that a plan takes half a minute at most
MAX_SIMULATED = 60  # trials that the pruner is tried on
NUM_PAST = 20  # runs of this kind that hours are estimated from
NEWEST = 300  # runs that are looked at for them
START_S = 3.0  # from a trial's launch to its first step: a fork, building the model, opening photos
_BACKWARD = 2  # a backward pass costs about two forward passes

# Without past runs: crops that a device trains per second, of which side, by a net of how many weights. CPU: the hybrid
# with SwinV2-tiny, window 8, one of two AVX-512 cores in float32 (LOG). CUDA: no measurement stands behind it.
ASSUMED: dict[DeviceType, tuple[float, int, float, str]] = {
    "cpu": (2.45, 128, 31e6, "2.5 crops of 128 px a second and core by the hybrid with SwinV2-tiny"),
    "cuda": (80.0, 256, 31e6, "80 crops of 256 px a second and GPU by the hybrid with SwinV2-tiny, a guess"),
}
Peak = Callable[[Experiment], MemoryForecast]


@dataclass(frozen=True)
class RejectedValue:
    """A value of the space that the memory budget speaks against.

    Args:
        key: Of the parameter.
        value: Of the parameter.
        share: Of the suggestions with this value that would be rejected; 1.0 is all.
    """

    key: str
    value: Any
    share: float


@dataclass(frozen=True)
class MemoryPlan:
    """What trials of an arm need, context and libraries included.

    Args:
        base: Forecast of the allocator's peak at the base's settings, by what it is for.
        base_bytes: What a trial at the base's settings needs.
        num_shapes: Different needs among the drawn suggestions: those that change no size are alike.
        num_forecast: Of these, how many were forecast for this plan.
        lowest_bytes: Least that one of them needs; None if none was forecast.
        highest_bytes: Most that one of them needs.
        rejected_share: Of random suggestions, those over the budget, as far as they were forecast.
        rejected_values: Values that are over the budget always or often.
        failed: What cannot be built, in a sentence each.
    """

    base: dict[str, int]
    base_bytes: int
    num_shapes: int
    num_forecast: int
    lowest_bytes: int | None
    highest_bytes: int | None
    rejected_share: float
    rejected_values: tuple[RejectedValue, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class ArmPlan:
    """One arm.

    Args:
        name: Its name.
        base: Its experiment's file.
        space: Each parameter in words.
        num_trials: Trials of its search, those of earlier versions that fit included; 0 where its settings stand.
        num_done: Of these, how many are over.
        num_imported: Of these, how many would come along from versions before.
        num_finals: Trainings of its best settings afterwards, each scored on test.
        num_finals_done: Of these, how many are over, if the finalist stays the same.
        memory: What its trials need.
    """

    name: str
    base: str
    space: dict[str, str]
    num_trials: int
    num_done: int
    num_imported: int
    num_finals: int
    num_finals_done: int
    memory: MemoryPlan

    @property
    def num_left(self) -> int:
        """Trials of the search still to be done."""
        return max(0, self.num_trials - self.num_done - self.num_imported)

    @property
    def num_finals_left(self) -> int:
        """Trainings of the finalist still to be done."""
        return max(0, self.num_finals - self.num_finals_done)


@dataclass(frozen=True)
class TimePlan:
    """How long it takes.

    Args:
        training_hours: Of all trials that are left, summed.
        least_hours: By the clock, if trials side by side do not slow each other down.
        most_hours: By the clock, if those on one GPU only take turns.
        full_trial_s: A whole training with its final scores.
        epochs_share: Of the epochs of whole trainings, those that the pruner lets through.
        complete_share: Of the trials, those that it lets through to the end.
        capped: The study's GPU-hours end it before its trials do.
        based_on: Where the pace comes from.
    """

    training_hours: float
    least_hours: float
    most_hours: float
    full_trial_s: float
    epochs_share: float
    complete_share: float
    capped: bool
    based_on: str


@dataclass(frozen=True)
class StudyPlan:
    """What `sweeps study` would do."""

    study: str
    folder: str
    stored: bool
    source: str
    profile: str
    quick_look: bool
    overrides: tuple[str, ...]
    fixed: tuple[str, ...]
    objective: str
    sampler: str
    pruner: str
    data: dict[str, Any]
    arms: tuple[ArmPlan, ...]
    device: str
    memory_budget_bytes: int
    calibration_runs: int
    calibration_error: float | None
    jobs: int
    at_once: int
    threads: int
    packing: str
    time: TimePlan | None
    disk_peak_bytes: int
    disk_final_bytes: int
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        arms = [{**asdict(arm), "num_left": arm.num_left, "num_finals_left": arm.num_finals_left} for arm in self.arms]
        return {**asdict(self), "arms": arms}

    def rows(self) -> list[tuple[str, str]]:
        """Names and values that a person reads."""
        state = "goes on" if self.stored else "would begin"
        rows = [
            ("study", f"{self.study}, {state} in {self.folder}"),
            ("study file", self.source),
            (
                "profile",
                self.profile + (" (quick look: never to be compared with full runs)" if self.quick_look else ""),
            ),
            *(("  typed", text) for text in self.overrides),
            *(("  fixed", f"{key} was typed, so it is not searched") for key in self.fixed),
            ("data", _data_in_words(self.data)),
            ("objective", self.objective),
            ("sampler, pruner", f"{self.sampler}, {self.pruner}"),
        ]
        for arm in self.arms:
            rows += self._arm_rows(arm)
        rows += [
            ("device", self.device),
            ("memory budget", f"{human_bytes(self.memory_budget_bytes)} a trial; {self._calibration_in_words()}"),
            ("at once", f"{_count(self.at_once, 'trial')} by forecast; {self.packing}"),
            *self._time_rows(),
            (
                "disk",
                f"{human_bytes(self.disk_peak_bytes)} while training, {human_bytes(self.disk_final_bytes)} after",
            ),
            *(("note", note) for note in self.notes),
        ]
        return rows

    def _arm_rows(self, arm: ArmPlan) -> list[tuple[str, str]]:
        memory = arm.memory
        done = [f"{arm.num_done} done"] if self.stored else []
        done += [f"{arm.num_imported} come along from versions before"] if arm.num_imported else []
        trainings = f"{arm.num_trials}" + (f": {', '.join([*done, f'{arm.num_left} to go'])}" if done else "")
        trainings = trainings if arm.num_trials else "none: its settings stand as shipped"
        finals = f"{arm.num_finals}" + (f": {arm.num_finals_done} done" if arm.num_finals_done else "")
        shapes = f"{memory.num_forecast} of {memory.num_shapes} shapes forecast"
        if memory.lowest_bytes is not None and memory.highest_bytes is not None:
            shapes = f"{human_bytes(memory.lowest_bytes)} to {human_bytes(memory.highest_bytes)}; {shapes}"
        over = f"{100 * memory.rejected_share:.0f} % of random suggestions" if memory.rejected_share else "none"
        if 0 < memory.num_forecast < memory.num_shapes:
            over += ", as far as forecast"
        elif not memory.num_forecast:
            over = "not known: no shape of the space was forecast in time"
        rows = [
            (f"arm {arm.name}", f"around {arm.base}"),
            *((f"  {key}", words) for key, words in arm.space.items()),
            ("  trials", trainings),
            ("  then, scored on test", f"{finals} of its best settings" if arm.num_finals else "none"),
            ("  peak at the base", human_bytes(memory.base_bytes)),
            ("  peak over the space", shapes),
            ("  rejected", over),
        ]
        for found in memory.rejected_values:
            share = "always" if found.share == 1 else f"{100 * found.share:.0f} % of its suggestions"
            rows.append(("", f"{found.key} {found.value}: {share}"))
        return rows + [("  cannot be built", text) for text in memory.failed]

    def _calibration_in_words(self) -> str:
        if not self.calibration_runs:
            return "forecasts not yet calibrated by runs on this device"
        error = f", {100 * self.calibration_error:.0f} % off at most" if self.calibration_error is not None else ""
        return f"forecasts calibrated by {_count(self.calibration_runs, 'run')}{error}"

    def _time_rows(self) -> list[tuple[str, str]]:
        plan = self.time
        if plan is None:
            return [("time", "not known before the photos are there")]
        clock = _hours(plan.least_hours)
        if plan.most_hours > 1.05 * plan.least_hours:
            clock += f", or up to {_hours(plan.most_hours)} where trials slow each other down"
        cap = "; the GPU-hours of the budget end it" if plan.capped else ""
        return [
            ("time", f"{clock}; {_hours(plan.training_hours)} of training, summed over trials{cap}"),
            ("  a whole trial", human_seconds(plan.full_trial_s)),
            (
                "  pruned",
                f"{100 * (1 - plan.epochs_share):.0f} % of the epochs; {100 * plan.complete_share:.0f} % of trials "
                "train to the end, if early figures say nothing of the last",
            ),
            ("  pace", plan.based_on),
        ]


@contextmanager
def scratch_forecaster(stored: Stored, on: DeviceType) -> Iterator[Forecaster]:
    """A forecaster that knows what the study's does, and writes to a file that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="crack_sweeps-plan-") as scratch:
        cache = Path(scratch) / "forecasts.json"
        for folder in (stored.folder, *reversed(stored.before)):
            if folder.forecasts.is_file():
                shutil.copyfile(folder.forecasts, cache)
                break
        with Forecaster(cache, on) as forecaster:
            yield forecaster


def make_study_plan(
    study: ResolvedStudy,
    photos: PhotoSet | None,
    stored: Stored,
    *,
    on: DeviceType,
    packer: Packer,
    calibration: Calibration,
    peak: Peak,
    outputs: Path,
    patience_s: float = PATIENCE_S,
) -> StudyPlan:
    """Survey the space, count what is left, estimate memory, time and disk.

    Args:
        study: What would be searched.
        photos: What would be trained on; None if the built-in set has not been drawn.
        stored: What there is of it.
        on: The kind of device.
        packer: What trials would be packed by, with none running.
        calibration: From forecasts to needs.
        peak: Forecasts a trial; asked for one of each shape.
        outputs: Folder of all runs.
        patience_s: Seconds after which no further shape is forecast.
    """
    facts = stored.folder.read_facts() if stored.exists else {}
    wanted = study.spec.memory_budget_bytes or facts.get("memory_budget_bytes") or packer.largest_budget()
    budget = min(wanted, packer.most_bytes())
    if "calibration" in facts:  # decided once, when the study began
        calibration = Calibration(**facts["calibration"])
    done = Counter(row["arm"] for row in read_rows(stored.folder) if row["outcome"] in TRAINED)
    surveys = [_survey(arm, on, peak, calibration, budget, patience_s / len(study.arms)) for arm in study.arms]
    arms = tuple(
        ArmPlan(
            name=arm.name,
            base=str(arm.source),
            space={key: described(parameter) for key, parameter in arm.space.items()},
            num_trials=study.num_trials(arm),
            num_done=done[arm.name],
            num_finals=study.num_finals(arm),
            num_finals_done=_num_finals_done(study, arm, stored.folder),
            num_imported=0 if stored.exists else _num_imported(arm, stored.before),
            memory=survey.memory,
        )
        for arm, survey in zip(study.arms, surveys, strict=True)
    )
    num_left = sum(arm.num_left + arm.num_finals_left for arm in arms)
    placed = _placed(packer, [need for survey in surveys for need in survey.needs(budget)], max(1, num_left))
    at_once = len(placed)
    largest, jobs = _largest_checkpoint(surveys, budget), max(1, min(packer.jobs, at_once))
    disk = study_disk(*largest, sum(arm.num_trials + arm.num_finals for arm in arms), jobs)
    shortage = disk_shortage(outputs, study_disk(*largest, num_left, jobs).peak_bytes) if num_left else None
    pruner = study.spec.pruner
    return StudyPlan(
        study=stored.folder.name,
        folder=stored.folder.path.as_posix(),
        stored=stored.exists,
        source=str(study.source),
        profile=study.profile,
        quick_look=study.quick_look,
        overrides=study.overrides,
        fixed=study.fixed,
        objective=f"{study.spec.objective.direction} {study.spec.objective.metric}",
        sampler=f"{study.spec.sampler.name}, random for {study.spec.sampler.startup_trials} trials",
        pruner=_pruner_in_words(pruner, study.arms[0].base.training.epochs),
        data=_describe(photos),
        arms=arms,
        device=calibration.device,
        memory_budget_bytes=budget,
        calibration_runs=calibration.num_runs,
        calibration_error=calibration.error,
        jobs=packer.jobs,
        at_once=at_once,
        threads=packer.threads,
        packing=packer.describe(),
        time=None
        if photos is None
        else _time(
            study,
            photos,
            arms,
            [survey.fitting(budget) for survey in surveys],
            Pace.of(study.profile, photos, outputs, on=on, device=calibration.device, threads=packer.threads),
            at_once=at_once,
            spent_hours=sum(row["duration_s"] for row in read_rows(stored.folder)) / 3600,
            num_devices=len({place.gpu for place in placed}) if on == "cuda" else at_once,
        ),
        disk_peak_bytes=disk.peak_bytes,
        disk_final_bytes=disk.final_bytes,
        notes=(*_notes(arms, num_left), *([shortage] if shortage else [])),
    )


# --- the space -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Drawn:
    """A random suggestion, settled; its forecast and need where its shape was traced."""

    suggestion: Mapping[str, Any]
    experiment: Experiment
    shape: str
    forecast: MemoryForecast | None = None
    need: int | None = None


@dataclass(frozen=True)
class _Survey:
    memory: MemoryPlan
    drawn: Sequence[_Drawn]

    def fitting(self, budget: int) -> list[_Drawn]:
        return [one for one in self.drawn if one.need is not None and one.need <= budget]

    def needs(self, budget: int) -> list[int]:
        return [one.need for one in self.fitting(budget) if one.need is not None]


def draw_suggestion(space: Mapping[str, Parameter], rng: random.Random) -> dict[str, Any]:
    """A suggestion in which every value of a parameter is as likely."""
    suggestion: dict[str, Any] = {}
    for key, parameter in space.items():
        if not exists(parameter, suggestion):
            continue
        if isinstance(parameter, Choices):
            suggestion[key] = unfrozen(rng.choice(parameter.choices))
            continue
        low, high = parameter.low, parameter.high
        if parameter.log:
            value = math.exp(rng.uniform(math.log(low), math.log(high)))
        elif parameter.step is not None or parameter.whole:
            step = parameter.step or 1
            value = low + step * rng.randint(0, round((high - low) / step))
        else:
            value = rng.uniform(low, high)
        suggestion[key] = axis(parameter).decoded(round(value) if parameter.whole else value)
    return suggestion


def _survey(arm: Arm, on: DeviceType, peak: Peak, calibration: Calibration, budget: int, patience_s: float) -> _Survey:
    """Draw from the space; forecast the base, then the shapes that were drawn most often."""
    drawn = list(_draw(arm, on))
    base = peak(arm.base)
    began = time.monotonic()  # after the base, for which the forecaster's process has started and imported torch
    often = [shape for shape, _ in Counter(one.shape for one in drawn).most_common()]
    forecasts: dict[str, MemoryForecast] = {shape_key(arm.base, on): base}
    failed: dict[str, str] = {}
    for shape in often[:MAX_SHAPES]:
        if shape in forecasts or time.monotonic() - began > patience_s:
            continue
        one = next(one for one in drawn if one.shape == shape)
        try:
            forecasts[shape] = peak(one.experiment)
        except StudyError:  # the forecaster itself is in trouble
            raise
        except SweepsError as error:
            failed[shape] = error.message
    drawn = [
        replace(one, forecast=found, need=calibration.peak(found)) if (found := forecasts.get(one.shape)) else one
        for one in drawn
    ]
    known = [one for one in drawn if one.need is not None]
    needs = [one.need for one in known if one.need is not None]
    over = sum(need > budget for need in needs)
    memory = MemoryPlan(
        base={name: value for name, value in asdict(base).items() if value},
        base_bytes=calibration.peak(base),
        num_shapes=len(often),
        num_forecast=sum(shape in forecasts for shape in often),
        lowest_bytes=min(needs, default=None),
        highest_bytes=max(needs, default=None),
        rejected_share=over / len(needs) if needs else 0.0,
        rejected_values=_rejected_values(arm.space, drawn, budget) if over else (),
        failed=tuple(sorted(set(failed.values()))),
    )
    if not known:  # the base stands for all
        drawn = [_Drawn({}, arm.base, shape_key(arm.base, on), base, calibration.peak(base))]
    return _Survey(memory, drawn)


def _draw(arm: Arm, on: DeviceType) -> Iterator[_Drawn]:
    rng = random.Random(0)  # the same plan each time
    for _ in range(NUM_DRAWN):
        suggestion = draw_suggestion(arm.space, rng)
        try:
            experiment = settle(arm, suggestion)
        except SpecError:  # two values that do not go together, such as a batch and its crops
            continue
        yield _Drawn(suggestion, experiment, shape_key(experiment, on))


def _rejected_values(space: Mapping[str, Parameter], drawn: Sequence[_Drawn], budget: int) -> tuple[RejectedValue, ...]:
    """Values of choices and of short ranges of whole numbers that are rejected more often than all values together."""
    overall = statistics.fmean(_over(one, budget) for one in drawn if one.need is not None)
    found: list[RejectedValue] = []
    for key in space:
        by_value: dict[Any, list[_Drawn]] = {}
        for one in drawn:
            if key in one.suggestion:
                by_value.setdefault(identified(one.suggestion[key]), []).append(one)
        if not 1 < len(by_value) <= MAX_SHAPES:
            continue
        for alike in by_value.values():
            known = [one for one in alike if one.need is not None]
            if len(known) < MOST * len(alike):  # too few shapes were forecast to say anything of this value
                continue
            share = statistics.fmean(_over(one, budget) for one in known)
            # Chance makes shares of values that matter nothing differ: by less than this in 99 of 100 cases.
            if share == 1 or share > overall + 2.6 * math.sqrt(overall * (1 - overall) / len(known)):
                found.append(RejectedValue(key, alike[0].suggestion[key], share))
    return tuple(sorted(found, key=lambda value: -value.share))


def _over(one: _Drawn, budget: int) -> bool:
    return one.need is not None and one.need > budget


# --- what is there -------------------------------------------------------------------------------


def _num_finals_done(study: ResolvedStudy, arm: Arm, folder: StudyFolder) -> int:
    """Trainings of the arm's best settings that need not be done again, as far as is known who wins."""
    rows = list(read_rows(folder))
    complete = [trial for row in rows if row["arm"] == arm.name and (trial := complete_trial(row)) is not None]
    return num_over(
        arm,
        winner_of(complete, study.spec.objective),
        [row for row in rows if row["arm"] == arm.final().name],
        num_trials=study.num_trials(arm),
        most=study.num_finals(arm),
    )


def _num_imported(arm: Arm, before: Sequence[StudyFolder]) -> int:
    """Trials of the versions before that the new space still holds."""
    known: set[str] = set()
    for folder in before:
        study = folder.read_study()
        old = next((old for old in study.arms if old.name == arm.name), None)
        for row in read_rows(folder) if old is not None else ():
            trial = Trial(arm.name, row["number"], row["suggestion"], row["outcome"], facts=row)
            if old is None or row["arm"] != arm.name or not is_carried(trial):
                continue
            if translated(trial, old, arm) is not None:
                name = trial_name(folder, study.arms[0].name, arm.name, trial.number)
                known.add(told_apart_by(trial, folder.typed_trial(name)))
    return len(known)


def _placed(packer: Packer, needs: Sequence[int], most: int) -> list[Placement]:
    """The places of trials that would run side by side, if they come as they were drawn."""
    placed: list[Placement] = []
    for key, need in enumerate(needs[:most]):
        placement = packer.place(key, need)
        if placement is None:
            break
        placed.append(placement)
    for key in range(len(placed)):
        packer.release(key)
    return placed


def _largest_checkpoint(surveys: Sequence[_Survey], budget: int) -> tuple[int, int]:
    sizes = [checkpoint_bytes(one.forecast) for s in surveys for one in s.fitting(budget) if one.forecast is not None]
    return max(sizes, key=lambda size: size[1], default=(0, 0))


def _describe(photos: PhotoSet | None) -> dict[str, Any]:
    if photos is None:
        return {"name": "builtin", "digest": None, "note": "not drawn yet: the first run draws it", "warnings": ()}
    counts = {f"num_{split}": len(photos.split(split)) for split in SPLITS}
    rule, digest, warnings = photos.mask_rule, photos.digest, photos.warnings
    return {"name": photos.name, **counts, "digest": digest, "mask_rule": rule, "warnings": warnings}


def _notes(arms: Sequence[ArmPlan], num_left: int) -> tuple[str, ...]:
    notes = []
    if not num_left:
        notes.append("all trainings are done: raise --trials to go on")
    searched = [arm for arm in arms if arm.num_trials]
    if len(searched) > 1:
        notes.append("an arm whose trials are stopped earlier gets more of them, until all have trained as long")
    if len({arm.num_trials for arm in arms}) > 1:
        notes.append("the arms' budgets differ: the leaderboard marks who was tuned less")
    notes += [f"nothing of arm {arm.name} fits the memory budget" for arm in arms if arm.memory.rejected_share == 1]
    return tuple(notes)


# --- time ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pace:
    """How fast a device trains.

    Args:
        rate: Seconds for one pixel to pass forward through one weight.
        based_on: Where that comes from.
    """

    rate: float
    based_on: str

    @classmethod
    def of(cls, profile: str, photos: PhotoSet, outputs: Path, *, on: DeviceType, device: str, threads: int) -> Pace:
        """From the newest runs with this profile on this device; from an assumption where there is none."""
        runs = islice(all_runs(outputs=outputs), NEWEST)
        rates = islice(
            (r for run in runs if (r := _rate(run, profile, photos, on, device, threads)) is not None), NUM_PAST
        )
        found = list(rates)
        if found:
            return cls(statistics.median(found), f"{_count(len(found), 'past run')} with profile {profile} on {device}")
        crops, side_px, weights, words = ASSUMED[on]
        per_device = crops * (threads if on == "cpu" else 1)
        return cls(1 / (per_device * side_px**2 * (1 + _BACKWARD) * weights), f"assumed: {words}; no run here to go by")


def _rate(run: RunDirectory, profile: str, photos: PhotoSet, on: DeviceType, device: str, threads: int) -> float | None:
    """A run's seconds a pixel and weight; None if it tells nothing about this study's."""
    try:
        facts = run.read_environment()
        if (facts["profile"], facts["device_name"]) != (profile, device) or not run.metrics.is_file():
            return None
        record = json.loads(run.metrics.read_bytes())
        num_epochs, seconds = int(record["num_epochs"]), float(record["duration_s"])
        if record["status"] not in ("FINISHED", "PRUNED") or not num_epochs or not seconds:
            return None
        work = Work.of(load_resolved(run.config), int(facts["num_params"]), photos)
        pixels = num_epochs * work.epoch + (work.final if record["status"] == "FINISHED" else 0.0)
        scale = facts["torch_threads"] / threads if on == "cpu" else 1.0
        return seconds / pixels * scale
    except (SweepsError, OSError, ValueError, KeyError, TypeError):  # of an older version, or cut short: no figure
        return None


@dataclass(frozen=True)
class Work:
    """What a training computes, in pixels that pass forward through one weight.

    Args:
        epoch: An epoch with its validation.
        final: The scores at the end.
    """

    epoch: float
    final: float

    @classmethod
    def of(cls, experiment: Experiment, num_params: float, photos: PhotoSet) -> Work:
        """Of an experiment on these photos."""
        training, scoring = experiment.training, experiment.evaluation
        num_train, num_val = len(photos.split("train")), len(photos.split("val"))
        # As a run counts them; its function stands beside torch, which a plan needs not.
        steps = training.steps_per_epoch or math.ceil(num_train / training.effective_batch)
        passes = 1 + _BACKWARD + (1 if training.activation_checkpointing else 0)
        trained = passes * steps * training.effective_batch * experiment.crop_px**2
        photo = _photo_pixels(photos) / (1 - scoring.tile_overlap) ** 2
        scored = min(num_val, scoring.images_per_epoch or num_val) * photo
        return cls(num_params * (trained + scored), num_params * num_val * photo)


def _photo_pixels(photos: PhotoSet) -> float:
    """Mean over a few validation photos, from their headers."""
    some = photos.split("val")[:8]
    return statistics.fmean(math.prod(image_size(photo.image)[0]) for photo in some) if some else 0.0


def pruning_share(
    pruner: Pruner, objective: Objective, *, num_epochs: int, num_trials: int, seed: int, arm: str
) -> tuple[float, float]:
    """What the pruner lets through of trials whose order never changes and is random, one after another.

    Returns:
        The share of whole trainings' epochs that are trained, and the share of trials that come to their end.
    """
    rng = random.Random(seed)
    looks = {*rungs(pruner, num_epochs), min(pruner.min_epochs, num_epochs), num_epochs}
    looks |= {max(1, round(num_epochs * share / 10)) for share in range(1, 10)}
    past: list[Trial] = []
    for number in range(max(1, min(num_trials, MAX_SIMULATED))):
        value, trial = rng.random(), Trial(arm, number, {}, "running")
        for epoch in sorted(looks):
            trial = replace(trial, intermediate={**trial.intermediate, epoch: value})
            if not judge(trial, past, pruner=pruner, objective=objective, num_epochs=num_epochs, seed=seed).go_on:
                trial = replace(trial, outcome="pruned")
                break
        else:
            trial = replace(trial, outcome="complete", value=value)
        past.append(trial)
    epochs = statistics.fmean(max(trial.intermediate) / num_epochs for trial in past)
    return epochs, statistics.fmean(trial.outcome == "complete" for trial in past)


def _time(
    study: ResolvedStudy,
    photos: PhotoSet,
    arms: Sequence[ArmPlan],
    fitting: Sequence[Sequence[_Drawn]],
    pace: Pace,
    *,
    at_once: int,
    spent_hours: float,
    num_devices: int,
) -> TimePlan:
    spec = study.spec
    seconds, full, shares_of_main = 0.0, [0.0], (1.0, 1.0)
    for arm, plan, drawn in zip(study.arms, arms, fitting, strict=True):
        shares = pruning_share(
            spec.pruner,
            spec.objective,
            num_epochs=arm.base.training.epochs,
            num_trials=plan.num_trials,
            seed=spec.seed,
            arm=arm.name,
        )
        shares_of_main = shares if arm is study.arms[0] else shares_of_main
        works = [
            (one.experiment.training.epochs, Work.of(one.experiment, one.forecast.parameters_bytes / 4, photos))
            for one in drawn
            if one.forecast is not None
        ]
        if not works:
            continue
        epochs = pace.rate * statistics.fmean(num_epochs * work.epoch for num_epochs, work in works)
        final = pace.rate * statistics.fmean(work.final for _, work in works)
        full.append(START_S + epochs + final)
        seconds += plan.num_left * (START_S + shares[0] * epochs + shares[1] * final)
        scored = 1 + len(photos.split("test")) / max(1, len(photos.split("val")))  # a finalist's final scores, in vals
        seconds += plan.num_finals_left * (START_S + epochs + scored * final)
    hours = seconds / 3600
    most = None if spec.budget.gpu_hours is None else max(0.0, spec.budget.gpu_hours - spent_hours)
    capped = most is not None and hours > most
    hours = most if capped and most is not None else hours
    return TimePlan(
        training_hours=hours,
        least_hours=hours / max(1, at_once),
        most_hours=hours / max(1, min(at_once, num_devices)),
        full_trial_s=max(full),
        epochs_share=shares_of_main[0],
        complete_share=shares_of_main[1],
        capped=capped,
        based_on=pace.based_on,
    )


# --- in words ------------------------------------------------------------------------------------


def _data_in_words(data: Mapping[str, Any]) -> str:
    if data["digest"] is None:
        return f"{data['name']}: {data['note']}"
    counts = ", ".join(f"{data[f'num_{split}']} {split}" for split in SPLITS)
    return f"{data['name']}: {counts}; crack is {data['mask_rule']}; digest {data['digest'][:12]}"


def _pruner_in_words(pruner: Pruner, num_epochs: int) -> str:
    if pruner.name == "hyperband":
        at = ", ".join(map(str, rungs(pruner, num_epochs)))
        return f"hyperband, one in {pruner.reduction_factor} goes on at epoch {at} of {num_epochs}"
    return "no pruner" if pruner.name == "none" else f"{pruner.name} from epoch {pruner.min_epochs}"


def _hours(hours: float) -> str:
    return human_seconds(3600 * hours)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
