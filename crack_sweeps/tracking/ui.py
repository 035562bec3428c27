"""The MLflow UI on this machine only, on the store that the runs are in."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

from crack_sweeps.errors import StoreError, SweepsError
from crack_sweeps.tracking.location import StoreLocation, store_location
from crack_sweeps.tracking.quiet import quiet_mlflow

HOST = "127.0.0.1"


def ui_command(port: int) -> list[str]:
    """What to run. It makes the store first where there is none, so that the UI opens before the first run too.

    Raises:
        StoreError: The runs are on a server, which has a UI of its own.
    """
    _require_no_server(store_location())
    return [sys.executable, "-m", "crack_sweeps.tracking.ui", "--port", str(port)]


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
    quiet_mlflow()
    try:
        location = store_location()
        _require_no_server(location)
        from crack_sweeps.tracking.store import prepare_store

        prepare_store(location)
    except SweepsError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
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
