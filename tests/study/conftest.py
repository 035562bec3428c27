"""Tiny photos, and the smallest study that is still a whole one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

TOY = """\
name: toy
base: unet_small
settings:
  training.epochs: 3
  training.steps_per_epoch: 1
  training.batch_size: 2
  training.gradient_accumulation_steps: 1
  training.early_stopping_patience: null
  model.encoder_cfg.depth: 3
  model.decoder_cfg.channels: [16, 8, 8]
  data.crop_px: 32
  data.num_workers: 0
  evaluation.num_overlays: 0
space:
  training.learning_rate: {low: 0.0003, high: 0.03, log: true}
  training.loss.dice_weight: {choices: [0.0, 0.4, 1.0]}
  training.loss.focal_gamma: {low: 0, high: 3, step: 1}
sampler: {name: tpe, startup_trials: 4}
pruner: {name: hyperband, min_epochs: 1, reduction_factor: 2}
budget: {trials: 8}
jobs: 1
"""


def draw_photos(folder: Path, num_photos: int = 6) -> Path:
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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with no store named by the environment, and the toy study in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("SWEEPS_STORE", raising=False)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "toy.yaml").write_text(TOY)
    return tmp_path
