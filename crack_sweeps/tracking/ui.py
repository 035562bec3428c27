"""The MLflow UI on this machine only, on the store that the runs are in."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlencode

from crack_sweeps import console
from crack_sweeps.errors import StoreError, SweepsError, UserError
from crack_sweeps.tracking.connection import StoreConnection
from crack_sweeps.tracking.location import StoreLocation, store_location
from crack_sweeps.tracking.store import require_whole

HOST = "127.0.0.1"
# MLflow 3 opens on its pages for language models, whatever kind an experiment says it is, unless the address says this.
_TRAININGS = urlencode({"workflowType": "machine_learning"})
_START_S = 120.0  # a cold start takes 5 to 15 s


def ui_command(port: int) -> list[str]:
    """What to run. It makes the store first where there is none, so that the UI opens before the first run too.

    Raises:
        StoreError: The runs are on a server, which has a UI of its own; or the store's file is damaged.
        UserError: The port is taken: what answers there is somebody else's page.
    """
    location = store_location()
    _require_no_server(location)
    _require_free(port)
    require_whole(location)
    return [sys.executable, "-m", "crack_sweeps.tracking.ui", "--port", str(port)]


def page(port: int, experiment_id: str | None) -> str:
    """The address of an experiment's runs, or of the list of experiments, as training has it."""
    path = "experiments" if experiment_id is None else f"experiments/{experiment_id}/runs"
    return f"http://{HOST}:{port}/#/{path}?{_TRAININGS}"


def _newest_experiment(store: StoreConnection) -> str | None:
    """The experiment of the run that began last; None where there is no run."""
    with store.speaking():
        experiments = [experiment.experiment_id for experiment in store.client.search_experiments()]
        found = store.client.search_runs(experiments, max_results=1, order_by=["attributes.start_time DESC"])
    return str(found[0].info.experiment_id) if found else None


def has_desktop(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a person sits at this machine's own screen: there a browser may be opened."""
    if not sys.stderr.isatty() or "SSH_CONNECTION" in environ:
        return False
    return sys.platform in ("win32", "darwin") or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def _open_when_ready(port: int, address: str) -> None:
    """Open the browser once the server answers."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        connection = HTTPConnection(HOST, port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                webbrowser.open(address)
                return
        time.sleep(0.5)


def _require_free(port: int) -> None:
    if (why := _why_taken(port)) is not None:
        free = next((other for other in range(max(port + 1, 5000), 65536) if _why_taken(other) is None), None)
        hint = f"name another: `sweeps ui --port {free}`" if free is not None else "name another with --port"
        raise UserError(f"--port {port}: cannot be used on {HOST} ({why})", hint=hint)


def _why_taken(port: int) -> str | None:
    """Why nobody can listen there; None if one can."""
    with socket.socket() as listener:
        if sys.platform != "win32":  # there it would share the port; here it passes what the last server left behind
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            return error.strerror
    return None


def _require_no_server(location: StoreLocation) -> None:
    if location.uri.startswith(("http://", "https://")):
        raise StoreError(
            f"the runs are on the server {location.shown}", hint="open that address: it has a UI of its own"
        )


def main() -> int:
    """`python -m crack_sweeps.tracking.ui --port PORT`."""
    parser = argparse.ArgumentParser(prog="python -m crack_sweeps.tracking.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    port = parser.parse_args().port
    try:
        location = store_location()
        _require_no_server(location)
        address = page(port, _newest_experiment(StoreConnection()))
    except SweepsError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    console.say(f"MLflow: {address} (Ctrl-C ends it)")
    if has_desktop():
        threading.Thread(target=_open_when_ready, args=(port, address), daemon=True).start()
    # By environment, not by argument: the process list is open to everybody, and an address may hold a password.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = location.uri
    os.environ["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = os.fspath(location.artifacts or "mlruns/artifacts")
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # evaluation jobs of language models: none here
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command.append("--no-serve-artifacts")
    return _serve(command)


def _serve(command: list[str]) -> int:
    """Run the server until it or a signal ends it. Ctrl-C reaches it as SIGTERM: to SIGINT it answers in tracebacks."""
    if sys.platform == "win32":
        return subprocess.call(command)
    server = subprocess.Popen(command, start_new_session=True)

    def end(*_: object) -> None:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, end)
    code = server.wait()
    return 0 if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
