"""Signals at the command line: the first asks for checkpoints and a clean stop, the second kills."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from crack_sweeps.console import say

_CATCHABLE = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # those that this system has


class Interrupts:
    """Signals of this process: the first asks for a checkpoint and a clean stop, the second kills."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._may_checkpoint = False

    def checkpoint_first(self) -> None:
        """From now on there is something to store; before, a signal ends the process at once."""
        self._may_checkpoint = True

    def reason(self) -> str | None:
        """Name of the signal that came, if one did: why to stop."""
        return None if self.number is None else signal.Signals(self.number).name

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Called by Python when a signal arrives. The system's own handling, raised anew, ends the process at once."""
        name = signal.Signals(number).name
        if self.number is not None and name == "SIGHUP":
            return  # one closed terminal is told twice, by the kernel and by the shell
        if self.number is not None or not self._may_checkpoint:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number
        say(f"\n{name}: storing a checkpoint, then stopping; once more kills at once")


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Handle signals inside the block, and put the old handlers back after it.

    A signal that is ignored stays so: whoever typed `nohup` wants to close the terminal and have the training go on.
    """
    caught = Interrupts()
    numbers = [getattr(signal, name) for name in _CATCHABLE if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, caught.handle) for number in heard}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
