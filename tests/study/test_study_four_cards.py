"""A study on a pretended machine of four cards, from its first trial to its end: packed by forecast, never too full."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crack_sweeps import search
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.study.calibration import Calibration
from crack_sweeps.study.ledger import read_rows
from crack_sweeps.study.packing import KEPT_FREE, Placement, read_slots
from crack_sweeps.study.updates import Launched, Rejected, StudyEnded, TrialEnded

if TYPE_CHECKING:
    from stand_in_study import Bench

MIB = 1 << 20  # cards, needs and budgets of a thousandth, so that the disk holds the checkpoints


def fake_nvml() -> Any:
    """The pretended driver of the tests of NVML."""
    spec = importlib.util.spec_from_file_location("fake_nvml_4", Path(__file__).parents[1] / "training" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.FakeNvml()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    fake = fake_nvml()
    monkeypatch.setattr("crack_sweeps.training.nvml.pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield fake
    assert fake.open_sessions == 0


class Machine:
    """Four cards whose free memory is what others and our trials leave; it hears every update of the study.

    A trial grows to its cap, the most that it may ever hold, one update after its launch. Each trial is held against
    the budget of its card at every moment.
    """

    def __init__(self, driver: Any, sizes: dict[str, tuple[int, int]]) -> None:
        self.others = {uuid: held for uuid, (_, held) in sizes.items()}
        self.cards = {uuid: driver.add(uuid=uuid, name="a card", total_bytes=size) for uuid, (size, _) in sizes.items()}
        self.running: dict[str, Placement] = {}
        self.grown: set[str] = set()
        self.most_at_once = dict.fromkeys(sizes, 0)
        self.fullest = dict.fromkeys(sizes, 0.0)
        self.set_free()

    def hears(self, update: Any) -> None:
        self.grown |= self.running.keys()
        if isinstance(update, Launched):
            assert update.placement.gpu in self.cards
            self.running[update.name] = update.placement
        if isinstance(update, TrialEnded):
            self.running.pop(update.name, None)
            self.grown.discard(update.name)
        for uuid, card in self.cards.items():
            caps = [place.memory_bytes for place in self.running.values() if place.gpu == uuid]
            budget = (1 - KEPT_FREE) * (card.total_bytes - self.others[uuid])
            assert sum(caps) <= budget, f"{uuid}: {len(caps)} trials may hold {sum(caps)} of {budget}"
            self.most_at_once[uuid] = max(self.most_at_once[uuid], len(caps))
            self.fullest[uuid] = max(self.fullest[uuid], sum(caps) / budget)
        self.set_free()

    def set_free(self) -> None:
        for uuid, card in self.cards.items():
            held = sum(self.running[name].memory_bytes for name in self.grown if self.running[name].gpu == uuid)
            card.free_bytes = card.total_bytes - self.others[uuid] - held


SIZES = {
    "GPU-a": (100 * MIB, 0),
    "GPU-b": (100 * MIB, 40 * MIB),  # 40 MiB are another program's
    "GPU-c": (40 * MIB, 0),
    "GPU-d": (24 * MIB, 2 * MIB),
}
NEEDS_MIB = {0: 6, 1: 18, 2: 50, 3: 120}  # by focal_gamma; the last fits no card


def test_trials_are_packed_by_forecast_and_no_card_is_ever_promised_more_than_it_has(bench: Bench, driver: Any) -> None:
    machine = Machine(driver, SIZES)
    study = bench.resolve(trials=24, jobs="auto")

    def bytes_of(experiment: Experiment) -> int:
        return NEEDS_MIB[round(experiment.training.loss.focal_gamma)] * MIB

    updates, trials, folder = bench.run(
        study,
        lambda experiment, epoch: epoch * experiment.training.learning_rate,
        bytes_of=bytes_of,
        budget_bytes=95 * MIB,
        look=lambda: read_slots("cuda", cpus=lambda: 48),
        on_update=machine.hears,
    )
    assert isinstance(updates[-1], StudyEnded)
    assert updates[-1].num_trained == 24
    assert {row["outcome"] for row in read_rows(folder)} <= {"complete", "pruned", "rejected"}
    rejected = {update.trial.suggestion["training.loss.focal_gamma"] for update in updates if type(update) is Rejected}
    assert rejected == {3}
    assert {order.gpu for order in trials.orders} == SIZES.keys()
    assert all(bytes_of(order.experiment) <= 20 * MIB for order in trials.orders if order.gpu == "GPU-d")
    assert max(machine.most_at_once.values()) >= 2
    assert trials.num_at_once > len(SIZES)
    assert max(machine.fullest.values()) > 0.8


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_so_it_is_with_real_forecasts_and_trials_in_processes_of_their_own_that_compute_on_the_processor(
    here: Path, photos: Path, driver: Any, monkeypatch: pytest.MonkeyPatch, toy: str
) -> None:
    """`sweeps study` sees the four cards; its trials, in their own processes, see none and use the processor."""
    widths = "  model.decoder_cfg.channels: {choices: [[16, 8, 8], [64, 32, 16], [256, 256, 256]]}\n"
    (here / "studies" / "toy.yaml").write_text(toy.replace("space:\n", "space:\n" + widths))
    monkeypatch.setattr(search, "_mirror", lambda *_: None)
    monkeypatch.setattr(search, "read_slots", partial(read_slots, cpus=lambda: 16))
    monkeypatch.setattr(search, "calibrate", lambda name, *_, **__: Calibration(name, 0, 0, None))
    machine = Machine(
        driver, {f"GPU-{name}": (size * MIB, 0) for name, size in (("a", 24), ("b", 24), ("c", 12), ("d", 8))}
    )
    updates = []
    flags: Any = {"data": photos, "profile": "none", "trials": 12, "jobs": "auto", "overrides": ["training.epochs=2"]}
    with closing(search.searching("toy", **flags)) as stream:
        for update in stream:
            machine.hears(update)
            updates.append(update)
    ended = updates[-1]
    assert isinstance(ended, StudyEnded)
    assert (ended.reason, ended.num_trained, ended.num_failed) == (None, 12, 0)
    assert any(isinstance(update, Rejected) for update in updates)
    launched = [update for update in updates if isinstance(update, Launched)]
    assert {update.placement.gpu for update in launched} == machine.cards.keys()
    for update in launched:
        assert update.placement.memory_bytes >= update.trial.facts["needed_bytes"]
    assert max(machine.most_at_once.values()) >= 2
    for row in read_rows(ended.folder):
        if row["outcome"] in ("complete", "pruned"):
            assert row["peaks"]["memory/peak_rss_bytes"] > 0
            assert 0 < row["forecast_bytes"] < 24 * MIB
