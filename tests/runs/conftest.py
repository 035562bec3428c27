"""A handful of tiny photos with cracks, and the smallest experiment that is still a whole one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

TINY = [
    "model.encoder_cfg.depth=3",
    "model.decoder_cfg.channels=[16,8,8]",
    "data.crop_px=32",
    "training.epochs=3",
    "training.steps_per_epoch=3",
    "training.batch_size=2",
    "training.gradient_accumulation_steps=2",
    "training.ema_decay=0.9",
    "evaluation.num_overlays=1",
    "data.num_workers=0",
]


def draw_photos(folder: Path, num_photos: int = 8) -> Path:
    """Grey noise with one dark polyline each, 64x48 px, as images/ and masks/."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(num_photos):
        image = rng.integers(120, 180, (48, 64, 3), dtype=np.uint8)
        mask = np.zeros((48, 64), np.uint8)
        points = np.stack([np.linspace(0, 63, 6), rng.integers(8, 40, 6)], axis=1).astype(np.int32)
        cv2.polylines(mask, [points.reshape(-1, 1, 2)], isClosed=False, color=255, thickness=2)
        image[mask > 0] //= 3
        cv2.imwrite(str(folder / "images" / f"p{number}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"p{number}.png"), mask)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture(scope="session")
def tested_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with a test split of two."""
    folder = tmp_path_factory.mktemp("tested") / "set"
    draw_photos(folder / "train")
    draw_photos(folder / "test", num_photos=2)
    return folder


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """KEY=VALUE that make `unet_small` the smallest experiment that is still a whole one."""
    return TINY


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with no store named by the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("SWEEPS_STORE", raising=False)
    return tmp_path
