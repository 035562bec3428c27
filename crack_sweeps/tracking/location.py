"""Where the tracking store is, without opening it: address, artifacts, what may be shown, network file systems."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from crack_sweeps.errors import StoreError

_FOLDER = Path("mlruns")
_DATABASE = "mlflow.db"
_BUSY_TIMEOUT_S = 60  # 5 s, SQLite's default here, loses writes at 32 writers under fsync load; 60 s lost none
_SQLITE = "sqlite:///"

_USER_PART = re.compile(r"(://)[^/\s\"'?#]*@")
_SECRET_QUERY = re.compile(
    r"(?i)([?&](?:password|passwd|pwd|sslpassword|token|access_token|api_?key|secret|sig|signature)=)[^&\s\"'#]+"
)
_SECRET_NAME = re.compile(r"(?i)(SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|CREDENTIAL)")
_SHORTEST_SECRET = 6  # a shorter value ("true", "1") would blank out ordinary words

# SQLite's locks are advisory there: two writers can both believe that they hold one.
_NETWORK_TYPES = frozenset(
    {"9p", "afs", "afpfs", "beegfs", "ceph", "cifs", "cvfs", "fhgfs", "glusterfs", "gpfs", "lustre", "ncpfs"}
    | {"nfs", "nfs3", "nfs4", "pvfs2", "smb2", "smb3", "smbfs"}
)


@dataclass(frozen=True)
class StoreLocation:
    """One tracking store.

    Args:
        uri: What MLflow is given; may hold a password, so it goes into no file and no message.
        shown: The same place, fit to be written and compared.
        database: The file, where the store is SQLite.
        artifacts: The folder of artifacts, where they lie beside the store.
        lock: Held by the one process that creates or migrates the store; None for a server, which does so itself.
    """

    uri: str
    shown: str
    database: Path | None
    artifacts: Path | None
    lock: Path | None


def store_location(environ: Mapping[str, str] = os.environ) -> StoreLocation:
    """The store that `MLFLOW_TRACKING_URI` names; otherwise `mlruns/mlflow.db`, or `$SWEEPS_STORE/mlflow.db`.

    Raises:
        StoreError: The address is of a kind that MLflow no longer takes, or cannot be written as an address.
    """
    uri = environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        database = Path(environ.get("SWEEPS_STORE") or _FOLDER) / _DATABASE
        return _sqlite(database, artifacts=_FOLDER / "artifacts", query="", shown=database.as_posix())
    if uri.startswith(_SQLITE):
        path, _, query = uri.removeprefix(_SQLITE).partition("?")
        return _sqlite(Path(path), artifacts=Path(path).parent / "artifacts", query=query, shown=mask(uri))
    scheme = uri.partition("://")[0] if "://" in uri else ""
    if scheme in ("", "file"):
        raise StoreError(
            f"MLFLOW_TRACKING_URI is {uri}: MLflow no longer keeps runs in a plain folder",
            hint=f"unset it for {_FOLDER / _DATABASE}, or name a server (http://...) or a database (sqlite:///...)",
        )
    if scheme in ("http", "https"):
        return StoreLocation(uri=uri, shown=mask(uri), database=None, artifacts=None, lock=None)
    lock = Path(tempfile.gettempdir()) / f"crack_sweeps-{sha256(uri.encode()).hexdigest()[:16]}.lock"
    return StoreLocation(uri=uri, shown=mask(uri), database=None, artifacts=_FOLDER / "artifacts", lock=lock)


def _sqlite(database: Path, *, artifacts: Path, query: str, shown: str) -> StoreLocation:
    absolute = Path(os.path.abspath(database))
    if "?" in str(absolute):
        raise StoreError(
            f"{absolute}: a folder with `?` in its name cannot hold the store",
            hint="name another folder with SWEEPS_STORE=/a/folder",
        )
    if "timeout=" not in query:
        query = f"{query}&timeout={_BUSY_TIMEOUT_S}" if query else f"timeout={_BUSY_TIMEOUT_S}"
    return StoreLocation(
        uri=f"{_SQLITE}{absolute.as_posix()}?{query}",
        shown=shown,
        database=absolute,
        artifacts=Path(os.path.abspath(artifacts)),
        lock=absolute.with_name(absolute.name + ".lock"),
    )


def require_local(location: StoreLocation, mounts: Path = Path("/proc/mounts")) -> None:
    """Refuse a SQLite store on a network file system, where its locks cannot be trusted.

    Raises:
        StoreError: It is on one; the hint names the way out.
    """
    if location.database is None:
        return
    kind = network_file_system(location.database, mounts)
    if kind is not None:
        raise StoreError(
            f"{location.database.parent} is on a network file system ({kind}), where SQLite loses data",
            hint="name a local folder with SWEEPS_STORE=/local/folder, or a server with MLFLOW_TRACKING_URI",
        )


def network_file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The type of the network file system that `path` is on (or will be); None for a local one.

    Only Linux and WSL2 tell; elsewhere the answer is None.
    """
    if not mounts.exists():
        return None
    resolved = path.resolve()
    best, kind = "", ""
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1])  # a space is \040 there
        if resolved.is_relative_to(point) and len(point) >= len(best):  # of two on one point, the later covers
            best, kind = point, fields[2]
    return kind if kind in _NETWORK_TYPES or kind.startswith("fuse.") else None


def mask(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Blank out user parts and secret query values of addresses, and the values of secret environment variables."""
    text = _USER_PART.sub(r"\1***@", text)
    text = _SECRET_QUERY.sub(r"\1***", text)
    for name, value in environ.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET and value in text:
            text = text.replace(value, "***")
    return text
