"""The report's tables: cells that know what they are sorted by, and the leaderboard with its intervals drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crack_sweeps.leaderboard.board import Board
from crack_sweeps.leaderboard.report.findings import Findings
from crack_sweeps.leaderboard.report.markup import Html, joined, tag
from crack_sweeps.leaderboard.report.words import figure, likelihood, memory, number, signed
from crack_sweeps.leaderboard.rows import BoardRow
from crack_sweeps.leaderboard.statistics import Figure

BAR_WIDTH, BAR_HEIGHT = 130, 18


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        title: What stands above it.
        kind: `number`, to the right, or `text`.
        explained: More about it, shown beside the pointer.
    """

    title: str
    kind: str = "number"
    explained: str | None = None


@dataclass(frozen=True)
class Cell:
    """A cell.

    Args:
        content: What is shown.
        value: What it is sorted by; None stands last, text that is shown needs none.
        below: A smaller line under it.
        kept_whole: Its words stay on one line.
    """

    content: str
    value: float | str | None = None
    below: str = ""
    kept_whole: bool = False


def table(
    columns: Sequence[Column], bodies: Sequence[Sequence[Sequence[Cell]]], *, name: str, sortable: bool = True
) -> Html:
    """A table.

    Args:
        columns: Of it.
        bodies: Groups of rows, which stay apart when it is sorted.
        name: Of its element.
        sortable: A click on a column's title sorts.
    """
    heads = [
        tag(
            "th",
            tag("button", column.title, type="button") if sortable else column.title,
            class_=column.kind,
            scope="col",
            title=column.explained,
        )
        for column in columns
    ]
    groups = [tag("tbody", *(_row(columns, cells) for cells in rows)) for rows in bodies if rows]
    whole = tag("table", tag("thead", tag("tr", *heads)), *groups, id=name, class_="sortable" if sortable else None)
    return tag("div", whole, class_="wide")


def _row(columns: Sequence[Column], cells: Sequence[Cell]) -> Html:
    return tag("tr", *(_cell(column, cell) for column, cell in zip(columns, cells, strict=True)))


def _cell(column: Column, cell: Cell) -> Html:
    below = tag("small", cell.below) if cell.below else Html()
    value = cell.value if cell.value is not None or column.kind == "number" else cell.content
    style = f"{column.kind} whole" if cell.kept_whole else column.kind
    return tag("td", cell.content, below, class_=style, data_value="" if value is None else str(value))


def swatch(colour: str) -> Html:
    """A small square in an arm's colour."""
    return tag("i", class_="swatch", style=f"background:{colour}")


def arm_cell(findings: Findings, arm: str, name: str | None = None) -> Cell:
    """An arm's name in its colour."""
    content = joined([swatch(findings.colour(arm)), name if name is not None else arm])
    return Cell(content, value=name if name is not None else arm, kept_whole=True)


# --- the leaderboard -----------------------------------------------------------------------------

_COLUMNS = (
    Column("rank", explained="rows that cannot be told from the leader share its rank"),
    Column("arm", "text"),
    Column("crack IoU", explained="pooled: the pixels of all images together"),
    Column("95 % interval", "text", "over images and seeds"),
    Column("against the leader", "text"),
    Column("IoU, mean of images", explained="mean of the images' own crack IoU"),
    Column("crack F1", explained="pooled"),
    Column("F1, mean of images"),
    Column("seeds", explained="trainings that the figures are means of"),
    Column("trials", explained="that the arm's search trained, with their epochs"),
    Column("hours", explained="of training, search and finalists"),
    Column("peak memory"),
    Column("crops/s", explained="trained per second, median of the trainings"),
    Column("params, M"),
)


def leaderboard(findings: Findings, board: Board) -> Html:
    """The ranked rows, then those below the line."""
    ends = _ends(board)
    ranked = [_board_row(findings, board, row, ends) for row in board.ranked]
    below = [_board_row(findings, board, row, ends) for row in board.below]
    return table(_COLUMNS, [ranked, below], name="ranking")


