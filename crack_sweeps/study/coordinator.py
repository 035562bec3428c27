"""The coordinator: asks for suggestions, launches trials, judges each epoch, keeps the books. One process per study.

Everything that it decides is a function of what is stored, and each thing is stored before it is acted upon. So it may
be killed between any two lines: the next coordinator reads the store, adopts the trials that have not ended, and goes
on as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from crack_sweeps.console import human_seconds
from crack_sweeps.data.photos import PhotoSet
from crack_sweeps.errors import NothingFits, SpecError, StudyError, SweepsError, UserError
from crack_sweeps.runs.directory import RunDirectory, new_run_name
from crack_sweeps.runs.events import read_events
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.fingerprint import fingerprint
from crack_sweeps.specs.study_loading import Arm, ResolvedStudy, settle
from crack_sweeps.study.calibration import Calibration
from crack_sweeps.study.disk import checkpoint_bytes, disk_shortage, running_bytes
from crack_sweeps.study.executor import (
    Began,
    Executor,
    Gone,
    GoOn,
    Key,
    Leave,
    Lives,
    Message,
    Prune,
    Refused,
    Reported,
    RunEnded,
    Told,
)
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.forecasts import Forecaster, shape_key
from crack_sweeps.study.history import TRAINED, UNUSABLE, Outcome, Trial
from crack_sweeps.study.journal import StudyJournal
from crack_sweeps.study.ledger import Ledger, row_of, trial_name
from crack_sweeps.study.orders import order_for
from crack_sweeps.study.outcome import ended, outcome_of
from crack_sweeps.study.packing import Packer, Placement
from crack_sweeps.study.pruning import judge
from crack_sweeps.study.schedule import (
    MAX_ATTEMPTS,
    Final,
    Search,
    missing_finals,
    next_final,
    next_search,
    next_untuned,
    num_epochs,
    num_failures,
)
from crack_sweeps.study.silence import Patience, Silence
from crack_sweeps.study.store import Store
from crack_sweeps.study.suggest import suggest
from crack_sweeps.study.updates import (
    EpochDone,
    Launched,
    Notice,
    Rejected,
    StudyBegan,
    StudyEnded,
    StudyUpdate,
    TrialEnded,
)
from crack_sweeps.tracking.state import Trainer
from crack_sweeps.training.footprint import DeviceType

POLL_S = 0.5
MAX_DEATHS = 3  # of a trial's process without a new epoch in between; then the trial is to blame
MAX_REJECTIONS = 200  # in a row; then the budget is to blame
ORPHAN_PATIENCE_S = 20.0  # for a trial of a dead coordinator to store its checkpoint

OUTCOMES: tuple[Outcome, ...] = ("complete", "pruned", "rejected", "invalid", "failed", "out_of_memory")

PATIENCE = Patience()

Stop = Callable[[], str | None]
Conclude = Callable[[], Sequence[Path]]


@dataclass
class _Running:
    """A trial that has a process, or waits for a place."""

    trial: Trial
    experiment: Experiment
    adopted: bool
    launched: bool = False
    deaths: int = 0
    epochs_at_death: int = -1
    refusal: Refused | None = None
    silence: Silence | None = None  # of its process
    hung: str | None = None  # what was said when its process was ended


@dataclass(frozen=True)
class Machinery:
    """What a coordinator works with."""

    store: Store
    executor: Executor
    forecaster: Forecaster
    packer: Packer
    calibration: Calibration
    on: DeviceType


class Coordinator:
    """One search, from where it stands to its end.

    Args:
        study: What is searched, and the budget.
        folder: Its folder, whose lock the caller holds.
        photos: What is trained on.
        machinery: Store, executor, memory.
        budget_bytes: What a trial's forecast may need; above it, it is rejected.
        outputs: Folder of all runs.
        patience: How long a trial may say nothing.
        conclude: Called when all is trained; gives files of the study's folder that are to be shown with it.
    """

    def __init__(
        self,
        study: ResolvedStudy,
        folder: StudyFolder,
        photos: PhotoSet,
        machinery: Machinery,
        *,
        budget_bytes: int,
        outputs: Path,
        patience: Patience = PATIENCE,
        conclude: Conclude = tuple,
    ) -> None:
        self.study, self.spec, self.folder, self.photos = study, study.spec, folder, photos
        self.store, self.executor, self.packer = machinery.store, machinery.executor, machinery.packer
        self.forecaster, self.calibration = machinery.forecaster, machinery.calibration
        self.on: DeviceType = machinery.on
        self.budget_bytes = budget_bytes
        self.outputs = outputs
        self._patience = patience
        self._conclude = conclude
        self._main = study.arms[0].name
        self._arms = {arm.name: arm for arm in study.all_arms}
        self._running: dict[Key, _Running] = {}
        self._trials: dict[str, list[Trial]] = {}
        self._earlier: frozenset[Key] = frozenset()  # trials that had ended before this coordinator began
        self._told_waiting = False

    def run(self, stop: Stop) -> Iterator[StudyUpdate]:
        """Search until the budget is spent or `stop` gives a reason; every update is stored before it is yielded."""
        with (
            closing(Ledger(self.folder)) as self._ledger,
            closing(StudyJournal(self.folder, self.study, self.photos)) as self._journal,
        ):
            self._journal.attempt(self.spec)
            yield from self._recover()
            yield StudyBegan(
                self.folder, self._num_trained(), self.spec.budget.trials, len(self._running), self.packer.jobs
            )
            reason: str | None = None
            try:
                reason = yield from self._search(stop)
            except BaseException as error:
                self.executor.kill()
                self._journal.end("FAILED", f"{type(error).__name__}: {error}")
                raise
            if reason is None:
                yield from self._tell_missing()
                from crack_sweeps.study.figures import draw_figures  # matplotlib, needed at the end alone

                self._journal.artifacts(draw_figures(self.folder, self.store, self.study), "figures")
                self._journal.artifacts(self._conclude())
            self._journal.artifacts([self.folder.ledger])
            self._journal.end("FINISHED" if reason is None else "KILLED", reason)
            yield StudyEnded(self.folder, reason, self._num_trained(), self._num_failed(), self._best_row())

    def _tell_missing(self) -> Iterator[StudyUpdate]:
        """Each training of a finalist that has no score: why, and whether the next sitting tries again."""
        for final, attempts in missing_finals(self.study, self._trials):
            what = f"the finalist of {final.arm.finalist_of} has no score with seed {final.seed}"
            if attempts[-1].outcome == "rejected":
                then = "a larger memory budget (--vram-budget) lets the same command train it"
            elif (left := MAX_ATTEMPTS - num_failures(attempts)) > 0:
                then = f"the same command tries again, {left} time{'' if left == 1 else 's'} at most"
            else:
                then = f"{MAX_ATTEMPTS} attempts failed, so it is given up"
            yield Notice(f"{what}: {self._name(attempts[-1])}: {attempts[-1].facts.get('reason')}; {then}")

    def _search(self, stop: Stop) -> Generator[StudyUpdate, None, str | None]:
        reason: str | None = None
        while True:
            if reason is None and (reason := stop()) is not None:
                for key, running in self._running.items():
                    if running.silence is not None:
                        running.silence.asked_to_leave(time.monotonic())
                        self.executor.answer(key, Leave(reason))
            if reason is None:
                yield from self._fill()
            at_work = any(running.launched for running in self._running.values())
            if not at_work and (reason is not None or not self._running):
                return reason
            for message in self.executor.wait(POLL_S):
                yield from self._hear(message, stopping=reason is not None)
            yield from self._end_hung(stopping=reason is not None)

    # --- launching -------------------------------------------------------------------------------

    def _fill(self) -> Iterator[StudyUpdate]:
        """Launch what fits: adopted trials first, by number, then new suggestions."""
        while True:
            waiting = next((running for running in self._running.values() if not running.launched), None)
            if waiting is None:
                if len(self._running) >= self.packer.jobs:
                    return
                waiting = yield from self._next_trial()
                if waiting is None:
                    return
                self._running[waiting.trial.arm, waiting.trial.number] = waiting
            complaint = self._disk_shortage(waiting.experiment)
            placement = None if complaint else self.packer.place(self._key(waiting.trial), self._need(waiting.trial))
            if placement is None:
                if complaint is None:
                    self._refuse_to_wait_in_vain(waiting.trial)
                if not self._told_waiting:
                    self._told_waiting = True
                    yield Notice(complaint or self._why_waiting(waiting.trial))
                return
            self._told_waiting = False
            yield from self._launch(waiting, placement)

    def _refuse_to_wait_in_vain(self, trial: Trial) -> None:
        """Stop where nothing runs and a trial needs more than there will ever be: the budget was lowered since."""
        most, limit = self.packer.most_bytes(), self.packer.limit_bytes
        if self._need(trial) <= most or any(running.launched for running in self._running.values()):
            return
        has = f"--vram-budget is {_gib(limit)}" if limit == most else f"this machine has {_gib(most)} for one trial"
        raise NothingFits(
            f"{self._name(trial)} has begun and needs {_gib(self._need(trial))} by forecast, but {has}",
            hint=f"go on with --vram-budget {math.ceil(10 * self._need(trial) / 2**30) / 10:g}GiB or more"
            if limit == most
            else "go on where there is more memory; its trials are stored",
        )

    def _disk_shortage(self, experiment: Experiment) -> str | None:
        """Counted is all that the trials under way will ever hold, also what they have written: rather too much."""
        under_way = [running.experiment for running in self._running.values() if running.launched]
        needs = [running_bytes(*checkpoint_bytes(self.forecaster.peak(each))) for each in (experiment, *under_way)]
        return disk_shortage(self.outputs, sum(needs))

    def _turn(self) -> Search | Final | None:
        """What trains next: arms by turns, and when all of them have been searched, their finalists."""
        hours = self.spec.budget.gpu_hours
        if hours is None or self._ledger.seconds < hours * 3600:
            turn = next_untuned(self.study, self._trials) or next_search(self.study, self._trials)
            if turn is not None:
                return turn
        if any(self._arms[arm].finalist_of is None for arm, _ in self._running):
            return None  # who wins is not known yet
        return next_final(self.study, self._trials, earlier=self._earlier, budget_bytes=self.budget_bytes)

    def _next_trial(self) -> Generator[StudyUpdate, None, _Running | None]:
        """Ask for suggestions until one can be trained; the sampler learns from the others, rejected or invalid."""
        num_rejected = 0
        while (turn := self._turn()) is not None:
            trial, experiment = self._suggest(turn) if isinstance(turn, Search) else self._finalist(turn)
            self.store.add(trial)
            self._trials[trial.arm].append(trial)
            if trial.outcome == "running":
                return _Running(trial, experiment, adopted=False)
            self._ledger.add(self._row(trial))
            if trial.outcome == "rejected":
                yield Rejected(trial, self._name(trial))
            else:
                yield TrialEnded(trial, self._name(trial), self._row(trial), is_best=False)
            num_rejected += 1
            if num_rejected == MAX_REJECTIONS:
                raise self._nothing_fits(turn.arm)
        return None

    def _nothing_fits(self, arm: Arm) -> SweepsError:
        last = self._trials[arm.name][-MAX_REJECTIONS:]
        reasons = [trial.facts["reason"] for trial in last if trial.outcome == "invalid"]
        of_arm = "" if arm.name == self._main else f" of arm {arm.name}"
        if len(reasons) == len(last):
            return SpecError(
                f"{MAX_REJECTIONS} suggestions{of_arm} in a row are invalid, the last: {reasons[-1]}",
                hint="take the values that do not go together out of the space, or give one a condition (`when`)",
            )
        needs = min(t.facts["needed_bytes"] for t in self._trials[arm.name] if "needed_bytes" in t.facts)
        invalid = f" ({len(reasons)} of them are invalid, the last: {reasons[-1]})" if reasons else ""
        return NothingFits(
            f"{MAX_REJECTIONS} suggestions{of_arm} in a row need more than the memory budget of "
            f"{_gib(self.budget_bytes)}; the smallest so far needs {_gib(needs)}{invalid}",
            hint="raise --vram-budget, or put smaller variants, crops or batches into the space",
        )

    def _finalist(self, turn: Final) -> tuple[Trial, Experiment]:
        """One more training of an arm's best settings, with a seed that they were not chosen by."""
        arm = turn.arm
        assert arm.finalist_of is not None
        number = len(self._trials[arm.name])
        selected = None if turn.selected is None else self._trials[arm.finalist_of][turn.selected]
        experiment = settle(arm, turn.suggestion)
        excess, facts = self._measured(experiment)
        facts |= {
            "seed": turn.seed,
            "repeat_of": None,
            "finalist_of": arm.finalist_of,
            "selected_trial": self._name(selected) if selected is not None else None,
        }
        if excess > 0:
            return Trial(arm.name, number, turn.suggestion, "rejected", excess=excess, facts=facts), experiment
        facts["run"] = self._new_run_name(arm, number)
        trial = Trial(arm.name, number, turn.suggestion, "running", excess=excess, facts=facts)
        return trial, self._experiment(trial)

    def _suggest(self, turn: Search) -> tuple[Trial, Experiment]:
        arm, past = turn.arm, self._trials[turn.arm.name]
        unusable = {trial.facts.get("shape") for trial in past if trial.outcome in UNUSABLE}

        def fits(candidate: Mapping[str, Any]) -> bool | None:
            if not unusable:
                return None
            try:
                return False if self._shape(settle(arm, candidate)) in unusable else None
            except SpecError:  # two settings that do not go together
                return False

        number = len(past)
        suggestion = suggest(
            arm.space,
            past,
            number=number,
            sampler=self.spec.sampler,
            objective=self.spec.objective,
            seed=self.spec.seed,
            arm=arm.name,
            fits=fits,
        )
        facts: dict[str, Any] = {}
        try:
            experiment = settle(arm, suggestion)
            facts["shape"] = self._shape(experiment)
            excess, facts = self._measured(experiment)
        except StudyError:  # the forecaster itself is in trouble
            raise
        except SweepsError as error:  # settings that do not go together, or of which no network can be built
            facts["reason"] = _why_unusable(error, suggestion)
            return Trial(arm.name, number, suggestion, "invalid", facts=facts), arm.base
        if excess > 0:
            return Trial(arm.name, number, suggestion, "rejected", excess=excess, facts=facts), experiment
        alike = [t for t in past if t.facts.get("fingerprint") == facts["fingerprint"] and t.outcome not in UNUSABLE]
        facts |= {
            "run": self._new_run_name(arm, number),
            "seed": arm.base.training.seed + len(alike),
            "repeat_of": alike[0].number if alike else None,
        }
        if turn.epoch_cap is not None:
            facts["epoch_cap"] = turn.epoch_cap
        trial = Trial(arm.name, number, suggestion, "running", excess=excess, facts=facts)
        return trial, self._experiment(trial)

    def _measured(self, experiment: Experiment) -> tuple[float, dict[str, Any]]:
        """By how much an experiment's forecast is over the budget, and what a trial's facts say of it."""
        foreseen = self.forecaster.peak(experiment)
        needed = self.calibration.peak(foreseen)
        facts: dict[str, Any] = {
            "fingerprint": fingerprint(experiment),
            "shape": self._shape(experiment),
            "forecast_bytes": foreseen.total_bytes,
            "needed_bytes": needed,
        }
        excess = needed / self.budget_bytes - 1
        if excess > 0:
            facts["reason"] = f"needs {_gib(needed)} by forecast, the budget is {_gib(self.budget_bytes)}"
        return excess, facts

    def _new_run_name(self, arm: Arm, number: int) -> str:
        of_arm = "" if arm.name == self._main else f"-{arm.name}"
        return new_run_name(f"{self.folder.name.replace('@', '.')}{of_arm}-{number:03d}")

    def _shape(self, experiment: Experiment) -> str:
        return shape_key(experiment, self.on)

    def _experiment(self, trial: Trial) -> Experiment:
        """What a trial trains: the suggestion on its arm's base, with the trial's own seed."""
        settled = settle(self._arms[trial.arm], trial.suggestion)
        training = settled.training.model_copy(update={"seed": trial.facts["seed"]})
        return settled.model_copy(update={"training": training})

    def _launch(self, running: _Running, placement: Placement) -> Iterator[StudyUpdate]:
        trial, experiment = running.trial, running.experiment
        self._journal.trial(trial, self.outputs / trial.facts["run"])
        order = order_for(
            trial,
            experiment,
            placement,
            self.forecaster.peak(experiment),
            study=self.study,
            folder=self.folder,
            photos=self.photos,
            outputs=self.outputs,
            parent_run=self._parent_run(trial),
        )
        self.executor.launch(order)
        running.launched = True
        running.silence, running.hung = Silence(self._patience, time.monotonic()), None
        yield Launched(trial, self._name(trial), experiment.training.epochs, placement, running.adopted)

    def _parent_run(self, trial: Trial) -> str | None:
        """The run whose settings this trial trains with another seed."""
        first, selected = trial.facts.get("repeat_of"), trial.facts.get("selected_trial")
        if first is not None:
            return str(self._trials[trial.arm][first].facts["run"])
        if selected is not None:
            searched = self._trials[trial.facts["finalist_of"]]
            return str(searched[int(selected.rpartition("/")[2])].facts["run"])
        return None

    # --- hearing ---------------------------------------------------------------------------------

    def _hear(self, message: Message, *, stopping: bool) -> Iterator[StudyUpdate]:
        running = self._running[message.key]
        if running.silence is not None:
            epoch_s = message.metrics.get("epoch_s") if isinstance(message, Reported) else None
            running.silence.broken(time.monotonic(), epoch_s=epoch_s)
        match message:
            case Began() | Lives() | RunEnded():
                return
            case Told():
                yield Notice(f"{self._name(running.trial)}: {message.text}")
            case Refused():
                running.refusal = message
            case Reported():
                yield from self._judge(running, message, stopping=stopping)
            case Gone():
                self.packer.release(message.key)
                running.launched, running.silence = False, None
                yield from self._close(running, message.exit_code, stopping=stopping)

    def _end_hung(self, *, stopping: bool) -> Iterator[StudyUpdate]:
        """End each process that has said nothing for too long; its `Gone` decides what becomes of the trial."""
        now = time.monotonic()
        for key, running in self._running.items():
            silence = running.silence
            if silence is None or not silence.look(now) or running.hung is not None:
                continue
            running.hung = f"it said nothing for {human_seconds(silence.seconds)}"
            self.executor.end(key)
            if stopping:  # else its `Gone` tells
                what = f"{running.hung} after it was asked to leave, so its process was ended"
                yield Notice(f"{self._name(running.trial)}: {what}; its last checkpoint stands")

    def _judge(self, running: _Running, report: Reported, *, stopping: bool) -> Iterator[StudyUpdate]:
        """Store the figure, decide, store the decision, then answer. A report heard before is answered as before."""
        metric, trial = self.spec.objective.metric, running.trial
        value = report.metrics.get(metric)
        if value is None or not math.isfinite(value):
            lack = f"{metric} is {value} after epoch {report.epoch}"
            self.store.note(trial, no_figure=lack)
            self._keep(replace(trial, facts={**trial.facts, "no_figure": lack}))
            self.executor.answer(report.key, Prune(lack))
            return
        if report.epoch not in trial.intermediate:
            self.store.report(trial, report.epoch, value)
            trial = self._keep(replace(trial, intermediate={**trial.intermediate, report.epoch: value}))
        stop = trial.facts.get("stop")
        if stop is None and (stop := self._reason_to_stop(running)) is not None:
            self.store.note(trial, stop=stop)
            trial = self._keep(replace(trial, facts={**trial.facts, "stop": stop}))
        self.executor.answer(report.key, Prune(stop) if stop is not None else GoOn())
        if not stopping:
            total = running.experiment.training.epochs
            yield EpochDone(trial, self._name(trial), report.epoch, total, value, report.metrics)

    def _reason_to_stop(self, running: _Running) -> str | None:
        """What the pruner says of a trial, or the end of what its arm is short of; finalists train to their end."""
        trial, total = running.trial, running.experiment.training.epochs
        if trial.facts.get("finalist_of") is not None:
            return None
        cap, epoch = trial.facts.get("epoch_cap"), max(trial.intermediate)
        if cap is not None and cap <= epoch < total:
            return f"its arm has now trained {num_epochs(self._trials[trial.arm])} epochs, as many as the largest"
        others = [other for other in self._trials[trial.arm] if other.number != trial.number]
        verdict = judge(
            trial,
            others,
            pruner=self.spec.pruner,
            objective=self.spec.objective,
            num_epochs=total,
            seed=self.spec.seed,
        )
        return None if verdict.go_on else verdict.reason or "stopped by the pruner"

    def _close(self, running: _Running, exit_code: int | None, *, stopping: bool) -> Iterator[StudyUpdate]:
        """A process has ended: how far did its run come?"""
        refusal = running.refusal
        if refusal is not None and refusal.mistake:
            raise UserError(f"{self._name(running.trial)}: {refusal.message}", hint=refusal.hint)
        full = refusal is not None and refusal.disk_full
        if (over := self._result(running.trial, None if full else refusal)) is not None:
            yield from self._finish(over)
            return
        if stopping:
            return
        running.refusal = None
        epochs = max(running.trial.intermediate, default=0)
        running.deaths = running.deaths + 1 if epochs == running.epochs_at_death else 1
        running.epochs_at_death = epochs
        why = refusal.message if full and refusal is not None else _why_gone(running, exit_code)
        if running.deaths < MAX_DEATHS:
            running.adopted = True
            yield Notice(
                f"{self._name(running.trial)}: {why}; it is gone on with{' once there is room' if full else ''}"
            )
            return
        reason = f"{MAX_DEATHS} attempts at epoch {epochs + 1} in vain, the last time: {why}"
        yield from self._finish(ended(running.trial, "failed", reason))

    def _result(self, trial: Trial, refusal: Refused | None) -> Trial | None:
        """The trial as it ended, if it did; None if it is to be gone on with."""
        found = outcome_of(trial, outputs=self.outputs, objective=self.spec.objective)
        if found is None and refusal is not None:  # before the run had its directory
            return ended(trial, "out_of_memory" if refusal.out_of_memory else "failed", refusal.message)
        return found

    def _finish(self, trial: Trial) -> Iterator[StudyUpdate]:
        """The books of a trial that is over: the store first, the others can be made from it."""
        self.store.finish(trial)
        self._keep(trial)
        self._running.pop(self._key(trial), None)
        best_before = self._best(trial.arm, but=trial.number)
        row = self._row(trial)
        self._ledger.add(row)
        better = max if self.spec.objective.direction == "maximize" else min
        searched = self._arms[trial.arm].finalist_of is None
        is_best = (
            searched
            and trial.value is not None
            and (best_before is None or better(trial.value, best_before) == trial.value != best_before)
        )
        self._journal.progress(self._figures())
        yield TrialEnded(trial, self._name(trial), row, is_best)

    # --- coming back -----------------------------------------------------------------------------

    def _recover(self) -> Iterator[StudyUpdate]:
        """Read the store; finish what had ended without being told, adopt what had not ended."""
        self._trials = {arm: self.store.trials(arm) for arm in self._arms}
        stored = [trial for trials in self._trials.values() for trial in trials]
        self._earlier = frozenset(self._key(trial) for trial in stored if trial.outcome != "running")
        for arm in self._arms:
            for trial in list(self._trials[arm]):
                if trial.outcome == "running":
                    self._end_orphan(trial)
                    if (over := self._result(trial, None)) is None:
                        self._running[self._key(trial)] = _Running(trial, self._experiment(trial), adopted=True)
                        continue
                    yield from self._finish(over)
                elif (trial.arm, trial.number) not in self._ledger:
                    self._ledger.add(self._row(trial))
        self._journal.progress(self._figures())

    def _end_orphan(self, trial: Trial) -> None:
        """A trial of a coordinator that died leaves by itself with a checkpoint; one that hangs is ended."""
        run = RunDirectory(self.outputs / trial.facts["run"])
        if not run.path.is_dir():
            return
        deadline = time.monotonic() + ORPHAN_PATIENCE_S
        while run.is_running() and time.monotonic() < deadline:
            time.sleep(0.1)
        if run.is_running():
            attempts = [event for event in read_events(run.events) if event["kind"] == "attempt"]
            if attempts and not (trainer := Trainer.of(attempts[-1])).is_dead():
                psutil.Process(trainer.pid).kill()

    # --- books -----------------------------------------------------------------------------------

    def _keep(self, trial: Trial) -> Trial:
        self._trials[trial.arm][trial.number] = trial
        running = self._running.get(self._key(trial))
        if running is not None:
            running.trial = trial
        return trial

    def _figures(self) -> dict[str, float]:
        """How the study stands: the main arm by plain names, each baseline under its own."""
        metric = self.spec.objective.metric.removeprefix("val/")
        figures = {"hours": self._ledger.seconds / 3600, "num_ended": float(self._num_ended())}
        for arm in self.study.arms:
            prefix = "" if arm.name == self._main else f"{arm.name}/"
            figures[f"{prefix}num_trials"] = float(self._count(arm.name, *TRAINED))
            figures[f"{prefix}num_epochs"] = float(num_epochs(self._trials[arm.name]))
            for outcome in OUTCOMES:
                figures[f"{prefix}num_{outcome}"] = float(self._count(arm.name, outcome))
            best = self._best(arm.name)
            if best is not None:
                figures[f"{prefix}best/{metric}"] = best
        return figures

    def _num_ended(self) -> int:
        return sum(trial.outcome != "running" for trials in self._trials.values() for trial in trials)

    def _best(self, arm: str, *, but: int | None = None) -> float | None:
        values = [t.value for t in self._trials[arm] if t.value is not None and t.number != but]
        if not values:
            return None
        return max(values) if self.spec.objective.direction == "maximize" else min(values)

    def _best_row(self) -> Mapping[str, Any] | None:
        best = self._best(self._main)
        trial = next((t for t in self._trials[self._main] if t.value is not None and t.value == best), None)
        return self._row(trial) if trial is not None else None

    def _num_trained(self) -> int:
        return self._count(self._main, *TRAINED)

    def _num_failed(self) -> int:
        """Trainings of the search that failed, and of finalists those that have no score; not what was made good."""
        searched = sum(self._count(arm.name, "failed", "out_of_memory") for arm in self.study.arms)
        return searched + len(missing_finals(self.study, self._trials))

    def _count(self, arm: str, *outcomes: Outcome) -> int:
        return sum(trial.outcome in outcomes for trial in self._trials[arm])

    def _row(self, trial: Trial) -> dict[str, Any]:
        return row_of(trial, name=self._name(trial), outputs=self.outputs)

    def _name(self, trial: Trial) -> str:
        return trial_name(self.folder, self._main, trial.arm, trial.number)

    def _key(self, trial: Trial) -> Key:
        return trial.arm, trial.number

    def _need(self, trial: Trial) -> int:
        need: int = trial.facts["needed_bytes"]
        return need

    def _why_waiting(self, trial: Trial) -> str:
        return f"{self._name(trial)} waits for memory: it needs {_gib(self._need(trial))}; {self.packer.describe()}"


def _why_gone(running: _Running, exit_code: int | None) -> str:
    if running.hung is not None:
        return f"its process was ended as {running.hung}"
    killed = exit_code is not None and exit_code < 0
    return f"its process ended (exit code {exit_code}){'; killed for want of memory?' if killed else ''}"


def _why_unusable(error: SweepsError, suggestion: Mapping[str, Any]) -> str:
    """What is wrong with a suggestion; what it set of the model stands before it where the error names none of it."""
    if any(key in error.message for key in suggestion):
        return error.message
    of_model = [f"{key}: {value}" for key, value in suggestion.items() if key.startswith("model.")]
    return ", ".join([*of_model, error.message])


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
