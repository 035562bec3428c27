"""What a run's events say: new lines as they come, each figure once, and the summary at the end. Knows no tracker."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crack_sweeps.runs.events import Event
from crack_sweeps.tracking.state import is_study

# MLflow's limits and alphabet, also those of its REST interface on every platform.
_LONGEST_KEY = 250
_LONGEST_PARAM = 6000
_LONGEST_TAG = 8000
# Of each evaluation, in the summary; the run's metrics have them all.
_SHOWN = ("crack_iou", "crack_f1", "crack_iou_image", "crack_f1_image")
_OUTSIDE_ALPHABET = re.compile(r"[^A-Za-z0-9_./\- ]")


@dataclass(frozen=True)
class Point:
    """One point of a metric's curve; the original time makes sending it twice the same as sending it once."""

    key: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True)
class Chapter:
    """An event, with the points in it that no earlier event has given."""

    event: Event
    points: tuple[Point, ...] = ()

    @property
    def kind(self) -> str:
        """The event's kind."""
        return str(self.event["kind"])

    @property
    def seq(self) -> int:
        """The event's number."""
        return int(self.event["seq"])


class EventTail:
    """Reads what was appended to an events file since the last time; a line without its newline waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self.next_seq = 0

    def read(self) -> list[Event]:
        """New events, in order.

        Raises:
            ValueError: A number is missing or a line is no event: the file was edited.
        """
        if not self.path.exists() or self.path.stat().st_size <= self._offset:
            return []
        with self.path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        events = []
        for line in whole.splitlines():
            event = json.loads(line)
            if event.get("seq") != self.next_seq:
                raise ValueError(f"{self.path}: event {event.get('seq')} where {self.next_seq} was expected")
            events.append(event)
            self.next_seq += 1
        self._offset += len(whole)
        return events


@dataclass
class Story:
    """The run (or study) so far. A training that was killed and resumed tells some epochs again: the first counts."""

    created: Event | None = None
    attempt: Event | None = None
    ended: Event | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    final_figures: dict[str, float] = field(default_factory=dict)
    evaluated: dict[str, float] = field(default_factory=dict)  # on other photos, after the end
    last_epoch: int = 0
    run_dirs: list[Path] = field(default_factory=list)  # of a study: where its runs are, or will be
    num_trials: int = 0  # of a study: those that ended
    _final_points: set[tuple[str, int]] = field(default_factory=set)

    def tell(self, event: Event) -> Chapter:
        """Take in the next event."""
        points: tuple[Point, ...] = ()
        match event["kind"]:
            case "created":
                self.created = event
            case "attempt":
                self.attempt, self.ended = event, None
            case "ended":
                self.ended = event
            case "note":
                self.notes.append(f"{event['level']}: {event['text']}")
                if event["level"] == "warning":
                    self.warnings.append(str(event["text"]))
            case "epoch":
                if int(event["epoch"]) > self.last_epoch:
                    self.last_epoch = int(event["epoch"])
                    points = _points(event, step=self.last_epoch)
                    self.figures.update((point.key, point.value) for point in points)
            case "trial":
                self.run_dirs.append(Path(event["run_dir"]))
            case "metrics":
                step = int(event.get("step", self.last_epoch))
                self.num_trials = max(self.num_trials, step)
                told = _points(event, step=step)
                points = tuple(point for point in told if (point.key, point.step) not in self._final_points)
                self._final_points.update((point.key, point.step) for point in points)
                self.final_figures.update((point.key, point.value) for point in points)
            case "evaluation":  # of a run that has ended; the same again adds nothing, other figures take its place
                known = {**self.final_figures, **self.evaluated}
                told = _points(event, step=int(event["step"]))
                points = tuple(point for point in told if known.get(point.key) != point.value)
                self.evaluated.update((point.key, point.value) for point in points)
        return Chapter(event, points)

    def summary(self, run_dir: Path) -> str:
        """What the run's page opens with, in Markdown."""
        status = self.ended["status"] if self.ended is not None else "RUNNING"
        if self.created is not None and is_study(self.created):
            count, what, where = self.num_trials, "trial", "Folder"
        else:
            count, what, where = self.last_epoch, "epoch", "Run directory"
        lines = [f"**{status}** after {count} {what}{'' if count == 1 else 's'}."]
        if self.ended is not None and self.ended.get("reason"):
            lines.append(f"Reason: {self.ended['reason']}.")
        lines.append(f"{where}: `{run_dir.as_posix()}`")
        shown = {key: value for key, value in self.evaluated.items() if key.rpartition("/")[2] in _SHOWN}
        figures = {**(self.final_figures or self.figures), **shown}
        if figures:
            rows = [f"| {key} | {value:.4g} |" for key, value in sorted(figures.items())]
            lines.append("\n".join(["", "| figure | value |", "|---|---|", *rows]))
        if self.warnings:
            lines.append("\n".join(["", "Warnings:", *(f"- {text}" for text in self.warnings)]))
        return "\n\n".join(lines)


def _points(event: Event, *, step: int) -> tuple[Point, ...]:
    return tuple(
        Point(safe_key(key), float(value), step, int(event["time_ms"]))
        for key, value in event["metrics"].items()
        if value is not None
    )


def safe_key(key: str) -> str:
    """The key with what MLflow refuses replaced by `_`."""
    return _OUTSIDE_ALPHABET.sub("_", key)[:_LONGEST_KEY]


def param_text(value: Any) -> str:
    """A parameter as YAML writes it (`true`, `null`), cut where MLflow would refuse it; config.yaml has it whole."""
    return _cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _LONGEST_PARAM)


def tag_text(value: Any) -> str:
    """A tag's value, cut where MLflow would refuse it."""
    return _cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _LONGEST_TAG)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
