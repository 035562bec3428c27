"""`sweeps evaluate`: a finished run, scored on a split of its photos or on another set."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from crack_sweeps.deploy.evaluate import EvaluationRecord

INTERRUPTED = 130


def evaluate(
    run: Annotated[str, typer.Argument(help="A finished run: name, unique prefix, MLflow id, or trial STUDY/21.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="How --data's masks are read, such as data.mask.crack_values=[2]."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val, test or all; of --data all of it, unless one is named.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Another set of photos and masks than the one that was trained on.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="T", help="0.01 to 0.99; else what the run chose on validation.")
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="See each tile in its eight flips and rotations.")] = False,
    profile: Annotated[str, typer.Option(help="auto, cpu, gpu-8gb, gpu-24gb or gpu-80gb.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Score a finished run on a split of its photos or on another set; the scores are kept with the run."""
    from crack_sweeps import console
    from crack_sweeps.deploy.trained import find_trained
    from crack_sweeps.deploy.typed import check_profile, check_scored, check_two_decimals

    which = check_scored(split, data, overrides or ())  # mistakes are told before torch is loaded
    check_two_decimals(threshold)
    check_profile(profile)
    find_trained(run)
    console.say("loading torch and friends ...")
    options: dict[str, Any] = {"split": which, "data": data, "settings": overrides or (), "threshold": threshold}
    try:
        record = _watch(run, tta=tta, profile=profile, **options)
    except KeyboardInterrupt:
        console.say("interrupted: nothing was kept")
        raise typer.Exit(INTERRUPTED) from None
    if json:
        from json import dumps

        print(dumps(record.as_dict(), indent=2, allow_nan=False))
    else:
        from crack_sweeps.cli.figures import figures_table

        console.print_rows(_rows(record))
        print()
        console.print_table(figures_table(record.metrics))
    _tell_test(record)


def _watch(run: str, **options: Any) -> EvaluationRecord:
    """Score and show how it goes."""
    from crack_sweeps import console
    from crack_sweeps.deploy.evaluate import EvaluationRecord, evaluating

    with closing(evaluating(run, notify=console.say, **options)) as updates, console.progress_bar() as bar:
        for update in updates:
            if isinstance(update, EvaluationRecord):
                return update
            bar.update("scoring whole photos", update.done, update.total)
    raise AssertionError("an evaluation ends with a record or an error")


def _rows(record: EvaluationRecord) -> list[tuple[str, str]]:
    from crack_sweeps.cli.figures import counts_line

    data = record.data
    origin = "chosen on the run's validation photos" if record.threshold_origin == "validation" else "given"
    if record.tta:
        origin += "; eight flips and rotations, for which it was not chosen"
    which = "all" if data["split"] == "all" else f"{data['split']} split"
    rows = [
        ("run", record.run),
        ("scored on", f"{data['name']} ({which}): {data['num_photos']} photos, whole; crack is {data['mask_rule']}"),
        ("empty", counts_line(record.metrics)),
        ("threshold", f"{record.threshold:.2f}, {origin}"),
        ("kept as", f"{record.run_dir}/{record.files[0]}"),
        ("MLflow run", f"{record.run_id or 'not sent yet'}, figures {record.evaluation}/..."),
    ]
    if record.quick_look:
        rows.append(("note", "the run is a quick look: not to be ranked beside full runs"))
    return rows


def _tell_test(record: EvaluationRecord) -> None:
    """Test photos wear out: what is chosen by them is no longer measured by them."""
    from crack_sweeps import console

    if record.test_looks is not None:
        times = "once" if record.test_looks == 1 else f"{record.test_looks} times"
        console.say(
            f"\ntest has now been looked at {times} in this study, beside its finalists' own scoring; "
            "a run that is chosen by its test score has no test score any more"
        )
