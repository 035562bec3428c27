"""What a study would do, in figures: for `sweeps study --dry-run`. Trains nothing, writes nothing."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crack_sweeps.console import human_bytes, human_seconds
from crack_sweeps.data.photos import SPLITS, PhotoSet
from crack_sweeps.specs.study import Pruner, described
from crack_sweeps.specs.study_loading import Arm, ResolvedStudy
from crack_sweeps.study.calibration import Calibration
from crack_sweeps.study.disk import checkpoint_bytes, disk_shortage, study_disk
from crack_sweeps.study.finalists import complete_trial, num_over, winner_of
from crack_sweeps.study.folder import Stored, StudyFolder, why_anew
from crack_sweeps.study.forecasts import Forecaster
from crack_sweeps.study.history import TRAINED, Trial
from crack_sweeps.study.imports import is_carried, told_apart_by, translated
from crack_sweeps.study.ledger import read_rows, trial_name
from crack_sweeps.study.pace import Pace, Work, pruning_share
from crack_sweeps.study.packing import Packer, Placement
from crack_sweeps.study.pruning import rungs
from crack_sweeps.study.survey import Drawn, MemoryPlan, Peak, Survey, survey_arm
from crack_sweeps.training.footprint import DeviceType

PATIENCE_S = 15.0  # after which no further shape is traced, so that a plan takes half a minute at most
START_S = 3.0  # from a trial's launch to its first step: a fork, building the model, opening photos


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
    surveys = [survey_arm(arm, on, peak, calibration, budget, patience_s / len(study.arms)) for arm in study.arms]
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
    anew = why_anew(stored, study, photos.digest) if photos is not None else None
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
        notes=(*(note for note in (anew, shortage) if note), *_notes(arms, num_left)),
    )


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


def _largest_checkpoint(surveys: Sequence[Survey], budget: int) -> tuple[int, int]:
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


def _time(
    study: ResolvedStudy,
    photos: PhotoSet,
    arms: Sequence[ArmPlan],
    fitting: Sequence[Sequence[Drawn]],
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
