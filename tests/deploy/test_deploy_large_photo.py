"""A photo of 48 MP: memory stays a few times the photo, and the crack in it is measured as it was drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from trained_run import Workshop

SCRIPT = Path(__file__).with_name("measure_a_large_photo.py")
REPO = SCRIPT.parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform == "win32", reason="peaks are read as POSIX gives them")
def test_a_photo_of_48_megapixels_takes_a_few_times_its_own_memory(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    photo = cv2.resize(rng.integers(150, 200, (600, 800, 3), dtype=np.uint8), (8000, 6000))
    photo[3000:3008, 1000:7000] = 10
    photo[500:2500, 200:208] = 10
    cv2.imwrite("large.jpg", photo)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    command = [sys.executable, str(SCRIPT), "toy/0", "large.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    times = found["peak"] / photo.nbytes
    print(f"{times:.1f} times the photo, above {found['before'] / 2**20:.0f} MiB before it")
    assert times < 6
    assert (found["photo_width_px"], found["photo_height_px"]) == (8000, 6000)
    assert found["crack_length_px"] == pytest.approx(6000 + 2000, rel=0.01)
    assert found["crack_width_px"] == pytest.approx(8, abs=0.2)
