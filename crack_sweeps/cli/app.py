"""The command `sweeps`: its verbs, and how each mistake ends."""

from __future__ import annotations

import errno
import os

import typer

from crack_sweeps.cli import (
    data,
    doctor,
    estimate,
    evaluate,
    leaderboard,
    predict,
    report,
    run,
    score,
    spec,
    study,
    trials,
    ui,
)
from crack_sweeps.errors import SweepsError

app = typer.Typer(
    name="sweeps",
    help="Train, search and honestly compare crack-segmentation models.",
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("study")(study.study)
app.command("status")(trials.status)
app.command("watch")(trials.watch)
app.command("stop")(trials.stop)
app.command("explain")(trials.explain)
app.command("diff")(trials.diff)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("report")(report.report)
app.add_typer(data.app, name="data")
app.add_typer(spec.app, name="spec")
app.command("estimate")(estimate.estimate)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("score")(score.score)
app.command("ui")(ui.ui)
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def top(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Train, search and honestly compare crack-segmentation models."""
    if version:
        from importlib.metadata import version as installed

        print(f"crack_sweeps {installed('crack_sweeps')}")
        raise typer.Exit


def run_command_line(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 1 failed, 2 the user's mistake, 3 done but some trials failed, 4 nothing fits the memory
        budget, 130/143 interrupted with a checkpoint.
    """
    from crack_sweeps import console

    try:
        result = app(arguments, prog_name="sweeps", standalone_mode=False)
    except SweepsError as error:
        console.fail(error.message, error.hint)
        return error.exit_code
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or error.filename is None:
            raise
        console.fail(
            f"{error.filename}: {os.strerror(error.errno).lower()}",
            "work in a folder that you may write to, or ask for the right to this one",
        )
        return 2
    except typer.TyperException as error:
        message = error.format_message()
        if message:
            console.fail(
                message[:1].lower() + message[1:].rstrip("."),
                "`sweeps --help` and `sweeps COMMAND --help` show what there is",
            )
        return 2
    return result if isinstance(result, int) else 0
