"""Examine many pairs at once in processes of their own; one that a file kills is named and the rest goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.context import BaseContext

import cv2

from crack_sweeps.data.examination import PairFacts, Trouble, examine
from crack_sweeps.data.pairing import Pair
from crack_sweeps.data.photos import ResolvedMaskRule

Progress = Callable[[int, int], None]
_CHUNK = 8  # pairs that a process takes at once: a tenth of a second, so that the bar moves and nobody waits at the end
_FEW = 32  # pairs that are examined sooner than two processes have started
_DIED = Trouble(
    "the process that decoded this pair died",
    "too little memory for it, or a file that crashes its decoder: look at both files, or cut the photo into tiles",
)


def examine_all(
    pairs: Sequence[Pair], rule: ResolvedMaskRule | None, *, num_processes: int | None = None, progress: Progress
) -> list[PairFacts]:
    """The facts of each pair, in order.

    Args:
        num_processes: How many; None is one for each core. What comes out does not depend on it.
        progress: Told how many pairs of how many are done.
    """
    num_processes = num_processes or _num_cores()
    facts: dict[int, PairFacts] = {}
    if num_processes > 1 and len(pairs) > _FEW:
        _in_processes(pairs, rule, num_processes, facts, progress)
    for number, pair in enumerate(pairs):
        if number not in facts:
            facts[number] = examine(pair.image, pair.mask, rule)
            progress(len(facts), len(pairs))
    return [facts[number] for number in range(len(pairs))]


def _in_processes(
    pairs: Sequence[Pair],
    rule: ResolvedMaskRule | None,
    num_processes: int,
    facts: dict[int, PairFacts],
    progress: Progress,
) -> None:
    """Fills in the facts of all pairs; of none where processes cannot be started at all."""
    chunks = [range(start, min(start + _CHUNK, len(pairs))) for start in range(0, len(pairs), _CHUNK)]
    pool = _pool(num_processes)
    try:
        waiting: dict[Future[list[PairFacts]], range] = {
            pool.submit(_examine_some, [pairs[number] for number in chunk], rule): chunk for chunk in chunks
        }
        for done in as_completed(waiting):
            facts.update(zip(waiting[done], done.result(), strict=True))
            progress(len(facts), len(pairs))
        pool.shutdown()
    except BrokenProcessPool:
        _one_by_one(pairs, rule, facts, progress)
    except BaseException:  # Ctrl-C: what is under way is of no use to anybody
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _one_by_one(
    pairs: Sequence[Pair], rule: ResolvedMaskRule | None, facts: dict[int, PairFacts], progress: Progress
) -> None:
    """What is left after a process died, in one process at a time, so that the pair that kills it is known."""
    pool: ProcessPoolExecutor | None = None
    for number, pair in enumerate(pairs):
        if number in facts:
            continue
        if pool is None:
            pool = _pool(1)
            if not _starts(pool):  # a script without `if __name__ == "__main__"`
                return
        try:
            facts[number] = pool.submit(examine, pair.image, pair.mask, rule).result()
        except BrokenProcessPool:
            pool = None
            facts[number] = PairFacts(_DIED, _DIED)
        progress(len(facts), len(pairs))
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


def _examine_some(pairs: Sequence[Pair], rule: ResolvedMaskRule | None) -> list[PairFacts]:
    return list(map(partial(_examine, rule=rule), pairs))


def _examine(pair: Pair, rule: ResolvedMaskRule | None) -> PairFacts:
    return examine(pair.image, pair.mask, rule)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
