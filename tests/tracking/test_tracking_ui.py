"""`sweeps ui` says in one line, before anything starts, why it cannot open."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from crack_sweeps.cli.app import run_command_line
from crack_sweeps.tracking.ui import HOST, ui_command


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def test_a_port_that_is_taken_is_one_line_that_names_another(
    here: Path, taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["ui", "--port", str(taken)]) == 2
    said = capsys.readouterr()
    first, _, hint = said.err.splitlines()
    assert first == f"error: --port {taken}: cannot be used on 127.0.0.1 (Address already in use)"
    assert said.out == ""
    other = int(hint.rstrip("`").rpartition(" ")[2])
    assert ui_command(other)[-1] == str(other)
    assert not list(here.iterdir()), "nothing was made"


@pytest.mark.parametrize("damage", ["no database", "torn pages"])
def test_a_damaged_store_is_one_line(with_store: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    database = with_store / "mlruns" / "mlflow.db"
    content = database.read_bytes()
    page = 4096
    database.write_bytes(b"not a database " * 99 if damage == "no database" else content[:page] + bytes(9 * page))
    assert run_command_line(["ui", "--port", str(_free())]) == 2
    first, _, hint = capsys.readouterr().err.splitlines()
    assert first.startswith("error: mlruns/mlflow.db: is damaged (")
    assert "sweeps doctor --fix" in hint


def test_a_store_that_is_damaged_is_refused_where_it_is_opened(here: Path) -> None:
    from crack_sweeps.errors import StoreError
    from crack_sweeps.tracking.connection import StoreConnection

    (here / "mlruns").mkdir()
    (here / "mlruns" / "mlflow.db").write_bytes(b"not a database " * 99)
    with pytest.raises(StoreError, match="is damaged") as caught:
        StoreConnection()
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)


def _free() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])
