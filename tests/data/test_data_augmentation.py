"""Augmentations written as text: what is built, what is refused, and where the randomness comes from."""

from __future__ import annotations

import random
from collections import Counter

import albumentations as A
import numpy as np
import pytest

from crack_sweeps.data.augmentation import augment, build_pipeline, check_on_crop
from crack_sweeps.errors import SpecError
from crack_sweeps.specs.augmentations import REPLACED, table

SIDE = 48
FLIPS = ("A.RandomRotate90(p=0.5)", "A.HorizontalFlip(p=0.5)", "A.VerticalFlip(p=0.5)")

SECONDS_EACH = {"Superpixels", "PiecewiseAffine"}
NOT_WITH_DEFAULTS = {"ConstrainedCoarseDropout", "CropAndPad", "ToRGB"}


def allowed_transforms() -> list[str]:
    """Every transform that a spec may name and that needs no argument."""
    return [
        name
        for name, entry in table()["transforms"].items()
        if "refused" not in entry
        and "group" not in entry
        and name not in SECONDS_EACH | NOT_WITH_DEFAULTS | REPLACED.keys()
        and all("default" in parameter for parameter in entry["parameters"].values())
    ]


def a_crop() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return image, (rng.random((SIDE, SIDE)) < 0.1).astype(np.uint8)


def through(pipeline: A.Compose, seed: int) -> tuple[np.ndarray, np.ndarray]:
    image, mask = a_crop()
    return augment(pipeline, image, mask, np.random.default_rng(seed))


@pytest.mark.parametrize("name", allowed_transforms())
def test_a_sample_depends_on_its_seed_and_not_on_what_the_pipeline_did_before(name: str) -> None:
    check_on_crop([f"A.{name}(p=1.0)"], SIDE)
    fresh, used = build_pipeline([f"A.{name}(p=1.0)"]), build_pipeline([f"A.{name}(p=1.0)"])
    forwards = [through(fresh, seed) for seed in (0, 1, 2)]
    backwards = [through(used, seed) for seed in (2, 1, 0)][::-1]
    for (image, mask), (image_again, mask_again) in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(image, image_again)
        np.testing.assert_array_equal(mask, mask_again)


def test_flips_are_thrown_independently() -> None:
    # With albumentations' own set_random_seed only two of the eight outcomes ever come up.
    pipeline = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.Transpose(p=0.5)], save_applied_params=True)
    seen: Counter[frozenset[str]] = Counter()
    image, mask = a_crop()
    for seed in range(400):
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        seen[frozenset(name for name, _ in pipeline(image=image, mask=mask)["applied_transforms"])] += 1
    assert len(seen) == 8
    assert min(seen.values()) > 25  # 50 expected of each


def test_augment_throws_the_flips_of_the_default_list_independently() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0], image[0, 1], image[1, 0] = 1, 2, 3  # each of the eight symmetries of a square shows
    mask = np.zeros((2, 2), np.uint8)
    pipeline = build_pipeline(["A.Transpose(p=0.5)", "A.HorizontalFlip(p=0.5)", "A.VerticalFlip(p=0.5)"])
    seen = Counter(augment(pipeline, image, mask, np.random.default_rng(seed))[0].tobytes() for seed in range(400))
    assert len(seen) == 8
    assert min(seen.values()) > 25


def test_nested_choices_are_built_and_follow_the_seed() -> None:
    text = "A.OneOf([A.GaussNoise(p=1.0), A.Compose([A.HorizontalFlip(p=1.0), A.VerticalFlip(p=1.0)])], p=1.0)"
    pipeline = build_pipeline([text])
    image, _ = a_crop()
    outcomes = {through(pipeline, seed)[0].tobytes() for seed in range(20)}
    assert image[::-1, ::-1].tobytes() in outcomes
    assert len(outcomes) > 5  # noise differs from seed to seed
    np.testing.assert_array_equal(through(pipeline, 3)[0], through(build_pipeline([text]), 3)[0])


@pytest.mark.parametrize(
    "text", ["A.Affine(rotate=(-30, 30), p=1.0)", "A.ElasticTransform(p=1.0)", "A.Perspective(p=1.0)"]
)
def test_masks_stay_masks_under_warping(text: str) -> None:
    pipeline = build_pipeline([text])
    for seed in range(5):
        assert set(np.unique(through(pipeline, seed)[1])) <= {0, 1}


def test_image_and_mask_move_together() -> None:
    mask = a_crop()[1]
    image = np.repeat(mask[:, :, None], 3, axis=2)
    pipeline = build_pipeline(FLIPS)
    for seed in range(10):
        moved_image, moved_mask = augment(pipeline, image, mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(moved_image[:, :, 0], moved_mask)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A.XYMasking(num_masks_x=1, mask_x_length=100, p=1.0)", "fails on a 48 px crop"),
        ("A.ToRGB(p=1.0)", "already an RGB"),
        ("A.CropAndPad(p=1.0)", "px"),
        ("A.CoarseDropout(fill_mask=7, p=1.0)", "a mask of 0 and 1 came to hold 7"),
        ("A.Affine(rotate=10, mask_interpolation=1, p=1.0)", "mask_interpolation would blend"),
    ],
)
def test_what_cannot_train_is_refused_by_name_before_training(text: str, says: str) -> None:
    with pytest.raises(SpecError) as refusal:
        check_on_crop([*FLIPS, text], SIDE)
    assert text in refusal.value.message
    assert says in refusal.value.message
    assert refusal.value.hint


def test_a_value_out_of_range_is_told_in_one_line_with_its_key() -> None:
    with pytest.raises(SpecError) as refusal:
        build_pipeline(["A.GaussNoise(std_range=(0.5, 3.0), p=1.0)"])
    assert "std_range" in refusal.value.message
    assert "\n" not in refusal.value.message
    assert "errors.pydantic.dev" not in refusal.value.message


def test_what_the_spec_refuses_is_refused_here_too() -> None:
    with pytest.raises(SpecError, match="changes the size of the crop"):
        build_pipeline(["A.RandomCrop(height=32, width=32, p=1.0)"])


def test_a_result_that_only_sometimes_is_no_crop_is_caught_when_it_happens() -> None:
    pipeline = A.Compose([A.RandomCrop(height=32, width=32, p=0.5)])
    refusals = [refusal(pipeline, seed) for seed in range(20)]
    assert None in refusals
    assert any(told is not None and "became uint8 (32, 32, 3)" in told for told in refusals)


def refusal(pipeline: A.Compose, seed: int) -> str | None:
    try:
        through(pipeline, seed)
    except SpecError as error:
        return error.message
    return None
