"""A store is made once and whole, however many processes want it and whenever one dies."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from crack_sweeps.errors import StoreError
from crack_sweeps.tracking.location import store_location
from crack_sweeps.tracking.quiet import quiet_mlflow
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


FORKED = f"""
import os, sys
import mlflow.store.tracking.sqlalchemy_store  # imported once, so that all children are ready at the same moment
children = []
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        exec({MAKE_A_RUN!r})
        os._exit(0)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def use_at_once(count: int) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", MAKE_A_RUN], stderr=subprocess.PIPE) for _ in range(count)]
    errors = [process.communicate(timeout=280)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * count, errors


def num_finished() -> int:
    with closing(sqlite3.connect("mlruns/mlflow.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its processes; the slow suite starts them")
def test_six_processes_at_once_on_a_fresh_store_all_work(here: Path) -> None:
    subprocess.run([sys.executable, "-c", FORKED, "6"], check=True)
    assert num_finished() == 6
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
    quiet_mlflow()
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    newest = utils._get_latest_schema_revision()
    config = utils._get_alembic_config(store_location().uri)
    older = ScriptDirectory.from_config(config).get_revision(newest).down_revision
    engine = utils.create_sqlalchemy_engine_with_retry(store_location().uri)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
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
