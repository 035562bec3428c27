"""A working directory with a small run that was really trained, and how to draw photos for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.record import RunRecord, read_record

TINY = [
    *("model.encoder_cfg.depth=3", "model.decoder_cfg.channels=[16,8,8]", "data.crop_px=32", "data.num_workers=0"),
    *("training.batch_size=2", "training.epochs=1", "training.steps_per_epoch=4", "evaluation.num_overlays=0"),
]


def draw_photo(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Grey noise with one dark polyline, 64x48 px, and its mask of 0 and 255."""
    image = rng.integers(120, 180, (48, 64, 3), dtype=np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    points = np.stack([np.linspace(0, 63, 6), rng.integers(8, 40, 6)], axis=1).astype(np.int32)
    cv2.polylines(mask, [points.reshape(-1, 1, 2)], isClosed=False, color=255, thickness=2)
    image[mask > 0] //= 3
    return image, mask


def draw_set(folder: Path, *, seed: int, **counts: int) -> Path:
    """Photos and masks: `train=6, test=3` as train_img/ train_lab/ and so on, `photos=4` as images/ masks/."""
    rng = np.random.default_rng(seed)
    for split, number in counts.items():
        images, masks = ("images", "masks") if split == "photos" else (f"{split}_img", f"{split}_lab")
        for kind in (images, masks):
            (folder / kind).mkdir(parents=True)
        for index in range(number):
            image, mask = draw_photo(rng)
            cv2.imwrite(str(folder / images / f"{split}{index}.png"), image)
            cv2.imwrite(str(folder / masks / f"{split}{index}.png"), mask)
    return folder


@dataclass(frozen=True)
class Workshop:
    """A working directory with a finished run.

    Args:
        run: The run, trial toy/0 of the study.
        photos: Its photos: six to train and validate, three to test.
    """

    run: RunDirectory
    photos: Path

    @property
    def record(self) -> RunRecord:
        return read_record(self.run)

    @property
    def looks(self) -> Path:
        return Path("studies/toy/test_looks.jsonl")
