"""An empty working directory, and a study of three arms in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hand_made_study import append
from three_arm_study import ThreeArms


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "SWEEPS_STORE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def trio(here: Path) -> ThreeArms:
    """A study that has begun; nothing has been trained."""
    return ThreeArms()


@pytest.fixture
def finished(trio: ThreeArms) -> ThreeArms:
    """Three arms of four trials each, with finalists: the hybrid and U-Net are alike, DeepLab is far behind."""
    for arm, value in (("hybrid", 0.60), ("unet", 0.58), ("deeplab", 0.40)):
        for step in range(3):
            trio.trial(arm, value - 0.01 * step)
        trio.trial(arm, None, reason="worse than half")
    trio.finals("hybrid", (0.61, 0.60, 0.605), spread=0.05)
    trio.finals("unet", (0.60, 0.595, 0.61), spread=0.05)
    trio.finals("deeplab", (0.41, 0.40, 0.405), spread=0.05)
    append(trio.folder.events, "ended", status="FINISHED", reason=None)
    return trio
