"""Where the store is, what may be shown of it, and where SQLite must not stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from crack_sweeps.errors import StoreError
from crack_sweeps.tracking.location import mask, network_file_system, require_local, store_location

MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/me/local\\040disk xfs rw 0 0
me@host:/ /mnt/remote fuse.sshfs rw 0 0
C:\\134 /mnt/c 9p rw 0 0
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mounts"
    path.write_text(MOUNTS)
    return path


def test_the_store_is_mlruns_unless_something_else_is_named(here: Path) -> None:
    location = store_location({})
    assert location.uri == f"sqlite:///{here.as_posix()}/mlruns/mlflow.db?timeout=60"
    assert location.shown == "mlruns/mlflow.db"
    assert location.artifacts == here / "mlruns" / "artifacts"


def test_sweeps_store_moves_the_database_and_not_the_artifacts(here: Path) -> None:
    location = store_location({"SWEEPS_STORE": "/local/dir"})
    assert location.database == Path("/local/dir/mlflow.db")
    assert location.artifacts == here / "mlruns" / "artifacts"


def test_a_tracking_uri_wins_over_everything() -> None:
    location = store_location({"MLFLOW_TRACKING_URI": "http://host:5000", "SWEEPS_STORE": "/local/dir"})
    assert (location.uri, location.database, location.lock) == ("http://host:5000", None, None)


def test_a_named_sqlite_file_gets_the_long_timeout_and_keeps_its_own() -> None:
    assert store_location({"MLFLOW_TRACKING_URI": "sqlite:////a/b.db"}).uri == "sqlite:////a/b.db?timeout=60"
    own = "sqlite:////a/b.db?timeout=5"
    assert store_location({"MLFLOW_TRACKING_URI": own}).uri == own


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "/tmp/mlruns", "mlruns"])
def test_a_plain_folder_is_refused_with_the_way_out(uri: str) -> None:
    with pytest.raises(StoreError) as caught:
        store_location({"MLFLOW_TRACKING_URI": uri})
    assert uri in caught.value.message
    assert "sqlite:///" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:pa55@host:5000/x", "http://***@host:5000/x"),
        ("http://token@host/x", "http://***@host/x"),
        ("postgresql+psycopg2://u:p%40q@h/db?password=zzz&sslmode=require", "postgresql+psycopg2://***@h/db?password=***&sslmode=require"),
        ("at http://h/?token=abc and http://a:b@h", "at http://h/?token=*** and http://***@h"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("sqlite:////a/b.db?timeout=60", "sqlite:////a/b.db?timeout=60"),
    ],
)  # fmt: skip
def test_secrets_in_addresses_are_blanked_out_and_nothing_else(text: str, expected: str) -> None:
    assert mask(text, {}) == expected


def test_values_of_secret_variables_are_blanked_out() -> None:
    environ = {"MLFLOW_TRACKING_TOKEN": "hunter2hunter2", "HOME": "/home/me", "MY_TOKEN_SWITCH": "true"}
    assert mask("Bearer hunter2hunter2 from /home/me, true", environ) == "Bearer *** from /home/me, true"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/var/x", None),
        ("/home/me/project", "nfs4"),
        ("/home/me/local disk/x", None),
        ("/mnt/remote/x", "fuse.sshfs"),
        ("/mnt/c/x", "9p"),
    ],
)
def test_network_file_systems_are_told_by_the_innermost_mount(mounts: Path, path: str, expected: str | None) -> None:
    assert network_file_system(Path(path), mounts) == expected


def test_a_database_on_a_network_file_system_is_refused_and_a_server_is_not(mounts: Path) -> None:
    with pytest.raises(StoreError) as caught:
        require_local(store_location({"SWEEPS_STORE": "/home/me"}), mounts)
    assert "nfs4" in caught.value.message
    assert "SWEEPS_STORE" in str(caught.value.hint)
    require_local(store_location({"MLFLOW_TRACKING_URI": "http://host"}), mounts)
    require_local(store_location({"SWEEPS_STORE": "/var"}), mounts)


def test_a_system_without_a_mount_table_is_taken_as_local(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, tmp_path / "absent") is None


def test_what_the_command_line_imports_loads_neither_mlflow_nor_torch() -> None:
    code = (
        "import sys, crack_sweeps.tracking.start, crack_sweeps.tracking.ui\n"
        "from crack_sweeps.tracking.location import store_location\n"
        "store_location()\n"
        "print(*sorted({'mlflow', 'torch', 'tensorboard', 'sqlalchemy', 'pandas'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == ""
