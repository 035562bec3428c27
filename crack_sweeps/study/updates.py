"""What happens in a study, as its coordinator tells it: each update is stored before it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import Trial
from crack_sweeps.study.packing import Placement


@dataclass(frozen=True)
class StudyBegan:
    """The coordinator is at work."""

    folder: StudyFolder
    num_trained: int
    num_trials: int
    num_adopted: int
    jobs: int


@dataclass(frozen=True)
class Rejected:
    """A suggestion that does not fit the memory budget; it costs no training."""

    trial: Trial
    name: str


@dataclass(frozen=True)
class Launched:
    """A trial's process starts."""

    trial: Trial
    name: str
    total_epochs: int
    placement: Placement
    adopted: bool


@dataclass(frozen=True)
class EpochDone:
    """A trial has reported, and has its verdict."""

    trial: Trial
    name: str
    epoch: int
    total_epochs: int
    value: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrialEnded:
    """A trial is over."""

    trial: Trial
    name: str
    row: Mapping[str, Any]
    is_best: bool


@dataclass(frozen=True)
class Notice:
    """Something that a person should know; the study goes on."""

    text: str


@dataclass(frozen=True)
class StudyEnded:
    """The coordinator leaves.

    Args:
        reason: Why before the end; None if the study is finished.
        num_failed: Trainings of the search that failed, and trainings of finalists that were tried and have no score.
        best: Row of the best complete trial of the main arm.
    """

    folder: StudyFolder
    reason: str | None
    num_trained: int
    num_failed: int
    best: Mapping[str, Any] | None


StudyUpdate = StudyBegan | Rejected | Launched | EpochDone | TrialEnded | Notice | StudyEnded
