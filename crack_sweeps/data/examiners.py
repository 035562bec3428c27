"""Examine many pairs at once in processes of their own; one that a file kills is named and the rest goes on."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2

from crack_sweeps.data.examination import PairFacts, Trouble, examine
from crack_sweeps.data.pairing import Pair
from crack_sweeps.data.photos import ResolvedMaskRule

Progress = Callable[[int, int], None]


class Look(Protocol):
    """What is done with a pair."""

    def __call__(self, image: Path, mask: Path, rule: ResolvedMaskRule | None, *, widths: bool) -> PairFacts:
        """As `examine`."""
        ...


_CHUNK = 8  # pairs that a process takes at once: a tenth of a second, so that the bar moves and nobody waits at the end
# What is examined sooner than processes have started, which takes them two seconds of work.
_FEW_PAIRS, _FEW_BYTES = 200, 40_000_000
MOST_WIDTHS = 1000  # masks that are measured across: plenty for three percentiles
_DIED = Trouble(
    "the process that decoded this pair died",
    "too little memory for it, or a file that crashes its decoder: look at both files, or cut the photo into tiles",
)


class Task(NamedTuple):
    """A pair to be examined."""

    image: Path
    mask: Path
    widths: bool


def examine_all(
    pairs: Sequence[Pair],
    rule: ResolvedMaskRule | None,
    *,
    num_processes: int | None = None,
    progress: Progress,
    look: Look = examine,
    most_widths: int = MOST_WIDTHS,
) -> list[PairFacts]:
    """The facts of each pair, in order.

    Args:
        num_processes: How many; None is one for each core, or none but this one for a small set. What comes out does
            not depend on it.
        progress: Told how many pairs of how many are done.
        look: What is done with a pair; processes import it by its name.
        most_widths: In how many masks, evenly spread, cracks are measured across.
    """
    if num_processes is None:
        num_processes = 1 if _is_small(pairs) else num_cores()
    every = math.ceil(len(pairs) / most_widths) or 1
    tasks = [Task(pair.image, pair.mask, widths=number % every == 0) for number, pair in enumerate(pairs)]
    look_at = partial(_look_at, rule=rule, look=look)
    facts: dict[int, PairFacts] = {}
    if num_processes > 1:
        _in_processes(tasks, look_at, num_processes, facts, progress)
    for number, task in enumerate(tasks):
        if number not in facts:
            facts[number] = look_at(task)
            progress(len(facts), len(pairs))
    return [facts[number] for number in range(len(pairs))]


def _in_processes(
    tasks: Sequence[Task],
    look_at: Callable[[Task], PairFacts],
    num_processes: int,
    facts: dict[int, PairFacts],
    progress: Progress,
) -> None:
    """Fills in the facts of all pairs; of none where processes cannot be started at all."""
    chunks = [range(start, min(start + _CHUNK, len(tasks))) for start in range(0, len(tasks), _CHUNK)]
    others = set(multiprocessing.active_children())
    pool = _pool(num_processes)
    try:
        waiting: dict[Future[list[PairFacts]], range] = {
            pool.submit(_each, look_at, [tasks[number] for number in chunk]): chunk for chunk in chunks
        }
        for done in as_completed(waiting):
            facts.update(zip(waiting[done], done.result(), strict=True))
            progress(len(facts), len(tasks))
        pool.shutdown()
    except BrokenProcessPool:
        _one_by_one(tasks, look_at, facts, progress)
    except BaseException:  # Ctrl-C: what is under way is of no use to anybody
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise


def _one_by_one(
    tasks: Sequence[Task], look_at: Callable[[Task], PairFacts], facts: dict[int, PairFacts], progress: Progress
) -> None:
    """What is left after a process died, in one process at a time, so that the pair that kills it is known."""
    pool: ProcessPoolExecutor | None = None
    for number, task in enumerate(tasks):
        if number in facts:
            continue
        if pool is None:
            pool = _pool(1)
            if not _starts(pool):  # a script without `if __name__ == "__main__"`
                return
        try:
            facts[number] = pool.submit(look_at, task).result()
        except BrokenProcessPool:
            pool = None
            facts[number] = PairFacts(_DIED, _DIED)
        progress(len(facts), len(tasks))
    if pool is not None:
        pool.shutdown()


def _starts(pool: ProcessPoolExecutor) -> bool:
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        return False
    return True


def _pool(num_processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(num_processes, mp_context=_context(), initializer=_begin)


def _context() -> BaseContext:
    """Not fork: it would copy the locks of whatever threads draw a progress bar or compute at that moment."""
    methods = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    cv2.setNumThreads(0)  # the processes are the parallelism


def _each(look_at: Callable[[Task], PairFacts], tasks: Sequence[Task]) -> list[PairFacts]:
    return list(map(look_at, tasks))


def _look_at(task: Task, *, rule: ResolvedMaskRule | None, look: Look) -> PairFacts:
    return look(task.image, task.mask, rule, widths=task.widths)


def _is_small(pairs: Sequence[Pair]) -> bool:
    if len(pairs) > _FEW_PAIRS:
        return False
    return sum(path.stat().st_size for pair in pairs for path in (pair.image, pair.mask) if path.exists()) < _FEW_BYTES


def num_cores() -> int:
    """Processors that this process may use; macOS and Windows tell only how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
