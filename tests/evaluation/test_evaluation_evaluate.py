"""Scoring over photos on disk: one at a time, to be stopped at any, and the same as counting by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.errors import DataError, NotFiniteError, OutOfMemory
from crack_sweeps.evaluation.evaluate import each_photo, evaluate, gather, predictor, same_few
from crack_sweeps.evaluation.scores import choose_threshold, score

RULE = ResolvedMaskRule(crack_values=(255,))
SETTINGS = {
    "tile_px": 32,
    "overlap": 0.25,
    "device": torch.device("cpu"),
    "batch_size": 4,
    "amp_dtype": None,
}


class DarkIsCrack(nn.Module):
    """Probability .99.. on black, 0.0.. on white."""

    def forward(self, image: Tensor) -> Tensor:
        return 10.0 - 20.0 * image.mean(dim=1, keepdim=True)


def save(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> Photo:
    Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(mask * np.uint8(255)).save(folder / f"{name}_mask.png")
    return Photo(name, folder / f"{name}.png", folder / f"{name}_mask.png", "val", f"group-{name}")


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Three photos with a dark bar: one marked as it is, one with half of it marked, one without a mark."""
    image = np.full((40, 70, 3), 255, np.uint8)
    image[10:20, 5:65] = 0
    whole, half, none = (np.zeros((40, 70), np.uint8) for _ in range(3))
    whole[10:20, 5:65] = 1
    half[10:15, 5:65] = 1
    return [save(tmp_path, name, image, mask) for name, mask in (("a", whole), ("b", half), ("c", none))]


def test_a_model_is_scored_as_counting_by_hand_says(photos: list[Photo]) -> None:
    evaluation = evaluate(DarkIsCrack(), photos, RULE, **SETTINGS)
    figures = score(evaluation, 0.5)
    # The bar has 600 pixels, always predicted: TP 600, 300, 0; FP 0, 300, 600; FN 0.
    assert figures["crack_iou"] == pytest.approx(900 / 1800)
    assert figures["crack_f1"] == pytest.approx(1800 / 2700)
    assert figures["crack_iou_image"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert figures["num_false_alarms"] == 1
    assert evaluation.names == ("a", "b", "c")
    assert evaluation.groups == ("group-a", "group-b", "group-c")
    assert choose_threshold(evaluation.counts) == 0.5


def test_the_batch_size_changes_no_score(photos: list[Photo]) -> None:
    scores = [
        score(evaluate(DarkIsCrack(), photos, RULE, **{**SETTINGS, "batch_size": batch_size}), 0.5)
        for batch_size in (1, 3, 64)
    ]
    assert scores[0] == scores[1] == scores[2]


class Greedy(DarkIsCrack):
    """Runs out of memory with more than so many tiles at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.tried: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.tried.append(len(image))
        if len(image) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(image)


def test_out_of_memory_halves_the_tiles_at_once_for_good_and_changes_no_score(photos: list[Photo]) -> None:
    model = Greedy(1).train()
    figures = score(evaluate(model, photos, RULE, **SETTINGS), 0.5)
    assert figures == score(evaluate(DarkIsCrack(), photos, RULE, **SETTINGS), 0.5)
    assert model.tried == [4, 2, *[1] * 18]  # 2 x 3 tiles of each photo
    assert model.training


def test_a_device_that_does_not_hold_one_tile_is_an_error_with_a_way_out(photos: list[Photo]) -> None:
    with pytest.raises(OutOfMemory, match="cpu has no memory for one tile of 32 px") as caught:
        evaluate(Greedy(0), photos, RULE, **SETTINGS)
    assert "evaluation.tile_px" in str(caught.value.hint)


def test_photos_are_read_one_at_a_time_and_no_further_than_the_caller_goes(photos: list[Photo]) -> None:
    asked: list[str] = []

    def listed() -> Iterator[Photo]:
        for photo in photos:
            asked.append(photo.name)
            yield photo

    scored = each_photo(predictor(DarkIsCrack(), **SETTINGS), listed(), RULE)
    assert [part.name for part in itertools.islice(scored, 2)] == ["a", "b"]
    assert asked == ["a", "b"]


def test_a_model_is_in_its_own_mode_whenever_the_caller_has_the_word(photos: list[Photo]) -> None:
    model = DarkIsCrack().train()
    scored = each_photo(predictor(model, **SETTINGS), photos, RULE)
    next(scored)
    assert model.training


def test_what_was_gathered_before_a_stop_is_an_evaluation_of_its_own(photos: list[Photo]) -> None:
    scored = each_photo(predictor(DarkIsCrack(), **SETTINGS), photos, RULE)
    assert score(gather(itertools.islice(scored, 1)), 0.5)["crack_iou"] == 1.0


def test_a_prediction_that_is_no_number_names_the_photo_and_is_never_a_score(photos: list[Photo]) -> None:
    class Broken(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image[:, :1] * float("nan")

    with pytest.raises(NotFiniteError, match=r"a\.png: the model's prediction is not a number"):
        evaluate(Broken(), photos, RULE, **SETTINGS)


def test_a_photo_that_cannot_be_read_is_named(photos: list[Photo]) -> None:
    photos[1].image.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.png"):
        evaluate(DarkIsCrack(), photos, RULE, **SETTINGS)


def test_the_few_photos_of_each_epoch_are_the_same_ones_spread_over_the_list(photos: list[Photo]) -> None:
    many = [Photo(f"{i:02d}", Path("i"), Path("m"), "val", "g") for i in range(20)]
    assert [photo.name for photo in same_few(many, 4)] == ["02", "07", "12", "17"]
    assert same_few(many, 4) == same_few(many, 4)
    assert same_few(photos, None) == same_few(photos, 3) == same_few(photos, 99) == tuple(photos)
    for num_photos in range(1, 20):
        assert len(set(same_few(many, num_photos))) == num_photos
