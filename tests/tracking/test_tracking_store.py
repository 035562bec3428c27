"""A store is made once and whole, however many processes want it and whenever one dies."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from crack_sweeps.errors import StoreError
from crack_sweeps.tracking.location import store_location
from crack_sweeps.tracking.store import prepare_store

MAKE_A_RUN = """
from crack_sweeps.tracking.location import store_location
from crack_sweeps.tracking.store import prepare_store
location = store_location()
prepare_store(location)
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=location.uri)
run = client.create_run("0")
client.set_terminated(run.info.run_id)
"""


def use_at_once(count: int) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", MAKE_A_RUN], stderr=subprocess.PIPE) for _ in range(count)]
    errors = [process.communicate(timeout=280)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * count, errors


def num_finished() -> int:
    with closing(sqlite3.connect("mlruns/mlflow.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0])


def test_four_processes_at_once_on_a_fresh_store_all_work(here: Path) -> None:
    use_at_once(4)
    assert num_finished() == 4
    with closing(sqlite3.connect("mlruns/mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert not list(Path("mlruns").glob(".*")), "nothing half-made is left"


@pytest.mark.slow
def test_sixteen_processes_at_once_on_a_fresh_store_all_work(here: Path) -> None:
    use_at_once(16)
    assert num_finished() == 16


def test_what_a_killed_maker_left_behind_does_no_harm(here: Path) -> None:
    Path("mlruns").mkdir()
    Path("mlruns/.mlflow.db.new").write_bytes(b"half a database")
    Path("mlruns/.mlflow.db.new-wal").write_bytes(b"half a log")
    Path("mlruns/mlflow.db").touch()  # sqlite3 makes an empty file on opening
    prepare_store(store_location())
    with closing(sqlite3.connect("mlruns/mlflow.db")) as connection:
        (artifacts,) = connection.execute("SELECT artifact_location FROM experiments").fetchone()
    assert Path(artifacts.removeprefix("file://")) == here / "mlruns" / "artifacts" / "0"
    assert not list(Path("mlruns").glob(".*"))


def test_the_store_of_an_older_mlflow_is_copied_and_then_migrated(with_store: Path) -> None:
    from mlflow.store.db import utils

    newest = utils._get_latest_schema_revision()
    with closing(sqlite3.connect("mlruns/mlflow.db")) as connection:
        # The newest revision of MLflow 3.17 may only add; going back one and forward again must leave a working store.
        script = utils._get_alembic_config("")
        from alembic.script import ScriptDirectory

        older = ScriptDirectory.from_config(script).get_revision(newest).down_revision
    from alembic import command

    engine = utils.create_sqlalchemy_engine_with_retry(store_location().uri)
    config = utils._get_alembic_config(store_location().uri)
    with engine.begin() as migration:
        config.attributes["connection"] = migration
        command.downgrade(config, older)
    engine.dispose()
    prepare_store(store_location())
    with closing(sqlite3.connect("mlruns/mlflow.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(newest,)]
    with closing(sqlite3.connect(f"mlruns/mlflow.db.before-{older}")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(older,)]


def test_the_store_of_a_newer_mlflow_is_refused_and_left_alone(with_store: Path) -> None:
    with closing(sqlite3.connect("mlruns/mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(StoreError, match="ffffffffffff"):
        prepare_store(store_location())
