"""How a study stands, from its files alone: the ledger, the events, and the directories of the runs under way."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.events import Event, read_events
from crack_sweeps.specs.loading import list_studies
from crack_sweeps.specs.study_loading import Arm, ResolvedStudy
from crack_sweeps.study.finalists import complete_trial, num_over, winner_of
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import TRAINED, Trial
from crack_sweeps.study.ledger import TRIAL, Row, as_typed, trial_name, undamaged
from crack_sweeps.study.missing import read_begun
from crack_sweeps.tracking.state import Trainer

OUTCOMES = ("complete", "pruned", "rejected", "invalid", "failed", "out_of_memory")
NUM_RECENT = 8  # trials that ended last: what fits below a table
State = Literal["running", "finished", "stopped", "failed", "interrupted"]
_AUTO = ("auto", "auto")  # what nobody typed, now or when the study began, need not be typed again
_STATES: Mapping[str, State] = {"FINISHED": "finished", "KILLED": "stopped", "FAILED": "failed"}


@dataclass(frozen=True)
class Process:
    """A process that coordinates or trains.

    Args:
        pid: Its number.
        host: Its machine.
        alive: Whether it lives; None for another machine's, which nobody can see from here.
    """

    pid: int
    host: str
    alive: bool | None

    @classmethod
    def of(cls, trainer: Trainer) -> Process:
        """As it stands now."""
        return cls(trainer.pid, trainer.host, not trainer.is_dead() if trainer.is_here else None)


@dataclass(frozen=True)
class RunningTrial:
    """A trial that was launched and has not ended.

    Args:
        trial: Its name.
        arm: The arm that it belongs to.
        number: Its number within the arm.
        run: Its run's name.
        run_dir: Where that is, or will be.
        process: What trains it; None before its first attempt.
        suggestion: What it tries; empty until its run has begun.
        epoch: Epochs that are complete.
        total_epochs: Epochs that it would train; None until its run has begun.
        value: The objective after the last epoch.
        best: The best so far.
        epoch_s: Mean seconds of an epoch.
        epoch_age_s: Seconds since the last epoch.
        seconds_left: Until the last epoch, if it gets that far.
        needed_bytes: Forecast peak memory, calibrated.
        peak_bytes: Measured peak memory.
    """

    trial: str
    arm: str
    number: int
    run: str
    run_dir: str
    process: Process | None
    suggestion: Mapping[str, Any]
    epoch: int
    total_epochs: int | None
    value: float | None
    best: float | None
    epoch_s: float | None
    epoch_age_s: float | None
    seconds_left: float | None
    needed_bytes: int | None
    peak_bytes: float | None


@dataclass(frozen=True)
class ArmStanding:
    """How far one arm is.

    Args:
        arm: Its name.
        num_trials: Trials that are to train while it is searched; 0 where its settings stand as shipped.
        num_trained: Those that did.
        num_epochs: Epochs that they trained.
        num_finals: Trainings of its present best settings, after the search, that are over.
        num_seeds: Those that are wanted.
        winner: Fingerprint of those settings; None if no trial is complete.
        best: Its best value so far; None if no trial is complete.
    """

    arm: str
    num_trials: int
    num_trained: int
    num_epochs: int
    num_finals: int
    num_seeds: int
    winner: str | None
    best: float | None

    @property
    def num_trials_left(self) -> int:
        """Trials of its search that have still to end."""
        return max(0, self.num_trials - self.num_trained)

    @property
    def num_finals_left(self) -> int:
        """Trainings of its best settings that have still to end."""
        return max(0, self.num_seeds - self.num_finals)


@dataclass(frozen=True)
class Standing:
    """How a study stands.

    Args:
        study: Its name with its version, as it is typed.
        folder: Where its files are.
        state: running; finished; stopped (on request, to be gone on with); failed (an error ended it); interrupted
            (its coordinator died).
        reason: Why it stopped or failed.
        coordinator: The process that searches, or did so last.
        began: When the first of them began, as text.
        profile: The machine profile.
        quick_look: The profile shrank the work.
        objective: The figure that is searched for.
        direction: Which way of it is better.
        num_trials: Trials that are to train.
        num_trained: Those of the main arm that did.
        counts: Trials of the main arm by outcome.
        arms: How far each arm is, the main one first.
        best: Ledger row of the main arm's best complete trial.
        running: Trials that were launched and have not ended; where nothing runs they wait to be gone on with.
        recent: Ledger rows of the trials that ended last, the newest last.
        hours: Of training, over all trials that ended.
        max_hours: The budget of those.
        seconds_left: Estimated, until the budget is spent; None where nothing runs, or nothing has ended yet.
        go_on: The command that goes on with the study.
    """

    study: str
    folder: str
    state: State
    reason: str | None
    coordinator: Process | None
    began: str
    profile: str
    quick_look: bool
    objective: str
    direction: str
    num_trials: int
    num_trained: int
    counts: Mapping[str, int]
    arms: tuple[ArmStanding, ...]
    best: Row | None
    running: tuple[RunningTrial, ...]
    recent: tuple[Row, ...]
    hours: float
    max_hours: float | None
    seconds_left: float | None
    go_on: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


class StudyReader:
    """Reads a study again and again; of the ledger and the events only what is new.

    Args:
        folder: The study's.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self.study = read_begun(folder)
        self.main = self.study.arms[0].name
        self.news: list[Row] = []  # rows that came with the last reading
        facts = folder.read_facts()
        self._began, self._storage = facts["began"], facts.get("storage")
        self._num_rows = self._num_events = 0
        self._ended: set[tuple[str, int]] = set()
        self._told: dict[tuple[str, int], Event] = {}
        self._counts: Counter[str] = Counter()
        self._seconds = self._complete_seconds = 0.0
        self._num_complete = 0
        self._final_arms = frozenset(arm.name for arm in self.study.finals)
        self._best: dict[str, Row] = {}
        self._trained: Counter[str] = Counter()  # trainings by arm, those of finalists under the arm's name with .final
        self._epochs: Counter[str] = Counter()
        self._complete: defaultdict[str, list[Trial]] = defaultdict(list)  # by arm
        self._finals: defaultdict[str, list[Row]] = defaultdict(list)  # by the finalist's arm
        self._recent: deque[Row] = deque(maxlen=NUM_RECENT)
        self._attempt: Event | None = None
        self._end: Event | None = None  # of the last attempt

    def read(self, *, now: float | None = None) -> Standing:
        """How the study stands now.

        Args:
            now: Seconds since 1970; None asks the clock.
        """
        now = time.time() if now is None else now
        self._read_events()
        self._read_rows()
        spec, budget = self.study.spec, self._budget()
        state, coordinator = self._state()
        arms = tuple(self._arm(arm, budget) for arm in self.study.arms)
        told = [event for key, event in self._told.items() if key not in self._ended]
        running = tuple(self._running(event, now) for event in told)
        left = None
        if state == "running":
            searched = [trial for trial in running if trial.arm not in self._final_arms]
            finals = [trial.seconds_left for trial in running if trial.arm in self._final_arms]
            left = seconds_left(
                sum(arm.num_trials_left for arm in arms),
                mean_s=self._seconds / self._trained.total() if self._trained else None,
                spent_s=sum((t.epoch_s or 0.0) * t.epoch + (t.epoch_age_s or 0.0) for t in searched),
                jobs=len(running),
                budget_s=None if budget["gpu_hours"] is None else budget["gpu_hours"] * 3600 - self._seconds,
                finals=[*finals, *[None] * (sum(arm.num_finals_left for arm in arms) - len(finals))],
                final_s=self._complete_seconds / complete if (complete := self._num_complete) else None,
            )
        return Standing(
            study=self.folder.typed,
            folder=self.folder.path.as_posix(),
            state=state,
            reason=self._end["reason"] if self._end is not None else None,
            coordinator=coordinator,
            began=self._began,
            profile=self.study.profile,
            quick_look=self.study.quick_look,
            objective=spec.objective.metric,
            direction=spec.objective.direction,
            num_trials=budget["trials"],
            num_trained=self._num_trained,
            counts={outcome: self._counts[outcome] for outcome in OUTCOMES},
            arms=arms,
            best=self._best.get(self.main),
            running=running,
            recent=tuple(self._recent),
            hours=self._seconds / 3600,
            max_hours=budget["gpu_hours"],
            seconds_left=left,
            go_on=go_on_command(self.study, budget, storage=self._storage),
        )

    @property
    def _num_trained(self) -> int:
        return sum(self._counts[outcome] for outcome in TRAINED)

    def _read_rows(self) -> None:
        self.news = []
        typed = self.folder.typed
        for event in _events(self.folder.ledger, self._num_rows):
            self._num_rows += 1
            if event["kind"] != TRIAL:
                continue
            row = as_typed(event, self.folder, typed)
            self.news.append(row)
            self._ended.add((row["arm"], row["number"]))
            self._seconds += row["duration_s"]
            arm = row["arm"]
            self._trained[arm] += row["outcome"] in TRAINED
            self._epochs[arm] += row["num_epochs"]
            self._counts[row["outcome"]] += arm == self.main
            if (complete := complete_trial(row)) is not None:
                self._complete[arm].append(complete)
                self._num_complete += 1
                self._complete_seconds += row["duration_s"]
            if row.get("finalist_of") is not None:
                self._finals[arm].append(row)
            direction = self.study.spec.objective.direction
            if row["value"] is not None and is_better(row["value"], self._best.get(arm), direction):
                self._best[arm] = row
        self._recent.extend(self.news)

    def _read_events(self) -> None:
        for event in _events(self.folder.events, self._num_events):
            self._num_events += 1
            match event["kind"]:
                case "trial":
                    self._told[event["arm"], event["number"]] = event
                case "attempt":
                    self._attempt, self._end = event, None
                case "ended":
                    self._end = event

    def _arm(self, arm: Arm, budget: Mapping[str, Any]) -> ArmStanding:
        is_main, best = arm.name == self.main, self._best.get(arm.name)
        baseline_trials = budget["baseline_trials"]
        num_trials = budget["trials"] if is_main or baseline_trials is None else baseline_trials
        num_seeds = budget["seeds"] if num_trials else max(1, budget["seeds"])
        winner = winner_of(self._complete[arm.name], self.study.spec.objective)
        finals = self._finals[arm.final().name]
        return ArmStanding(
            arm=arm.name,
            num_trials=num_trials,
            num_trained=self._trained[arm.name],
            num_epochs=self._epochs[arm.name],
            num_finals=num_over(arm, winner, finals, num_trials=num_trials, most=num_seeds),
            num_seeds=num_seeds,
            winner=winner,
            best=best["value"] if best is not None else None,
        )

    def _budget(self) -> dict[str, Any]:
        """Of the command that runs or ran last: it is no part of a study's identity, and may grow."""
        spec = self.study.spec
        known = {
            "trials": spec.budget.trials,
            "baseline_trials": spec.budget.baseline_trials,
            "gpu_hours": spec.budget.gpu_hours,
            "seeds": spec.finalists.seeds,
        }
        attempt = self._attempt or {}
        typed = {"jobs": spec.jobs, "vram_budget": spec.memory_budget}
        told = {key: attempt.get(key) for key, began_with in typed.items() if (attempt.get(key), began_with) != _AUTO}
        return {key: attempt.get(key, value) for key, value in known.items()} | told

    def _state(self) -> tuple[State, Process | None]:
        lease = self.folder.read_lease()
        if lease is None and self._attempt is not None:
            lease = Trainer.of(self._attempt)
        process = Process.of(lease) if lease is not None else None
        same = lease is not None and self._attempt is not None and lease == Trainer.of(self._attempt)
        if self._end is not None and (same or process is None or process.alive is False):
            return _STATES[self._end["status"]], process  # its process may still be sending to MLflow
        return ("interrupted" if process is None or process.alive is False else "running"), process

    def _running(self, told: Event, now: float) -> RunningTrial:
        name = self.folder.typed_trial(trial_name(self.folder, self.main, told["arm"], told["number"]))
        story = read_story(RunDirectory(Path(told["run_dir"])), self.study.spec.objective.metric)
        best = max if self.study.spec.objective.direction == "maximize" else min
        values = list(story.values.values())
        age = now - story.last_ms / 1000 if story.last_ms is not None else None
        mean_s = story.seconds / len(values) if values else None
        left = None
        if story.total_epochs is not None and mean_s is not None and age is not None:
            left = max(0.0, mean_s * (story.total_epochs - max(story.values)) - min(age, mean_s))
        return RunningTrial(
            trial=name,
            arm=told["arm"],
            number=told["number"],
            run=told["run"],
            run_dir=told["run_dir"],
            process=Process.of(story.trainer) if story.trainer is not None else None,
            suggestion=story.membership.get("suggestion", {}),
            epoch=max(story.values, default=0),
            total_epochs=story.total_epochs,
            value=values[-1] if values else None,
            best=best(values) if values else None,
            epoch_s=mean_s,
            epoch_age_s=age,
            seconds_left=left,
            needed_bytes=story.membership.get("facts", {}).get("needed_bytes"),
            peak_bytes=story.peak_bytes,
        )


