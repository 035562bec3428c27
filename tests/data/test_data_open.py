"""Opening a whole set: what is found, what is warned of, and what the digest notices."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crack_sweeps.data import synthetic
from crack_sweeps.data.masks import read_pair
from crack_sweeps.data.open import open_photos
from crack_sweeps.data.photos import PhotoSet
from crack_sweeps.errors import DataError
from crack_sweeps.specs.experiment import Data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten photos of noise, each with a crack across."""
    chance = np.random.default_rng(0)
    root = tmp_path / "walls"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(10):
        mask = np.zeros((24, 32), dtype=np.uint8)
        mask[number] = 255
        Image.fromarray(chance.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(root / f"images/{number}.png")
        Image.fromarray(mask).save(root / f"masks/{number}.png")
    return root


def opened(path: Path, **settings: object) -> PhotoSet:
    return open_photos(Data(path=path, **settings))


def test_a_folder_opens_as_a_set(folder: Path) -> None:
    photos = opened(folder)
    assert photos.name == "walls"
    assert [len(photos.split(split)) for split in ("train", "val", "test")] == [6, 2, 2]
    assert photos.rule.crack_values == (255,)
    image, mask = read_pair(photos.photos[0], photos.rule)
    assert image.shape == (24, 32, 3)
    assert int(mask.sum()) == 32


def test_the_digest_does_not_depend_on_where_the_set_lies(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert opened(tmp_path / "elsewhere").digest == opened(folder).digest


def test_the_digest_notices_a_byte_a_name_a_split_and_a_rule(folder: Path) -> None:
    digests = [opened(folder).digest, opened(folder, split_seed=1).digest, opened(folder, mask={"threshold": 1}).digest]
    mask = np.array(Image.open(folder / "masks/3.png"))
    mask[20, 20] = 255
    Image.fromarray(mask).save(folder / "masks/3.png")
    digests.append(opened(folder).digest)
    (folder / "images/3.png").rename(folder / "images/x.png")
    (folder / "masks/3.png").rename(folder / "masks/x.png")
    digests.append(opened(folder).digest)
    assert len(set(digests)) == 5


def test_a_rule_that_was_given_as_it_would_be_found_has_the_same_digest(folder: Path) -> None:
    assert opened(folder, mask={"crack_values": [255]}).digest == opened(folder).digest


def test_a_photo_that_was_cut_off_is_named_at_opening(folder: Path) -> None:
    whole = (folder / "images/7.png").read_bytes()
    (folder / "images/7.png").write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"images/7\.png: not a whole image"):
        opened(folder)


def test_pairs_of_different_size_are_counted_at_opening(folder: Path) -> None:
    for number in (2, 5):
        Image.new("L", (31, 24)).save(folder / f"masks/{number}.png")
    with pytest.raises(DataError, match=r"2 of 10 photos differ in size.*2\.png is 32x24 px, .*2\.png 31x24"):
        opened(folder)


def test_masks_that_ignored_the_photos_rotation_are_told_so(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "images/2.png").save(folder / "images/2.png", exif=exif)
    with pytest.raises(DataError, match="1 of 10 photos differ in size") as caught:
        opened(folder)
    assert "turned by their EXIF tag" in (caught.value.hint or "")


def test_copies_of_one_photo_under_two_names_stay_in_one_split(folder: Path) -> None:
    for number in range(1, 6):
        shutil.copy(folder / "images/0.png", folder / f"images/{number}.png")
    for seed in range(4):
        assert len({photo.split for photo in opened(folder, split_seed=seed).photos if photo.name in "012345"}) == 1


def test_equal_names_in_train_and_test_stay_two_photos(folder: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(folder, folder.parent / "both" / split)
    for number in range(10):  # other photos than those of train
        path = folder.parent / f"both/test/images/{number}.png"
        Image.fromarray(255 - np.array(Image.open(path))).save(path)
    photos = opened(folder.parent / "both")
    assert {"train-0", "test-0"} <= {photo.name for photo in photos.photos}
    assert photos.warnings == ()


def test_names_are_unique_and_groups_never_cross_train_and_val(deepcrack: Path) -> None:
    photos = opened(deepcrack)
    assert max(Counter(photo.name for photo in photos.photos).values()) == 1
    train, val = ({photo.group for photo in photos.split(split)} for split in ("train", "val"))
    assert not train & val


def test_deepcrack_opens_in_seconds_with_its_leak_named(deepcrack: Path) -> None:
    start = time.process_time()
    photos = opened(deepcrack)
    assert time.process_time() - start <= 6.0
    assert [len(photos.split(split)) for split in ("train", "val", "test")] == [240, 60, 237]
    assert photos.warnings == (
        "19 of 237 test photos were cut from photos that are in train or val too: 11142, 11289, IMG_6536; "
        "test scores flatter a little",
    )


def test_every_deepcrack_pair_reads(deepcrack: Path) -> None:
    photos = opened(deepcrack)
    shares = []
    for photo in photos.photos[::12]:
        image, mask = read_pair(photo, photos.rule)
        assert image.shape[:2] == mask.shape == (384, 544)
        shares.append(float(mask.mean()))
    assert 0.02 < float(np.mean(shares)) < 0.08


def test_crackforest_opens_with_crack_as_2(crackforest: Path) -> None:
    photos = opened(crackforest)
    assert [len(photos.split(split)) for split in ("train", "val", "test")] == [75, 19, 24]
    assert photos.rule.crack_values == (2,)
    assert 0.005 < float(np.mean([read_pair(photo, photos.rule)[1].mean() for photo in photos.photos[::6]])) < 0.03


def test_the_builtin_set_is_not_drawn_where_nothing_may_be_written(tmp_path: Path) -> None:
    assert open_photos(Data(), root=tmp_path / "artifacts", draw=False) is None
    assert list(tmp_path.iterdir()) == []


def test_the_builtin_set_opens_by_its_name(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []

    def draw(cache_dir: Path, *, notify: object) -> Path:
        drawn.append(cache_dir)
        return folder

    monkeypatch.setattr(synthetic, "draw_builtin", draw)
    assert open_photos(Data(), root=tmp_path / "artifacts").name == "builtin"
    assert drawn == [synthetic.builtin_folder(tmp_path / "artifacts").parent]
