"""The clean process that others are forked from: it imports once what they need; no signal to the group reaches it."""

from __future__ import annotations

import multiprocessing
import signal

HAS_FORK_SERVER = "forkserver" in multiprocessing.get_all_start_methods()  # Windows has none


def start_fork_server(*preloaded: str) -> None:
    """Start it at the first call; it imports while the caller goes on. It must exist here.

    Ctrl-C, a scheduler's SIGTERM and a closed terminal's SIGHUP reach the whole process group. Whoever started the
    server hears them, and goes on to a checkpoint, for which it needs its processes; so the server, with all that it
    forks, and multiprocessing's resource tracker are started with a mask that keeps these signals away.

    Args:
        preloaded: Names of modules.
    """
    from multiprocessing import forkserver, resource_tracker  # cannot be imported where there is none

    multiprocessing.set_forkserver_preload(list(preloaded))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()  # ignores the other two, and lets them through again here: so they come after
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
