"""Create and migrate the tracking store: one process at a time, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from filelock import FileLock

from crack_sweeps.errors import StoreError
from crack_sweeps.tracking.location import StoreLocation, mask, require_local
from crack_sweeps.tracking.quiet import quiet_mlflow

_LOCK_TIMEOUT_S = 600.0  # creation takes about 2 s of CPU; 16 processes wait for each other's turn


def prepare_store(location: StoreLocation) -> None:
    """Make the store ready for use; harmless when it is.

    MLflow on a fresh SQLite file races itself: of 8 processes at most 1 survives. So the schema is made under a lock,
    in a file beside, and renamed into place: neither a second process nor a crash ever sees half a schema.

    Raises:
        StoreError: The store stands on a network file system, is damaged, or a newer MLflow made it.
    """
    quiet_mlflow()
    if location.lock is None or location.artifacts is None:
        return  # a server looks after its own schema
    require_local(location)
    location.lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(location.lock, timeout=_LOCK_TIMEOUT_S):
        if location.database is None:
            _open(location.uri, location.artifacts)
            return
        if not location.database.exists() or location.database.stat().st_size == 0:
            _create(location.database, location.artifacts)
        try:
            _migrate(location.database, location)
        except sqlite3.OperationalError:  # locked, say, which may pass
            raise
        except sqlite3.DatabaseError as error:
            raise damaged(location, str(error)) from error
        _open(location.uri, location.artifacts)


def require_whole(location: StoreLocation) -> None:
    """Refuse a SQLite file that is damaged; reads all of it.

    Raises:
        StoreError: It is no database, or its pages do not fit together, or it cannot be opened.
    """
    database = location.database
    if database is None or not database.exists() or database.stat().st_size == 0:
        return
    try:
        with closing(existing(database)) as connection:
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        hint = "its folder must be writable for you; see who else uses it"
        raise StoreError(f"{location.shown}: cannot be opened ({error})", hint=hint) from error
    except sqlite3.DatabaseError as error:
        raise damaged(location, str(error)) from error
    if said != "ok":
        raise damaged(location, " ".join(said.split()))


def existing(database: Path) -> sqlite3.Connection:
    """A connection to a file that is there; none is made."""
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True, timeout=5)


def damaged(location: StoreLocation, text: str) -> StoreError:
    """What to do about a store's file that SQLite cannot read."""
    return StoreError(
        f"{location.shown}: is damaged ({text})",
        hint="move it aside; `sweeps doctor --fix` makes a new one and sends all runs to it",
    )


def _open(uri: str, artifacts: Path) -> None:
    """MLflow's own store object makes what is missing and checks the schema; its engine stays cached for the client."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, os.path.abspath(artifacts))


def _create(database: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with _staged(database) as staged:
        store = SqlAlchemyStore(f"sqlite:///{staged.as_posix()}", os.path.abspath(artifacts))
        store.engine.dispose()
        with closing(sqlite3.connect(staged)) as connection:  # WAL is a property of the file: set once, kept
            connection.execute("PRAGMA journal_mode=WAL")
        os.replace(staged, database)


@contextlib.contextmanager
def _staged(database: Path) -> Iterator[Path]:
    """A name to build the database under; what a crash left under it is removed before and after."""
    staged = database.with_name(f".{database.name}.new")
    names = [staged.with_name(staged.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    for name in names:
        name.unlink(missing_ok=True)
    try:
        yield staged
    finally:
        for name in names:
            name.unlink(missing_ok=True)


def _migrate(database: Path, location: StoreLocation) -> None:
    """Bring a store of an older MLflow to this one's schema, after a copy of it."""
    from alembic.util import CommandError
    from mlflow.store.db import utils

    with closing(sqlite3.connect(database, timeout=60)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "alembic_version" not in tables:
            return  # MLflow makes its tables in a database that has none
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        found = rows[0][0] if rows else None
        if found is None or found == utils._get_latest_schema_revision():
            return
        copy = database.with_name(f"{database.name}.before-{found}")
        if not copy.exists():
            with closing(sqlite3.connect(copy)) as target:
                connection.backup(target)
    engine = utils.create_sqlalchemy_engine_with_retry(location.uri)
    try:
        utils._upgrade_db(engine)
    except CommandError as error:
        raise StoreError(
            f"{location.shown}: its schema ({found}) is unknown to the installed MLflow ({mask(str(error))})",
            hint="a newer MLflow made it: install that one, or name another folder with SWEEPS_STORE=/a/folder",
        ) from error
    finally:
        engine.dispose()
