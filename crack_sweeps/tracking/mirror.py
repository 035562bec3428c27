"""The mirror: a process that follows a run's events into TensorBoard and MLflow, and can never hurt the training."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from crack_sweeps.errors import MirrorError, SweepsError
from crack_sweeps.tracking.location import mask
from crack_sweeps.tracking.quiet import quiet_mlflow
from crack_sweeps.tracking.sender import RunSender, Unreachable
from crack_sweeps.tracking.state import EVENTS, Trainer
from crack_sweeps.tracking.story import Chapter, EventTail, Story
from crack_sweeps.tracking.tensorboard import BoardWriter

LOCK = Path("logs") / "mirror.lock"
POLL_S = 0.3
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
GIVE_UP_S = 600.0  # after the training has ended; what is then missing, `sweeps doctor --fix` sends

log = logging.getLogger("crack_sweeps.mirror")


class _Feed:
    """A run's events on their way: read once, drawn at once, kept until the store has them."""

    def __init__(self, run_dir: Path, board: BoardWriter) -> None:
        self.run_dir = run_dir
        self.story = Story()
        self.last_ms = 0
        self._tail = EventTail(run_dir / EVENTS)
        self._board = board
        self._pending: list[Chapter] = []
        self._sender: RunSender | None = None

    def read(self) -> None:
        """Take in what the training has written."""
        events = self._tail.read()
        chapters = [self.story.tell(event) for event in events]
        if events:
            self.last_ms = int(events[-1]["time_ms"])
        self._board.write(point for chapter in chapters for point in chapter.points)
        self._pending += chapters

    def send(self) -> None:
        """Send what waits; it goes on waiting where the store does not answer."""
        if not self._pending:
            return
        if self._sender is None:
            self._sender = RunSender(self.run_dir)
        self._sender.send(self._pending, self.story)
        self._pending.clear()

    def close_as_killed(self) -> None:
        """End the run in the store for a training that died."""
        if self._sender is not None:
            self._sender.close_as_killed(self.story, self.last_ms)

    def trainer_is_dead(self, starter: Trainer | None = None) -> bool:
        """Whether the process of the last attempt (before the first: the one that started the mirror) is gone."""
        trainer = starter if self.story.attempt is None else Trainer.of(self.story.attempt)
        return trainer is not None and trainer.is_dead()


def send(run_dir: Path, *, patience_s: float = 5.0) -> None:
    """Send what is missing of one run, once, and end it in the store if its training is dead.

    Args:
        run_dir: The run's directory.
        patience_s: How long to go on trying where the store does not answer, and to wait for a mirror at work.

    Raises:
        MirrorError: The store does not answer or refuses, or another mirror is sending this run right now.
        StoreError: The store cannot be used where it stands.
    """
    quiet_mlflow()
    (run_dir / LOCK).parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run_dir / LOCK, timeout=patience_s), BoardWriter(run_dir / "tensorboard") as board:
            feed = _Feed(run_dir, board)
            dead = _is_dead_after_reading(feed, None)
            deadline = time.monotonic() + patience_s
            pause_s = FIRST_PAUSE_S
            while True:
                try:
                    feed.send()
                    if dead and feed.story.ended is None:
                        feed.close_as_killed()
                    return
                except Unreachable as error:
                    if time.monotonic() + pause_s > deadline:
                        hint = "the run directory has everything; `sweeps doctor --fix` sends it later"
                        raise MirrorError(error.message, hint=hint) from error
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    except Timeout as error:
        raise MirrorError(f"{run_dir}: a mirror is sending this run right now", hint="let it finish") from error


def _is_dead_after_reading(feed: _Feed, starter: Trainer | None) -> bool:
    """Whether the training is dead, with every line that it wrote read after its death."""
    feed.read()
    dead = feed.trainer_is_dead(starter)
    feed.read()
    return dead and feed.trainer_is_dead(starter)


def follow(
    run_dir: Path,
    starter: Trainer,
    *,
    first_seq: int = 0,
    poll_s: float = POLL_S,
    give_up_s: float = GIVE_UP_S,
) -> None:
    """Send events as they come, until the run has ended and the store has everything.

    Args:
        run_dir: The run's directory.
        starter: The process whose death ends the run, until an attempt names its own.
        first_seq: An end before this event is an earlier attempt's: the mirror of a resumed run is not over with it.
        poll_s: Pause between two looks at the events.
        give_up_s: How long to go on trying after the end of the training.

    Raises:
        MirrorError: The store refuses, or did not answer until `give_up_s` after the end of the training.
        StoreError: The store cannot be used where it stands.
    """
    (run_dir / LOCK).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(run_dir / LOCK), BoardWriter(run_dir / "tensorboard") as board:
        feed = _Feed(run_dir, board)
        pause_s, not_before, over_since = FIRST_PAUSE_S, 0.0, None
        while True:
            dead = _is_dead_after_reading(feed, starter)
            over = dead or (feed.story.ended is not None and feed.story.ended["seq"] >= first_seq)
            over_since = (over_since or time.monotonic()) if over else None
            if time.monotonic() >= not_before:
                try:
                    feed.send()
                    if over and feed.story.ended is None:
                        feed.close_as_killed()
                        log.warning("the training process died without ending the run: marked KILLED")
                    if over:
                        return
                    pause_s = FIRST_PAUSE_S
                except Unreachable as error:
                    log.warning("%s; next try in %.0f s", error, pause_s)
                    if over_since is not None and time.monotonic() - over_since > give_up_s:
                        raise MirrorError(f"gave up {give_up_s:.0f} s after the training's end: {error}") from error
                    not_before = time.monotonic() + pause_s
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            time.sleep(poll_s)


class MaskedStream(io.TextIOBase):
    """Passes text on with passwords blanked out: libraries print addresses when something goes wrong."""

    def __init__(self, target: TextIO) -> None:
        super().__init__()
        self._target = target

    def write(self, text: str) -> int:
        """Write, masked."""
        self._target.write(mask(text))
        return len(text)

    def flush(self) -> None:
        """Flush what is behind."""
        self._target.flush()


def main() -> int:
    """`python -m crack_sweeps.tracking.mirror RUN_DIR [--follow ...]`, as `start_mirror` calls it."""
    parser = argparse.ArgumentParser(prog="python -m crack_sweeps.tracking.mirror", description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--follow", action="store_true", help="go on until the run has ended")
    parser.add_argument("--trainer-pid", type=int, help="the process to follow before its first attempt is written")
    parser.add_argument("--trainer-started", type=float, help="that process's start time, s since the epoch")
    parser.add_argument("--first-seq", type=int, default=0, help="an end before this event is an earlier attempt's")
    arguments = parser.parse_args()
    sys.stdout = MaskedStream(sys.stdout)
    sys.stderr = MaskedStream(sys.stderr)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    if hasattr(os, "nice"):
        os.nice(5)  # the training goes first
    try:
        if not arguments.follow:
            send(arguments.run_dir)
        else:
            starter = Trainer.this_process()
            if arguments.trainer_pid is not None:
                starter = replace(starter, pid=arguments.trainer_pid, started=arguments.trainer_started)
            follow(arguments.run_dir, starter, first_seq=arguments.first_seq)
    except SweepsError as error:
        log.error("%s", error)
        if error.hint:
            log.error("hint: %s", error.hint)
        return error.exit_code
    log.info("everything was sent")
    return 0


if __name__ == "__main__":
    sys.exit(main())
