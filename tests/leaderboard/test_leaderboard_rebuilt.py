"""A leaderboard reads the ledger alone, and a lost ledger comes back from store and runs: finalists among its rows."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from stand_in_study import TOY, Bench, draw_photos

from crack_sweeps.errors import UserError
from crack_sweeps.leaderboard.board import board
from crack_sweeps.leaderboard.budget import budgets
from crack_sweeps.leaderboard.records import read_records
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.ledger import add_outside, read_outside, read_rows
from crack_sweeps.study.repair import repair
from crack_sweeps.study.store import sqlite_url

REPO = Path(__file__).resolve().parents[2]


def objective(experiment: Experiment, epoch: int) -> float:
    return max(0.0, 0.8 - 0.3 * abs(math.log10(experiment.training.learning_rate / 0.003))) * (1 - 0.5**epoch)


@pytest.fixture
def searched(here: Path) -> StudyFolder:
    """A study of two arms with finalists; its runs say what they belong to, as real ones do."""
    (here / "studies").mkdir()
    (here / "studies" / "second.yaml").write_text((REPO / "experiments" / "unet_small.yaml").read_text())
    shape = "{model.encoder_cfg.depth: 3, model.decoder_cfg.channels: [16, 8, 8]}"
    arms = f"finalists: {{seeds: 2}}\nbaselines: [{{base: ./second.yaml, settings: {shape}}}]"
    (here / "studies" / "toy.yaml").write_text(TOY.replace("finalists: {seeds: 0}", arms))
    bench = Bench(here, draw_photos(here / "photos"))
    _, trials, folder = bench.run(bench.resolve(trials=1), objective)
    for order in trials.orders:
        run = Path("artifacts/outputs") / order.run_name
        (run / "environment.json").write_text(json.dumps({"study": order.membership["study"]}))
    return folder


def rows(folder: StudyFolder) -> dict[str, dict[str, Any]]:
    return {row["trial"]: {**row, "seq": None, "time_ms": None} for row in read_rows(folder)}


def test_a_lost_ledger_is_missed_and_what_doctor_does_brings_it_back(searched: StudyFolder) -> None:
    entry = {"name": "theirs", "split": "test", "threshold": 0.5, "metrics": {"crack_iou": 0.4}}
    add_outside(searched, entry)
    before, spent = rows(searched), budgets(read_records(searched))
    assert [budget.num_finalists for budget in spent] == [2, 2]
    searched.ledger.unlink()
    with pytest.raises(UserError, match="no trial has ended yet") as error:
        board(searched)
    assert "`sweeps doctor --fix` writes a lost ledger anew" in str(error.value.hint)
    list(repair(searched, sqlite_url(searched.database), outputs=Path("artifacts/outputs"), write=True))
    assert rows(searched) == before
    assert budgets(read_records(searched)) == spent
    (back,) = read_outside(searched)
    assert {key: back[key] for key in entry} == entry
    assert not list(repair(searched, sqlite_url(searched.database), outputs=Path("artifacts/outputs"), write=True))
