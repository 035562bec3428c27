"""Folders of predictions: 8-bit values against thresholds, 0 and 1 told from 0 to 255, processes change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crack_sweeps.data.photos import ResolvedMaskRule
from crack_sweeps.errors import DataError
from crack_sweeps.evaluation import prediction_files
from crack_sweeps.evaluation.prediction_files import PredictionFolder, choose_on, open_folder, score_folder
from crack_sweeps.evaluation.protocols import Scoring, score_maps
from crack_sweeps.evaluation.thresholds import crack_pixels
from crack_sweeps.specs.experiment import MaskRule


def test_value_over_255_reaches_t_exactly_when_whole_numbers_say_so() -> None:
    values = np.arange(256)
    meaning = prediction_files._OF_255[None]
    for k in range(1, 100):
        np.testing.assert_array_equal(crack_pixels(meaning, k / 100)[0], 100 * values >= 255 * k)


def write(folder: Path, num_images: int, *, scale: int = 255, size: tuple[int, int] = (24, 30)) -> tuple[Path, Path]:
    """Predictions and masks of diagonal lines, each with doubt of its own (none where the scale is 1)."""
    predictions, masks = folder / "p", folder / "m"
    for made in (predictions, masks):
        made.mkdir(parents=True)
    for number in range(num_images):
        rng = np.random.default_rng(number)
        mask = np.abs(np.subtract.outer(np.arange(size[0]), np.arange(size[1])) + number % 5) < 2
        sure = np.clip(0.6 * mask + 0.5 * rng.random(size), 0, 1)
        values = np.rint(255 * sure) if scale == 255 else scale * (sure > 0.55)
        Image.fromarray(values.astype(np.uint8)).save(predictions / f"{number:03d}.png")
        Image.fromarray((mask * 255).astype(np.uint8)).save(masks / f"{number:03d}.png")
    return predictions, masks


def scored(folder: PredictionFolder, *, threshold: float | None = None, jobs: int = 1, **how: object) -> Scoring:
    settings: dict = {"protocol": "ours", "metrics": "all", **how}
    scoring, _ = score_folder(
        folder,
        threshold=threshold,
        threshold_origin="given",
        jobs=jobs,
        progress=lambda *_: None,
        **settings,
    )
    return scoring


def opened(folders: tuple[Path, Path], *, resize: bool = False) -> PredictionFolder:
    return open_folder(*folders, MaskRule(), resize=resize)


@pytest.mark.parametrize("protocol", ["ours", "resize512-oracle"])
def test_files_score_as_the_maps_that_they_hold(tmp_path: Path, protocol: str) -> None:
    folder = opened(write(tmp_path, 4))

    def maps() -> object:
        for photo in folder.photos:
            values, mask = (np.asarray(Image.open(path)) for path in (photo.image, photo.mask))
            yield photo.name, photo.group, (values / 255).astype(np.float32), (mask > 0).astype(np.uint8)

    here = scored(folder, protocol=protocol)
    there = score_maps(maps(), threshold=None, protocol=protocol)  # type: ignore[arg-type]
    assert here.figures == there.figures
    assert (here.threshold, here.threshold_origin) == (there.threshold, "oracle")
    assert here.table.equals(there.table)


def test_masks_of_0_and_1_score_as_those_of_0_and_255(tmp_path: Path) -> None:
    of_1, of_255 = (opened(write(tmp_path / str(top), 3, scale=top)) for top in (1, 255))
    for photo, other in zip(of_1.photos, of_255.photos, strict=True):
        Image.fromarray(np.asarray(Image.open(photo.image)) * np.uint8(255)).save(other.image)
    assert scored(of_1).figures == scored(of_255).figures
    assert scored(of_1).threshold_origin == "given"  # nothing was left to choose


def test_a_faint_image_among_others_is_a_probability_and_no_mask_of_0_and_1(tmp_path: Path) -> None:
    folder = opened(write(tmp_path, 3))
    faint = np.zeros((24, 30), dtype=np.uint8)
    faint[0] = 1
    Image.fromarray(faint).save(folder.photos[0].image)
    assert scored(folder, threshold=0.5, metrics="headline").figures["num_missed"] == 1


def notes(folder: PredictionFolder) -> str:
    _, odd = score_folder(
        folder,
        threshold=None,
        threshold_origin="given",
        protocol="ours",
        metrics="headline",
        jobs=1,
        progress=lambda *_: None,
    )
    return "; ".join(odd)


def test_what_is_odd_about_predictions_is_said(tmp_path: Path) -> None:
    assert notes(opened(write(tmp_path / "fine", 2))) == ""
    assert "read as 0 and 1" in notes(opened(write(tmp_path / "ones", 2, scale=1)))
    inverted = opened(write(tmp_path / "inverted", 2, scale=254))
    for photo in inverted.photos:
        Image.fromarray(255 - np.asarray(Image.open(photo.image))).save(photo.image)
    assert "inverted?" in notes(inverted)
    black = opened(write(tmp_path / "black", 2, scale=0))
    assert "no pixel of any prediction is called crack" in notes(black)


def test_a_threshold_from_validation_is_that_of_the_best_pooled_iou_there(tmp_path: Path) -> None:
    folder = opened(write(tmp_path, 5))
    chosen = choose_on(folder, jobs=1, progress=lambda *_: None)
    assert chosen == scored(folder, metrics="headline").threshold


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing_and_progress_is_told_of_every_image(tmp_path: Path) -> None:
    folder = opened(write(tmp_path, 40))
    told: list[tuple[str, int, int]] = []
    many, _ = score_folder(
        folder,
        threshold=None,
        threshold_origin="given",
        protocol="ours",
        metrics="all",
        jobs=2,
        progress=lambda *step: told.append(step),
    )
    one = scored(folder)
    assert many.figures == one.figures
    assert many.table.equals(one.table)
    assert told == [(label, n, 40) for label in ("counting pixels", "comparing shapes") for n in range(1, 41)]


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_named_from_another_process_too(tmp_path: Path) -> None:
    folder = opened(write(tmp_path, 40))
    folder.photos[17].image.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"017\.png: not a whole image") as error:
        scored(folder, jobs=2)
    assert error.value.hint


def test_the_rule_is_found_and_unused_predictions_are_noted(tmp_path: Path) -> None:
    predictions, masks = write(tmp_path, 2)
    Image.fromarray(np.zeros((24, 30), dtype=np.uint8)).save(predictions / "extra.png")
    folder = opened((predictions, masks))
    assert folder.rule == ResolvedMaskRule(crack_values=(255,), allowed=(0, 255))
    assert "no mask for extra.png" in folder.notes[0]
