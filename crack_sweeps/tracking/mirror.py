"""The mirror: a process that follows a run's events into TensorBoard and MLflow, and can never hurt the training."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from crack_sweeps.errors import MirrorError, SweepsError
from crack_sweeps.runs.events import Event
from crack_sweeps.tracking.connection import StoreConnection, Unreachable
from crack_sweeps.tracking.feed import LOCK, Feed
from crack_sweeps.tracking.location import mask
from crack_sweeps.tracking.patience import GIVE_UP_S, Patience
from crack_sweeps.tracking.quiet import quiet_mlflow
from crack_sweeps.tracking.state import Trainer, first_event, is_study, state_in
from crack_sweeps.tracking.tensorboard import BoardWriter

POLL_S = 0.3
PARENT_PATIENCE_S = 30.0  # its own mirror may be at it

log = logging.getLogger("crack_sweeps.mirror")


class Busy(MirrorError):
    """Another process is sending this run right now."""


def send(run_dir: Path, *, store: StoreConnection | None = None, patience_s: float = 5.0) -> None:
    """Send what is missing of one run or of one study's own run, once, and end it in the store if its process is dead.

    What it is nested under is sent before, where the store does not have it.

    Args:
        run_dir: The run's directory, or the study's; nobody has its lock, or its process says its own end.
        store: Where to, if it is open already.
        patience_s: How long to go on trying where the store does not answer, and to wait for a mirror at work.

    Raises:
        Busy: Another mirror is sending it.
        MirrorError: The store does not answer or refuses.
        StoreError: The store cannot be used where it stands.
    """
    created = first_event(run_dir)
    if created is None:
        return
    quiet_mlflow()
    patience = Patience(patience_s)
    patience.over(True)
    while True:
        try:
            store = store or StoreConnection()
            _send_parent(created, store, patience_s)
            _send_now(run_dir, store, patience_s, draw=not is_study(created))
            return
        except Unreachable as error:
            patience.lost(error)
        patience.sleep()


def _send_parent(created: Event, store: StoreConnection, patience_s: float) -> None:
    parent = created.get("parent")
    if not parent or state_in(Path(parent["dir"]), store.location).run_id is not None:
        return
    try:
        send(Path(parent["dir"]), store=store, patience_s=patience_s)
    except Busy:
        if state_in(Path(parent["dir"]), store.location).run_id is None:
            raise


def _send_now(run_dir: Path, store: StoreConnection, patience_s: float, *, draw: bool) -> None:
    (run_dir / LOCK).parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(run_dir / LOCK, timeout=patience_s))
        except Timeout as error:
            raise Busy(f"{run_dir}: a mirror is sending this run right now", hint="let it finish") from error
        board = stack.enter_context(BoardWriter(run_dir / "tensorboard")) if draw else None
        feed = Feed(run_dir, board)
        dead = feed.is_dead_after_reading() or feed.trainer is None
        feed.send(store)
        if dead and feed.story.ended is None:
            feed.close_as_killed()


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
        first_seq: Attempts and ends before this event are of earlier processes: the mirror of a resumed run is not
            over with them.
        poll_s: Pause between two looks at the events.
        give_up_s: How long to go on trying after the end of the training.

    Raises:
        MirrorError: The store refuses, or did not answer until `give_up_s` after the end of the training.
        StoreError: The store cannot be used where it stands.
    """
    (run_dir / LOCK).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(run_dir / LOCK), BoardWriter(run_dir / "tensorboard") as board:
        feed = Feed(run_dir, board, starter=starter, first_seq=first_seq)
        store: StoreConnection | None = None
        patience = Patience(give_up_s)
        while True:
            dead = feed.is_dead_after_reading()
            over = dead or feed.has_ended
            patience.over(over)
            if patience.store_may_answer():
                try:
                    store = store or StoreConnection()
                    if feed.story.created is not None and not feed.was_sent:
                        _send_parent(feed.story.created, store, PARENT_PATIENCE_S)
                    feed.send(store)
                    if over and feed.story.ended is None:
                        feed.close_as_killed()
                        log.warning("the training process died without ending the run: marked KILLED")
                    if over:
                        return
                    patience.answered()
                except Unreachable as error:
                    patience.lost(error)
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
    parser.add_argument("run_dir", type=Path, help="the run's directory, or the study's folder")
    parser.add_argument("--follow", action="store_true", help="go on until the run has ended")
    parser.add_argument("--study", action="store_true", help="follow a study's folder and all runs that it names")
    parser.add_argument("--trainer", type=json.loads, help="the process to follow until an attempt is written, as JSON")
    parser.add_argument("--first-seq", type=int, default=0, help="an end before this event is an earlier attempt's")
    arguments = parser.parse_args()
    sys.stdout = MaskedStream(sys.stdout)
    sys.stderr = MaskedStream(sys.stderr)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    if hasattr(os, "nice"):
        os.nice(5)  # the training goes first
    try:
        if not arguments.follow and not arguments.study:
            send(arguments.run_dir)
        else:
            starter = Trainer.of(arguments.trainer) if arguments.trainer is not None else Trainer.this_process()
            if arguments.study:
                from crack_sweeps.tracking.study_mirror import follow_study

                follow_study(arguments.run_dir, starter, first_seq=arguments.first_seq)
            else:
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
