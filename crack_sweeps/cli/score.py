"""`sweeps score`: anybody's prediction images by our rules, and onto a leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from crack_sweeps.scoring import PredictionScores

_ORIGINS = {
    "validation": "chosen on validation photos",
    "given": "given",
    "oracle": "ORACLE: the best one on these very images, which flatters",
}


def score(
    predictions: Annotated[Path, typer.Argument(metavar="PRED_DIR", help="Folder of prediction images, 8-bit grey.")],
    masks: Annotated[Path, typer.Argument(metavar="MASK_DIR", help="Folder of masks, named like the predictions.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="How masks are read, such as data.mask.crack_values=[2]."),
    ] = None,
    protocol: Annotated[str, typer.Option(help="ours, or resize512-oracle: the looser one of published tables.")] = (
        "ours"
    ),
    threshold: Annotated[
        str, typer.Option(metavar="T", help="Crack where value / 255 >= T: 0.01 to 0.99, or oracle (best on these).")
    ] = "oracle",
    val: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="PRED_DIR MASK_DIR", help="Choose the threshold on these: validation photos."),
    ] = None,
    metrics: Annotated[str, typer.Option(help="headline (pixels alone) or all.")] = "all",
    resize: Annotated[bool, typer.Option("--resize", help="Bring predictions to the size of their masks.")] = False,
    add: Annotated[
        str | None, typer.Option(metavar="NAME", help="Put the scores on a leaderboard as an outside entry.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Whose leaderboard; the newest study's where none is named.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which of the study's photos these are: test or val.")] = "test",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Score prediction images of any model against masks."""
    from crack_sweeps import console, scoring
    from crack_sweeps.data.examiners import num_cores

    names: Any = {"protocol": protocol, "metrics": metrics, "split": split}  # checked against the names that exist
    with console.progress_bar() as bar:
        scores = scoring.score_predictions(
            predictions,
            masks,
            **names,
            threshold=_number(threshold),
            val=val,
            overrides=overrides or (),
            resize=resize,
            add=add,
            study=study,
            jobs=num_cores(),
            progress=bar.update,
        )
    if json:
        from json import dumps

        print(dumps(scores.as_dict(), indent=2, allow_nan=False))
    else:
        console.print_rows(_head(scores))
        print()
        console.print_table(_table(scores))
    for note in scores.notes:
        console.warn(note)
    if scores.entry is not None:
        console.say(f"\nentry {scores.entry.name} of study {scores.entry.study}, {scores.entry.split}")


def _number(threshold: str) -> Any:
    """A number, or the word for none."""
    from crack_sweeps.errors import UserError

    if threshold == "oracle":
        return threshold
    try:
        return float(threshold)
    except ValueError:
        raise UserError(f"--threshold {threshold}: neither a number nor oracle", hint="type 0.5, say") from None


def _head(scores: PredictionScores) -> list[tuple[str, str]]:
    """What was scored, and how."""
    from crack_sweeps.evaluation.protocols import PROTOCOLS

    figures = scores.metrics
    empty, alarms, missed = (figures[f"num_{name}"] for name in ("empty_masks", "false_alarms", "missed"))
    return [
        ("protocol", f"{scores.protocol}: {PROTOCOLS[scores.protocol].words}"),
        ("threshold", f"{scores.threshold:.2f}, {_ORIGINS[scores.threshold_origin]}"),
        ("images", f"{scores.num_images}; masks read as {scores.mask_rule}"),
        ("empty", f"{empty:.0f} without a crack ({alarms:.0f} of them with a false alarm); {missed:.0f} all missed"),
    ]


def _table(scores: PredictionScores) -> Any:
    """Each metric once, pooled and as the mean of images."""
    from crack_sweeps import console

    figures = {name: value for name, value in scores.metrics.items() if not name.startswith("num_")}
    names = dict.fromkeys(name.removesuffix("_image") for name in figures)
    rows = [(name, *(_cell(figures, key) for key in (name, f"{name}_image")), _over(scores, name)) for name in names]
    return console.Table(("metric", "pooled", "mean of images", "images"), rows)


def _over(scores: PredictionScores, name: str) -> str:
    """How many images the mean is over."""
    from crack_sweeps.evaluation.shapes import OVER_CRACK_IMAGES

    if f"{name}_image" not in scores.metrics:
        return ""
    return f"{scores.metrics['num_crack_images' if name in OVER_CRACK_IMAGES else 'num_images']:.0f}"


def _cell(figures: dict[str, float | None], key: str) -> str:
    """A figure to four places; `-` where there is nothing to measure, nothing where it makes no sense."""
    if key not in figures:
        return ""
    value = figures[key]
    return "-" if value is None else f"{value:.2f}" if "threshold" in key else f"{value:.4f}"
