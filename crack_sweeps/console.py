"""How the tool speaks: stdout is data, stderr is talk; colour and bars on a terminal alone."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def stderr() -> Console:
    """The console for talk. Rich honours NO_COLOR and knows whether this is a terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line of talk. Where nobody hears it any more, whoever speaks goes on all the same."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # the terminal was closed, the reader of the pipe is gone, or a log's disk is full
        _leave_who_is_gone()


def _leave_who_is_gone() -> None:
    """Send to nowhere what goes to a closed terminal or pipe: each further write would end a training with an error."""
    if not hasattr(select, "poll"):  # Windows ends a console's programs with it
        return
    for number in (1, 2):
        poll = select.poll()
        poll.register(number, 0)
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)


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


def gib(count: float) -> str:
    """1610612736 -> '1.50 GiB': for figures that are close to each other."""
    return f"{count / 2**30:.2f} GiB"


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


# --- tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """A cell that shows how much of something is done: in figures, and on a terminal as a small bar too."""

    done: int
    total: int

    def __str__(self) -> str:
        return f"{self.done}/{self.total}"


Cell = str | Share


@dataclass(frozen=True)
class Table:
    """Columns and rows.

    Args:
        columns: Their names.
        rows: As many cells each as there are columns.
        elastic: The column that gives way where the terminal is narrow.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    elastic: int = 1


@dataclass(frozen=True)
class View:
    """What a live view shows: lines, a table if there is anything in it, lines."""

    above: Sequence[str]
    table: Table
    below: Sequence[str]


def print_table(table: Table) -> None:
    """A table on stdout; plain text, so that it pipes."""
    cells = [list(table.columns), *([str(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.columns))]
    for row in cells:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def live(draw: Callable[[], View], *, per_second: float = 2.0) -> Iterator[None]:
    """For as long as the block runs, a picture at the foot of the terminal; what is said meanwhile stands above it.

    Args:
        draw: Asked for the picture again and again, from another thread: it must not change anything.
        per_second: How often.
    """
    from rich.console import Console
    from rich.live import Live

    terminal = Console(stderr=True, highlight=False)
    with Live(get_renderable=lambda: _drawn(draw()), console=terminal, refresh_per_second=per_second, transient=True):
        yield


def _drawn(view: View) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table as RichTable
    from rich.text import Text

    def drawn(cell: Cell) -> RenderableType:
        if isinstance(cell, str):
            return Text(cell)
        row = RichTable.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=max(cell.total, 1), completed=cell.done, width=8), Text(str(cell)))
        return row

    parts: list[RenderableType] = [Text(line, style="bold", overflow="ellipsis", no_wrap=True) for line in view.above]
    if view.table.rows:
        table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True, header_style="dim")
        for number, column in enumerate(view.table.columns):
            table.add_column(
                column, no_wrap=True, overflow="ellipsis", ratio=1 if number == view.table.elastic else None
            )
        for row in view.table.rows:
            table.add_row(*(drawn(cell) for cell in row))
        parts.append(table)
    parts += [Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in view.below]
    return Group(*parts)
