"""How the tool speaks: stdout is data, stderr is talk; colour and bars on a terminal alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def stderr() -> Console:
    """The console for talk. Rich honours NO_COLOR and knows whether this is a terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line of talk."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Something that a person should know before trusting the result."""
    if sys.stderr.isatty():
        from rich.markup import escape

        stderr().print(f"[bold yellow]warning[/]: {escape(text)}")
    else:
        say(f"warning: {text}")


def fail(message: str, hint: str | None) -> None:
    """The one line of an error, and what to do about it."""
    if sys.stderr.isatty():
        from rich.markup import escape

        stderr().print(f"[bold red]error[/]: {escape(message)}")
        if hint:
            stderr().print(f"\n[bold cyan]hint[/]: {escape(hint)}")
        return
    say(f"error: {message}")
    if hint:
        say(f"\nhint: {hint}")


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values in two columns on stdout; plain text, so that it pipes."""
    width = max((len(name) for name, value in rows if value), default=0)
    for name, value in rows:
        print(f"{name:<{width}}  {value}".rstrip())


def human_bytes(count: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("the loop returns at GiB")


def human_seconds(seconds: float) -> str:
    """75 -> '1 min 15 s'."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


class Bar:
    """A progress bar on a terminal; elsewhere nothing, for the plain lines tell it all."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._task: Any = None

    def update(self, label: str, done: int, total: int) -> None:
        """Show how far the work under this label is."""
        if self._progress is None:
            return
        if self._task is None:
            self._task = self._progress.add_task(label, total=total)
        self._progress.update(self._task, description=label, completed=done, total=total)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """A bar for as long as the block runs."""
    if not sys.stderr.isatty():
        yield Bar(None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True) as progress:
        yield Bar(progress)
