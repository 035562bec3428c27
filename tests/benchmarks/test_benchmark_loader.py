"""What one core of loader gives, with the augmentations of the shipped experiment and without."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crack_sweeps.data.crops import CropDataset, draws
from crack_sweeps.data.loader import Loader
from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.specs.yaml import load_yaml

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "swinv2_hybrid.yaml"
NUM_PHOTOS, NUM_CROPS, CROP_PX = 40, 300, 256

# Measured on two busy cores: 6.9 to 11.0 times a crop without augmentation, .30 to .44 of a crop whose photo is read.
MOST_TIMES_PLAIN, MOST_TIMES_READ = 20.0, 1.0


def made_photos(folder: Path) -> list[Photo]:
    """Noise of DeepCrack's size, which decodes and augments at the price of any photo."""
    rng = np.random.default_rng(0)
    photos = []
    for number in range(NUM_PHOTOS):
        photo = Photo(str(number), folder / f"{number}.jpg", folder / f"{number}.png", "train", str(number))
        Image.fromarray(rng.integers(0, 256, (384, 544, 3), dtype=np.uint8)).save(photo.image)
        Image.fromarray((rng.random((384, 544)) < 0.03).astype(np.uint8) * np.uint8(255)).save(photo.mask)
        photos.append(photo)
    return photos


@pytest.fixture(scope="module")
def photos(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    try:
        root: Path = request.getfixturevalue("deepcrack")
    except pytest.skip.Exception:
        return made_photos(tmp_path_factory.mktemp("photos"))
    images = sorted((root / "train_img").glob("*.jpg"))[:NUM_PHOTOS]
    return [Photo(path.stem, path, root / "train_lab" / f"{path.stem}.png", "train", path.stem) for path in images]


def cpu_s_per_crop(photos: Sequence[Photo], augmentations: Sequence[str]) -> tuple[float, float]:
    """CPU seconds per crop: while photos are read for the first time, and the best of three epochs after that."""
    source = CropDataset(
        photos,
        ResolvedMaskRule(crack_values=(255,)),
        crop_px=CROP_PX,
        crack_crop_fraction=0.7,
        augmentations=augmentations,
        seed=0,
        cache_bytes=1 << 30,
    )
    epochs = [draws(0, 0, len(photos), len(photos)), *(draws(0, epoch, len(photos), NUM_CROPS) for epoch in (1, 2, 3))]
    taken = []
    with Loader(source, num_workers=0, timeout_s=60.0) as loader:
        for drawn in epochs:
            start = time.process_time()
            for _ in loader.epoch(drawn, 4):
                pass
            taken.append((time.process_time() - start) / len(drawn))
    return taken[0], min(taken[1:])


@pytest.mark.benchmark
def test_the_full_augmentation_list_costs_no_more_than_reading_the_photo_again(photos: list[Photo]) -> None:
    augmentations = load_yaml(EXPERIMENT)["data"]["transform"]["augmentations"]
    plain_cold, plain = cpu_s_per_crop(photos, ())
    _, full = cpu_s_per_crop(photos, augmentations)
    measured = {"photos read": plain_cold, "cached": plain, f"{len(augmentations)} augmentations": full}
    for label, cost_s in measured.items():
        print(f"{label:>16}: {1 / cost_s:6.0f} images/s per core, {cost_s * 1e3:.2f} ms each")
    print(f"augmented / cached {full / plain:.1f}, augmented / read {full / plain_cold:.2f}")
    assert full <= MOST_TIMES_READ * plain_cold  # or the cache of decoded photos would be the wrong thing to have
    assert full <= MOST_TIMES_PLAIN * plain
