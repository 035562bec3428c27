"""How long a trial may say nothing before it is taken for hung, and ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Seconds of silence that a trial is granted.

    A trial says that it lives whenever its network is asked (at most every few seconds): in training, validation and
    scoring. It is silent while it opens its photos, builds its network, compiles it, reads or writes one photo or a
    checkpoint. With `compile` its validation is silent too, so an epoch's length is the measure of what is normal.

    Args:
        first_s: Before its first epoch is complete, when no epoch's length is known: weights and photos come from a
            slow disk, kernels are compiled, the first photos of 100 megapixels are validated.
        least_s: Afterwards, however short its epochs are: a network folder that is away stalls for minutes.
        epochs: Afterwards, in its longest epochs: who loads the machine as well slows a trial, but not twentyfold.
        leave_s: After it was asked to leave, beside its longest epoch: to finish a step and store a checkpoint. About
            as long as a person waits before killing it by hand.
    """

    first_s: float = 1800.0
    least_s: float = 600.0
    epochs: float = 20.0
    leave_s: float = 60.0


LONGEST_LOOK_S = 10.0  # between two looks: what is more was spent elsewhere (suspended, waiting for the database)


class Silence:
    """How long one trial has said nothing while the coordinator listened.

    Args:
        patience: What it is granted.
        now: Seconds on a clock that never goes back.
    """

    def __init__(self, patience: Patience, now: float) -> None:
        self.seconds = 0.0
        self._patience = patience
        self._looked = now
        self._longest_epoch_s: float | None = None
        self._leaving = False

    def look(self, now: float) -> bool:
        """Time has gone by without a word; whether it has been too much of it."""
        self.seconds += min(now - self._looked, LONGEST_LOOK_S)
        self._looked = now
        return self.seconds > self.limit_s

    @property
    def limit_s(self) -> float:
        """Silence that is granted now."""
        longest = self._longest_epoch_s
        if self._leaving:
            return self._patience.leave_s + (longest or 0.0)
        if longest is None:
            return self._patience.first_s
        return max(self._patience.least_s, self._patience.epochs * longest)

    def broken(self, now: float, *, epoch_s: float | None = None) -> None:
        """It said something.

        Args:
            now: As for `look`.
            epoch_s: What its epoch took, validation included, if that is what it told.
        """
        self.seconds, self._looked = 0.0, now
        if epoch_s is not None:
            self._longest_epoch_s = max(epoch_s, self._longest_epoch_s or 0.0)

    def asked_to_leave(self, now: float) -> None:
        """From now on it has only to store a checkpoint."""
        self.seconds, self._looked, self._leaving = 0.0, now, True
