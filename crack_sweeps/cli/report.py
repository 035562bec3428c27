"""`sweeps report`: a study on one page, to be read, printed and attached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    study: Annotated[
        str | None,
        typer.Argument(help="A study's name, with its version or without; the newest if none.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; without it report.html in the study's folder.")
    ] = None,
) -> None:
    """Write a study's report: one HTML file that needs no network; its path is printed."""
    from crack_sweeps import console
    from crack_sweeps.leaderboard.report.write import write_report
    from crack_sweeps.study.folder import find_study

    folder = find_study(study)
    path = write_report(folder, out)
    console.say(f"study {folder.name}, {console.human_bytes(path.stat().st_size)}: open it in any browser")
    print(path)
