"""Masks as people really save them: read, or refused with the setting that reads them."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from crack_sweeps.data.mask_remedies import describe
from crack_sweeps.data.masks import count_values, decide_rule, read_mask, read_pair
from crack_sweeps.data.matlab import MatlabError, read_matlab
from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.errors import DataError
from crack_sweeps.specs.experiment import MaskRule

CRACK = np.zeros((20, 50), dtype=np.uint8)
CRACK[10, :] = 1  # 5 % of the pixels


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


def photo(mask: Path) -> Photo:
    return Photo("1", mask, mask, "train", "1")


def read(mask: Path, **given: object) -> np.ndarray:
    rule, _ = decide_rule([mask], MaskRule(**given))
    return read_mask(photo(mask), rule)


def pasted(hint: str | None) -> dict[str, object]:
    """The first setting between backticks, as `sweeps run` would understand it."""
    assert hint is not None
    settings: dict[str, object] = {}
    for key, value in re.findall(r"data\.mask\.(\w+)=(\S+)", re.search(r"`([^`]*)`", hint)[1]):
        words = {"true": True, "false": False}
        settings[key] = [int(value[1:-1])] if value[0] == "[" else words.get(value, value)
    return settings


def refused(masks: list[Path], **given: object) -> DataError:
    with pytest.raises(DataError) as caught:
        decide_rule(masks, MaskRule(**given))
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


@pytest.mark.parametrize("crack", [1, 255, 7])
def test_0_and_one_other_value_need_no_setting(tmp_path: Path, crack: int) -> None:
    assert np.array_equal(read(save(tmp_path / "1.png", CRACK * np.uint8(crack))), CRACK)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_1_bit_grey_palette_and_grey_colour_masks_read_alike(tmp_path: Path, mode: str) -> None:
    assert np.array_equal(read(save(tmp_path / "1.png", CRACK * np.uint8(255), mode)), CRACK)


def test_a_16_bit_mask_is_read_with_its_own_values(tmp_path: Path) -> None:
    path = save(tmp_path / "1.png", CRACK.astype(np.uint16) * 65535)
    rule, _ = decide_rule([path], MaskRule())
    assert rule.allowed == (0, 65535)
    assert np.array_equal(read_mask(photo(path), rule), CRACK)


def test_a_palette_of_colours_is_read_by_its_indices(tmp_path: Path) -> None:
    image = Image.frombytes("P", (50, 20), CRACK.tobytes())
    image.putpalette([0, 0, 0, 200, 30, 30])
    image.save(tmp_path / "1.png")
    assert np.array_equal(read(tmp_path / "1.png"), CRACK)


def test_a_palette_of_greys_is_read_by_its_greys_whatever_the_order(tmp_path: Path) -> None:
    image = Image.frombytes("P", (50, 20), (1 - CRACK).tobytes())  # index 0 is the white crack
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "1.png")
    assert np.array_equal(read(tmp_path / "1.png"), CRACK)


def test_a_distractor_class_is_refused_with_shares_and_the_setting_that_reads_it(tmp_path: Path) -> None:
    pixels = CRACK * np.uint8(255)
    pixels[:4] = 204
    error = refused([save(tmp_path / "1.png", pixels)])
    assert "0 (75.0 %), 204 (20.0 %), 255 (5.0 %)" in error.message
    assert "`data.mask.crack_values=[255]`" in (error.hint or "")
    assert np.array_equal(read(tmp_path / "1.png", crack_values=[255]), CRACK)


def test_antialiased_masks_are_refused_with_a_threshold_that_reads_them(tmp_path: Path) -> None:
    pixels = CRACK * np.uint8(255)
    pixels[9], pixels[11] = np.arange(50), np.arange(50) + 60
    error = refused([save(tmp_path / "1.png", pixels)])
    assert pasted(error.hint) == {"threshold": "128"}
    assert np.array_equal(read(tmp_path / "1.png", **pasted(error.hint)), CRACK)


def test_a_mask_saved_as_jpeg_is_refused_with_a_threshold_that_reads_it(tmp_path: Path) -> None:
    thick = np.zeros((40, 80), dtype=np.uint8)
    thick[10:20] = 1
    error = refused([save(tmp_path / "1.jpg", thick * np.uint8(255))])
    assert pasted(error.hint) == {"threshold": "128"}
    assert np.array_equal(read(tmp_path / "1.jpg", threshold=128), thick)


def test_dim_colour_masks_are_refused_with_channel_and_threshold(tmp_path: Path) -> None:
    """NHA12D: the brightest channel of a crack is 84 to 191."""
    pixels = np.zeros((20, 50, 3), dtype=np.uint8)
    pixels[10, :, 0] = np.linspace(84, 191, 50).astype(np.uint8)
    pixels[10, :, 1] = 20
    error = refused([save(tmp_path / "1.png", pixels)])
    assert "a mask in colour" in error.message
    assert "(0, 0, 0) (95.0 %)" in error.message
    assert pasted(error.hint)["channel"] == "max"
    assert np.array_equal(read(tmp_path / "1.png", **pasted(error.hint)), CRACK)


def test_red_cracks_on_white_are_refused_with_the_channel_that_tells_them_apart(tmp_path: Path) -> None:
    pixels = np.full((20, 50, 3), 255, dtype=np.uint8)
    pixels[10, :, 1:] = 0
    error = refused([save(tmp_path / "1.png", pixels)])
    assert pasted(error.hint) == {"channel": "green", "invert": True}
    assert np.array_equal(read(tmp_path / "1.png", **pasted(error.hint)), CRACK)


def test_a_mask_in_its_alpha_channel_is_refused(tmp_path: Path) -> None:
    pixels = np.zeros((20, 50, 4), dtype=np.uint8)
    pixels[:, :, 3] = CRACK * 255
    assert "transparent in places" in refused([save(tmp_path / "1.png", pixels)]).message


def test_inverted_masks_are_refused_with_the_setting_that_turns_them(tmp_path: Path) -> None:
    error = refused([save(tmp_path / "1.png", (1 - CRACK) * np.uint8(255))])
    assert "95.0% of their pixels would be crack: 255 (95.0 %), 0 (5.0 %)" in error.message
    assert pasted(error.hint) == {"invert": True}
    assert np.array_equal(read(tmp_path / "1.png", invert=True), CRACK)


def test_invert_on_masks_that_are_not_inverted_is_refused_too(tmp_path: Path) -> None:
    error = refused([save(tmp_path / "1.png", CRACK * np.uint8(255))], invert=True)
    assert pasted(error.hint) == {"invert": False}


def test_a_rule_that_finds_no_crack_is_refused_with_the_values_that_are_there(tmp_path: Path) -> None:
    """0/1 masks read as 0/255: all black, and a score of .9999 for nothing."""
    path = save(tmp_path / "1.png", CRACK)
    error = refused([path], threshold=128)
    assert "by the rule >= 128; they hold 0 (95.0 %), 1 (5.0 %)" in error.message
    assert np.array_equal(read(path, **pasted(error.hint)), CRACK)


def test_masks_that_differ_in_their_value_of_crack_are_refused(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{value}.png", CRACK * np.uint8(value)) for value in (1, 255)]
    assert pasted(refused(paths).hint) == {"threshold": "1"}


def test_masks_without_any_crack_are_refused(tmp_path: Path) -> None:
    assert "every pixel is 0" in refused([save(tmp_path / "1.png", CRACK * np.uint8(0))]).message


def test_a_sample_of_empty_masks_looks_further(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{number}.png", CRACK * np.uint8(255 * (number == 0))) for number in range(60)]
    for seed in range(3):
        assert decide_rule(paths, MaskRule(), seed=seed)[0].crack_values == (255,)


def test_much_crack_is_a_warning(tmp_path: Path) -> None:
    pixels = CRACK.copy()
    pixels[:6] = 1
    _, warnings = decide_rule([save(tmp_path / "1.png", pixels)], MaskRule())
    assert "crack covers 35%" in warnings[0]


def test_a_mask_outside_the_sample_is_checked_when_it_is_read(tmp_path: Path) -> None:
    rule = ResolvedMaskRule(crack_values=(255,), allowed=(0, 255))
    pixels = CRACK * np.uint8(255)
    pixels[0, 0] = 9
    with pytest.raises(DataError, match=r"late\.png: holds 0 \(94\.9 %\), 255 \(5\.0 %\), 9 \(0\.1 %\)"):
        read_mask(photo(save(tmp_path / "late.png", pixels)), rule)


def test_a_coloured_mask_outside_the_sample_is_named_when_it_is_read(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[0, 0] = (255, 0, 0)
    with pytest.raises(DataError, match=r"late\.png: a mask in colour"):
        read_mask(photo(save(tmp_path / "late.png", pixels)), ResolvedMaskRule(crack_values=(255,)))


def test_photo_and_mask_of_different_size_are_both_named(tmp_path: Path) -> None:
    mask = save(tmp_path / "m.png", CRACK)
    pair = Photo("1", save(tmp_path / "i.png", np.zeros((20, 49, 3), dtype=np.uint8)), mask, "train", "1")
    with pytest.raises(DataError, match=r"i\.png is 49x20 px, its mask .*m\.png 50x20"):
        read_pair(pair, ResolvedMaskRule(crack_values=(1,)))


def test_crackforest_labels_mean_crack_where_they_are_2(tmp_path: Path) -> None:
    labels = CRACK + np.uint8(1)
    labels[0], labels[1] = 3, 4
    savemat(tmp_path / "1.mat", {"groundTruth": {"Segmentation": labels, "Boundaries": CRACK}}, do_compression=True)
    assert np.array_equal(read(tmp_path / "1.mat"), CRACK)


def test_a_matlab_file_with_one_array_is_read_by_the_common_rule(tmp_path: Path) -> None:
    savemat(tmp_path / "1.mat", {"labels": CRACK.astype(np.float64)})
    assert np.array_equal(read(tmp_path / "1.mat"), CRACK)


def test_a_matlab_file_with_several_arrays_says_what_it_holds(tmp_path: Path) -> None:
    savemat(tmp_path / "1.mat", {"a": CRACK, "b": CRACK})
    assert "holds a, b" in refused([tmp_path / "1.mat"]).message


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8", "u8"])
def test_our_matlab_reader_agrees_with_scipy(tmp_path: Path, compressed: bool, dtype: str) -> None:
    array = np.arange(35).reshape(5, 7).astype(dtype)
    content = {"a": array, "s": {"x": array.T, "deep": {"y": array}, "text": "left out"}, "name": "left out"}
    savemat(tmp_path / "1.mat", content, do_compression=compressed)
    ours, theirs = read_matlab(tmp_path / "1.mat"), loadmat(tmp_path / "1.mat")
    assert set(ours) == {"a", "s"}
    assert np.array_equal(ours["a"], theirs["a"])
    assert np.array_equal(ours["s"]["x"], theirs["s"]["x"][0, 0])
    assert np.array_equal(ours["s"]["deep"]["y"], array)
    assert set(ours["s"]) == {"x", "deep"}


def test_our_matlab_reader_agrees_with_scipy_on_crackforest(crackforest: Path) -> None:
    for path in sorted((crackforest / "groundTruth").glob("*.mat"))[::10]:
        theirs = loadmat(path)["groundTruth"]["Segmentation"][0, 0]
        assert np.array_equal(read_matlab(path)["groundTruth"]["Segmentation"], theirs)


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_matlab_files_are_named_and_crash_nothing(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "1.mat"
    savemat(path, {"groundTruth": {"Segmentation": CRACK + 1}}, do_compression=compressed)
    whole, chance = path.read_bytes(), random.Random(0)
    assert int(read_matlab(path)["groundTruth"]["Segmentation"].sum()) == 1050
    for percent in range(1, 99, 3):
        path.write_bytes(whole[: len(whole) * percent // 100])
        if path.stat().st_size != 128:  # a header alone is a whole file of no variables
            with pytest.raises(MatlabError):
                read_matlab(path)
    refusals: list[str] = []
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            read_mask(photo(path), ResolvedMaskRule(crack_values=(2,)))
        except DataError as error:
            refusals.append(error.message)
    assert refusals
    assert all(message.startswith(str(path)) for message in refusals)


def test_shares_are_shown_with_the_commonest_first() -> None:
    assert describe(Counter({7: 1, 0: 9998, 255: 1})).startswith("0 (> 99.9 %), 7 (0.01 %)")
    assert describe(Counter(range(10))).endswith("and 4 more values")
    assert count_values(np.array([[0, 0, 9]], dtype=np.uint8)) == {0: 2, 9: 1}
