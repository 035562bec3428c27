"""A leaderboard in words: the answer in one sentence, the table that a person reads, Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import fields

from crack_sweeps.console import Table, human_bytes
from crack_sweeps.errors import UserError
from crack_sweeps.leaderboard.board import Board, board
from crack_sweeps.leaderboard.learned import best_floor, is_below
from crack_sweeps.leaderboard.records import read_records
from crack_sweeps.leaderboard.rows import BoardRow
from crack_sweeps.leaderboard.statistics import FIGURE_NAMES, FIGURES, Figure
from crack_sweeps.specs.words import listed
from crack_sweeps.study.folder import StudyFolder

SHORT_NAMES: dict[Figure, str] = {
    "crack_iou": "IoU",
    "crack_f1": "F1",
    "crack_iou_image": "IoU/image",
    "crack_f1_image": "F1/image",
}
UNKNOWN = "-"
TINY = 0.001  # p-values below it are not told apart


def label(row: BoardRow) -> str:
    """How a sentence names a row: an arm by its experiment, anything else by its own name."""
    return row.name if row.arm in ("floor", "outside") else row.arm


def heading(board: Board) -> str:
    """What the table is of."""
    images = _counted(board.num_images, "image")
    if board.num_photographs != board.num_images:
        images += f" of {_counted(board.num_photographs, 'photograph')}"
    if board.num_dropped is not None:
        images += f" ({_counted(board.num_dropped, 'leaked image')} left out)"
    photos = f" of {board.data}" if board.data is not None else ""
    where = "test" if board.split == "test" else "validation"
    quick = "quick looks, no results: " if board.quick_look else ""
    return f"{quick}study {board.study} on {where}, {images}{photos}"


def answer(board: Board) -> str:
    """Who wins, and whether it is real, in one sentence; and in another who has learned nothing."""
    return " ".join([_who_wins(board), *_below_floor(board)])


def _below_floor(board: Board) -> Iterator[str]:
    floor = best_floor(board.below, board.sort)
    lost = [row for row in board.ranked if is_below(row, floor, board.sort)]
    if floor is not None and lost:
        named = listed([f"{label(row)} ({row.value(board.sort):.3f})" for row in lost], "and")
        than = f"{floor.name}, which learns nothing and has {floor.value(board.sort):.3f}"
        yield f"{named} {'is' if len(lost) == 1 else 'are'} below {than}."


def _who_wins(board: Board) -> str:
    leader, *others = board.ranked
    figure = FIGURE_NAMES[board.sort]
    best = f"{label(leader)} has {figure} {_with_interval(leader, board.sort)}"
    if not others:
        return f"{best}, and nothing is ranked beside it."
    tied = [row for row in others if row.tied_with_leader]
    beaten = [row for row in others if not row.tied_with_leader]
    lost = listed([_behind(row) for row in beaten], "and") if beaten else ""
    if not tied:
        return f"{label(leader)} wins: {best.removeprefix(f'{label(leader)} has ')}; {lost}."
    same = f"{listed([label(row) for row in tied], 'and')} cannot be told from it"
    if not beaten:
        return f"No winner: {best}, and {same}."
    return f"{best} and {same}; {lost}."


def answer_of(folder: StudyFolder) -> str | None:
    """The same of a study, or why there is none; None where no trial is complete."""
    records = read_records(folder)
    if not any(row["outcome"] == "complete" for row in records.trials):
        return None
    try:
        return answer(board(folder, records=records))
    except UserError as error:  # the study ended all the same; what cannot be ranked is said in the answer's place
        return f"none: {error.message}"


def caveats(board: Board) -> list[str]:
    """How the table is to be read, in lines of their own."""
    seeds = {row.num_seeds for row in board.ranked}
    over = "images alone" if seeds == {1} else "images and seeds"
    if board.num_photographs != board.num_images:
        over = over.replace("images", "photographs")
    shared = "; rows of rank 1= cannot be told apart" if any(row.tied_with_leader for row in board.ranked) else ""
    intervals = f"intervals are 95 % over {over}" if board.num_photographs > 1 else "one photograph: no interval"
    lines = [f"{intervals}; {FIGURE_NAMES[board.sort]} ranks{shared}"]
    if board.split == "val":
        lines.append("selected on these images: settings, epochs and thresholds were chosen here, so figures flatter")
    noted: dict[str, list[str]] = {}
    for row in (*board.ranked, *board.below):
        for note in row.notes:
            noted.setdefault(note, []).append(label(row))
    lines += [f"{listed(labels, 'and')}: {note}" for note, labels in noted.items()]
    lines += [f"{row.arm} is {row.budget_note}: {_search(row, board)}" for row in board.ranked if _is_short(row)]
    return lines


def _is_short(row: BoardRow) -> bool:
    return row.budget_note in ("under-tuned", "untuned")


def _search(row: BoardRow, board: Board) -> str:
    if not row.num_trials:
        return "its settings are as shipped"
    largest = max(arm.num_epochs for arm in board.arms)
    return f"its search had {row.num_epochs} epochs, the longest {largest}"


def _behind(row: BoardRow) -> str:
    text = f"{label(row)} is {row.difference:.3f} behind"
    if row.difference_low is None or row.p_value is None:
        return text
    p = f"p < {TINY}" if row.p_value < TINY else f"p {row.p_value:.3f}"
    return f"{text} ({row.difference_low:.3f} to {row.difference_high:.3f}, {p})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# --- tables --------------------------------------------------------------------------------------


def table(board: Board) -> Table:
    """The ranked rows and those below the line."""
    others = [figure for figure in FIGURES if figure != board.sort]
    columns = ["rank", "name", "arm", f"{FIGURE_NAMES[board.sort]} (95 %)", *(SHORT_NAMES[o] for o in others)]
    columns += ["seeds", "trials", "hours", "memory", "images/s", "parameters"]
    shared = any(row.tied_with_leader for row in board.ranked)
    rows = [
        [
            _rank(row, shared=shared),
            row.name,
            row.arm,
            _with_interval(row, board.sort),
            *(_number(getattr(row, other), 3) for other in others),
            _number(row.num_seeds),
            _number(row.num_trials) + (f" {row.budget_note}" if _is_short(row) else ""),
            _number(row.gpu_hours, 2),
            human_bytes(row.vram_peak_bytes) if row.vram_peak_bytes is not None else UNKNOWN,
            _number(row.images_per_s, 1),
            f"{row.num_params / 1e6:.2f} M" if row.num_params is not None else UNKNOWN,
        ]
        for row in (*board.ranked, *board.below)
    ]
    return Table(columns, rows)


def trials_table(board: Board) -> Table:
    """All trials, as the ledger has them."""
    columns = ["trial", *(SHORT_NAMES[figure] for figure in FIGURES), "epochs", "hours", "outcome"]
    rows = [
        [
            row.name,
            *(_number(getattr(row, figure), 3) for figure in FIGURES),
            _number(row.num_epochs),
            _number(row.gpu_hours, 2),
            listed(row.notes),
        ]
        for row in board.trials
    ]
    return Table(columns, rows)


def _rank(row: BoardRow, *, shared: bool) -> str:
    if row.rank is None:
        return UNKNOWN
    return f"{row.rank}=" if row.rank == 1 and shared else str(row.rank)


def _with_interval(row: BoardRow, figure: Figure) -> str:
    found = row.figure(figure)
    if found is None:
        return UNKNOWN
    if found.low is None or found.high is None:
        return f"{found.value:.3f}"
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _number(value: float | None, digits: int = 0) -> str:
    return UNKNOWN if value is None else f"{value:.{digits}f}"


# --- files ---------------------------------------------------------------------------------------


def markdown(board: Board) -> str:
    """The board as a page of its own."""
    parts = [f"# Leaderboard: {heading(board)}", answer(board), "\n".join(_markdown_table(table(board)))]
    parts.append("\n".join(f"- {line}" for line in (*caveats(board), *(f"warning: {w}" for w in board.warnings))))
    if board.trials:
        parts += ["## All trials, on validation", "\n".join(_markdown_table(trials_table(board)))]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> Iterator[str]:
    yield _markdown_row(table.columns)
    yield _markdown_row(["---"] * len(table.columns))
    for row in table.rows:
        yield _markdown_row([str(cell) for cell in row])


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def csv_text(board: Board) -> str:
    """Every key of every row; what is null is empty, and lists are joined by semicolons."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [field.name for field in fields(BoardRow)]
    writer.writerow(columns)
    for row in board.rows:
        values = (getattr(row, column) for column in columns)
        writer.writerow(["; ".join(map(str, value)) if isinstance(value, tuple) else value for value in values])
    return text.getvalue()
