"""`sweeps ui`: MLflow's pages on the right store, for this machine alone."""

from __future__ import annotations

from typing import Annotated

import typer


def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 5000) -> None:
    """Open the MLflow UI on this project's store, on the loopback address."""
    import os
    import subprocess

    from crack_sweeps.tracking.ui import ui_command

    command = ui_command(port)
    if os.name == "nt":
        raise typer.Exit(subprocess.run(command, check=False).returncode)
    os.execv(command[0], command)
