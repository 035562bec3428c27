"""Every error a person can meet, on one page: what went wrong, what to do, and the exit code it ends with."""

from __future__ import annotations


class SweepsError(Exception):
    """Something went wrong that the person at the keyboard can act on.

    Args:
        message: One line that names the file, the key and the value.
        hint: What to do about it; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UserError(SweepsError):
    """The person's mistake: exit 2, nothing trained, nothing lost."""

    exit_code = 2


class SpecError(UserError):
    """An experiment file, an override or a profile does not say something valid."""


class DataError(UserError):
    """A folder of photos, a mask or a split cannot be used as it is."""


class WeightsError(UserError):
    """Pretrained weights are missing or do not belong to the model that was named."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or belongs to another training."""


class RunNotFound(UserError):
    """No run, or more than one, answers to the name that was given."""


class StoreError(UserError):
    """The tracking store cannot be used where it stands."""


class DeviceError(UserError):
    """The machine has a GPU that torch cannot use, or not the device that was asked for."""


class TrainingError(SweepsError):
    """A training stopped for a reason of its own: a figure, never a person's typing."""


class NotFiniteError(TrainingError):
    """A loss, gradient or prediction is NaN or infinite; the weights are as they were before that step."""


class OutOfMemory(TrainingError):
    """The device's memory does not hold one photo's crop, even with activation checkpointing."""


class DiskFull(TrainingError):
    """A file could not be written for want of room; what was there before is intact."""


class LoaderStalled(TrainingError):
    """The data loader gave nothing for longer than its timeout."""


class MirrorError(SweepsError):
    """The tracking server refused or could not be reached; the run directory has everything."""


class StudyError(SweepsError):
    """A study cannot go on: its trials die, or its store does not answer."""


class NothingFits(StudyError):
    """No suggestion fits the memory budget."""

    exit_code = 4


class StudyNotFound(UserError):
    """No study, or no trial of it, answers to the name that was given."""
