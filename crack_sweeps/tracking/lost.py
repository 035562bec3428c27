"""Runs that MLflow no longer has: the file of their store was deleted, or is another that was made since."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from crack_sweeps.tracking.feed import LOCK
from crack_sweeps.tracking.location import StoreLocation
from crack_sweeps.tracking.state import TRACKING, TrackingState, read_state, write_state
from crack_sweeps.tracking.store import existing


@dataclass(frozen=True)
class _Database:
    """What is in a store's file.

    Args:
        made_ms: When it was made, in milliseconds since 1970; infinite where it is gone, 0 where nobody can tell.
        run_ids: MLflow's, deleted ones in the bin included.
    """

    made_ms: float
    run_ids: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LostRuns:
    """Tells runs whose store is gone; opens each store's file once.

    Args:
        location: The store of now.
    """

    location: StoreLocation
    _known: dict[Path, _Database] = field(default_factory=dict)

    def state_of(self, run_dir: Path) -> TrackingState | None:
        """How far the run was sent to a store that is gone; None where its store is there, is a server, or is none."""
        state = read_state(run_dir)
        if state is None or state.run_id is None:
            return None
        file = self.location.database if state.store == self.location.shown else _file_of(state.store)
        if file is None:
            return None
        if file not in self._known:
            self._known[file] = _look(file)
        database = self._known[file]
        sent_ms = (run_dir / TRACKING).stat().st_mtime * 1000
        return state if sent_ms < database.made_ms and state.run_id not in database.run_ids else None

    def forget(self, run_dir: Path) -> bool:
        """Begin anew with a lost run: its next sending starts at the first event.

        All of them are to be forgotten before the first is sent: a run is nested under the id that another's
        `tracking.json` tells.

        Returns:
            Whether it was lost, and nobody is sending it.
        """
        if self.state_of(run_dir) is None:
            return False
        (run_dir / LOCK).parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(run_dir / LOCK, timeout=0):
                write_state(run_dir, TrackingState(store=self.location.shown))
        except Timeout:
            return False
        return True


def _file_of(shown: str) -> Path | None:
    path = shown.removeprefix("sqlite:///").partition("?")[0]
    return None if "://" in path else Path(path)


def _look(file: Path) -> _Database:
    if not file.is_file() or file.stat().st_size == 0:
        return _Database(math.inf)
    try:
        with closing(existing(file)) as connection:
            ((made,),) = connection.execute("SELECT MIN(creation_time) FROM experiments")
            run_ids = frozenset(str(run_id) for (run_id,) in connection.execute("SELECT run_uuid FROM runs"))
    except sqlite3.DatabaseError:  # damaged, or no store: told as such, and nobody knows what was in it
        return _Database(0.0)
    return _Database(float(made or 0), run_ids)
