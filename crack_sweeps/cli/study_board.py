"""What happens in a study while it happens: the table of a terminal, and the lines of everywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crack_sweeps.cli.study_words import (
    COLUMNS,
    ended_line,
    figure,
    final_of,
    head_line,
    left,
    memory,
    settings_line,
    short_names,
    trained_by_arm,
)
from crack_sweeps.console import Cell, Share, Table, View, human_seconds

if TYPE_CHECKING:
    from crack_sweeps.study.standing import Standing
    from crack_sweeps.study.updates import EpochDone, Launched, Rejected, StudyUpdate, TrialEnded

NUM_RECENT = 6  # lines of trials that ended


@dataclass(frozen=True)
class _Row:
    """A trial that has a process."""

    name: str
    settings: str
    total_epochs: int
    needed_bytes: float | None
    since: float
    epoch: int = 0
    value: float | None = None
    best: float | None = None
    peak_bytes: float | None = None
    epoch_s: float | None = None
    is_final: bool = False

    def seconds_left(self, now: float) -> float | None:
        """Until its last epoch, if it gets that far."""
        if self.epoch_s is None:
            return None
        elapsed = min(now - self.since, self.epoch_s)
        return max(0.0, self.epoch_s * (self.total_epochs - self.epoch) - elapsed)

    def cells(self, now: float) -> list[Cell]:
        return [
            self.name,
            self.settings,
            Share(self.epoch, self.total_epochs),
            figure(self.value),
            figure(self.best),
            memory(self.peak_bytes, self.needed_bytes),
            left(self.seconds_left(now)),
        ]


@dataclass(frozen=True)
class _Seen:
    """All that a board shows; replaced as a whole, so that another thread may draw it at any moment."""

    standing: Standing
    trained: Mapping[str, int]
    counts: Mapping[str, int]
    best: Mapping[str, Any] | None
    trained_s: float
    winners: Mapping[str, str | None]  # by the finalist's arm: the settings that its count is of
    running: Mapping[str, _Row] = field(default_factory=dict)
    recent: tuple[str, ...] = ()


class StudyBoard:
    """Hears what happens in a study, and draws it or says it."""

    def __init__(self) -> None:
        self._seen: _Seen | None = None
        self._names: Mapping[str, str] = {}

    @property
    def has_begun(self) -> bool:
        """Whether the coordinator is at work; what it finds ended before that is history."""
        return self._seen is not None

    def began(self, standing: Standing, keys: Iterable[str]) -> None:
        """The coordinator is at work.

        Args:
            standing: What is known from before.
            keys: What is searched.
        """
        self._names = short_names(keys)
        self._seen = _Seen(
            standing,
            trained_by_arm(standing),
            standing.counts,
            standing.best,
            trained_s=standing.hours * 3600,
            winners={final_of(arm.arm): arm.winner for arm in standing.arms if arm.num_trials},
        )

    def hear(self, update: StudyUpdate) -> str | None:
        """Take in what happened.

        Returns:
            The line that says it; None if there is nothing to say.
        """
        from crack_sweeps.study import updates as c

        if self._seen is None:
            return ended_line(update.row, is_best=update.is_best) if isinstance(update, c.TrialEnded) else None
        match update:
            case c.Launched():
                return self._launched(update)
            case c.EpochDone():
                return self._epoch(update)
            case c.Rejected():
                line = f"{update.name} rejected: {update.trial.facts['reason']}"
                self._ended(update, "rejected", line)
                return line
            case c.TrialEnded():
                line = ended_line(update.row, is_best=update.is_best)
                if update.is_best and update.trial.arm == self._seen.standing.arms[0].arm:
                    self._seen = replace(self._seen, best=update.row)
                self._ended(update, update.trial.outcome, line, update.row["duration_s"])
                return line
        return None

    def view(self) -> View:
        """The table of now."""
        seen = self._seen
        if seen is None:
            return View((), Table(COLUMNS, ()), ())
        now = time.monotonic()
        head = head_line(seen.standing, seen.trained, seen.counts, seen.best)
        if any(seen.trained.values()):
            head += f", about {human_seconds(self._seconds_left(seen, now))} left"
        rows = [row.cells(now) for row in seen.running.values()]
        return View((head,), Table(COLUMNS, rows), seen.recent)

    def _launched(self, update: Launched) -> str:
        trial = update.trial
        settings, needed = settings_line(trial.suggestion, self._names), trial.facts.get("needed_bytes")
        values = [trial.intermediate[epoch] for epoch in sorted(trial.intermediate)]
        is_final = trial.facts.get("finalist_of") is not None
        row = _Row(
            update.name, settings, update.total_epochs, needed, time.monotonic(), epoch=len(values), is_final=is_final
        )
        if values:
            row = replace(row, value=values[-1], best=self._better(values))
        self._put(row)
        verb = f"goes on after epoch {len(values)}" if update.adopted else "begins"
        again = trial.facts.get("repeat_of")
        if is_final:
            selected = trial.facts["selected_trial"]
            which = f"the settings of {selected}" if selected is not None else "settings as shipped"
            return f"{update.name} {verb}: {which} with seed {trial.facts['seed']}; {memory(None, needed)} forecast"
        repeat = f", another seed of trial {again}" if again is not None else ""
        return f"{update.name} {verb}{repeat}: {settings}; {memory(None, needed)} forecast"

    def _epoch(self, update: EpochDone) -> str:
        from crack_sweeps.study.standing import peak_bytes

        assert self._seen is not None
        row, now = self._seen.running[update.name], time.monotonic()
        took = update.metrics.get("epoch_s", now - row.since)
        best = self._better([value for value in (row.best, update.value) if value is not None])
        self._put(
            replace(
                row,
                epoch=update.epoch,
                value=update.value,
                best=best,
                peak_bytes=max(
                    (peak for peak in (row.peak_bytes, peak_bytes(update.metrics)) if peak is not None), default=None
                ),
                epoch_s=took if row.epoch_s is None else (row.epoch_s + took) / 2,
                since=now,
            )
        )
        metric = self._seen.standing.objective
        return (
            f"{update.name} epoch {update.epoch}/{update.total_epochs}  {metric} {figure(update.value)}  {took:.0f} s"
        )

    def _ended(self, update: Rejected | TrialEnded, outcome: str, line: str, seconds: float = 0.0) -> None:
        from crack_sweeps.study.history import TRAINED

        seen = self._seen
        assert seen is not None
        arm = update.trial.arm
        is_main = arm == seen.standing.arms[0].arm
        trained, winners = seen.trained.get(arm, 0), seen.winners
        if arm in winners and (mark := update.trial.facts.get("fingerprint")) != winners[arm]:
            trained, winners = 0, {**winners, arm: mark}  # those that were counted are an earlier winner's
        self._seen = replace(
            seen,
            winners=winners,
            running={key: row for key, row in seen.running.items() if key != update.name},
            counts={**seen.counts, outcome: seen.counts.get(outcome, 0) + is_main},
            trained={**seen.trained, arm: trained + (outcome in TRAINED)},
            trained_s=seen.trained_s + seconds,
            recent=(*seen.recent, line)[-NUM_RECENT:],
        )

    def _put(self, row: _Row) -> None:
        assert self._seen is not None
        self._seen = replace(self._seen, running={**self._seen.running, row.name: row})

    def _better(self, values: Sequence[float]) -> float:
        assert self._seen is not None
        return max(values) if self._seen.standing.direction == "maximize" else min(values)

    def _seconds_left(self, seen: _Seen, now: float) -> float:
        from crack_sweeps.study.standing import seconds_left

        arms, max_hours = seen.standing.arms, seen.standing.max_hours
        searched = [row for row in seen.running.values() if not row.is_final]
        finals = [row.seconds_left(now) for row in seen.running.values() if row.is_final]
        to_come = sum(max(0, arm.num_seeds - seen.trained.get(final_of(arm.arm), 0)) for arm in arms) - len(finals)
        return (
            seconds_left(
                sum(max(0, arm.num_trials - seen.trained.get(arm.arm, 0)) for arm in arms),
                mean_s=seen.trained_s / sum(seen.trained.values()),
                spent_s=sum((row.epoch_s or 0.0) * row.epoch + now - row.since for row in searched),
                jobs=len(seen.running),
                budget_s=max_hours * 3600 - seen.trained_s if max_hours is not None else None,
                finals=[*finals, *[None] * to_come],
            )
            or 0.0
        )
