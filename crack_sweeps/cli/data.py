"""`sweeps data`: check a folder of photos and masks, and import one so that experiments can use it by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Check folders of photos and masks; import them under a name.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_FOLDER = typer.Argument(metavar="PATH", help="The folder that holds photos and masks.")
_OVERRIDES = typer.Argument(metavar="[KEY=VALUE]...", help="How masks are read, such as data.mask.threshold=128.")
_JSON = typer.Option("--json", help="Print one JSON object on stdout.")


@app.command()
def check(
    path: Annotated[Path, _FOLDER],
    overrides: Annotated[list[str] | None, _OVERRIDES] = None,
    preview: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a PNG of a few pairs: photo, and mask painted on it.")
    ] = None,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Say what a folder of photos and masks holds, what is wrong with it, and which setting reads it right.

    Exit code 2 where a training would refuse it.
    """
    from crack_sweeps import console
    from crack_sweeps.cli.data_words import check_rows, finding_lines, has_errors, next_step
    from crack_sweeps.data.check import examine_set, refusal_of, report
    from crack_sweeps.errors import UserError
    from crack_sweeps.specs.data_settings import data_settings

    data = data_settings(overrides or ())
    if preview is not None and not preview.parent.is_dir():  # told before a minute of work, not after
        raise UserError(f"--preview {preview}: there is no folder {preview.parent}", hint="make it, or name another")
    with console.progress_bar() as bar:
        seen = examine_set(
            path, data, num_processes=None, progress=lambda done, total: bar.update("pairs", done, total)
        )
    found = report(seen, data)
    if json:
        from json import dumps

        print(dumps(found.as_dict(), indent=2, allow_nan=False))
    else:
        console.print_rows(check_rows(found))
        for line in finding_lines(found):
            print(line)
    if preview is not None:
        from crack_sweeps.data.contact_sheet import write_preview

        console.say(f"\n{len(write_preview(seen, preview))} pairs are shown in {preview}")
    if not found.num_usable:
        raise typer.Exit(2)
    typed = [*(overrides or ()), *([found.setting] if found.setting else [])]
    refusal = None if has_errors(found) else refusal_of(path, data_settings(typed))
    if not json:
        console.say(f"\n{next_step(found, path, refusal)}")
    if has_errors(found) or refusal is not None:
        raise typer.Exit(2)


@app.command("import")
def import_(
    path: Annotated[Path, _FOLDER],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="The name that --data and data.path know it by.")],
    overrides: Annotated[list[str] | None, _OVERRIDES] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="Whose masks and names these are: deepcrack, crack500, crackforest, crackmap, nha12d, uav75, sut130, "
            "masonry, asphaltcrack300, crackseg9k or plain.",
        ),
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV that names the photo of each `file`; else PATH/groups.csv.")
    ] = None,
    group_column: Annotated[str, typer.Option(metavar="COLUMN", help="The column of that table.")] = "group",
    test_fraction: Annotated[float, typer.Option(help="Share held out where there is no official test split.")] = 0.2,
    keep_leaks: Annotated[
        bool, typer.Option("--keep-leaks", help="Keep in train and val what the official test split shows too.")
    ] = False,
    leave_out: Annotated[bool, typer.Option("--leave-out", help="Leave out files that cannot be used.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files; without it they stay where they are.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Import anew under a name that is taken.")] = False,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Give a folder of photos a name, with its mask rule, groups and leak-free splits written down."""
    from crack_sweeps import console
    from crack_sweeps.cli.data_words import import_rows
    from crack_sweeps.data.importing import import_data

    with console.progress_bar() as bar:
        made = import_data(
            path,
            name=name,
            settings=overrides or (),
            preset=preset,
            groups=groups,
            group_column=group_column,
            test_fraction=test_fraction,
            keep_leaks=keep_leaks,
            leave_out=leave_out,
            copy=copy,
            replace=replace,
            num_processes=None,
            progress=lambda done, total: bar.update("pairs", done, total),
        )
    for line in made.left_out:
        console.say(line)
    for warning in made.warnings:
        if warning not in made.left_out:
            console.warn(warning)
    if json:
        from json import dumps

        print(dumps(made.as_dict(), indent=2, allow_nan=False))
    else:
        console.print_rows(import_rows(made))
        console.say(f"\ntrain on it: sweeps run swinv2_hybrid --data {name}")
