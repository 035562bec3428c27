"""What a check finds in real sets, and how it reads sets whose masks all want the same setting."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from crack_sweeps.cli.app import run_command_line
from crack_sweeps.data.check import DataCheck, check_data
from crack_sweeps.data.examiners import examine_all
from crack_sweeps.data.groups import families, suggest_pattern
from crack_sweeps.data.likeness import Likeness, find_alike
from crack_sweeps.data.open import open_photos
from crack_sweeps.data.sharing import shared_photos
from crack_sweeps.data.widths import crack_widths_px
from crack_sweeps.errors import DataError
from crack_sweeps.specs.data_settings import data_settings
from crack_sweeps.specs.experiment import Data


def kinds(found: DataCheck, severity: str) -> set[str]:
    return {finding.kind for finding in found.findings if finding.severity == severity}


def split_counts(found: DataCheck) -> dict[str, dict[str, int]]:
    return {p.name: {split: len(files) for split, files in p.files.items()} for p in found.shared_photos}


# --- real photos ---------------------------------------------------------------------------------

# The first three stand in groups.csv. The fourth nobody had noticed: 11216 of test is 11158 of train, saved anew, and
# two people drew its cracks.
SHARED = {
    "11142": {"train": 1, "test": 2},
    "11289": {"train": 10, "test": 11},
    "IMG_6536": {"train": 1, "test": 6},
    "11158 = 11216": {"train": 1, "test": 1},
}


@pytest.fixture(scope="module")
def leaky(deepcrack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of DeepCrack's files that are worth looking at, and some others, without groups.csv."""
    root = tmp_path_factory.mktemp("deepcrack")
    for folder in ("train_img", "train_lab", "test_img", "test_lab"):
        (root / folder).mkdir()
        for number, path in enumerate(sorted((deepcrack / folder).iterdir())):
            if number % 20 == 0 or path.stem.startswith(("11142", "11289", "IMG_6536", "11158", "11216")):
                (root / folder / path.name).symlink_to(path)
    return root


def test_shared_photos_of_deepcrack_are_found_with_its_table(deepcrack: Path, leaky: Path) -> None:
    shutil.copy(deepcrack / "groups.csv", leaky)
    try:
        found = check_data(leaky)
    finally:
        (leaky / "groups.csv").unlink()
    assert split_counts(found) == SHARED
    evidence = {photo.name: photo.evidence for photo in found.shared_photos}
    assert evidence == {
        "11142": ("groups.csv", "file names"),
        "11289": ("groups.csv", "equal files", "file names"),
        "IMG_6536": ("groups.csv", "file names"),
        "11158 = 11216": ("same picture",),
    }


def test_shared_photos_of_deepcrack_are_found_without_its_table_by_names_and_pixels(leaky: Path) -> None:
    found = check_data(leaky)
    assert split_counts(found) == SHARED
    assert {photo.name: photo.evidence for photo in found.shared_photos} == {
        "11142": ("file names",),
        "11289": ("equal files", "file names"),
        "IMG_6536": ("file names",),
        "11158 = 11216": ("same picture",),
    }
    [crops] = [finding for finding in found.findings if finding.kind == "crops"]
    assert r"`'data.group_pattern=^(.+?)(?:-\d+)?$'`" in crops.remedy


def test_pixels_alone_find_what_they_can(leaky: Path, tmp_path: Path) -> None:
    """Crops of one photo that do not overlap look like different photos; what was copied is found under any name."""
    for folder in leaky.iterdir():
        (tmp_path / folder.name).mkdir()
        for path in folder.iterdir():
            renamed = f"{folder.name[:2]}{zlib.crc32(path.stem.encode())}{path.suffix}"
            (tmp_path / folder.name / renamed).symlink_to(path.resolve())
    found = check_data(tmp_path)
    assert sorted(photo.evidence for photo in found.shared_photos) == [("equal files",)] * 10 + [("same picture",)]


def test_the_suggested_pattern_groups_deepcrack_as_its_table_does(deepcrack: Path) -> None:
    rows = [line.split(",") for line in (deepcrack / "groups.csv").read_text().splitlines()[1:]]
    stems = [file.rpartition(".")[0] for _, file, _ in rows]
    by_name = families(stems)
    assert [by_name[stem] for stem in stems] == [group for _, _, group in rows]
    photos = open_photos(Data(path=deepcrack, group_pattern=suggest_pattern(stems)))
    assert "11142, 11289, IMG_6536" in photos.warnings[0]


