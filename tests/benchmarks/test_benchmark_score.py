"""What scoring 1,000 predictions of 512x512 px takes, start to end, with everything on and with the headline alone."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

NUM_IMAGES, NUM_DRAWN, SIDE_PX = 1000, 50, 512
# On two cores. Held against CPU time, half of which is what two idle cores take: other work lengthens the wall's time.
MOST_S = {"all": 120.0, "headline": 15.0}
NUM_CORES = 2


def draw_crack(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask of wandering lines, 2 to 9 px wide and about 3 % of the picture, and a doubtful map of it."""
    rng = np.random.default_rng(number)
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for _ in range(3):
        steps = rng.normal(0, 12, (60, 2)) + rng.normal(0, 6, 2)
        points = np.cumsum(steps, axis=0) + rng.uniform(0, SIDE_PX, 2)
        cv2.polylines(mask, [np.rint(points).astype(np.int32)], False, 255, int(rng.integers(2, 10)))
    noise = cv2.GaussianBlur(rng.normal(0, 255, mask.shape), (0, 0), 3)
    return mask, np.clip(cv2.GaussianBlur(mask, (0, 0), 2) * 0.9 + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Fifty drawn ones under twenty names each."""
    root = tmp_path_factory.mktemp("score")
    predictions, masks = root / "p", root / "m"
    for folder in (predictions, masks):
        folder.mkdir()
    for number in range(NUM_DRAWN):
        drawn = draw_crack(number)
        for folder, picture in zip((masks, predictions), drawn, strict=True):
            cv2.imwrite(str(folder / f"{number:04d}.png"), picture)
            for copy in range(number + NUM_DRAWN, NUM_IMAGES, NUM_DRAWN):
                (folder / f"{copy:04d}.png").hardlink_to(folder / f"{number:04d}.png")
    return predictions, masks


@pytest.mark.benchmark
@pytest.mark.parametrize("metrics", MOST_S)
def test_a_thousand_predictions_are_scored_in_time(folders: tuple[Path, Path], metrics: str) -> None:
    command = [sys.executable, "-m", "crack_sweeps", "score", *map(str, folders), "--metrics", metrics, "--json"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    scores = json.loads(done.stdout)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{metrics}: {len(scores['metrics'])} figures of {scores['num_images']} images in {wall_s:.1f} s, {cpu_s:.1f} "
        f"s of CPU, {1e3 * cpu_s / NUM_IMAGES:.0f} ms an image (at most {MOST_S[metrics]:.0f} s on {NUM_CORES} cores)"
    )
    assert scores["num_images"] == NUM_IMAGES
    assert cpu_s / NUM_CORES <= MOST_S[metrics]
