"""One process sends a whole study: the study's own run, and every run that its events name, as they come and go."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path

from filelock import FileLock, Timeout

from crack_sweeps.errors import MirrorError
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.tracking.connection import Refused, StoreConnection, Unreachable
from crack_sweeps.tracking.feed import LOCK, Feed
from crack_sweeps.tracking.patience import GIVE_UP_S, Patience
from crack_sweeps.tracking.state import EVENTS, Trainer, all_sent, first_event
from crack_sweeps.tracking.tensorboard import BoardWriter

POLL_S = 0.5

log = logging.getLogger("crack_sweeps.mirror")


def follow_study(
    study_dir: Path,
    starter: Trainer,
    *,
    first_seq: int = 0,
    poll_s: float = POLL_S,
    give_up_s: float = GIVE_UP_S,
) -> None:
    """Send a study and its runs, until the study has ended (or its coordinator is dead) and the store has everything.

    What the store refuses, such as a run that somebody deleted there, is set aside; the rest goes on.

    Args:
        study_dir: The study's folder.
        starter: The coordinator that started the mirror.
        first_seq: Attempts and ends before this event of the study are of earlier coordinators.
        poll_s: Pause between two looks.
        give_up_s: How long to go on after the study's end where the store does not answer, or where a run of which
            nobody knows whether it lives says nothing more.

    Raises:
        MirrorError: Something was refused, or did not arrive in time; the rest did.
        StoreError: The store cannot be used where it stands.
    """
    (study_dir / LOCK).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(study_dir / LOCK), contextlib.closing(_Study(study_dir, starter, first_seq)) as study:
        patience = Patience(give_up_s)
        while True:
            over = study.read()
            patience.over(over)
            if not patience.store_may_answer():
                study.read_open_runs()
            else:
                try:
                    study.send(over=over)
                    patience.answered()
                except Unreachable as error:
                    patience.lost(error)
                else:
                    if over and not (waiting := study.unsettled()):
                        break
                    if over and study.quiet_s() > give_up_s and not any(run.is_alive_here for run in waiting):
                        study.refused += [f"{run.path.name} neither ended nor went on" for run in waiting]
                        break
            time.sleep(poll_s)
    if study.refused:
        raise MirrorError(
            f"not everything was sent: {'; '.join(study.refused)}",
            hint="once the cause is mended, `sweeps doctor --fix` sends the rest",
        )


class _Study:
    """The study's own events, and the runs that they name."""

    def __init__(self, study_dir: Path, starter: Trainer, first_seq: int) -> None:
        self.refused: list[str] = []
        self._feed = Feed(study_dir, None, starter=starter, first_seq=first_seq)
        self._store: StoreConnection | None = None
        self._is_dead = False
        self._is_refused = False
        self._num_known = 0
        self._runs: dict[Path, _Run] = {}  # in the study's order: a trial's first run before its extra seeds
        self._changed = time.monotonic()

    def read(self) -> bool:
        """Take in what the coordinator wrote.

        Returns:
            Whether the study is over.
        """
        num_read = self._feed.num_read
        self._is_dead = self._feed.is_dead_after_reading()
        if self._feed.num_read > num_read:
            self._changed = time.monotonic()
        for run_dir in self._feed.story.run_dirs[self._num_known :]:
            self._runs.setdefault(run_dir, _Run(run_dir))
        self._num_known = len(self._feed.story.run_dirs)
        return self._is_dead or self._feed.has_ended

    def send(self, *, over: bool) -> None:
        """Send what is new: the study's own first, since the others are nested under it."""
        self._store = self._store or StoreConnection()
        if not self._is_refused:
            try:
                self._feed.send(self._store)
                if self._is_dead and self._feed.story.ended is None:
                    self._feed.close_as_killed()
            except (Refused, ValueError) as error:
                self._is_refused = True
                self._set_aside(self._feed.run_dir, error)
        for run in list(self._runs.values()):
            try:
                if run.step(self._store, study_is_over=over):
                    self._changed = time.monotonic()
            except (Refused, ValueError) as error:
                self._set_aside(run.path, error)
                run.close()
                del self._runs[run.path]
            else:
                if run.is_final:
                    del self._runs[run.path]

    def read_open_runs(self) -> None:
        """Go on drawing while the store does not answer. What ends meanwhile is closed and read again later."""
        for run in self._runs.values():
            with contextlib.suppress(ValueError):  # told when it is sent
                run.draw()

    def unsettled(self) -> list[_Run]:
        """Runs of which the store has not everything."""
        return [run for run in self._runs.values() if not run.is_settled]

    def quiet_s(self) -> float:
        """Seconds since anything was written."""
        return time.monotonic() - self._changed

    def close(self) -> None:
        """Give all locks back."""
        for run in self._runs.values():
            run.close()

    def _set_aside(self, path: Path, error: Exception) -> None:
        log.error("%s is set aside: %s", path.name, error)
        self.refused.append(f"{path.name}: {error}")


class _Run:
    """One run of the study. It is held open only from its first event to its end: memory is that of the live runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_settled = True  # what has no event yet has nothing to send
        self.is_final = False
        self._feed: Feed | None = None
        self._held = contextlib.ExitStack()
        self._settled_size: int | None = None

    @property
    def is_alive_here(self) -> bool:
        """Whether a process of this machine certainly goes on with it."""
        trainer = self._feed.trainer if self._feed is not None else None
        return trainer is not None and trainer.is_here and not trainer.is_dead()

    def step(self, store: StoreConnection, *, study_is_over: bool) -> bool:
        """Send what is new.

        Returns:
            Whether there was anything.
        """
        size = self._size()
        has_news = size is not None and size != self._settled_size
        if self._feed is None and not (has_news and self._open(store, size)):
            return False
        assert self._feed is not None
        num_read = self._feed.num_read
        dead = self._feed.is_dead_after_reading()
        if self._feed.trainer is None and study_is_over:  # it got no further than its first event
            dead = not RunDirectory(self.path).is_running()
        news = self._feed.num_read > num_read
        self._feed.send(store)
        ended = self._feed.story.ended
        if ended is None and dead:
            self._feed.close_as_killed()
        if ended is not None or dead:
            self._settled_size = size
            self.is_settled = True
            self.is_final = ended is not None and ended["status"] in ("FINISHED", "PRUNED")
            self.close()
        return news

    def draw(self) -> None:
        """Read and draw what is new, if it is open."""
        if self._feed is not None and (self._feed.is_dead_after_reading() or self._feed.has_ended):
            self.close()

    def close(self) -> None:
        """Give the run's lock back and forget its events."""
        self._feed = None
        self._held.close()

    def _size(self) -> int | None:
        try:
            return (self.path / EVENTS).stat().st_size
        except FileNotFoundError:
            return None

    def _open(self, store: StoreConnection, size: int | None) -> bool:
        """Whether there is something to send, and nobody else is sending it."""
        if first_event(self.path) is None:
            return False
        if self._settled_size is None and (state := all_sent(self.path, store.location)) is not None:
            self._settled_size = size
            self.is_final = state.status == "FINISHED"
            return False
        self.is_settled = False
        (self.path / LOCK).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._held.enter_context(FileLock(self.path / LOCK, timeout=0))
        except Timeout:
            return False
        board = self._held.enter_context(BoardWriter(self.path / "tensorboard"))
        self._feed = Feed(self.path, board)
        return True
