"""The report's first words: who wins in one sentence, and what to know before believing it."""

from __future__ import annotations

from collections.abc import Iterator

from crack_sweeps.leaderboard import wording
from crack_sweeps.leaderboard.board import Board
from crack_sweeps.leaderboard.report.findings import Findings
from crack_sweeps.leaderboard.report.words import counted, figure
from crack_sweeps.leaderboard.unfinished import how_far
from crack_sweeps.specs.words import listed
from crack_sweeps.study.standing import State

_STATES: dict[State, str] = {
    "stopped": "was stopped before its end",
    "failed": "ended with an error",
    "interrupted": "was interrupted, and nobody searches any more",
}


def answer(findings: Findings) -> str:
    """Who wins, in the words of the leaderboard; or why nobody can say."""
    if findings.board is not None:
        return wording.answer(findings.board)
    assert findings.no_board is not None, "a study has a leaderboard or a reason for none"
    return f"There is no answer yet. {findings.no_board.message}."


def of_what(findings: Findings) -> str:
    """What the answer is about."""
    if findings.board is not None:
        return wording.heading(findings.board)
    name = findings.records.data.get("name")
    return f"study {findings.name}" + (f" on {name}" if name else "")


def caveats(findings: Findings) -> Iterator[str]:
    """What a reader must know before believing the answer, the gravest first."""
    board = findings.board
    if findings.quick_look:
        yield "a quick look: small models from scratch, for a few steps; it shows that all works, and is no result"
    yield from _state(findings)
    if board is None:
        return
    yield from _floors(board)
    yield from wording.caveats(board)[1:]  # the first says how the table is read, and stands below it
    yield from (warning for warning in board.warnings if warning != board.unfinished)  # _state has said it
    if findings.without_leaks is not None:
        yield _without_leaks(board, findings.without_leaks)


def _state(findings: Findings) -> Iterator[str]:
    standing = findings.standing
    told = how_far(standing)
    if standing.state == "running" and not findings.all_trained:
        yield f"the study is still running: {told}, {counted(len(standing.running), 'training')} under way"
    elif standing.state in _STATES:
        reason = f" ({standing.reason})" if standing.reason else ""
        yield f"the study {_STATES[standing.state]}{reason}: {told}; `{standing.go_on}` goes on with it"


def _floors(board: Board) -> Iterator[str]:
    """What learns nothing and is as good as the leader."""
    leader = getattr(board.ranked[0], board.sort)
    for row in board.below:
        value = getattr(row, board.sort)
        if row.kind == "floor" and value is not None and value >= leader:
            yield f"{row.name}, which learns nothing, reaches {figure(value)}: no arm is better than that"


def _without_leaks(board: Board, without: Board) -> str:
    same = [row.arm for row in board.ranked] == [row.arm for row in without.ranked]
    tied = [row.arm for row in without.ranked[1:] if row.tied_with_leader]
    figures = listed([f"{row.arm} {figure(getattr(row, without.sort))}" for row in without.ranked], "and")
    told = f"without the {without.num_dropped} leaked images: {figures}; the order {'stays' if same else 'changes'}"
    return told + (f", and {listed(tied, 'and')} cannot be told from the first" if tied else "")
