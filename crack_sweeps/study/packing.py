"""Which trial runs where: side by side on a card, or in the host's memory, and never above what is free."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from crack_sweeps.console import human_bytes
from crack_sweeps.training import nvml
from crack_sweeps.training.footprint import DeviceType

KEPT_FREE = 0.05  # of what is free: DESIGN 6
HEADROOM = 1.1  # a trial's cap above its calibrated forecast, which is within 10 % (DESIGN 9)
CONTEXT_BYTES = 512 << 20  # what CUDA takes beside torch's allocator, which alone is held to a fraction of the card
CPUS_PER_GPU_TRIAL = 2  # one launches kernels, one loads crops


@dataclass(frozen=True)
class Slot:
    """A card, or the host where trials run on the processor, as it was found just now.

    Args:
        gpu: UUID for CUDA_VISIBLE_DEVICES; None is the host.
        index: NVML's number of the card; 0 for the host.
        name: What people call it.
        total_bytes: Its memory.
        free_bytes: What nobody holds.
        cpus: Processors for the trials on it.
    """

    gpu: str | None
    index: int
    name: str
    total_bytes: int
    free_bytes: int
    cpus: int


@dataclass(frozen=True)
class Placement:
    """Where a trial runs, and what it may take.

    Args:
        gpu: As in `Slot`.
        index: As in `Slot`.
        memory_bytes: Its cap, context and libraries included.
        memory_fraction: For `torch.cuda.set_per_process_memory_fraction`; None on the host, where nothing holds a
            process to its share.
        threads: Processors for torch and loader processes together.
    """

    gpu: str | None
    index: int
    memory_bytes: int
    memory_fraction: float | None
    threads: int


def host_memory(cgroup_root: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Memory of this machine, total and free; in a container, what its cgroup grants where that is less."""
    memory = psutil.virtual_memory()
    total_bytes, free_bytes = int(memory.total), int(memory.available)
    limit_bytes, used_bytes = _cgroup_memory(cgroup_root)
    if limit_bytes is None:
        return total_bytes, free_bytes
    return min(total_bytes, limit_bytes), max(0, min(free_bytes, limit_bytes - used_bytes))