@dataclass(frozen=True)
class RunStory:
    """What a run's files say about how far it is.

    Args:
        membership: What it was told of its study.
        total_epochs: Epochs that it would train; None before its first event.
        values: Epoch, from 1, to the objective after it.
        seconds: Of those epochs.
        last_ms: When the last epoch was complete; None before the first.
        trainer: The process of the last attempt.
        peak_bytes: Highest memory of all kinds that were measured.
    """

    membership: Mapping[str, Any]
    total_epochs: int | None
    values: Mapping[int, float]
    seconds: float
    last_ms: int | None
    trainer: Trainer | None
    peak_bytes: float | None


def read_story(run: RunDirectory, metric: str) -> RunStory:
    """How far a run is; one that has not begun has an empty story.

    Args:
        metric: The objective's name.
    """
    total: int | None = None
    values: dict[int, float] = {}
    seconds, last_ms = 0.0, None
    trainer: Trainer | None = None
    peak: float | None = None
    for event in _events(run.events):
        match event["kind"]:
            case "created":
                total = event["params"].get("training.epochs")
            case "attempt":
                trainer = Trainer.of(event)
            case "epoch":
                metrics = event["metrics"]
                if metrics.get(metric) is not None:
                    values[event["epoch"]] = metrics[metric]
                seconds += metrics.get("epoch_s", 0.0)
                last_ms = event["time_ms"]
                peak = max((highest for highest in (peak, peak_bytes(metrics)) if highest is not None), default=None)
    try:
        membership = json.loads(run.environment.read_bytes()).get("study") or {}
    except (OSError, ValueError):  # the run is being made at this moment
        membership = {}
    return RunStory(membership, total, values, seconds, last_ms, trainer, peak)


