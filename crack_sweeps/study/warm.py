"""The warm server that trials are forked from: it has imported what a training needs and never touched a GPU."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.context import ForkServerContext, SpawnContext

PRELOADED = "crack_sweeps.study.trial"  # imports torch, timm, albumentations and the rest of a training
HAS_FORK_SERVER = "forkserver" in multiprocessing.get_all_start_methods()


def processes() -> ForkServerContext | SpawnContext:
    """What to start processes with. The server, where there is one, starts at the first call and imports meanwhile.

    Ctrl-C and a scheduler's SIGTERM reach the whole process group. The coordinator hears them and tells its trials;
    these, and the loader processes forked from the same server, inherit a mask that keeps the signals from them.
    """
    if not HAS_FORK_SERVER:
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker  # cannot be imported where there is none

    multiprocessing.set_forkserver_preload([PRELOADED])
    resource_tracker.ensure_running()  # it would undo the mask below
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return multiprocessing.get_context("forkserver")
