"""On a pretended machine of four cards: trials are packed by forecast, and never above a card's budget."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crack_sweeps.study import packing
from crack_sweeps.study.packing import CONTEXT_BYTES, HEADROOM, Packer, Placement, Slot, budget_bytes, read_slots

GIB = 1 << 30


def fake_nvml() -> ModuleType:
    """The pretended driver of the tests of NVML, where it is held against the real one."""
    spec = importlib.util.spec_from_file_location("fake_nvml", Path(__file__).parents[1] / "training" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    fake = fake_nvml().FakeNvml()
    monkeypatch.setattr("crack_sweeps.training.nvml.pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield fake
    assert fake.open_sessions == 0


def slot(
    gib: float = 10, *, free: float | None = None, gpu: str | None = "GPU-a", index: int = 0, cpus: int = 4
) -> Slot:
    return Slot(gpu, index, "a card", int(gib * GIB), int((gib if free is None else free) * GIB), cpus)


def packer(*slots: Slot, jobs: Any = "auto", limit_bytes: int | None = None) -> Packer:
    return Packer(lambda: slots, jobs=jobs, limit_bytes=limit_bytes)


# --- four cards ----------------------------------------------------------------------------------


@pytest.fixture
def four_cards(driver: Any) -> Any:
    for letter in "abcd":
        driver.add(uuid=f"GPU-{letter}", name="NVIDIA H200", total_bytes=100 * GIB, free_bytes=100 * GIB)
    return driver


def look() -> tuple[Slot, ...]:
    return read_slots("cuda", cpus=lambda: 32)


def test_each_trial_gets_one_card_and_the_cards_fill_evenly(four_cards: Any) -> None:
    on_machine = Packer(look)
    places = [on_machine.place(number, 20 * GIB) for number in range(17)]
    assert [place.gpu for place in places[:8] if place] == [f"GPU-{letter}" for letter in "abcdabcd"]
    assert [place is not None for place in places] == [True] * 16 + [False]  # 4 x 22 GiB are 88 of 95, a fifth is not


def test_never_above_a_cards_budget_whatever_the_mixture(four_cards: Any) -> None:
    on_machine = Packer(look, jobs=64)
    placed: dict[str | None, int] = {}
    for number in range(200):
        place = on_machine.place(number, (1 + number * 7 % 40) * GIB)
        if place:
            placed[place.gpu] = placed.get(place.gpu, 0) + place.memory_bytes
    assert len(placed) == 4
    assert all(0.9 * 95 * GIB < num_bytes <= 95 * GIB for num_bytes in placed.values())


def test_room_that_was_given_back_is_room_again(four_cards: Any) -> None:
    on_machine = Packer(look)
    for number in range(4):
        assert on_machine.place(number, 90 * GIB)
    assert on_machine.place("more", 10 * GIB) is None
    on_machine.release(2)
    again = on_machine.place("more", 90 * GIB)
    assert again is not None
    assert again.gpu == "GPU-c"


def test_a_card_in_use_by_others_is_given_what_it_has_free(four_cards: Any) -> None:
    for card, free in zip(four_cards.cards, (10, 80, 5, 0), strict=True):
        card.free_bytes = free * GIB
    on_machine = Packer(look)
    assert on_machine.largest_budget() == math.floor(0.95 * 80 * GIB)
    place = on_machine.place("a", 60 * GIB)
    assert place is not None
    assert place.gpu == "GPU-b"
    assert on_machine.place("b", 60 * GIB) is None


def test_instances_of_one_cut_up_card_are_places_of_their_own(driver: Any) -> None:
    parts = [driver.instance(uuid=f"MIG-{n}", total_bytes=20 * GIB, free_bytes=20 * GIB) for n in range(2)]
    driver.add(uuid="GPU-cut", instances=parts)
    on_machine = Packer(look)
    first, second = (on_machine.place(n, 15 * GIB) for n in range(2))
    assert first is not None
    assert second is not None
    assert {first.gpu, second.gpu} == {"MIG-0", "MIG-1"}


def test_cards_that_are_hidden_are_not_used(four_cards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    slots = read_slots("cuda", gpus=lambda: packing.nvml.visible_gpus({"CUDA_VISIBLE_DEVICES": "2"}), cpus=lambda: 8)
    assert [(s.gpu, s.cpus) for s in slots] == [("GPU-c", 8)]


def test_what_is_reserved_is_told(four_cards: Any) -> None:
    on_machine = Packer(look)
    on_machine.place(1, 20 * GIB)
    text = on_machine.describe()
    assert text.startswith("GPU 0 (NVIDIA H200): 1 trial, 22.0 GiB of 95.0 GiB reserved; GPU 1")
    assert text.endswith("at most 16 at once, 2 threads each")


# --- which card, how much ------------------------------------------------------------------------


def test_among_cards_with_as_many_trials_the_tightest_is_taken() -> None:
    large, small = slot(80, gpu="GPU-large", index=0), slot(10, gpu="GPU-small", index=1)
    on_machine = packer(large, small)
    place = on_machine.place("little", 5 * GIB)
    assert place is not None
    assert place.gpu == "GPU-small"
    assert on_machine.place("big", 70 * GIB) is not None


def test_a_cap_is_a_tenth_above_the_forecast_and_its_fraction_leaves_the_context_out() -> None:
    place = packer(slot(100)).place("a", 20 * GIB)
    assert place is not None
    assert place.memory_bytes == math.ceil(HEADROOM * 20 * GIB)
    assert place.memory_fraction == (place.memory_bytes - CONTEXT_BYTES) / (100 * GIB)


def test_the_last_room_is_given_without_headroom() -> None:
    place = packer(slot(100)).place("a", 94 * GIB)
    assert place is not None
    assert place.memory_bytes == math.floor(0.95 * 100 * GIB)


def test_a_trial_that_is_alone_by_order_has_the_whole_budget_and_all_processors() -> None:
    place = packer(slot(100, cpus=16), jobs=1).place("a", 2 * GIB)
    assert place is not None
    assert place.memory_bytes == math.floor(0.95 * 100 * GIB)
    assert place.threads == 16


def test_with_one_job_a_card_all_have_a_whole_card(four_cards: Any) -> None:
    on_machine = Packer(look, jobs=4)
    places = [on_machine.place(n, GIB) for n in range(4)]
    assert {place.gpu for place in places if place} == {"GPU-a", "GPU-b", "GPU-c", "GPU-d"}
    assert all(place and place.memory_bytes == 95 * GIB and place.threads == 8 for place in places)


def test_a_typed_limit_bounds_one_trial_and_not_the_card() -> None:
    on_machine = packer(slot(100, cpus=16), limit_bytes=8 * GIB)
    assert on_machine.largest_budget() == 8 * GIB
    assert on_machine.place("too large", 9 * GIB) is None
    places = [on_machine.place(n, int(7.9 * GIB)) for n in range(3)]
    assert [place and place.memory_bytes for place in places] == [8 * GIB] * 3


def test_a_typed_limit_above_what_is_there_is_what_is_there() -> None:
    assert packer(slot(10), limit_bytes=80 * GIB).largest_budget() == math.floor(0.95 * 10 * GIB)


def test_what_could_ever_be_had_does_not_change_with_what_others_hold() -> None:
    busy = slot(10, free=1)
    assert packer(busy).most_bytes() == math.floor(0.95 * 10 * GIB)
    assert packer(busy).largest_budget() == math.floor(0.95 * GIB)
    assert packer(busy, limit_bytes=4 * GIB).most_bytes() == 4 * GIB
    assert packer(busy, limit_bytes=40 * GIB).most_bytes() == math.floor(0.95 * 10 * GIB)


def test_a_typed_limit_is_told() -> None:
    assert "at most 2 at once, 4.0 GiB for one (--vram-budget), " in packer(slot(10), limit_bytes=4 * GIB).describe()


def test_a_tiny_trial_has_a_share_all_the_same() -> None:
    place = packer(slot(100)).place("a", 1)
    assert place is not None
    assert place.memory_fraction is not None
    assert place.memory_fraction > 0


# --- how many ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpus", "jobs", "at_once", "threads"), [(16, "auto", 8, 2), (3, "auto", 1, 3), (1, "auto", 1, 1), (2, 6, 6, 1)]
)
def test_on_a_card_auto_is_one_trial_for_two_processors(cpus: int, jobs: Any, at_once: int, threads: int) -> None:
    on_machine = packer(slot(1000, cpus=cpus), jobs=jobs)
    places = [on_machine.place(n, GIB) for n in range(20)]
    assert sum(place is not None for place in places) == at_once
    assert {place.threads for place in places if place} == {threads}


@pytest.mark.parametrize(
    ("cpus", "jobs", "at_once", "threads"), [(2, "auto", 2, 1), (1, "auto", 1, 1), (8, 1, 1, 8), (8, 3, 3, 2)]
)
def test_on_a_host_auto_is_one_trial_a_processor(cpus: int, jobs: Any, at_once: int, threads: int) -> None:
    slots = read_slots("cpu", host=lambda: (64 * GIB, 60 * GIB), cpus=lambda: cpus)
    on_machine = Packer(lambda: slots, jobs=jobs)
    places = [on_machine.place(n, 2 * GIB) for n in range(10)]
    assert sum(place is not None for place in places) == at_once
    assert places[0] is not None
    assert (places[0].gpu, places[0].memory_fraction, places[0].threads) == (None, None, threads)


def test_on_a_host_memory_bounds_the_jobs_too() -> None:
    slots = read_slots("cpu", host=lambda: (8 * GIB, 6 * GIB), cpus=lambda: 16)
    on_machine = Packer(lambda: slots)
    assert [on_machine.place(n, 2 * GIB) is not None for n in range(4)] == [True, True, False, False]


def test_a_key_has_one_place_and_releasing_twice_frees_it_once() -> None:
    on_machine = packer(slot(100))
    on_machine.place("a", 40 * GIB)
    with pytest.raises(ValueError, match="a has a place already"):
        on_machine.place("a", GIB)
    on_machine.place("b", 40 * GIB)
    on_machine.release("a")
    on_machine.release("a")
    assert on_machine.place("c", 60 * GIB) is None
    assert on_machine.place("d", 40 * GIB) is not None


def test_a_machine_without_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to run trials on"):
        packer()


# --- what is free, while trials grow ---------------------------------------------------------------


def test_a_budget_by_hand() -> None:
    half = slot(100, free=60)
    assert budget_bytes(half, 0, 60 * GIB) == math.floor(0.95 * 60 * GIB)
    assert budget_bytes(half, 30 * GIB, 90 * GIB) == math.floor(0.95 * 90 * GIB)  # they may hold 30 of the 40 in use
    assert budget_bytes(half, 80 * GIB, 100 * GIB) == math.floor(0.95 * 100 * GIB)  # no more than all that is in use
    assert budget_bytes(half, 30 * GIB, 70 * GIB) == math.floor(0.95 * 70 * GIB)  # there never was more


class Card:
    """A card that others hold a part of, and whose trials grow from nothing to their caps."""

    def __init__(self, others: int) -> None:
        self.others = others
        self.held: dict[int, int] = {}
        self.places: dict[int, Placement] = {}

    def look(self) -> tuple[Slot, ...]:
        free = max(0, 1000 - self.others - sum(self.held.values()))
        return (Slot("GPU-a", 0, "a card", 1000, free, 64),)


steps = st.one_of(
    st.tuples(st.just("place"), st.integers(1, 600)),
    st.tuples(st.just("grow"), st.integers(0, 7)),
    st.tuples(st.just("end"), st.integers(0, 7)),
)


@given(st.integers(0, 900), st.sampled_from(["auto", 1, 3]), st.lists(steps, max_size=40))
def test_whatever_happens_the_caps_of_running_trials_fit_beside_what_others_hold(
    others: int, jobs: Any, happenings: list[tuple[str, int]]
) -> None:
    card = Card(others)
    on_machine = Packer(card.look, jobs=jobs)
    for number, (what, value) in enumerate(happenings):
        running = sorted(card.places)
        if what == "place":
            place = on_machine.place(number, value)
            if place is not None:
                assert value <= place.memory_bytes
                card.places[number], card.held[number] = place, 0
            elif not running:
                assert value > on_machine.largest_budget()  # nothing waits for ever
        elif running:
            key = running[value % len(running)]
            if what == "grow":
                card.held[key] = card.places[key].memory_bytes
            else:
                on_machine.release(key)
                del card.places[key], card.held[key]
        assert sum(place.memory_bytes for place in card.places.values()) <= 0.95 * (1000 - others)
        assert len(card.places) <= on_machine.jobs


def test_what_others_take_while_trials_run_is_not_given_away() -> None:
    card = Card(others=0)
    on_machine = Packer(card.look)
    place = on_machine.place(1, 400)
    assert place is not None
    card.held[1] = place.memory_bytes
    card.others = 300
    assert on_machine.place(2, 250) is None  # 0.95 x (1000 - 300) - 440 = 225
    assert on_machine.place(2, 220) is not None


def test_what_others_give_back_while_trials_run_is_used_as_far_as_it_is_seen_free() -> None:
    card = Card(others=500)
    on_machine = Packer(card.look)
    place = on_machine.place(1, 300)
    assert place is not None
    card.held[1] = place.memory_bytes
    assert on_machine.place(2, 300) is None
    card.others = 0
    assert on_machine.place(2, 300) is not None


# --- the host --------------------------------------------------------------------------------------


@pytest.fixture
def sixteen_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total=16 * GIB, available=12 * GIB)
    monkeypatch.setattr(packing.psutil, "virtual_memory", lambda: memory)


@pytest.mark.usefixtures("sixteen_gib")
def test_a_host_without_cgroup_has_what_the_system_says(tmp_path: Path) -> None:
    assert packing.host_memory(tmp_path) == (16 * GIB, 12 * GIB)


@pytest.mark.usefixtures("sixteen_gib")
@pytest.mark.parametrize(
    ("limit", "total", "free"), [("max", 16, 12), (str(4 * GIB), 4, 2), (str(64 * GIB), 16, 12), (str(GIB), 1, 0)]
)
def test_a_container_has_what_its_cgroup_grants_and_dropped_files_are_free(
    tmp_path: Path, limit: str, total: int, free: int
) -> None:
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {2 * GIB}\ninactive_file {GIB}\n")
    assert packing.host_memory(tmp_path) == (total * GIB, free * GIB)


@pytest.mark.usefixtures("sixteen_gib")
def test_an_older_cgroup_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(str(4 * GIB))
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text(str(3 * GIB))
    (tmp_path / "memory" / "memory.stat").write_text(f"total_inactive_file {GIB}\n")
    assert packing.host_memory(tmp_path) == (4 * GIB, 2 * GIB)


def test_this_machine_can_be_asked() -> None:
    (host,) = read_slots("cpu")
    assert 0 < host.free_bytes <= host.total_bytes
    assert host.cpus >= 1
