"""`sweeps doctor`: what is wrong with this machine, its stores and its runs, and what to do."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Send unsent events and close dead runs; deletes nothing.")
    ] = False,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Database of a study's trials, where it has a password.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list on stdout.")] = False,
) -> None:
    """Look at device, driver, stores, disk, versions, and at what a crash left."""
    from crack_sweeps import console
    from crack_sweeps import doctor as examination

    if fix:
        for done in examination.fix(storage=storage):
            console.say(f"{'fixed' if done.verdict == 'ok' else done.verdict}  {done.subject}: {done.text}")
    findings = list(examination.examine(storage=storage))
    if json:
        from dataclasses import asdict
        from json import dumps

        print(dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.verdict:<8} {finding.subject}: {finding.text}")
            if finding.remedy:
                print(f"{'':<8} -> {finding.remedy}")
    if any(finding.verdict == "error" for finding in findings):
        raise typer.Exit(1)
