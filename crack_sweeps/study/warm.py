"""The warm server that trials are forked from: it has imported what a training needs and never touched a GPU."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext, SpawnContext

from crack_sweeps.fork_server import HAS_FORK_SERVER, start_fork_server

PRELOADED = "crack_sweeps.study.trial"  # imports torch, timm, albumentations and the rest of a training


def processes() -> ForkServerContext | SpawnContext:
    """What to start processes with. The coordinator hears the signals of the process group and tells its trials."""
    if not HAS_FORK_SERVER:
        return multiprocessing.get_context("spawn")
    start_fork_server(PRELOADED)
    return multiprocessing.get_context("forkserver")
