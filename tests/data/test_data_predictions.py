"""Prediction files: matched with masks whatever published code calls them, read as grey, or refused in one line."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.data.predictions import check_sizes, pair_predictions, read_predicted_pair, read_prediction
from crack_sweeps.errors import DataError

GREY = np.array([[0, 51, 255], [102, 7, 128]], dtype=np.uint8)


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(GREY).save(folder / name)
    return folder


def paired(tmp_path: Path, predictions: list[str], masks: list[str]) -> dict[str, tuple[str, str]]:
    found = pair_predictions(put(tmp_path / "p", *predictions), put(tmp_path / "m", *masks))
    return {photo.name: (photo.image.name, photo.mask.name) for photo in found.photos}


@pytest.mark.parametrize(
    ("prediction", "mask"),
    [
        ("a-1.png", "a-1.png"),
        ("a-1.png", "a-1.bmp"),
        ("a-1_pred.png", "a-1_mask.png"),
        ("a-1.png", "a-1_GT.png"),
        ("pred_a-1.png", "gt_a-1.png"),
        ("a-1_pre.png", "a-1_lab.png"),
        ("a-1_prob.png", "a-1.png"),
        ("a-1_mask.png", "a-1.png"),
        ("a-1_fake_B.png", "a-1_label.png"),
    ],
)
def test_endings_that_say_what_a_file_is_are_no_part_of_its_name(tmp_path: Path, prediction: str, mask: str) -> None:
    assert paired(tmp_path, [prediction], [mask]) == {"a-1": (prediction, mask)}


def test_one_folder_may_hold_both_and_photos_too(tmp_path: Path) -> None:
    both = put(tmp_path / "results", "1_pre.png", "1_lab.png", "1.jpg", "2_pre.png", "2_lab.png")
    found = pair_predictions(both, both)
    assert [(photo.image.name, photo.mask.name) for photo in found.photos] == [
        ("1_pre.png", "1_lab.png"),
        ("2_pre.png", "2_lab.png"),
    ]


def test_accents_are_compared_as_they_look(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "béton.png") for form in ("NFC", "NFD")]
    assert len(paired(tmp_path, names[:1], names[1:])) == 1


def test_predictions_without_a_mask_are_left_out_and_named(tmp_path: Path) -> None:
    found = pair_predictions(put(tmp_path / "p", "1.png", "2.png"), put(tmp_path / "m", "1.png"))
    assert [path.name for path in found.unused] == ["2.png"]


@pytest.mark.parametrize(
    ("predictions", "masks", "named"),
    [
        (["1.png"], ["1.png", "2.png", "3.png"], "2 of 3 masks in"),
        (["1.png"], ["1.png", "2.png"], "2.png"),
        (["a.png"], ["b.png"], "the first mask is b.png, the first prediction a.png"),
        (["1.png", "1.bmp"], ["1.png"], "1.bmp, 1.png could each be the prediction"),
        (["1_pred.png", "1_prob.png"], ["1.png"], "1_pred.png, 1_prob.png"),
        (["1.png"], ["1_mask.png", "1_gt.png"], "1_gt.png, 1_mask.png could each be the mask"),
    ],
)
def test_names_that_are_missing_or_could_mean_two_things_are_named(
    tmp_path: Path, predictions: list[str], masks: list[str], named: str
) -> None:
    with pytest.raises(DataError) as error:
        paired(tmp_path, predictions, masks)
    assert named in error.value.message
    assert error.value.hint


def test_a_file_cannot_be_its_own_mask(tmp_path: Path) -> None:
    folder = put(tmp_path / "m", "1.png")
    with pytest.raises(DataError, match="one and the same file"):
        pair_predictions(folder, folder)


def test_empty_and_missing_folders_are_named(tmp_path: Path) -> None:
    masks = put(tmp_path / "m", "1.png")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "1.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty: no predictions in it; it holds 1\.npy"):
        pair_predictions(empty, masks)
    with pytest.raises(DataError, match="nowhere does not exist"):
        pair_predictions(tmp_path / "nowhere", masks)


def test_grey_is_read_as_it_is_written_in_any_mode_that_says_grey(tmp_path: Path) -> None:
    picture = Image.fromarray(GREY)
    for mode in ("L", "RGB", "RGBA", "LA", "P"):
        path = tmp_path / f"{mode}.png"
        picture.convert(mode).save(path)
        np.testing.assert_array_equal(read_prediction(path), GREY, err_msg=mode)
    picture.point(lambda value: 255 * (value > 100)).convert("1").save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_prediction(tmp_path / "1.png"), 255 * (GREY > 100))


def in_colour() -> Image.Image:
    return Image.fromarray(np.stack([GREY, GREY, 255 - GREY], axis=2))


def half_transparent() -> Image.Image:
    picture = Image.fromarray(GREY).convert("LA")
    picture.putalpha(Image.fromarray(GREY))
    return picture


@pytest.mark.parametrize(
    ("picture", "ending", "named"),
    [
        (in_colour, "png", "a prediction in colour"),
        (half_transparent, "png", "transparent in places"),
        (lambda: Image.fromarray(GREY.astype(np.uint16) * 257), "png", "16 or 32 bits"),
        (lambda: Image.fromarray(GREY.astype(np.int32)), "tif", "16 or 32 bits"),
        (lambda: Image.fromarray((GREY / 255).astype(np.float32)), "tif", "floating point"),
    ],
    ids=["colour", "alpha", "16-bit", "32-bit", "float"],
)
def test_what_is_no_8_bit_grey_is_refused_with_what_to_save(
    tmp_path: Path, picture: object, ending: str, named: str
) -> None:
    path = tmp_path / f"odd.{ending}"
    picture().save(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=rf"odd\.{ending}: .*{named}") as error:
        read_prediction(path)
    assert "8-bit grey" in (error.value.hint or "")


def test_a_damaged_prediction_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"cut\.png"):
        read_prediction(tmp_path / "cut.png")


def test_another_size_is_an_error_unless_it_may_be_resized(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "p.png")
    Image.fromarray(np.full((4, 6), 255, dtype=np.uint8)).save(tmp_path / "m.png")
    photo = Photo("p", tmp_path / "p.png", tmp_path / "m.png", "test", "p")
    rule = ResolvedMaskRule(crack_values=(255,))
    with pytest.raises(DataError, match=r"1 of 1 prediction not of the mask's size: .*3x2 px.* 6x4") as error:
        check_sizes([photo])
    assert "--resize" in (error.value.hint or "")
    with pytest.raises(DataError, match="3x2 px"):
        read_predicted_pair(photo, rule, resize=False)
    values, mask = read_predicted_pair(photo, rule, resize=True)
    assert values.shape == mask.shape == (4, 6)
    assert (values[0, 0], values[0, -1]) == (0, 255)
