"""What an outage of the tracking server costs a training: next to nothing of the processor.

The training itself does not know of it: it writes events, and the mirror, a process of its own with a lower priority,
waits for the server. So all that it can lose is the processor time that the mirror spends on waiting and trying, which
is measured here over a minute from its start, imports left out, as a share of one core: against a server that refuses
(a closed port), and one that takes every call and says nothing. A training on the processor uses every core, so it is
slowed by that share divided by their number at the most; the budget is held by a machine with one.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from crack_sweeps.runs.events import EventLog
from crack_sweeps.tracking.start import LOG, start_mirror
from crack_sweeps.tracking.state import Trainer

BUDGET = 0.01
IMPORTS_S, MEASURED_S = 15.0, 60.0
EPOCH_S = 5.0


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections into its queue and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.benchmark
@pytest.mark.parametrize("kind", ["refuses", "says nothing"])
def test_waiting_for_a_server_takes_less_than_a_hundredth_of_a_core(
    kind: str, silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server if kind == "says nothing" else "http://127.0.0.1:9")
    folder = Path("artifacts/outputs/20261126-120000-small-abcdef")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("name: small\n")
    dataset = {"name": "x", "digest": "d" * 64, "source": "x", "num_train": 3, "num_val": 2, "num_test": 1}
    trainer = Trainer.this_process()
    with closing(EventLog(folder / "events.jsonl")) as events:
        events.append("created", run=folder.name, experiment="runs", params={}, tags={}, dataset=dataset)
        told = {"pid": trainer.pid, "process_started": trainer.started, "host": trainer.host}
        events.append("attempt", attempt=1, resumed_from_step=None, **told)
        mirror = start_mirror(folder)
        try:
            time.sleep(IMPORTS_S)
            process = psutil.Process(mirror.pid)
            before, began = sum(process.cpu_times()[:2]), time.perf_counter()
            for epoch in range(round(MEASURED_S / EPOCH_S)):
                events.append("epoch", epoch=epoch + 1, step=epoch, metrics={"val/crack_iou": 0.1, "train/loss": 1.0})
                time.sleep(EPOCH_S)
            share = (sum(process.cpu_times()[:2]) - before) / (time.perf_counter() - began)
            assert mirror.process.poll() is None, (folder / LOG).read_text()
            assert kind == "says nothing" or "next try in" in (folder / LOG).read_text()
        finally:
            mirror.process.kill()
            mirror.process.wait()
    print(f"\na server that {kind}: the mirror takes {share:.4f} of a core")
    assert share <= BUDGET
