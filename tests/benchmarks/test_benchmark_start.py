"""What starting costs: CPU seconds of `sweeps --help` and of `sweeps spec check`, and in bare interpreters.

User plus system time of the child process, the least of several runs: what else the machine does can only add to it,
and whatever is compiled once (bytecode) or read once (disk) is paid by the first run. The bare interpreter, `python -c
pass`, is timed in turn with the commands; the ratio to it says more than seconds about another machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

resource = pytest.importorskip("resource", reason="only Unix counts the time of child processes")

REPO = Path(__file__).resolve().parents[2]
NUM_RUNS = 15
COMMANDS = {
    "a bare interpreter": ["-c", "pass"],
    "sweeps --help": ["-m", "crack_sweeps", "--help"],
    "sweeps spec check": ["-m", "crack_sweeps", "spec", "check", "swinv2_hybrid"],
}
BUDGET_S = {"sweeps --help": 0.150, "sweeps spec check": 0.400}


def cpu_s(arguments: list[str]) -> float:
    """CPU seconds of one run of the interpreter, its start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=REPO, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.benchmark
def test_help_and_spec_check_start_within_their_budgets() -> None:
    runs = [{name: cpu_s(arguments) for name, arguments in COMMANDS.items()} for _ in range(NUM_RUNS)]
    least = {name: min(run[name] for run in runs) for name in COMMANDS}
    bare = least["a bare interpreter"]
    for name, taken in least.items():
        print(f"{name:>20}: {taken * 1e3:4.0f} ms CPU, {taken / bare:4.1f} bare interpreters")
    for name, budget in BUDGET_S.items():
        assert least[name] <= budget, name
