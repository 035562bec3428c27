"""Several sets trained on together: own rules, weights, unique names, no photo in two splits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crack_sweeps.data.crops import CropDataset
from crack_sweeps.data.importing import import_data
from crack_sweeps.data.masks import read_mask, read_pair
from crack_sweeps.data.open import open_photos
from crack_sweeps.data.photos import PhotoSet
from crack_sweeps.errors import DataError
from crack_sweeps.specs.experiment import Data


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drawn(root: Path, seed: int, *, crack: int = 255, background: int = 0, count: int = 10) -> Path:
    """Photos of noise with a dark row, whose masks hold these two values."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        photo = rng.integers(120, 200, (32, 48, 3), dtype=np.uint8)
        mask = np.full((32, 48), background, np.uint8)
        row = int(rng.integers(4, 28))
        photo[row], mask[row] = photo[row] // 3, crack
        Image.fromarray(photo).save(root / f"images/p{number}x.png")
        Image.fromarray(mask).save(root / f"masks/p{number}x.png")
    return root


def together(*sets: tuple[str, float]) -> PhotoSet:
    return open_photos(Data(sets=[{"path": path, "weight": weight} for path, weight in sets]))


@pytest.fixture
def two(here: Path) -> PhotoSet:
    drawn(here / "walls", 1)
    drawn(here / "roads", 2, crack=0, background=255)
    import_data("roads", name="inverted", settings=["data.mask.invert=true"])
    return together(("walls", 1.0), ("inverted", 2.0))


def test_each_photo_is_read_by_the_rule_of_its_own_set(two: PhotoSet) -> None:
    assert two.mask_rule == "== 255; == 255, inverted"
    for photo in two.photos:
        mask = read_mask(photo, two.rule)
        assert int(mask.sum()) == 48, photo.name
        assert np.array_equal(read_pair(photo, two.rule)[1], mask)
    crops = CropDataset(
        two.split("train"), two.rule, crop_px=32, crack_crop_fraction=1.0, augmentations=(), seed=0, cache_bytes=0
    )
    assert len(crops) == 12


def test_names_and_groups_say_which_set_they_are_of(two: PhotoSet) -> None:
    assert two.name == "walls+inverted"
    assert len({photo.name for photo in two.photos}) == 20
    first = two.photos[0]
    assert first.name.startswith("walls-p")
    assert first.group.startswith("walls/p")
    assert {photo.weight for photo in two.photos if photo.name.startswith("inverted-")} == {2.0}


def test_photos_keep_the_splits_of_their_sets(two: PhotoSet) -> None:
    alone = open_photos(Data(path=Path("walls")))
    for split in ("train", "val", "test"):
        mine = [photo.image for photo in two.split(split) if photo.name.startswith("walls-")]
        assert mine == [photo.image for photo in alone.split(split)]


def test_the_digest_knows_sets_and_weights_and_no_places(two: PhotoSet, here: Path) -> None:
    digests = {
        two.digest,
        together(("walls", 1.0), ("inverted", 3.0)).digest,
        together(("inverted", 2.0), ("walls", 1.0)).digest,
        open_photos(Data(path=Path("walls"))).digest,
    }
    assert len(digests) == 4
    shutil.move(here / "walls", here / "bricks")
    assert together(("bricks", 1.0), ("inverted", 2.0)).digest == two.digest


def test_a_photo_of_two_sets_stays_in_test_and_leaves_train(here: Path) -> None:
    drawn(here / "walls", 1)
    shutil.copytree(here / "walls", here / "collection")
    drawn(here / "more", 3, count=10)
    for number in range(10):
        shutil.copy(here / f"more/images/p{number}x.png", here / f"collection/images/q{number}x.png")
        shutil.copy(here / f"more/masks/p{number}x.png", here / f"collection/masks/q{number}x.png")
    photos = together(("walls", 1.0), ("collection", 1.0))
    contents: dict[bytes, set[str]] = {}
    for photo in photos.photos:
        contents.setdefault(photo.image.read_bytes(), set()).add(photo.split)
    assert all(len(splits) == 1 for splits in contents.values())
    assert "photos are in another set's val or test too and were left out" in photos.warnings[-1]


def test_two_sets_of_one_name_are_refused(here: Path) -> None:
    drawn(here / "a/walls", 1)
    drawn(here / "b/walls", 2)
    with pytest.raises(DataError, match="two sets are called walls"):
        together(("a/walls", 1.0), ("b/walls", 1.0))


def test_a_set_that_is_not_there_is_named(here: Path) -> None:
    drawn(here / "walls", 1)
    with pytest.raises(DataError, match="wals does not exist") as caught:
        together(("walls", 1.0), ("wals", 1.0))
    assert "did you mean" in (caught.value.hint or "")
