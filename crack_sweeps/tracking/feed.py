"""A run's events on their way: read once, drawn at once, kept until the store has them."""

from __future__ import annotations

from pathlib import Path

from crack_sweeps.tracking.connection import StoreConnection
from crack_sweeps.tracking.sender import RunSender
from crack_sweeps.tracking.state import EVENTS, Trainer
from crack_sweeps.tracking.story import Chapter, EventTail, Story
from crack_sweeps.tracking.tensorboard import BoardWriter

LOCK = Path("logs") / "mirror.lock"  # held by the one process that sends this run


class Feed:
    """The events of one run, or of one study.

    Args:
        run_dir: Its directory, whose `LOCK` the caller holds.
        board: Where curves are drawn; None draws none.
        starter: The process whose death ends the run until an attempt names its own; None where nobody knows it.
        first_seq: Attempts and ends before this event are those of processes before the starter.
    """

    def __init__(
        self, run_dir: Path, board: BoardWriter | None, *, starter: Trainer | None = None, first_seq: int = 0
    ) -> None:
        self.run_dir = run_dir
        self.story = Story()
        self.last_ms = 0
        self._tail = EventTail(run_dir / EVENTS)
        self._board = board
        self._starter = starter
        self._first_seq = first_seq
        self._pending: list[Chapter] = []
        self._sender: RunSender | None = None

    def read(self) -> None:
        """Take in what was written since the last time.

        Raises:
            ValueError: The file was edited.
        """
        chapters = [self.story.tell(event) for event in self._tail.read()]
        if chapters:
            self.last_ms = int(chapters[-1].event["time_ms"])
        if self._board is not None:
            self._board.write(point for chapter in chapters for point in chapter.points)
        self._pending += chapters

    def send(self, store: StoreConnection) -> None:
        """Send what waits; it goes on waiting where the store does not answer."""
        if not self._pending:
            return
        if self._sender is None:
            self._sender = RunSender(self.run_dir, store)
        self._sender.send(self._pending, self.story)
        self._pending.clear()

    def close_as_killed(self) -> None:
        """End the run in the store for a process that died."""
        if self._sender is not None:
            self._sender.close_as_killed(self.story, self.last_ms)

    @property
    def has_ended(self) -> bool:
        """Whether the run has said its end: not an earlier attempt's."""
        return self.story.ended is not None and int(self.story.ended["seq"]) >= self._first_seq

    @property
    def trainer(self) -> Trainer | None:
        """The process that writes the events."""
        attempt = self.story.attempt
        if attempt is None or attempt["seq"] < self._first_seq:
            return self._starter
        trainer = Trainer.of(attempt)
        return self._starter if trainer == self._starter else trainer  # an event may know less of the same process

    @property
    def num_read(self) -> int:
        """Events read so far."""
        return self._tail.next_seq

    @property
    def was_sent(self) -> bool:
        """Whether the store was given anything by this feed."""
        return self._sender is not None

    def is_dead_after_reading(self) -> bool:
        """Whether the process is certainly gone, with every line that it wrote read after its death.

        Raises:
            ValueError: The file was edited.
        """
        self.read()
        dead = self._trainer_is_dead()
        self.read()
        return dead and self._trainer_is_dead()

    def _trainer_is_dead(self) -> bool:
        return self.trainer is not None and self.trainer.is_dead()