def test_crackforest_names_label_2_and_lists_what_has_no_ground_truth(
    crackforest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["data", "check", str(crackforest)]) == 0
    out = capsys.readouterr().out
    assert "crack is               == 2" in out
    assert "crack is 2; 1 is background, 3 background that cracks enclose, 4 other" in out
    assert "37 files: no ground truth" in out
    without = {path.stem for path in (crackforest / "image").iterdir()}
    without -= {path.stem for path in (crackforest / "groundTruth").iterdir()}
    assert len(without) == 37
    assert all(f"image/{stem}.jpg" in out for stem in without)
    assert "groundTruth/042.mat: what it marks is no darker" in out  # it was drawn on another photo, as a look shows


# --- sets whose masks all want a setting ---------------------------------------------------------


def sound(root: Path, made: Callable[[np.ndarray], np.ndarray], ending: str = "png", count: int = 12) -> Path:
    """Photos of noise with a dark crack, and their masks written in some way."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        mask = np.zeros((48, 64), np.uint8)
        cv2.line(mask, (0, int(rng.integers(5, 43))), (63, int(rng.integers(5, 43))), 255, 3)
        photo = rng.integers(120, 200, (48, 64, 3), dtype=np.uint8)
        photo[mask > 0] //= 3
        Image.fromarray(photo).save(root / f"images/{number}.png")
        Image.fromarray(made(mask)).save(root / f"masks/{number}.{ending}")
    return root


def planked(mask: np.ndarray) -> np.ndarray:
    with_planks = mask.copy()
    with_planks[mask == 0] = np.where(np.indices(mask.shape)[0] % 16 < 4, 204, 0)[mask == 0]
    return with_planks


def dim_red(mask: np.ndarray) -> np.ndarray:
    red = np.where(mask > 0, np.linspace(84, 191, mask.shape[1]), 0).astype(np.uint8)
    return np.stack([red, red // 4, np.zeros_like(red)], axis=2)


def blurred(mask: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.GaussianBlur(mask, (0, 0), 0.8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize(
    ("made", "ending", "rule", "setting", "problem"),
    [
        (lambda m: m, "png", "== 255", None, None),
        (lambda m: m // 255, "png", "== 1", None, None),
        (lambda m: 255 - m, "png", "== 255, inverted", "data.mask.invert=true", "they are inverted, 0 is crack"),
        (lambda m: m, "jpg", ">= 128", "data.mask.threshold=128", "not 0 and one other value"),
        (blurred, "png", ">= 128", "data.mask.threshold=128", "not 0 and one other value"),
        (dim_red, "png", ">= 42, channel max", "data.mask.channel=max data.mask.threshold=42", "in colour"),
        (planked, "png", None, None, "most masks hold 0 "),
    ],
)
def test_a_set_is_read_as_most_of_its_masks_want_and_the_setting_is_named(
    tmp_path: Path, made: Callable[[np.ndarray], np.ndarray], ending: str, rule: str, setting: str, problem: str
) -> None:
    found = check_data(sound(tmp_path / "set", made, ending))
    assert (found.mask_rule, found.setting) == (rule, setting)
    told = [finding.cause for finding in found.findings if finding.kind == "masks"]
    assert (problem is None) == (told == [])
    assert problem is None or problem in told[0]
    assert found.num_usable == 12
    if rule is None:  # only a person can know, and both ways to say it are named
        assert found.crack_share is None
        [finding] = [finding for finding in found.findings if finding.kind == "masks"]
        assert "`data.mask.crack_values=[204]` or `data.mask.crack_values=[255]`" in finding.remedy
        [likely] = [finding for finding in found.findings if finding.kind == "likely_crack"]
        assert likely.cause.startswith("255 is likely crack: 100% of what is around it is brighter")
        return
    assert found.crack_share is not None
    assert 0.06 < found.crack_share.p50 < 0.14
    again = check_data(tmp_path / "set", settings=(setting or "").split())
    assert kinds(again, "error") == set()
    assert (again.mask_rule, again.crack_share) == (found.mask_rule, found.crack_share)


def test_the_setting_that_a_check_names_opens_the_set(tmp_path: Path) -> None:
    for number, made in enumerate((lambda m: 255 - m, blurred, dim_red)):
        root = sound(tmp_path / str(number), made)
        setting = check_data(root).setting
        assert setting is not None
        settings = data_settings(setting.split())
        assert str(open_photos(Data(path=root, mask=settings.mask)).rule) == check_data(root).mask_rule


def test_a_rule_that_finds_nothing_is_told(tmp_path: Path) -> None:
    """0/1 masks read as 0/255: all black, and a score of .9999 for nothing."""
    root = sound(tmp_path / "set", lambda m: m // 255)
    found = check_data(root, settings=["data.mask.threshold=128"])
    assert kinds(found, "error") == {"mask_nothing_by_the_rule"}
    assert found.num_usable == 0


def test_masks_that_were_paired_wrongly_are_told_in_one_line(tmp_path: Path) -> None:
    root = sound(tmp_path / "set", lambda m: m)
    masks = sorted((root / "masks").iterdir())
    contents = [path.read_bytes() for path in masks]
    for path, content in zip(masks, contents[5:] + contents[:5], strict=True):
        path.write_bytes(content)
    [finding] = [finding for finding in check_data(root).findings if finding.kind == "other_photo"]
    assert "paired wrongly?" in finding.cause


def test_pictures_that_lie_outside_every_known_folder_are_named(tmp_path: Path) -> None:
    root = sound(tmp_path / "set", lambda m: m)
    (root / "test" / "images").mkdir(parents=True)
    shutil.copy(root / "images/1.png", root / "test" / "images" / "9.png")
    [finding] = [finding for finding in check_data(root).findings if finding.kind == "stray"]
    assert finding.files == ("test/images/9.png",)


# --- parts ---------------------------------------------------------------------------------------


def test_the_width_of_a_crack_is_twice_its_distance_to_the_background() -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[8:12] = 1
    assert set(crack_widths_px(mask)[4:-4].tolist()) == {4.0}
    assert crack_widths_px(np.zeros((5, 5), np.uint8)).tolist() == []
    full = crack_widths_px(np.ones((6, 30), np.uint8))  # beyond the edge there is no crack
    assert full.max() == 6.0


def thumb(array: np.ndarray) -> bytes:
    return cv2.resize(array, (32, 32), interpolation=cv2.INTER_AREA).tobytes()


def test_the_same_picture_is_found_scaled_brightened_turned_and_mirrored() -> None:
    rng = np.random.default_rng(0)
    photos = [cv2.resize(rng.integers(60, 160, (24, 24), dtype=np.uint8), (200, 200)) for _ in range(40)]
    copies = [
        cv2.resize(photos[3], (90, 90), interpolation=cv2.INTER_AREA),
        (photos[5] * 1.3).astype(np.uint8),
        np.rot90(photos[7]),
        np.rot90(photos[9][:, ::-1], 3),
    ]
    thumbs = [thumb(np.ascontiguousarray(photo)) for photo in (*photos, *copies)]
    found = find_alike([str(number) for number in range(len(thumbs))], thumbs)
    assert sorted(found, key=lambda alike: alike.one) == [
        Likeness(3, 40, "same"), Likeness(5, 41, "same"), Likeness(7, 42, "turned"), Likeness(9, 43, "turned"),
    ]  # fmt: skip


def test_pictures_of_nothing_are_not_the_same_picture() -> None:
    thumbs = [thumb(np.full((40, 40), value, np.uint8)) for value in (0, 0, 90, 90, 255)]
    assert find_alike(["a", "b", "c", "d", "e"], thumbs) == []
    assert find_alike(["a", "a", "c", "c", "a"], thumbs) == [
        Likeness(0, 1, "equal"), Likeness(2, 3, "equal"), Likeness(0, 4, "equal"),
    ]  # fmt: skip


def test_unlike_real_photos_are_not_taken_for_one(crackforest: Path) -> None:
    photos = sorted((crackforest / "image").glob("*.jpg"))[::3]
    thumbs = [thumb(np.asarray(Image.open(path).convert("L"))) for path in photos]
    assert find_alike([path.name for path in photos], thumbs) == []


def test_evidence_names_only_what_joins_files_of_different_splits() -> None:
    [photo] = shared_photos(
        ["a", "b", "c", "d"],
        ["train", "train", "test", None],
        ["x", "x", "y", "z"],
        {"equal files": [[0, 1]], "same picture": [[1, 2], [2, 3]]},
    )
    assert photo.name == "x = y = z"
    assert photo.files == {"train": ("a", "b"), "test": ("c",)}
    assert photo.evidence == ("same picture",)


def test_a_process_is_started_for_none_of_a_few_small_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crack_sweeps.data import examiners

    monkeypatch.setattr(examiners, "_in_processes", None)  # calling it would fail
    check_data(sound(tmp_path / "set", lambda m: m), num_processes=None)
    assert examine_all([], None, progress=lambda done, total: None) == []


# --- mistakes ------------------------------------------------------------------------------------


def test_a_folder_without_pairs_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images/1.png")
    with pytest.raises(DataError, match="has 1 photo without masks"):
        check_data(tmp_path)


def test_where_nothing_can_be_used_all_is_told_and_the_exit_code_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = sound(tmp_path / "set", lambda m: m, count=3)
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    assert run_command_line(["data", "check", str(root)]) == 2
    said = capsys.readouterr()
    assert "3, no official split; 0 can be used" in said.out
    assert "an empty file (0 bytes)" in said.out
    assert "train on it" not in said.err
