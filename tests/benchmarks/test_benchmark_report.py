"""What the report costs: seconds of `sweeps report` from its start to its last byte, and MiB, at 200 trials an arm."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reported_study import ReportedStudy

NUM_TRIALS = 200  # of each of three arms
BUDGET_S, BUDGET_MIB = 30.0, 15.0


@pytest.mark.benchmark
def test_a_report_of_200_trials_is_written_within_its_budgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = ReportedStudy.begun(num_val=60, num_test=237, size=(384, 544))  # as many and as large as DeepCrack's
    study.search(NUM_TRIALS, scored=False)
    study.finalists()
    study.floors()
    study.data(leaked_test=["p61", "p62"])
    study.end()
    begun = time.perf_counter()
    command = [sys.executable, "-m", "crack_sweeps", "report", "made"]
    subprocess.run(command, env=_with_this_package(), stdout=subprocess.DEVNULL, check=True)
    taken_s = time.perf_counter() - begun
    mib = (study.folder.path / "report.html").stat().st_size / 2**20
    print(f"{3 * NUM_TRIALS} trials, 9 finalists, 237 test images: {taken_s:.1f} s, {mib:.1f} MiB")
    assert taken_s <= BUDGET_S
    assert mib <= BUDGET_MIB


def _with_this_package() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