def read_slots(
    on: DeviceType,
    *,
    gpus: Callable[[], Sequence[nvml.Gpu]] = nvml.visible_gpus,
    host: Callable[[], tuple[int, int]] = host_memory,
    cpus: Callable[[], int] = nvml.usable_cpus,
) -> tuple[Slot, ...]:
    """What trials can run on now: every visible card, with its share of the processors, or the host.

    Args:
        on: The kind of device.
        gpus: Asks the driver.
        host: Asks the system for total and free memory.
        cpus: Asks how many processors this process may use.
    """
    if on == "cpu":
        total_bytes, free_bytes = host()
        return (Slot(None, 0, "host memory", total_bytes, free_bytes, cpus()),)
    cards = gpus()
    share = max(1, cpus() // max(1, len(cards)))
    return tuple(Slot(card.uuid, card.index, card.name, card.total_bytes, card.free_bytes, share) for card in cards)


def budget_bytes(slot: Slot, reserved_bytes: int, ceiling_bytes: int) -> int:
    """What all trials of this study together may hold on a slot: what is free and what they hold already, less 5 %.

    What they hold cannot be asked for (a container's driver often hides processes), so it is bounded: by what is
    reserved for them, by all that is in use, and by what was free when none of them ran.

    Args:
        slot: As it is now.
        reserved_bytes: The caps of the trials on it.
        ceiling_bytes: Most that was seen free since it was last without trials.
    """
    in_use = slot.total_bytes - slot.free_bytes
    return math.floor((1 - KEPT_FREE) * min(ceiling_bytes, slot.free_bytes + min(reserved_bytes, in_use)))


class Packer:
    """Keeps account of what is reserved for each running trial.

    Slots are looked at anew for every answer. A trial goes to the card with the fewest trials, as computing is
    scarcer than memory there; among equals to the one with the least room that is enough, which leaves the larger room
    for a larger trial. On a host without GPU there is one slot and nothing to choose.

    With `jobs: auto`, a card takes as many trials as fit, at most one for every 2 of its processors and at least one;
    a host takes one for every processor, with one thread each. The processors are divided by the number of jobs, so
    that `jobs: 1` has them all, and the whole of a card. One instance belongs to one thread.

    Args:
        look: Finds the slots as they are now.
        jobs: Trials at once, on all slots together.
        limit_bytes: Most that one trial may need, as the person typed it; None is what a slot has.

    Attributes:
        jobs: Trials at once, on all slots together.
        threads: Processors of each trial.
        limit_bytes: As given.
    """

    def __init__(
        self,
        look: Callable[[], Sequence[Slot]],
        *,
        jobs: int | Literal["auto"] = "auto",
        limit_bytes: int | None = None,
    ) -> None:
        slots = look()
        if not slots:
            raise ValueError("there is nothing to run trials on")
        self.jobs = sum(map(_most_trials, slots)) if jobs == "auto" else jobs
        self.threads = max(1, sum(slot.cpus for slot in slots) // self.jobs)
        self._look = look
        self._one_each = self.jobs <= len(slots)
        self.limit_bytes = limit_bytes
        self._placements: dict[Hashable, Placement] = {}
        self._ceilings: dict[str | None, int] = {}

    def place(self, key: Hashable, needed_bytes: int) -> Placement | None:
        """Reserve memory for a trial; None while there is no room, or as many run as may.

        A trial that needs more than `largest_budget()` never has room: ask that first.

        Args:
            key: The trial.
            needed_bytes: Its calibrated forecast.

        Raises:
            ValueError: It has a place already.
        """
        if key in self._placements:
            raise ValueError(f"{key} has a place already")
        if len(self._placements) >= self.jobs:
            return None
        rooms = [(slot, min(self._room(slot), self._limit(slot))) for slot in self._look()]
        fitting = [(slot, room) for slot, room in rooms if needed_bytes <= room]
        if not fitting:
            return None
        slot, room = min(fitting, key=lambda found: (len(self._on(found[0])), found[1], found[0].index))
        cap = room if self._one_each else min(room, math.ceil(HEADROOM * needed_bytes))
        self._placements[key] = Placement(slot.gpu, slot.index, cap, _fraction(slot, cap), self.threads)
        return self._placements[key]

    def release(self, key: Hashable) -> None:
        """Give a trial's memory back, once its process is gone. Doing it again does nothing."""
        self._placements.pop(key, None)

    def largest_budget(self) -> int:
        """The most that one trial could be given now, if no other were running: above it, a suggestion is rejected."""
        return max((min(self._budget(slot), self._limit(slot)) for slot in self._look()), default=0)

    def most_bytes(self) -> int:
        """The most that one trial could ever be given here, were nobody else at work: what needs more waits in vain."""
        return max(
            (min(math.floor((1 - KEPT_FREE) * slot.total_bytes), self._limit(slot)) for slot in self._look()), default=0
        )

    def describe(self) -> str:
        """One line on what is reserved where."""
        parts = []
        for slot in self._look():
            held = self._on(slot)
            where = slot.name if slot.gpu is None else f"GPU {slot.index} ({slot.name})"
            of = f"{human_bytes(sum(p.memory_bytes for p in held))} of {human_bytes(self._budget(slot))}"
            parts.append(f"{where}: {len(held)} trial{'' if len(held) == 1 else 's'}, {of} reserved")
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        limit = f", {human_bytes(self.limit_bytes)} for one (--vram-budget)" if self.limit_bytes is not None else ""
        return f"{'; '.join(parts)}; at most {self.jobs} at once{limit}, {threads} each"

    def _on(self, slot: Slot) -> list[Placement]:
        return [placement for placement in self._placements.values() if placement.gpu == slot.gpu]

    def _budget(self, slot: Slot) -> int:
        reserved_bytes = sum(placement.memory_bytes for placement in self._on(slot))
        ceiling = max(slot.free_bytes, self._ceilings.get(slot.gpu, 0)) if reserved_bytes else slot.free_bytes
        self._ceilings[slot.gpu] = ceiling
        return budget_bytes(slot, reserved_bytes, ceiling)

    def _room(self, slot: Slot) -> int:
        return self._budget(slot) - sum(placement.memory_bytes for placement in self._on(slot))

    def _limit(self, slot: Slot) -> int:
        return slot.total_bytes if self.limit_bytes is None else self.limit_bytes


def _cgroup_memory(root: Path) -> tuple[int | None, int]:
    """The cgroup's limit, and what is used of it, files that the kernel can drop left out; None is no limit."""
    unified = root / "memory.max", root / "memory.current", root / "memory.stat", "inactive_file"
    older = root / "memory"
    first = (
        older / "memory.limit_in_bytes",
        older / "memory.usage_in_bytes",
        older / "memory.stat",
        "total_inactive_file",
    )
    for limit, usage, statistics, droppable in (unified, first):
        if limit.is_file() and usage.is_file():
            text = limit.read_text().strip()
            counts = dict(line.split() for line in statistics.read_text().splitlines()) if statistics.is_file() else {}
            used = int(usage.read_text()) - int(counts.get(droppable, 0))
            return (None if text == "max" else int(text)), max(0, used)
    return None, 0


def _most_trials(slot: Slot) -> int:
    return max(1, slot.cpus // (1 if slot.gpu is None else CPUS_PER_GPU_TRIAL))


def _fraction(slot: Slot, cap: int) -> float | None:
    """The allocator's share of a card; the context, which it does not count, comes out of the cap."""
    if slot.gpu is None:
        return None
    return min(1.0, max(cap - CONTEXT_BYTES, cap // 2) / slot.total_bytes)
