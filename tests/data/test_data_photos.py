"""Reading one photo: upright, RGB, and never half."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crack_sweeps.data import images
from crack_sweeps.data.images import image_size, read_image
from crack_sweeps.data.photos import Photo, PhotoSet, ResolvedMaskRule
from crack_sweeps.errors import DataError

NOISE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def test_a_photo_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / "1.png")
    assert np.array_equal(read_image(tmp_path / "1.png"), NOISE)
    assert image_size(tmp_path / "1.png") == ((40, 56), False)


def test_a_photo_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    Image.fromarray(NOISE).save(tmp_path / "1.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "1.png"), np.rot90(NOISE, -1))
    assert image_size(tmp_path / "1.png") == ((56, 40), True)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_every_common_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("1.tif" if mode == "CMYK" else "1.png")
    Image.fromarray(NOISE).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (40, 56, 3)
    assert image.dtype == np.uint8


def test_16_bit_grey_keeps_its_upper_byte(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255, 256, 65535]], dtype=np.uint16)).save(tmp_path / "1.png")
    assert read_image(tmp_path / "1.png")[0, :, 0].tolist() == [0, 0, 1, 255]


def test_float_pixels_are_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "1.tif")
    with pytest.raises(DataError, match=r"1\.tif: pixels of type float32"):
        read_image(tmp_path / "1.tif")


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "tif", "webp"])
def test_a_photo_cut_off_anywhere_is_an_error_that_names_it(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"1.{ending}"
    Image.fromarray(NOISE).save(path)
    whole = path.read_bytes()
    for percent in range(0, 99, 3):
        path.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(DataError, match=rf"1\.{ending}: (not a whole image|an empty file)"):
            read_image(path)


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "webp"])
def test_flipped_bits_give_pixels_or_an_error_that_names_the_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"1.{ending}"
    Image.fromarray(NOISE).save(path)
    whole, chance = path.read_bytes(), random.Random(0)
    refusals: list[str] = []
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[chance.randrange(min(400, len(damaged)))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            assert read_image(path).ndim == 3
        except DataError as error:
            refusals.append(error.message)
    assert refusals
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in refusals)


def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(NOISE).save(tmp_path / "1.png")
    for limit in (NOISE.size // 3 - 1, 100):  # Pillow warns above its limit and raises above twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=r"1\.png: more than 89 million pixels"):
            read_image(tmp_path / "1.png")


def test_the_limit_that_is_told_is_the_one_that_holds() -> None:
    assert images.MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_a_missing_photo_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")


def test_a_set_gives_the_photos_of_one_split() -> None:
    one, two = (Photo(name, Path(name), Path(name), split, name) for name, split in (("a", "train"), ("b", "val")))
    photos = PhotoSet("set", Path(), (one, two), ResolvedMaskRule(crack_values=(1,)), "0", ())
    assert photos.split("train") == (one,)
    assert photos.split("test") == ()


def test_a_rule_says_what_it_reads() -> None:
    assert str(ResolvedMaskRule(crack_values=(255,), allowed=(0, 255))) == "== 255"
    assert str(ResolvedMaskRule(threshold=128, invert=True, channel="max")) == ">= 128, inverted, channel max"


@pytest.mark.parametrize(
    ("content", "said", "remedy"),
    [
        (b"", "an empty file", "copy it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page", "download the file again"),
    ],
)
def test_a_file_that_is_no_image_is_told_for_what_it_is(tmp_path: Path, content: bytes, said: str, remedy: str) -> None:
    (tmp_path / "1.jpg").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_image(tmp_path / "1.jpg")
    assert remedy in (caught.value.hint or "")