def peak_bytes(metrics: Mapping[str, Any]) -> float | None:
    """The highest of the peaks that were measured: the whole process where NVML tells, else what is known of it."""
    return max((value for name, value in metrics.items() if name.endswith("_bytes") and "peak" in name), default=None)


def is_better(value: float, best: Row | None, direction: str) -> bool:
    """Whether a value beats the best row's; an equal one does not."""
    if best is None:
        return True
    to_beat: float = best["value"]
    return value > to_beat if direction == "maximize" else value < to_beat


def seconds_left(
    num_left: int,
    *,
    mean_s: float | None,
    spent_s: float,
    jobs: int,
    budget_s: float | None = None,
    finals: Sequence[float | None] = (),
    final_s: float | None = None,
) -> float | None:
    """Until a study is over, as far as trials that ended tell; None if none did.

    Args:
        num_left: Trials of the search still to end, those under way among them.
        mean_s: Seconds of a trial that ended, pruned ones too.
        spent_s: Seconds that those under way have taken.
        jobs: Trials at once.
        budget_s: Seconds of training that may still be spent on trials; None is no limit.
        finals: Seconds that each finalist's training still to end takes, as far as it tells; no budget cuts them short.
        final_s: What one takes that tells nothing yet: as long as a complete trial, for none is pruned.
    """
    if mean_s is None:
        return None
    work_s = max(0.0, mean_s * max(num_left, 0) - spent_s)
    if budget_s is not None:
        work_s = min(work_s, max(0.0, budget_s - spent_s))
    whole_s = final_s if final_s is not None else mean_s
    work_s += sum(whole_s if rest is None else rest for rest in finals)
    return work_s / max(jobs, 1)


def go_on_command(study: ResolvedStudy, budget: Mapping[str, Any] | None = None, *, storage: str | None = None) -> str:
    """What goes on with a study: its settings must be the same, its budget may be another.

    Args:
        study: As it began.
        budget: What the last command was to spend, by flag; None leaves that to whoever types.
        storage: Where its trials are, without a password; None is its folder.
    """
    import shlex

    by_name = {file.name: file.path for file in list_studies()}
    named = study.source.stem if by_name.get(study.source.stem) == study.source else str(study.source)
    spent = [(f"--{key.replace('_', '-')}", f"{value}") for key, value in (budget or {}).items() if value is not None]
    spent += [("--storage", storage)] if storage is not None else []
    flags = [word for flag in spent for word in flag]
    return shlex.join(["sweeps", "study", named, *study.overrides, "--profile", study.profile, *flags])


def _events(path: Path, from_seq: int = 0) -> Iterator[Event]:
    """Events, with an edited file as the person's mistake."""
    with undamaged(path):
        yield from read_events(path, from_seq)
