"""`sweeps leaderboard`: who wins, and is it real."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crack_sweeps.leaderboard.board import Board


def leaderboard(
    study: Annotated[
        str | None,
        typer.Argument(help="A study's name, with its version or without; the newest if none.", show_default=False),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="val or test; without it test, once the finalists of all arms have it.")
    ] = None,
    sort: Annotated[
        str, typer.Option(help="What ranks: crack_iou, crack_f1, crack_iou_image or crack_f1_image.")
    ] = "crack_iou",
    all_trials: Annotated[bool, typer.Option("--all", help="List every trial too, unranked.")] = False,
    drop_leaked: Annotated[
        bool, typer.Option("--drop-leaked", help="Leave out test images whose photo is in train or validation too.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a list of JSON objects on stdout.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every key of every row as CSV.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown page.")] = False,
) -> None:
    """Rank the arms of a study with 95 % intervals, and say who cannot be told from whom."""
    from crack_sweeps.errors import UserError

    chosen = [flag for flag, typed in {"--json": json, "--csv": as_csv, "--markdown": as_markdown}.items() if typed]
    if len(chosen) > 1:
        raise UserError(f"{' '.join(chosen)}: stdout holds one of them", hint="type it once for each")
    from crack_sweeps import console
    from crack_sweeps.leaderboard.board import board
    from crack_sweeps.leaderboard.wording import csv_text, markdown
    from crack_sweeps.study.folder import find_study

    found = board(find_study(study), split=split, sort=sort, all_trials=all_trials, drop_leaked=drop_leaked)
    if json:
        from json import dumps

        print(dumps(found.as_list(), indent=2, allow_nan=False))
    elif as_csv:
        print(csv_text(found), end="")
    elif as_markdown:
        print(markdown(found), end="")
    else:
        _print(found)
    for warning in found.warnings:
        console.warn(warning)


def _print(found: Board) -> None:
    from crack_sweeps import console
    from crack_sweeps.leaderboard.wording import answer, caveats, heading, table, trials_table

    print(f"{heading(found)}\n")
    console.print_table(table(found))
    print(f"\n{answer(found)}")
    for line in caveats(found):
        print(f"- {line}")
    if found.trials:
        print("\nall trials, on validation")
        console.print_table(trials_table(found))
