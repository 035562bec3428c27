"""Crops: the same everywhere, on cracks where asked, within the memory limit."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crack_sweeps.data.cache import DecodedPhoto, PhotoCache
from crack_sweeps.data.crops import CropDataset, Draw, draws
from crack_sweeps.data.photos import Photo, ResolvedMaskRule

RULE = ResolvedMaskRule(crack_values=(255,))
FLIPS = ("A.RandomRotate90(p=0.5)", "A.HorizontalFlip(p=0.5)", "A.VerticalFlip(p=0.5)")


def save(folder: Path, name: str, image_HW3: np.ndarray, mask_HW: np.ndarray) -> Photo:
    photo = Photo(name, folder / f"{name}.png", folder / f"{name}_mask.png", "train", name)
    Image.fromarray(image_HW3).save(photo.image)
    Image.fromarray(mask_HW * np.uint8(255)).save(photo.mask)
    return photo


def noise_photo(folder: Path, name: str, height: int, width: int, cracks: list[tuple[int, int]]) -> Photo:
    rng = np.random.default_rng(height * 10_000 + width)
    mask = np.zeros((height, width), np.uint8)
    for row, column in cracks:
        mask[row, column] = 1
    return save(folder, name, rng.integers(0, 256, (height, width, 3), dtype=np.uint8), mask)


def dataset(photos: list[Photo], **settings: object) -> CropDataset:
    defaults: dict[str, object] = {
        "crop_px": 32,
        "crack_crop_fraction": 0.7,
        "augmentations": FLIPS,
        "seed": 5,
        "cache_bytes": 1 << 30,
    }
    return CropDataset(photos, RULE, **(defaults | settings))  # type: ignore[arg-type]


# --- order ---------------------------------------------------------------------------------------


def test_no_photo_comes_twice_before_every_photo_came_once() -> None:
    stream = [draw.photo for epoch in range(10) for draw in draws(7, epoch, num_photos=5, count=3)]
    for start in range(0, 30, 5):
        assert sorted(stream[start : start + 5]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("num_photos", "count"), [(5, 5), (5, 3), (5, 13), (1, 4), (7, 1)])
def test_an_epoch_numbers_its_samples_from_zero_and_has_as_many_as_asked(num_photos: int, count: int) -> None:
    for epoch in range(4):
        epoch_draws = draws(0, epoch, num_photos, count)
        assert [(draw.epoch, draw.position) for draw in epoch_draws] == [(epoch, k) for k in range(count)]
        assert all(0 <= draw.photo < num_photos for draw in epoch_draws)


def test_order_depends_on_seed_and_epoch() -> None:
    orders = {tuple(draw.photo for draw in draws(seed, epoch, 50, 50)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert draws(1, 2, 50, 50) == draws(1, 2, 50, 50)


# --- where a crop lies ---------------------------------------------------------------------------


def test_a_crop_that_seeks_a_crack_holds_one(tmp_path: Path) -> None:
    corners_and_middle = [(0, 0), (0, 99), (79, 0), (79, 99), (40, 50)]
    crops = dataset([noise_photo(tmp_path, "a", 80, 100, corners_and_middle)], crack_crop_fraction=1.0)
    assert all(crops[Draw(0, position, 0)][1].any() for position in range(200))


def test_crops_seek_each_crack_pixel_alike_and_jitter_it(tmp_path: Path) -> None:
    crops = dataset(
        [noise_photo(tmp_path, "a", 200, 200, [(60, 60), (140, 140)])], crack_crop_fraction=1.0, augmentations=()
    )
    masks = [crops[Draw(0, position, 0)][1] for position in range(300)]
    places = [tuple(int(x) for x in np.argwhere(mask)[0]) for mask in masks]
    assert all(4 <= row < 28 and 4 <= column < 28 for row, column in places)  # an eighth of 32 px from the border
    assert len(set(places)) > 150
    image = np.asarray(Image.open(tmp_path / "a.png"))
    near_first = sum(
        np.array_equal(crops[Draw(0, position, 0)][0], image[60 - row : 92 - row, 60 - column : 92 - column])
        for position, (row, column) in enumerate(places)
    )
    assert 110 < near_first < 190


def test_the_share_of_crack_seeking_crops_is_as_asked(tmp_path: Path) -> None:
    photo = noise_photo(tmp_path, "a", 400, 400, [(200, 200)])  # 0.8 % of places anywhere would hold it by chance
    crops = dataset([photo], crack_crop_fraction=0.5, augmentations=())
    holding = sum(bool(crops[Draw(0, position, 0)][1].any()) for position in range(400))
    assert 160 < holding < 240
    anywhere = dataset([photo], crack_crop_fraction=0.0)
    assert sum(bool(anywhere[Draw(0, position, 0)][1].any()) for position in range(100)) < 10


def test_a_photo_without_a_crack_gives_crops_from_everywhere(tmp_path: Path) -> None:
    crops = dataset([noise_photo(tmp_path, "a", 40, 40, [])], crack_crop_fraction=1.0, augmentations=())
    assert len({crops[Draw(0, position, 0)][0].tobytes() for position in range(400)}) > 60  # of 81 places


def test_a_crop_without_augmentation_is_a_piece_of_the_photo_and_its_mask(tmp_path: Path) -> None:
    photo = noise_photo(tmp_path, "a", 32, 32, [(3, 4)])
    image, mask = dataset([photo], augmentations=())[Draw(0, 0, 0)]
    np.testing.assert_array_equal(image, np.asarray(Image.open(photo.image)))
    assert np.argwhere(mask).tolist() == [[3, 4]]


def test_a_small_photo_is_continued_by_its_mirror_image(tmp_path: Path) -> None:
    photo = noise_photo(tmp_path, "a", 20, 64, [(0, 10)])
    image, mask = dataset([photo], augmentations=(), crack_crop_fraction=0.0)[Draw(0, 0, 0)]
    assert image.shape == (32, 32, 3)
    assert mask.shape == (32, 32)
    np.testing.assert_array_equal(image[6 - 1], image[6 + 1])  # row 6 is the photo's first
    np.testing.assert_array_equal(image[25 + 1], image[25 - 1])
    tiny = dataset([noise_photo(tmp_path, "b", 3, 5, [(1, 1)])], crop_px=64)
    assert tiny[Draw(0, 0, 0)][0].shape == (64, 64, 3)


# --- the same everywhere -------------------------------------------------------------------------


def test_a_crop_does_not_depend_on_what_was_cut_before(tmp_path: Path) -> None:
    photos = [noise_photo(tmp_path, str(k), 60, 70, [(k, k), (30, 40)]) for k in range(3)]
    augmentations = (*FLIPS, "A.GaussNoise(p=0.5)", "A.ElasticTransform(p=0.3)", "A.RandomBrightnessContrast(p=0.5)")
    wanted = [draw for epoch in range(2) for draw in draws(0, epoch, 3, 6)]
    forwards, backwards = dataset(photos, augmentations=augmentations), dataset(photos, augmentations=augmentations)
    first = [forwards[draw] for draw in wanted]
    second = [backwards[draw] for draw in reversed(wanted)][::-1]
    copied = pickle.loads(pickle.dumps(forwards))
    third = [copied[draw] for draw in wanted]
    for one, two, three in zip(first, second, third, strict=True):
        for a, b, c in zip(one, two, three, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("other", [Draw(1, 0, 0), Draw(0, 1, 0)])
def test_epoch_and_position_each_change_the_crop(tmp_path: Path, other: Draw) -> None:
    crops = dataset([noise_photo(tmp_path, "a", 200, 200, [])])
    assert not np.array_equal(crops[Draw(0, 0, 0)][0], crops[other][0])


def test_the_seed_changes_the_crop_and_zero_is_a_seed_like_any_other(tmp_path: Path) -> None:
    photo = noise_photo(tmp_path, "a", 200, 200, [])
    assert len({dataset([photo], seed=seed)[Draw(0, 0, 0)][0].tobytes() for seed in range(5)}) == 5


def test_an_augmentation_cannot_change_the_photo_in_the_cache(tmp_path: Path) -> None:
    crops = dataset([noise_photo(tmp_path, "a", 32, 32, [(3, 4)])], augmentations=("A.CoarseDropout(p=1.0)",))
    first = crops[Draw(0, 0, 0)][0]
    np.testing.assert_array_equal(crops[Draw(0, 0, 0)][0], first)
    kept = crops.cache.get(0, lambda: pytest.fail("was not kept"))
    with pytest.raises(ValueError, match="read-only"):
        kept.image_HW3[0, 0] = 0


# --- memory --------------------------------------------------------------------------------------


def decoded(side: int, num_cracks: int) -> DecodedPhoto:
    mask = np.zeros((side, side), np.uint8)
    mask.ravel()[:num_cracks] = 1
    return DecodedPhoto.of(np.zeros((side, side, 3), np.uint8), mask)


def test_bytes_are_those_of_image_mask_and_crack_table() -> None:
    assert decoded(side=10, num_cracks=7).num_bytes == 300 + 100 + 7 * 4
    assert decoded(side=10, num_cracks=7).cracks.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_the_cache_keeps_what_fits_and_never_more() -> None:
    cache = PhotoCache(limit_bytes=1000)
    reads: Counter[int] = Counter()

    def get(number: int) -> DecodedPhoto:
        def decode() -> DecodedPhoto:
            reads[number] += 1
            return decoded(side=10, num_cracks=0)

        return cache.get(number, decode)

    for _ in range(3):
        for number in range(4):
            get(number)
            assert cache.used_bytes <= 1000
    assert cache.used_bytes == 800
    assert len(cache) == 2
    assert reads == {0: 1, 1: 1, 2: 3, 3: 3}
    assert get(0) is get(0)


def test_a_limit_of_zero_keeps_nothing() -> None:
    cache = PhotoCache(limit_bytes=0)
    cache.get(0, lambda: decoded(10, 0))
    assert cache.used_bytes == len(cache) == 0


def test_the_limit_is_split_among_processes(tmp_path: Path) -> None:
    crops = dataset([noise_photo(tmp_path, "a", 32, 32, [])], cache_bytes=1000)
    assert crops.split_among(4).cache.limit_bytes == 250


def before_weights(seed: int, epoch: int, num_photos: int, count: int) -> list[int]:
    """The order of photos as it was before weights: stored trainings go on by it."""
    first = epoch * count
    rounds = range(first // num_photos, -(-(first + count) // num_photos))
    photos = [
        int(photo)
        for number in rounds
        for photo in np.random.default_rng((0x6F726472, seed, number)).permutation(num_photos)
    ]
    return photos[first % num_photos : first % num_photos + count]


@pytest.mark.parametrize(("num_photos", "count"), [(5, 5), (5, 3), (5, 13), (1, 4), (7, 1), (240, 16)])
def test_photos_of_equal_weight_come_as_they_always_came(num_photos: int, count: int) -> None:
    for seed, epoch in ((0, 0), (3, 1), (3, 77)):
        expected = before_weights(seed, epoch, num_photos, count)
        for weights in (None, [1.0] * num_photos, [2.5] * num_photos):
            assert [draw.photo for draw in draws(seed, epoch, num_photos, count, weights)] == expected


def test_a_photo_of_twice_the_weight_comes_twice_as_often() -> None:
    weights = [1.0] * 30 + [2.0] * 15
    seen = Counter(draw.photo for epoch in range(40) for draw in draws(7, epoch, 45, 60, weights))
    light, heavy = ([seen[photo] for photo in photos] for photos in (range(30), range(30, 45)))
    assert sum(light) == sum(heavy) == 1200  # 30 x 1 and 15 x 2
    assert (set(light), set(heavy)) == ({40}, {80})  # in turn among themselves, over all epochs


def test_weighted_draws_are_a_function_of_seed_and_epoch() -> None:
    weights = [1.0, 3.0, 1.0, 5.0, 1.0]
    assert draws(3, 9, 5, 16, weights) == draws(3, 9, 5, 16, weights)
    assert draws(3, 9, 5, 16, weights) != draws(3, 8, 5, 16, weights)
    assert draws(3, 9, 5, 16, weights) != draws(4, 9, 5, 16, weights)
    assert [draw.position for draw in draws(3, 9, 5, 16, weights)] == list(range(16))


def test_weights_are_mixed_over_an_epoch_and_not_one_after_the_other() -> None:
    weights = [1.0] * 50 + [2.0] * 50
    heavy = [draw.photo >= 50 for draw in draws(0, 0, 100, 150, weights)]
    assert sum(heavy) == 100
    assert 25 <= sum(heavy[:50]) <= 42


def test_no_set_goes_without_a_crop_where_there_are_enough() -> None:
    weights = [0.001] * 3 + [1000.0] * 3
    assert min(draw.photo for draw in draws(0, 0, 6, 8, weights)) < 3
    for count in range(1, 12):
        assert len(draws(0, 0, 6, count, weights)) == count
