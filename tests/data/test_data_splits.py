"""Splits by group: repeatable, without a leak that is not named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crack_sweeps.data.groups import group_photos, suggest_pattern
from crack_sweeps.data.photos import Photo, Split
from crack_sweeps.data.splits import Ungrouped, assign_splits, join_duplicates
from crack_sweeps.errors import DataError


def row(name: str, group: str | None = None, official: Split | None = None) -> Ungrouped:
    return Ungrouped(name, Path(f"{name}.jpg"), Path(f"{name}.png"), official, group or name)


def numbered(count: int, official: Split | None = None, prefix: str = "") -> list[Ungrouped]:
    return [row(f"{prefix}{number:03}", official=official) for number in range(count)]


def names(photos: tuple[Photo, ...], split: Split) -> set[str]:
    return {photo.name for photo in photos if photo.split == split}


def test_a_set_without_official_splits_is_cut_20_20_and_says_so() -> None:
    photos, warnings = assign_splits(numbered(100), split_seed=0, val_fraction=0.25)
    assert [len(names(photos, split)) for split in ("train", "val", "test")] == [60, 20, 20]
    assert "no official test split: 20 photos were held out as test" in warnings[0]


def test_an_official_test_split_is_kept_and_val_comes_from_train() -> None:
    rows = [*numbered(50, "train", "a"), *numbered(30, "test", "b")]
    photos, warnings = assign_splits(rows, split_seed=0, val_fraction=0.2)
    assert names(photos, "test") == {photo.name for photo in rows[50:]}
    assert len(names(photos, "val")) == 10
    assert warnings == ()


def test_official_splits_are_all_kept() -> None:
    rows = [row("a", official="train"), row("b", official="val"), row("c", official="test")]
    photos, warnings = assign_splits(rows, split_seed=5, val_fraction=0.2)
    assert [(photo.name, photo.split) for photo in photos] == [("a", "train"), ("b", "val"), ("c", "test")]
    assert warnings == ()


def test_the_split_follows_its_seed_and_not_the_order_of_the_files() -> None:
    rows = numbered(60)
    first, _ = assign_splits(rows, split_seed=0, val_fraction=0.2)
    assert assign_splits(rows[::-1], split_seed=0, val_fraction=0.2)[0] == first
    assert assign_splits(rows, split_seed=1, val_fraction=0.2)[0] != first


def test_the_split_of_a_seed_never_changes_between_releases() -> None:
    photos, _ = assign_splits(numbered(10), split_seed=0, val_fraction=0.2)
    assert (names(photos, "val"), names(photos, "test")) == ({"002", "004"}, {"000", "009"})


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=3, max_size=25),
    seed=st.integers(0, 2**32 - 1),
    fraction=st.floats(0.05, 0.9),
)
def test_no_group_is_ever_in_two_splits(sizes: list[int], seed: int, fraction: float) -> None:
    rows = [row(f"{group}-{crop}", str(group)) for group, size in enumerate(sizes) for crop in range(size)]
    photos, _ = assign_splits(rows, split_seed=seed, val_fraction=fraction)
    groups = [{photo.group for photo in photos if photo.split == split} for split in ("train", "val", "test")]
    assert all(groups)
    assert sum(map(len, groups)) == len(sizes)
    assert {photo.name for photo in photos} == {photo.name for photo in rows}


def test_a_group_larger_than_the_share_is_held_out_whole() -> None:
    rows = [row(f"{group}{crop}", group, "train") for group in "ab" for crop in range(5)] + [row("t", None, "test")]
    photos, _ = assign_splits(rows, split_seed=0, val_fraction=0.1)
    assert len(names(photos, "val")) == 5


@pytest.mark.parametrize("seed", range(6))
def test_held_out_test_photos_share_no_group_with_official_validation(seed: int) -> None:
    rows = [row(f"{place}{crop}", place, "train") for place in "abcdef" for crop in range(3)]
    rows += [row(f"{place}v", place, "val") for place in "abcxyz"]
    photos, warnings = assign_splits(rows, split_seed=seed, val_fraction=0.2)
    groups = {split: {p.group for p in photos if p.split == split} for split in ("train", "val", "test")}
    assert groups["val"] == set("xyz")
    assert not groups["test"] & (groups["train"] | groups["val"])
    assert not any("test photos were cut from photos" in warning for warning in warnings)


def test_groups_in_train_and_test_are_named() -> None:
    rows = [row("a1", "wall", "train"), row("b", None, "train"), row("c", None, "train"), row("a2", "wall", "test")]
    _, warnings = assign_splits(rows, split_seed=0, val_fraction=0.3)
    assert warnings == (
        "1 of 1 test photos were cut from photos that are in train or val too: wall; test scores flatter a little",
    )


def test_official_validation_gives_shared_groups_back_to_train() -> None:
    rows = [row("a1", "wall", "train"), row("a2", "wall", "val"), row("b", None, "val"), row("t", None, "test")]
    photos, warnings = assign_splits(rows, split_seed=0, val_fraction=0.2)
    assert names(photos, "val") == {"b"}
    assert names(photos, "train") == {"a1", "a2"}
    assert "1 validation photos show what train shows (wall)" in warnings[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (numbered(2), "2 photos of 2 groups cannot be split further"),
        (numbered(3, "test"), r"no photos to train on \(found: 3 test\)"),
        ([row("a", "wall"), row("b", "wall")], "2 photos of 1 group cannot be split further"),
        (
            [row("a", "wall", "train"), row("b", "wall", "val"), row("t", None, "test")],
            "share all their groups",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(rows: list[Ungrouped], message: str) -> None:
    with pytest.raises(DataError, match=message):
        assign_splits(rows, split_seed=0, val_fraction=0.2)


def test_copies_of_one_file_join_their_groups() -> None:
    rows = [row("a", "1"), row("b", "2"), row("c", "2"), row("d", "3"), row("e", "4")]
    digests = {Path("a.jpg"): "x", Path("b.jpg"): "y", Path("c.jpg"): "x", Path("d.jpg"): "y", Path("e.jpg"): "z"}
    assert [photo.group for photo in join_duplicates(rows, digests)] == ["1", "1", "1", "1", "4"]


def test_a_pattern_names_the_photo_of_a_crop() -> None:
    photos, warnings = group_photos([row("11125-1"), row("11125-2"), row("7-1")], Path("none"), r"^(.+)-\d+$")
    assert [photo.group for photo in photos] == ["11125", "11125", "7"]
    assert warnings == ()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "is not a regular expression"),
        (r"^.+-\d+$", "has no group in parentheses"),
        (r"^(\d+)-", r"finds no group in 1 of 2 names: wall"),
        (r"^(\d*)", r"finds no group in 1 of 2 names: wall"),
    ],
)
def test_a_pattern_that_cannot_group_all_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        group_photos([row("1-1"), row("wall")], Path("none"), pattern)


def test_a_table_names_the_photos(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("split,file,group\ntrain,1.jpg,north\ntest,1.jpg,south\n")
    rows = [
        Ungrouped("train-1", Path("a/1.jpg"), Path("m"), "train", "train-1"),
        Ungrouped("test-1", Path("b/1.jpg"), Path("m"), "test", "test-1"),
    ]
    assert [photo.group for photo in group_photos(rows, tmp_path, None)[0]] == ["north", "south"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,place\n1.jpg,x\n", "has the columns file, place"),
        ("", "has the columns none"),
        ("file,group\n2.jpg,x\n", r"no row for 1 of 1 photos: 1\.jpg"),
        ("file,group\n1.jpg,\n", "line 2 lacks its file or its group"),
        ("file,group\n1.jpg,x\n1.jpg,y\n", "line 3 puts 1.jpg into group y, an earlier line into x"),
        ('file,group\n"1.jpg,x\n', "not a table that can be read"),
        ("file,group\n1.jpg,\xff\n", "not a table that can be read"),
    ],
)
def test_a_table_that_cannot_group_all_is_refused(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "groups.csv").write_bytes(table.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        group_photos([row("1")], tmp_path, None)


def test_names_that_look_like_crops_are_told_with_the_pattern_that_joins_them() -> None:
    crops = [row(f"2016_{photo}_{x}_{y}") for photo in "abcdefg" for x in (1, 361) for y in (1, 641)]
    _, warnings = group_photos(crops, Path("none"), None)
    assert r"`'data.group_pattern=^(.+?)(?:[-_]\d+[-_]\d+)?$'`" in warnings[0]
    assert group_photos(crops, Path("none"), suggest_pattern([crop.name for crop in crops]))[0][0].group == "2016_a"


@pytest.mark.parametrize("stems", [[f"{n:03}" for n in range(50)], [f"crack_{n}" for n in range(50)], ["a", "b-1"]])
def test_a_numbering_is_not_taken_for_crops(stems: list[str]) -> None:
    assert suggest_pattern(stems) is None
