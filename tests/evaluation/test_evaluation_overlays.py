"""Overlays: which images are picked, what colours a pixel gets, and that everybody can tell them apart."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.evaluation.counts import PixelCounts, count_pixels, stack
from crack_sweeps.evaluation.evaluate import each_photo, gather
from crack_sweeps.evaluation.overlay_panels import NAMES, find_overlays
from crack_sweeps.evaluation.overlays import (
    FALSE_ALARM,
    FOUND,
    MISSED,
    draw_errors,
    draw_overlay,
    pick_images,
    write_contact_sheet,
    write_overlays,
    write_shared_overlays,
)
from crack_sweeps.evaluation.scores import Evaluation


def scored(true_positives: int, of: int = 10) -> PixelCounts:
    """An image whose crack IoU is true_positives / of."""
    probability = np.zeros((1, 20), np.float32)
    probability[0, :true_positives] = 1.0
    mask = np.zeros((1, 20), np.uint8)
    mask[0, :of] = 1
    return count_pixels(probability, mask)


def evaluation(*images: PixelCounts) -> Evaluation:
    names = tuple(f"p{i}" for i in range(len(images)))
    return Evaluation(names=names, groups=names, counts=stack(images))


def picked(of: Evaluation, num_each: int) -> dict[str, list[int]]:
    picks = pick_images(of, 0.5, num_each)
    return {kind: [pick.index for pick in picks if pick.kind == kind] for kind in ("best", "median", "worst")}


def test_best_median_and_worst_are_picked_by_image_iou() -> None:
    of = evaluation(*(scored(n) for n in (5, 9, 1, 7, 3, 8, 2, 6, 4)))
    assert picked(of, 1) == {"best": [1], "median": [0], "worst": [2]}
    assert picked(of, 2) == {"best": [1, 5], "median": [7, 0], "worst": [2, 6]}


@pytest.mark.parametrize("num_images", range(1, 14))
@pytest.mark.parametrize("num_each", [1, 2, 4, 64])
def test_no_image_is_picked_twice_and_ranks_count_from_one(num_images: int, num_each: int) -> None:
    picks = pick_images(evaluation(*(scored(n % 7 + 1) for n in range(num_images))), 0.5, num_each)
    indexes = [pick.index for pick in picks]
    assert len(set(indexes)) == len(indexes)
    assert len(indexes) >= min(num_images, 3 * min(num_each, max(1, num_images // 3)))
    for kind, of_kind in itertools.groupby(picks, key=lambda pick: pick.kind):
        ranks = list(of_kind)
        assert [pick.rank for pick in ranks] == list(range(1, len(ranks) + 1)), kind
        assert {pick.of for pick in ranks} == {len(ranks)}


def test_images_on_which_there_is_nothing_to_see_are_passed_over() -> None:
    nothing = scored(0, of=0)
    assert picked(evaluation(nothing, scored(5), nothing, scored(8), scored(2)), 1) == {
        "best": [3],
        "median": [1],
        "worst": [4],
    }
    assert picked(evaluation(nothing), 4) == {"best": [0], "median": [], "worst": []}


def test_a_false_alarm_on_an_image_without_a_crack_is_among_the_worst() -> None:
    alarm = count_pixels(np.ones((1, 20), np.float32), np.zeros((1, 20), np.uint8))
    assert picked(evaluation(scored(3), alarm, scored(9)), 1)["worst"] == [1]


def test_each_kind_of_pixel_has_its_colour_and_the_rest_is_the_faded_photo() -> None:
    image = np.full((1, 4, 3), 100, np.uint8)
    probability = np.array([[0.9, 0.9, 0.1, 0.1]], np.float32)
    mask = np.array([[1, 0, 1, 0]], np.uint8)
    found, alarm, missed, rest = draw_errors(image, mask, probability, 0.5)[0].tolist()
    assert (tuple(found), tuple(alarm), tuple(missed)) == (FOUND, FALSE_ALARM, MISSED)
    assert rest[0] == rest[1] == rest[2] == round(255 * 0.62 + 100 * 0.38)


# Linear-RGB matrices of Machado, Oliveira and Fernandes 2009, table 1, severity 1.
SEEN_BY = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def as_seen(colour: tuple[int, int, int], eye: str) -> np.ndarray:
    """The CIELAB colour that somebody with this kind of colour vision sees."""
    srgb = np.array(colour) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = (np.array(SEEN_BY[eye]) @ linear).clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(srgb[None, None])[0, 0]


@pytest.mark.parametrize("eye", SEEN_BY)
def test_every_kind_of_eye_can_tell_the_colours_apart_from_each_other_and_from_any_photo(eye: str) -> None:
    darkest = round(255 * 0.62)
    shades = [FOUND, FALSE_ALARM, MISSED, (darkest,) * 3, (255,) * 3]
    seen = [as_seen(colour, eye) for colour in shades]
    for one, other in itertools.combinations(range(4), 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 25, (shades[one], shades[other])  # 2.3 is just noticeable
    red, green = as_seen((255, 0, 0), "deutan"), as_seen((163, 90, 0), "deutan")
    assert np.linalg.norm(red - green) < 25  # the check can fail: red and brown are one colour to a deutan eye


def drawn(height: int, width: int, title: str = "some photo") -> np.ndarray:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = (rng.random((height, width)) < 0.1).astype(np.uint8)
    return draw_overlay(image, mask, rng.random((height, width), dtype=np.float32), 0.5, title=title)


@pytest.mark.parametrize("size", [(384, 544), (256, 256), (128, 128), (1, 1), (900, 40), (30, 1500), (1200, 1600)])
def test_a_picture_fits_on_a_screen_and_is_never_too_small_for_its_words(size: tuple[int, int]) -> None:
    picture = drawn(*size, title="a name that goes on and on " * 20)
    assert 640 <= picture.shape[1] <= 1840
    assert (picture[:, :12] == 255).all()  # the margins are free: no word runs over them
    assert (picture[:, -12:] == 255).all()


def test_the_photo_is_shown_pixel_by_pixel_where_it_fits() -> None:
    image = np.random.default_rng(3).integers(0, 256, (384, 544, 3), dtype=np.uint8)
    picture = draw_overlay(image, np.zeros((384, 544), np.uint8), np.zeros((384, 544), np.float32), 0.5, title="t")
    np.testing.assert_array_equal(picture[80 : 80 + 384, 12 : 12 + 544], image)


def test_the_caption_tells_the_threshold() -> None:
    image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    probability = np.zeros((64, 64), np.float32)
    one, same, other = (draw_overlay(image, mask, probability, t, title="t") for t in (0.5, 0.5, 0.6))
    np.testing.assert_array_equal(one, same)
    assert (one[:56] != other[:56]).any()


def test_the_pictures_of_an_evaluation_are_written_with_their_rank_and_name(tmp_path: Path) -> None:
    rule = ResolvedMaskRule(crack_values=(255,))
    photos = []
    for i in range(3):
        mask = np.zeros((40, 40), np.uint8)
        mask[:10] = 255
        image = np.full((40, 40, 3), 200, np.uint8)
        image[5 * i : 10] = 0
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / f"{i}_mask.png")
        name = f"photo-{i}" + "é" * 100 * (i == 2)
        photos.append(Photo(name, tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png", "val", "g"))

    def predict(image: np.ndarray) -> np.ndarray:
        return (image[..., 0] == 0).astype(np.float32)

    of = gather(each_photo(predict, photos, rule))
    folder = tmp_path / "predictions" / "overlays"
    written = write_overlays(predict, photos, rule, of, 0.5, folder, num_each=2)
    assert [path.name for path in written] == [
        "best-01-photo-0.png",
        f"worst-01-photo-2{'é' * 53}.png"[: len("worst-01-") + 60] + ".png",
        "median-01-photo-1.png",
    ]
    assert sorted(folder.iterdir()) == sorted(written)
    with Image.open(written[0]) as picture:
        assert picture.mode == "RGB"
    assert write_overlays(predict, photos, rule, of, 0.5, tmp_path / "none", num_each=0) == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("size", [(384, 544), (64, 48), (900, 40), (1200, 1600)])
def test_a_picture_can_be_taken_apart_into_what_it_was_made_of(tmp_path: Path, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    name = 'Riß "7" <b>' + "x" * 80
    photo = Photo(name, tmp_path / "a.png", tmp_path / "m.png", "val", "g")
    rule = ResolvedMaskRule(crack_values=(255,))

    def predict(image_HW3: np.ndarray) -> np.ndarray:
        return np.ones(image_HW3.shape[:2], np.float32)

    folder = tmp_path / "predictions"
    (path,) = write_shared_overlays(predict, [photo], rule, 0.5, folder)
    assert path.name.startswith("shared-01-Riß")
    (overlay,) = find_overlays(folder)
    assert overlay.photo == name
    panels = {panel: np.asarray(overlay.panel(panel)) for panel in NAMES}
    scale = panels["photo"].shape[0] / size[0]
    assert len({panel.shape for panel in panels.values()}) == 1
    assert panels["photo"].shape[1] == max(1, round(scale * size[1]))
    if size == (384, 544):
        np.testing.assert_array_equal(panels["photo"], image)
    assert set(np.unique(panels["truth"])) <= {0, 255} or scale < 1
    assert tuple(panels["errors"][-1, -1]) == FALSE_ALARM
    assert tuple(panels["errors"][0, 0]) == FOUND


def test_pictures_of_somebody_else_and_a_missing_folder_are_no_overlays(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "holiday.png")
    assert list(find_overlays(tmp_path)) == []
    assert list(find_overlays(tmp_path / "none")) == []


def test_pictures_are_stacked_on_one_sheet_in_their_order(tmp_path: Path) -> None:
    for name, size, colour in (("a.png", (600, 100), (255, 0, 0)), ("b.png", (2400, 400), (0, 0, 255))):
        Image.new("RGB", size, colour).save(tmp_path / name)
    path = write_contact_sheet([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "pictures.jpg")
    with Image.open(path) as sheet:
        assert sheet.size == (1200, 400)
        top, bottom = np.asarray(sheet)[100, 600], np.asarray(sheet)[300, 600]
    assert (top.argmax(), bottom.argmax()) == (0, 2)
