"""How long `sweeps data check` takes for 5,000 photos of 512x512 px on two cores."""

from __future__ import annotations

import multiprocessing
import resource
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from crack_sweeps.data import examiners
from crack_sweeps.data.check import check_data

NUM_PAIRS, SIDE_PX, NUM_CORES = 5000, 512, 2
MOST_S = 60.0


def cpu_s() -> float:
    """Seconds of work of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def draw(root: Path) -> None:
    """Windows into one large surface of noise, each with cracks of its own: as dear to decode and measure as photos."""
    rng = np.random.default_rng(0)
    broad = cv2.resize(rng.integers(90, 190, (256, 256, 3), dtype=np.uint8), (8192, 8192))
    surface = cv2.add(broad, rng.integers(0, 40, broad.shape, dtype=np.uint8))
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(NUM_PAIRS):
        top, left = rng.integers(0, 8192 - SIDE_PX, size=2)
        photo = surface[top : top + SIDE_PX, left : left + SIDE_PX].copy()
        mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
        for _ in range(3):
            course = rng.integers(0, SIDE_PX, (6, 1, 2)).astype(np.int32)
            cv2.polylines(mask, [course], False, 255, int(rng.integers(1, 8)))
        photo[mask > 0] //= 2
        cv2.imwrite(str(root / f"images/{number:04}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 85])
        cv2.imwrite(str(root / f"masks/{number:04}.png"), mask)


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_five_thousand_pairs_are_checked_in_a_minute_of_two_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Children of the fork server are not this process's, and their work could not be counted.
    monkeypatch.setattr(examiners, "_context", lambda: multiprocessing.get_context("spawn"))
    draw(tmp_path / "set")
    before, start = cpu_s(), time.perf_counter()
    found = check_data(tmp_path / "set", num_processes=NUM_CORES)
    wall_s, work_s = time.perf_counter() - start, cpu_s() - before
    each_ms = work_s / NUM_PAIRS * 1e3
    print(f"{NUM_PAIRS} pairs: {wall_s:.1f} s, {work_s:.1f} s of work, {each_ms:.1f} ms a pair")
    assert found.num_usable == NUM_PAIRS
    # Two cores that do nothing else take this long, whatever else ran here meanwhile.
    assert work_s / NUM_CORES <= MOST_S
