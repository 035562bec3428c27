"""`sweeps predict`: the cracks in photos of any size."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crack_sweeps.deploy.predict import PhotoPrediction

SOME_UNREADABLE = 3
INTERRUPTED = 130
LONGEST_NAME = 48  # in the table; the CSV and --json have it whole


def predict(
    run: Annotated[str, typer.Argument(help="A finished run: name, unique prefix, MLflow id, or trial STUDY/21.")],
    photos: Annotated[Path, typer.Argument(help="A photo, or a folder of photos.")],
    out: Annotated[Path, typer.Option(help="Folder for probability/, mask/, overlay/ and cracks.csv.")],
    threshold: Annotated[
        float | None, typer.Option(metavar="P", help="Where probability becomes crack; else the run's own.")
    ] = None,
    mm_per_px: Annotated[
        float | None, typer.Option(metavar="MM", help="Size of a pixel on the surface: lengths and widths in mm too.")
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="See each tile in its eight flips and rotations.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there and differ.")] = False,
    profile: Annotated[str, typer.Option(help="auto, cpu, gpu-8gb, gpu-24gb or gpu-80gb.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list on stdout.")] = False,
) -> None:
    """Find the cracks in photos of any size: probability, mask, overlay, and a table of lengths and widths."""
    from crack_sweeps import console

    _check(run, photos, out, threshold, mm_per_px, profile)  # most mistakes are in here, and are told before torch
    console.say("loading torch and friends ...")
    from crack_sweeps.deploy.predict import Began, nothing_readable, predicting
    from crack_sweeps.specs.words import printable

    predictions: list[PhotoPrediction] = []
    num_photos = 0
    updates = predicting(
        run,
        photos,
        out=out,
        threshold=threshold,
        mm_per_px=mm_per_px,
        tta=tta,
        overwrite=overwrite,
        profile=profile,
        notify=console.say,
    )
    try:
        with closing(updates), console.progress_bar() as bar:
            for update in updates:
                if isinstance(update, Began):
                    num_photos = update.num_photos
                    origin = "given" if threshold is not None else "chosen on the run's validation photos"
                    console.say(f"run {update.run} on {update.device}, threshold {update.threshold:.2f}, {origin}")
                else:
                    predictions.append(update)
                    if update.error is not None:
                        console.warn(f"{printable(update.error)}; skipped")
                bar.update("predicting photos", len(predictions), num_photos)
    except KeyboardInterrupt:
        console.say(f"interrupted: the results of {len(predictions)} of {num_photos} photos are in {out}")
        raise typer.Exit(INTERRUPTED) from None
    failed = [prediction for prediction in predictions if prediction.error is not None]
    if len(failed) == len(predictions):
        raise nothing_readable(predictions)
    _print(predictions, mm_per_px, as_json=json)
    console.say(f"\nprobability/, mask/, overlay/ and cracks.csv of {_count(len(predictions) - len(failed))} in {out}")
    if failed:
        console.say(f"{_count(len(failed))} skipped: {', '.join(_name(one) for one in failed)}")
        raise typer.Exit(SOME_UNREADABLE)


def _check(run: str, photos: Path, out: Path, threshold: float | None, mm_per_px: float | None, profile: str) -> None:
    from crack_sweeps.deploy.out_folder import OutFolder
    from crack_sweeps.deploy.photo_files import find_photos
    from crack_sweeps.deploy.trained import find_trained
    from crack_sweeps.deploy.typed import check_profile, check_scale, check_threshold

    check_threshold(threshold)
    check_scale(mm_per_px)
    check_profile(profile)
    find_trained(run)
    find_photos(photos)
    OutFolder(out, overwrite=False).check()


def _print(predictions: Sequence[PhotoPrediction], mm_per_px: float | None, *, as_json: bool) -> None:
    """A JSON list, or a table for people; both hold the photos that were skipped."""
    if as_json:
        from json import dumps

        print(dumps([prediction.as_dict() for prediction in predictions], indent=2, allow_nan=False))
        return
    from crack_sweeps import console

    unit = "px" if mm_per_px is None else "mm"
    columns = ("photo", "crack share", "length", "mean width", "greatest width")
    rows: list[tuple[str, ...]] = []
    for one in predictions:
        if one.crack_share is None:
            rows.append((_name(one), "not read", "", "", ""))
            continue
        figures = (
            (one.crack_length_px, one.crack_width_px, one.crack_max_width_px)
            if mm_per_px is None
            else (one.crack_length_mm, one.crack_width_mm, one.crack_max_width_mm)
        )
        sizes = ("" if figure is None else f"{figure:,.1f} {unit}" for figure in figures)
        rows.append((_name(one), f"{one.crack_share:.2%}", *sizes))
    console.print_table(console.Table(columns, rows))


def _name(prediction: PhotoPrediction) -> str:
    """The photo's name on one line, with its middle left out where it is very long."""
    from crack_sweeps.specs.words import printable

    name = printable(Path(prediction.photo).name)
    return name if len(name) <= LONGEST_NAME else f"{name[:30]}…{name[-(LONGEST_NAME - 31) :]}"


def _count(number: int) -> str:
    return f"{number} photo" if number == 1 else f"{number} photos"
