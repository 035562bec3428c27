"""Every layout that public sets come in, and every way to point at the wrong folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crack_sweeps.data.layouts import find_pairs
from crack_sweeps.errors import DataError


def make(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def pairs(root: Path) -> set[tuple[str, str, str | None]]:
    return {
        (pair.image.relative_to(root).as_posix(), pair.mask.relative_to(root).as_posix(), pair.split)
        for pair in find_pairs(root).pairs
    }


def refused(root: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        find_pairs(root)
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("files", "split"),
    [
        (("images/1.jpg", "masks/1.png"), None),
        (("Images/1.JPG", "GroundTruth/1.PNG"), None),
        (("images/1.jpg", "masks/1_mask.png"), None),
        (("img/wall_gt.jpg", "gt/wall_gt.png"), None),
        (("image/1.jpg", "groundTruth/1.mat"), None),
        (("train_img/1.jpg", "train_lab/1.png"), "train"),
        (("test_img/1.jpg", "test_lab/1.png"), "test"),
        (("valid/images/1.jpg", "valid/labels/1.png"), "val"),
        (("images/training/1.jpg", "masks/training/1.png"), "train"),
        (("1.jpg", "1_mask.png"), None),
        (("1.png", "1_GT.png"), None),
        (("1.jpg", "1.png"), None),
        (("train/1.jpg", "train/1_mask.png"), "train"),
        (("traincrop/1.jpg", "traincrop/1.png"), "train"),
        (("images_train/1.jpg", "masks_train/1.png"), "train"),
        (("Original Image/1.jpg", "Ground Truth/1.png"), None),
        (("walls_224_images/1.png", "walls_224_masks/1.png"), None),
        (("images/img_1.jpg", "masks/mask_1.png"), None),
        (("images/1_image.jpg", "masks/1_label.png"), None),
        (("images/IMG_1.JPG", "masks/img_1.png"), None),
        (("images/caf\u00e9.jpg", "masks/cafe\u0301.png"), None),  # macOS writes the accent as a letter of its own
    ],
)
def test_a_known_layout_gives_its_pair(tmp_path: Path, files: tuple[str, str], split: str | None) -> None:
    assert pairs(make(tmp_path, *files)) == {(*files, split)}


def test_official_splits_are_found_together(tmp_path: Path) -> None:
    make(tmp_path, *(f"{split}/{kind}/1.png" for split in ("train", "val", "test") for kind in ("images", "masks")))
    assert {split for _, _, split in pairs(tmp_path)} == {"train", "val", "test"}


def test_lists_with_a_photo_and_a_mask_in_each_line_are_the_set(tmp_path: Path) -> None:
    make(tmp_path, "crops/1.jpg", "crops/1.png", "crops/2.jpg", "crops/2.png", "crops/3.jpg", "crops/3.png")
    (tmp_path / "train.txt").write_text("crops/1.jpg crops/1.png\n/crops/9.jpg /crops/9.png\n")
    (tmp_path / "test.txt").write_text("crops/2.jpg,crops/2.png\n")
    found = find_pairs(tmp_path)
    assert [(pair.image.name, pair.mask.name, pair.split) for pair in found.pairs] == [
        ("1.jpg", "1.png", "train"),
        ("2.jpg", "2.png", "test"),
    ]
    assert found.warnings == ("train.txt, test.txt: 1 line without files: /crops/9.jpg /crops/9.png; left out",)


def test_lists_of_names_give_the_splits_of_a_folder(tmp_path: Path) -> None:
    make(tmp_path, *(f"{kind}/{number}.png" for kind in ("images", "masks") for number in range(4)))
    (tmp_path / "train.txt").write_text("0\n1.png\n")
    (tmp_path / "val.txt").write_text("2\n7\n")
    found = find_pairs(tmp_path)
    assert {pair.image.stem: pair.split for pair in found.pairs} == {"0": "train", "1": "train", "2": "val"}
    assert found.warnings == (
        "train.txt, val.txt: 1 line without files: 7; left out",
        "train.txt, val.txt: 1 photo in none of them: 3.png; left out",
    )


def test_a_list_that_is_no_text_is_named(tmp_path: Path) -> None:
    make(tmp_path, "images/1.png", "masks/1.png")
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00")
    assert "train.txt: not a list that can be read" in refused(tmp_path).message


def test_files_that_systems_leave_behind_are_not_photos(tmp_path: Path) -> None:
    make(tmp_path, "images/1.jpg", "masks/1.png", "images/._1.jpg", "images/.DS_Store", "images/Thumbs.db")
    assert len(pairs(tmp_path)) == 1


def test_crackforest_leaves_photos_without_ground_truth_out_and_counts_them(tmp_path: Path) -> None:
    found = find_pairs(make(tmp_path, "image/1.jpg", "image/2.jpg", "image/3.jpg", "groundTruth/2.mat"))
    assert [pair.image.name for pair in found.pairs] == ["2.jpg"]
    assert "2 photos of 3 without a mask: 1.jpg, 3.jpg; left out" in found.warnings[0]


def test_photos_without_masks_are_counted_and_named(tmp_path: Path) -> None:
    error = refused(make(tmp_path, "masks/9.png", *(f"images/{number}.jpg" for number in range(10))))
    assert "9 photos of 10 without a mask: 0.jpg, 1.jpg, 2.jpg, ..." in error.message


def test_photos_without_any_mask_folder_are_counted_and_named(tmp_path: Path) -> None:
    error = refused(make(tmp_path, "images/1.jpg", "images/2.jpg"))
    assert "has 2 photos without masks: 1.jpg, 2.jpg" in error.message
    assert "train_img/ + train_lab/" in (error.hint or "")


def test_masks_of_other_names_say_how_masks_are_named(tmp_path: Path) -> None:
    error = refused(make(tmp_path, "images/a.jpg", "masks/truth_a.png"))
    assert "the first photo is a.jpg, the first mask truth_a.png" in error.message


def test_masks_without_photos_are_a_warning(tmp_path: Path) -> None:
    found = find_pairs(make(tmp_path, "images/1.jpg", "masks/1.png", "masks/2.png"))
    assert "1 mask without a photo: 2.png; left out" in found.warnings[0]


@pytest.mark.parametrize("double", ["images/1.png", "masks/1.bmp", "masks/1_mask.png"])
def test_two_files_for_one_name_are_refused(tmp_path: Path, double: str) -> None:
    files = ["images/1.jpg", "masks/1.png", double]
    if double == "masks/1_mask.png":
        files[1] = "masks/1_gt.png"
    assert "for one name" in refused(make(tmp_path, *files)).message


def test_a_folder_that_does_not_exist_shows_its_neighbours(tmp_path: Path) -> None:
    make(tmp_path, "deepcrack/1.jpg")
    error = refused(tmp_path / "depcrack")
    assert error.message == f"data.path: {tmp_path / 'depcrack'} does not exist"
    assert error.hint == f"did you mean {tmp_path / 'deepcrack'}?"
    assert "holds deepcrack/" in (refused(tmp_path / "elsewhere" / "zzz").hint or "")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "no/such/../place", "~nobody"])
def test_hostile_paths_are_folders_that_do_not_exist(tmp_path: Path, name: str) -> None:
    assert "does not exist" in refused(tmp_path / name).message


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    assert "1.zip is a file, not a folder" in refused(make(tmp_path, "1.zip") / "1.zip").message


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert "has no photos with masks; it holds nothing" in error.message
    assert "images/ + masks/" in (error.hint or "")


def test_a_folder_of_other_things_says_what_it_holds(tmp_path: Path) -> None:
    assert "it holds a.txt, b.heic" in refused(make(tmp_path, "a.txt", "b.heic")).message
    assert "images: no photos in it; it holds 1.heic" in refused(make(tmp_path, "images/1.heic", "masks/1.png")).message


def test_a_folder_above_the_set_points_to_it(tmp_path: Path) -> None:
    make(tmp_path, "sets/walls/images/1.jpg", "sets/walls/masks/1.png")
    assert f"`--data {tmp_path / 'sets' / 'walls'}`" in (refused(tmp_path / "sets").hint or "")


def test_a_file_name_that_no_report_could_show_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "images/1.jpg", "masks/1.png")
    with open(os.fsencode(tmp_path / "images") + b"/\xff\n.jpg", "wb"):
        pass
    assert "unprintable" in refused(tmp_path).message


def test_deepcrack_is_537_pairs(deepcrack: Path) -> None:
    found = find_pairs(deepcrack)
    assert [sum(pair.split == split for pair in found.pairs) for split in ("train", "test")] == [300, 237]
    assert found.warnings == ()


def test_crackforest_is_118_pairs(crackforest: Path) -> None:
    found = find_pairs(crackforest)
    assert len(found.pairs) == 118
    assert "37 photos of 155 without a mask" in found.warnings[0]