def _board_row(findings: Findings, board: Board, row: BoardRow, ends: tuple[float, float]) -> list[Cell]:
    hours, speed, params = row.gpu_hours, row.images_per_s, row.num_params
    is_arm = row.rank is not None or row.kind in ("finalist", "trial")
    return [
        Cell(_rank(row, board), row.rank),
        Cell(
            joined([swatch(findings.colour(row.arm)), row.arm if is_arm else row.name]),
            value=row.arm,
            below=row.name if is_arm else {"floor": "learns nothing"}.get(row.kind, row.kind),
            kept_whole=True,
        ),
        _figure_cell(row, "crack_iou"),
        Cell(interval_bar(row, board.sort, ends, findings.colour(row.arm)), value=getattr(row, board.sort)),
        Cell(against_leader(row, board), _difference(row)),
        _figure_cell(row, "crack_iou_image"),
        _figure_cell(row, "crack_f1"),
        _figure_cell(row, "crack_f1_image"),
        Cell(number(row.num_seeds), row.num_seeds),
        Cell(number(row.num_trials), row.num_trials, f"{row.num_epochs} ep." if row.num_epochs is not None else ""),
        Cell(number(hours, ".2f"), hours),
        Cell(memory(row.vram_peak_bytes), row.vram_peak_bytes),
        Cell(number(speed, ".1f"), speed),
        Cell("–" if params is None else f"{params / 1e6:.1f}", params),
    ]


def _rank(row: BoardRow, board: Board) -> str:
    is_shared = row.rank == 1 and any(other.tied_with_leader for other in board.ranked)
    return number(row.rank) + ("=" if is_shared else "")


def _figure_cell(row: BoardRow, name: Figure) -> Cell:
    estimate = row.figure(name)
    if estimate is None:
        return Cell("–")
    known = estimate.low is not None and estimate.high is not None
    return Cell(
        figure(estimate.value), estimate.value, f"{estimate.low:.3f}–{estimate.high:.3f}" if known else "no interval"
    )


def against_leader(row: BoardRow, board: Board) -> str:
    """How a row compares with the leader, in words."""
    if row.rank is None:
        return "; ".join(note for note in row.notes if note) or "not ranked"
    if row is board.ranked[0]:
        return "leads"
    said = "cannot be told from it" if row.tied_with_leader else "behind"
    if row.difference is None:
        return said
    told = f"{said}: {row.difference:.3f} less"
    if row.difference_low is not None and row.difference_high is not None:
        told += f" ({signed(row.difference_low)} to {signed(row.difference_high)})"
    return told if row.p_value is None else f"{told}, {likelihood(row.p_value)}"


def _difference(row: BoardRow) -> float | str:
    return "" if row.rank is None else row.difference if row.difference is not None else 0.0


def _ends(board: Board) -> tuple[float, float]:
    """The stretch that intervals are drawn on: that of the ranked rows."""
    values = [
        bound
        for row in board.ranked
        if (estimate := row.figure(board.sort)) is not None
        for bound in (estimate.value, estimate.low, estimate.high)
        if bound is not None
    ]
    low, high = min(values), max(values)
    air = 0.08 * (high - low) or 0.05
    return max(0.0, low - air), min(1.0, high + air)


def interval_bar(row: BoardRow, name: Figure, ends: tuple[float, float], colour: str) -> Html:
    """A line from low to high with a dot at the figure; an arrow where it lies beyond the stretch."""
    estimate = row.figure(name)
    if estimate is None:
        return Html()
    low, high = ends

    def x(value: float) -> float:
        return round(6 + (BAR_WIDTH - 12) * (value - low) / (high - low), 1)

    y = BAR_HEIGHT / 2
    parts: list[Html] = [_line(6, BAR_WIDTH - 6, y, "#e4e4e7", 1)]
    if low <= estimate.value <= high:
        if estimate.low is not None and estimate.high is not None:
            parts.append(_line(max(6, x(estimate.low)), min(BAR_WIDTH - 6, x(estimate.high)), y, colour, 2.4))
        parts.append(tag("circle", cx=x(estimate.value), cy=y, r=4, fill=colour))
    else:
        tip, back = (2, 9) if estimate.value < low else (BAR_WIDTH - 2, BAR_WIDTH - 9)
        parts.append(tag("path", d=f"M{tip},{y} L{back},{y - 4} L{back},{y + 4} Z", fill=colour))
    return tag(
        "svg", *parts, width=BAR_WIDTH, height=BAR_HEIGHT, viewBox=f"0 0 {BAR_WIDTH} {BAR_HEIGHT}", aria_hidden="true"
    )


def _line(x1: float, x2: float, y: float, colour: str, width: float) -> Html:
    return tag("line", x1=x1, x2=x2, y1=y, y2=y, stroke=colour, stroke_width=width, stroke_linecap="round")


def scale_said(board: Board) -> str:
    """What the drawn intervals' ends are."""
    low, high = _ends(board)
    return f"The intervals are drawn from {low:.3f} to {high:.3f}; an arrow lies beyond."


def rows_of(pairs: Iterator[tuple[str, str]] | Sequence[tuple[str, str]], *, name: str) -> Html:
    """Names and values."""
    return tag("table", *(tag("tr", tag("th", key, scope="row"), tag("td", value)) for key, value in pairs), id=name)
