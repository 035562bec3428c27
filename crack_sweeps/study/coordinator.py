"""The coordinator: launches what is proposed, judges each epoch, keeps the books. One process per study.

Everything that it decides is a function of what is stored, and each thing is stored before it is acted upon. So it may
be killed between any two lines: the next coordinator reads the store, adopts the trials that have not ended, and goes
on as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from crack_sweeps.console import gib, human_seconds
from crack_sweeps.data.photos import PhotoSet
from crack_sweeps.errors import DeviceError, DiskFull, NothingFits, SpecError, SweepsError, UserError
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.study_loading import ResolvedStudy
from crack_sweeps.study.books import Books
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
from crack_sweeps.study.forecasts import Forecaster
from crack_sweeps.study.history import Trial
from crack_sweeps.study.journal import StudyJournal
from crack_sweeps.study.ledger import Ledger
from crack_sweeps.study.local import end_orphan
from crack_sweeps.study.orders import order_for
from crack_sweeps.study.outcome import ended, outcome_of
from crack_sweeps.study.packing import Packer, Placement
from crack_sweeps.study.proposals import Proposals
from crack_sweeps.study.pruning import judge
from crack_sweeps.study.schedule import (
    num_epochs,
)
from crack_sweeps.study.silence import Patience, Silence
from crack_sweeps.study.store import Store
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
from crack_sweeps.training.footprint import DeviceType

POLL_S = 0.5
MAX_DEATHS = 3  # of a trial's process without a new epoch in between; then the trial is to blame
MAX_REJECTIONS = 200  # in a row; then the budget is to blame
DISK_PATIENCE_S = 600.0  # for somebody else to make room, where no trial of ours can by ending

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
    began_s: float = 0.0  # its process, by the monotonic clock
    seconds: float = 0.0  # of all its processes


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
        self._running: dict[Key, _Running] = {}
        self._has_launched = False
        self._num_rejected = 0  # in a row
        self._told_waiting: str | None = None  # for what
        self._short_since: float | None = None  # of disk, with nothing at work, by the monotonic clock
        self._dead_end: SweepsError | None = None  # why nothing more is launched

    def run(self, stop: Stop) -> Iterator[StudyUpdate]:
        """Search until the budget is spent or `stop` gives a reason; every update is stored before it is yielded."""
        with (
            closing(Ledger(self.folder)) as ledger,
            closing(StudyJournal(self.folder, self.study, self.photos)) as journal,
        ):
            journal.attempt(self.spec)
            self._books = books = Books(self.study, self.folder, self.outputs, self.store, ledger, journal)
            self._proposals = Proposals(books, self.forecaster, self.calibration, self.on, self.budget_bytes)
            yield from self._recover()
            yield StudyBegan(
                self.folder, books.num_trained(), self.spec.budget.trials, len(self._running), self.packer.jobs
            )
            reason: str | None = None
            try:
                reason = yield from self._search(stop)
            except BaseException as error:
                self.executor.kill()
                journal.end("FAILED", f"{type(error).__name__}: {error}")
                raise
            if reason is None:
                for text in books.missing():
                    yield Notice(text)
                from crack_sweeps.study.figures import draw_figures  # matplotlib, needed at the end alone

                journal.artifacts(draw_figures(self.folder, self.store, self.study), "figures")
                journal.artifacts(self._conclude())
            journal.artifacts([self.folder.ledger])
            journal.end("FINISHED" if reason is None else "KILLED", reason)
            yield StudyEnded(self.folder, reason, books.num_trained(), books.num_failed(), books.best_row())

    def _search(self, stop: Stop) -> Generator[StudyUpdate, None, str | None]:
        reason: str | None = None
        while True:
            if reason is None and (reason := stop()) is not None:
                self._ask_to_leave(reason)
            busy = False
            if reason is None and self._dead_end is None:
                try:
                    busy = yield from self._fill()
                except (DeviceError, DiskFull, NothingFits, SpecError) as error:
                    self._dead_end = error
                    if self._at_work():
                        yield Notice(f"{error.message}; trials under way train to their end")
            if not busy and not self._at_work():
                if reason is None and self._dead_end is not None:
                    raise self._dead_end
                if reason is not None or not self._running:
                    return reason
            for message in self.executor.wait(0 if busy else POLL_S):
                yield from self._hear(message, stopping=reason is not None)
            yield from self._end_hung(stopping=reason is not None)

    def _ask_to_leave(self, reason: str) -> None:
        for key, running in self._running.items():
            if running.silence is not None:
                running.silence.asked_to_leave(time.monotonic())
                self.executor.answer(key, Leave(reason))

    # --- launching -------------------------------------------------------------------------------

    def _fill(self) -> Generator[StudyUpdate, None, bool]:
        """One step towards a full house: adopted trials are launched first, by number, then what is proposed.

        Returns:
            Whether another step may follow at once. Between two, trials are heard: a forecast takes seconds.
        """
        waiting = next((running for running in self._running.values() if not running.launched), None)
        if waiting is None:
            if len(self._running) >= self.packer.jobs:
                return False
            trial = self._proposals.next(self._running)
            if trial is None:
                return False
            self._books.add(trial)
            if trial.outcome != "running":
                yield self._not_to_be_trained(trial)
                return True
            waiting = _Running(trial, self._proposals.experiment(trial), adopted=False)
            self._running[self._key(trial)] = waiting
        self._num_rejected = 0
        lack = self._disk_shortage(waiting.experiment)
        if lack is None:
            self._short_since = None
        placement = None if lack else self.packer.place(self._key(waiting.trial), self._need(waiting.trial))
        if placement is not None:
            self._told_waiting = None
            yield from self._launch(waiting, placement)
            return True
        if not self._at_work():
            if lack is not None:
                self._refuse_a_full_disk(lack)
            else:
                self._refuse_to_wait_in_vain(waiting.trial)
        what = "memory" if lack is None else "disk"
        if self._told_waiting != what:
            self._told_waiting = what
            yield Notice(lack or self._why_waiting(waiting.trial))
        return False

    def _not_to_be_trained(self, trial: Trial) -> StudyUpdate:
        """A proposal that is over with its forecast; too many in a row end the study. The sampler learns from them."""
        self._num_rejected += 1
        if self._num_rejected == MAX_REJECTIONS:
            raise self._proposals.in_vain(trial.arm, MAX_REJECTIONS)
        if trial.outcome == "rejected":
            return Rejected(trial, self._books.name(trial))
        return TrialEnded(trial, self._books.name(trial), self._books.row(trial), is_best=False)

    def _at_work(self) -> bool:
        return any(running.launched for running in self._running.values())

    def _refuse_a_full_disk(self, lack: str) -> None:
        """Stop where no trial of ours can make room: at once where the person has just begun, else after a while."""
        now = time.monotonic()
        self._short_since = self._short_since if self._short_since is not None else now
        waited_s = now - self._short_since
        if self._has_launched and waited_s < DISK_PATIENCE_S:
            return
        waited = f" for {human_seconds(waited_s)}" if self._has_launched else ""
        raise DiskFull(f"{lack}{waited}", hint="make room; the same command goes on")

    def _refuse_to_wait_in_vain(self, trial: Trial) -> None:
        """Stop where a trial needs more than there will ever be: the budget was lowered since."""
        most, limit = self.packer.most_bytes(), self.packer.limit_bytes
        if self._need(trial) <= most:
            return
        has = f"--vram-budget is {gib(limit)}" if limit == most else f"this machine has {gib(most)} for one trial"
        raise NothingFits(
            f"{self._books.name(trial)} has begun and needs {gib(self._need(trial))} by forecast, but {has}",
            hint=f"go on with --vram-budget {math.ceil(10 * self._need(trial) / 2**30) / 10:g}GiB or more"
            if limit == most
            else "go on where there is more memory; its trials are stored",
        )

    def _disk_shortage(self, experiment: Experiment) -> str | None:
        """Counted is all that the trials under way will ever hold, also what they have written: rather too much."""
        under_way = [running.experiment for running in self._running.values() if running.launched]
        needs = [running_bytes(*checkpoint_bytes(self.forecaster.peak(each))) for each in (experiment, *under_way)]
        return disk_shortage(self.outputs, sum(needs))

    def _launch(self, running: _Running, placement: Placement) -> Iterator[StudyUpdate]:
        trial, experiment = running.trial, running.experiment
        self._books.journal.trial(trial, self.outputs / trial.facts["run"])
        order = order_for(
            trial,
            experiment,
            placement,
            self.forecaster.peak(experiment),
            study=self.study,
            folder=self.folder,
            photos=self.photos,
            outputs=self.outputs,
            parent_run=self._books.parent_run(trial),
        )
        self.executor.launch(order)
        running.launched = self._has_launched = True
        running.began_s = time.monotonic()
        running.silence, running.hung = Silence(self._patience, time.monotonic()), None
        yield Launched(trial, self._books.name(trial), experiment.training.epochs, placement, running.adopted)

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
                yield Notice(f"{self._books.name(running.trial)}: {message.text}")
            case Refused():
                running.refusal = message
            case Reported():
                yield from self._judge(running, message, stopping=stopping)
            case Gone():
                self.packer.release(message.key)
                running.launched, running.silence = False, None
                running.seconds += time.monotonic() - running.began_s
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
                yield Notice(f"{self._books.name(running.trial)}: {what}; its last checkpoint stands")

    def _judge(self, running: _Running, report: Reported, *, stopping: bool) -> Iterator[StudyUpdate]:
        """Store the figure, decide, store the decision, then answer. A report heard before is answered as before."""
        metric = self.spec.objective.metric
        value = report.metrics.get(metric)
        if value is None or not math.isfinite(value):
            lack = f"{metric} is {value} after epoch {report.epoch}"
            running.trial = self._books.note(running.trial, no_figure=lack)
            self.executor.answer(report.key, Prune(lack))
            return
        if report.epoch not in running.trial.intermediate:
            running.trial = self._books.report(running.trial, report.epoch, value)
        stop = running.trial.facts.get("stop")
        if stop is None and (stop := self._reason_to_stop(running)) is not None:
            running.trial = self._books.note(running.trial, stop=stop)
        self.executor.answer(report.key, Prune(stop) if stop is not None else GoOn())
        if not stopping:
            total = running.experiment.training.epochs
            name = self._books.name(running.trial)
            yield EpochDone(running.trial, name, report.epoch, total, value, report.metrics)

    def _reason_to_stop(self, running: _Running) -> str | None:
        """What the pruner says of a trial, or the end of what its arm is short of; finalists train to their end."""
        trial, total = running.trial, running.experiment.training.epochs
        if trial.facts.get("finalist_of") is not None:
            return None
        cap, epoch = trial.facts.get("epoch_cap"), max(trial.intermediate)
        if cap is not None and cap <= epoch < total:
            return f"its arm has now trained {num_epochs(self._books.trials[trial.arm])} epochs, as many as the largest"
        others = [other for other in self._books.trials[trial.arm] if other.number != trial.number]
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
            raise UserError(f"{self._books.name(running.trial)}: {refusal.message}", hint=refusal.hint)
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
                f"{self._books.name(running.trial)}: {why}; it is gone on with{' once there is room' if full else ''}"
            )
            return
        reason = f"{MAX_DEATHS} attempts at epoch {epochs + 1} in vain, the last time: {why}"
        given_up = ended(running.trial, "failed", reason)  # its run has no record that says how long they took
        yield from self._finish(replace(given_up, facts={**given_up.facts, "duration_s": round(running.seconds, 3)}))

    def _result(self, trial: Trial, refusal: Refused | None) -> Trial | None:
        """The trial as it ended, if it did; None if it is to be gone on with."""
        found = outcome_of(trial, outputs=self.outputs, objective=self.spec.objective)
        if found is None and refusal is not None:  # before the run had its directory
            return ended(trial, "out_of_memory" if refusal.out_of_memory else "failed", refusal.message)
        return found

    def _finish(self, trial: Trial) -> Iterator[StudyUpdate]:
        row, is_best = self._books.finish(trial)
        self._running.pop(self._key(trial), None)
        yield TrialEnded(trial, self._books.name(trial), row, is_best)

    # --- coming back -----------------------------------------------------------------------------

    def _recover(self) -> Iterator[StudyUpdate]:
        """Finish what had ended without being told, adopt what had not ended."""
        for arm in self._books.trials:
            for trial in list(self._books.trials[arm]):
                if trial.outcome == "running":
                    run = RunDirectory(self.outputs / trial.facts["run"])
                    end_orphan(run)
                    over = self._result(trial, None)
                    if over is None and not run.path.exists():  # nothing is lost where it does not fit any more
                        over = self._proposals.rejected(trial)
                    if over is None:
                        running = _Running(trial, self._proposals.experiment(trial), adopted=True)
                        self._running[self._key(trial)] = running
                        continue
                    yield from self._finish(over)
                elif self._key(trial) not in self._books.ledger:
                    self._books.ledger.add(self._books.row(trial))
        self._books.tell_progress()

    def _key(self, trial: Trial) -> Key:
        return trial.arm, trial.number

    def _need(self, trial: Trial) -> int:
        need: int = trial.facts["needed_bytes"]
        return need

    def _why_waiting(self, trial: Trial) -> str:
        return (
            f"{self._books.name(trial)} waits for memory: it needs {gib(self._need(trial))}; {self.packer.describe()}"
        )


def _why_gone(running: _Running, exit_code: int | None) -> str:
    if running.hung is not None:
        return f"its process was ended as {running.hung}"
    killed = exit_code is not None and exit_code < 0
    return f"its process ended (exit code {exit_code}){'; killed for want of memory?' if killed else ''}"
