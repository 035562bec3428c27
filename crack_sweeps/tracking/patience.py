"""How long to go on with a store that does not answer."""

from __future__ import annotations

import logging
import time

from crack_sweeps.errors import MirrorError
from crack_sweeps.tracking.connection import Unreachable

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
GIVE_UP_S = 600.0  # after the training has ended; what is then missing, `sweeps doctor --fix` sends

log = logging.getLogger("crack_sweeps.mirror")


class Patience:
    """When to try a store again that did not answer: soon at first, then ever more seldom."""

    def __init__(self, give_up_s: float) -> None:
        self._give_up_s = give_up_s
        self._pause_s = FIRST_PAUSE_S
        self._not_before = 0.0
        self._over_since: float | None = None
        self._silent_since: float | None = None

    def store_may_answer(self) -> bool:
        """Whether it is time for a try."""
        return time.monotonic() >= self._not_before

    def over(self, is_over: bool) -> None:
        """Say whether there is nothing more to follow; from then on, the patience has an end."""
        self._over_since = (self._over_since or time.monotonic()) if is_over else None

    def answered(self) -> None:
        """The store has answered."""
        self._pause_s = FIRST_PAUSE_S
        self._silent_since = None

    def sleep(self) -> None:
        """Wait until the next try."""
        time.sleep(max(0.0, self._not_before - time.monotonic()))

    def lost(self, error: Unreachable) -> None:
        """The store has not answered.

        Raises:
            MirrorError: It has not for too long after the end.
        """
        log.warning("%s; next try in %.0f s", error, self._pause_s)
        now = time.monotonic()
        self._silent_since = self._silent_since or now  # what the tries before took is not the store's silence
        if self._over_since is not None and now + self._pause_s > self._give_up_s + max(
            self._over_since, self._silent_since
        ):
            hint = "the run directory has everything; `sweeps doctor --fix` sends it later"
            raise MirrorError(f"gave up after {self._give_up_s:.0f} s: {error}", hint=hint) from error
        self._not_before = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
