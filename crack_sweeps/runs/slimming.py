"""Give back the disk of a run that is over, where a crash came before it did so itself."""

from __future__ import annotations

import zipfile
from pathlib import Path

from filelock import Timeout

from crack_sweeps.errors import CheckpointError
from crack_sweeps.runs.directory import RunDirectory


def is_slim(run: RunDirectory) -> bool:
    """Whether its checkpoints are weights alone. Looks at their tables of contents, without torch."""
    return not any(_holds_optimizer(path) for path in run.checkpoints.glob("*_model.pth"))


def _holds_optimizer(path: Path) -> bool:
    if not zipfile.is_zipfile(path):  # damaged, which is told by who loads it
        return False
    with zipfile.ZipFile(path) as archive:
        return any(b"optimizer" in archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))


def slim(run: RunDirectory) -> bool:
    """Do what ends a run: the final weights stay, averaged where averaging was on; the optimizer's state goes.

    Args:
        run: A finished or pruned one.

    Returns:
        Whether there was something to do, and nobody else at it.

    Raises:
        CheckpointError: The latest checkpoint is damaged; nothing was touched.
        DiskFull: There was no room; nothing was touched.
    """
    from crack_sweeps.training.checkpoints import CheckpointFolder  # loads torch, which most calls do not need

    assert run.status() in ("FINISHED", "PRUNED"), "another run goes on from its checkpoint"
    try:
        lock = run.lock().acquire(blocking=False)
    except Timeout:
        return False
    with lock:
        if is_slim(run):
            return False
        vault = CheckpointFolder(run.checkpoints)
        vault.clear_unfinished()
        stored = vault.load_latest()
        if stored is None:
            return False
        state, complaints = stored
        if complaints:
            raise CheckpointError(complaints[0])
        if "optimizer" not in state:  # only the one before it was left to go
            vault.finish({"model": state["model"], "epoch": state["epoch"]})
            return True
        weights = state["model"]
        if state["average"] is not None:  # it has one name for a tensor that the model may have under two
            averaged = {weights[name].data_ptr(): tensor for name, tensor in state["average"]["weights"].items()}
            weights = {name: averaged[tensor.data_ptr()] for name, tensor in weights.items()}
        vault.finish({"model": weights, "epoch": state["progress"]["epoch"]})
        return True
