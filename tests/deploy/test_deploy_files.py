"""Which photos are meant, how their results are called, and what may be written where."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from crack_sweeps.deploy.crack_table import COLUMNS, CrackTable
from crack_sweeps.deploy.out_folder import OutFolder
from crack_sweeps.deploy.photo_files import find_photos, result_names
from crack_sweeps.errors import DataError, UserError

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="names and links of POSIX")


def names(*files: str) -> list[str]:
    return result_names([Path("photos", file) for file in files])


def test_results_are_called_like_their_photo_and_photos_alike_but_for_the_suffix_keep_it() -> None:
    assert names("a.jpg", "b.jpeg") == ["a", "b"]
    assert names("a.jpg", "a.png", "b.png") == ["a.jpg", "a.png", "b"]
    assert names("a.jpg", "a.jpg.bmp", "a.png") == ["a.jpg", "a.jpg-2", "a.png"]


def test_names_that_some_file_system_takes_for_one_are_kept_apart() -> None:
    assert names("CRACK.JPG", "crack.jpg") == ["CRACK.JPG", "crack.jpg-2"]
    composed, decomposed = "caf\u00e9.jpg", "cafe\u0301.jpg"
    assert names(composed, decomposed) == [composed, f"{decomposed}-2"]


@POSIX
def test_hostile_names_lead_nowhere() -> None:
    (backslash, newline, dots, colon) = names("..\\..\\evil.png", "a\nb.png", "...png", "c:evil.png")
    assert backslash == ".._.._evil"
    assert newline == "a_b"
    assert dots == "_"
    assert colon == "c_evil"
    bytes_that_are_no_text = os.fsdecode(b"\xff\xfe.png")
    assert names(bytes_that_are_no_text)[0].isprintable()


def test_very_long_names_are_cut_and_stay_apart() -> None:
    one, other = names("x" * 240 + "1.png", "x" * 240 + "2.png")
    assert one != other
    assert max(len(one.encode()), len(other.encode())) <= 200


def test_a_folder_gives_its_own_photos_by_name_and_no_hidden_or_other_files(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "._a.png", ".hidden.jpg", "notes.txt", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in find_photos(tmp_path)] == ["a.png", "b.JPG"]
    assert find_photos(tmp_path / "sub" / "c.png") == [tmp_path / "sub" / "c.png"]


def test_a_folder_without_photos_says_where_some_are(tmp_path: Path) -> None:
    (tmp_path / "test_img").mkdir()
    (tmp_path / "test_img" / "1.jpg").touch()
    with pytest.raises(DataError, match="no photos in it") as caught:
        find_photos(tmp_path)
    assert str(tmp_path / "test_img") in str(caught.value.hint)


def test_a_file_is_replaced_on_request_alone_and_the_same_content_is_no_conflict(tmp_path: Path) -> None:
    out = OutFolder(tmp_path / "out", overwrite=False)
    (path,) = out.write({"mask/a.png": b"one"})
    out.write({"mask/a.png": b"one"})
    with pytest.raises(UserError, match="is there already, and different") as caught:
        out.write({"probability/a.png": b"new", "mask/a.png": b"two"})
    assert "--overwrite" in str(caught.value.hint)
    assert path.read_bytes() == b"one"
    assert not (tmp_path / "out/probability/a.png").exists(), "files that belong together are written together"
    OutFolder(tmp_path / "out", overwrite=True).write({"mask/a.png": b"two"})
    assert path.read_bytes() == b"two"


@POSIX
def test_nothing_is_written_through_a_link_that_leads_out(tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (out / "mask").symlink_to(outside)
    with pytest.raises(UserError, match="leads out"):
        OutFolder(out, overwrite=True).write({"mask/a.png": b"x"})
    precious = outside / "precious.png"
    precious.write_bytes(b"precious")
    (out / "overlay").mkdir()
    (out / "overlay" / "a.jpg").symlink_to(precious)
    OutFolder(out, overwrite=True).write({"overlay/a.jpg": b"x"})
    assert precious.read_bytes() == b"precious", "the link was replaced, not what it leads to"
    assert list(outside.iterdir()) == [precious]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_out_that_is_a_file_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no folder"):
        OutFolder(tmp_path / place, overwrite=True).check()


def row(photo: str, **changes: Any) -> dict[str, Any]:
    return {**dict.fromkeys(COLUMNS), "photo": photo, "crack_length_px": 12.3456, "crack_share": 0.01, **changes}


def lines(out: OutFolder) -> list[str]:
    return (out.path / "cracks.csv").read_text().splitlines()[1:]


def test_the_table_keeps_the_rows_of_earlier_calls(tmp_path: Path) -> None:
    out = OutFolder(tmp_path, overwrite=False)
    for photo in ("b.jpg", "a.jpg"):
        table = CrackTable(out)
        table.add(row(photo))
        table.write()
    assert [line.partition(",")[0] for line in lines(out)] == ["a.jpg", "b.jpg"]
    assert ",0.010000,12.35," in lines(out)[0]


def test_another_row_for_the_same_photo_needs_overwrite(tmp_path: Path) -> None:
    out = OutFolder(tmp_path, overwrite=False)
    table = CrackTable(out)
    table.add(row("a.jpg"))
    table.write()
    CrackTable(out).check(row("a.jpg"))
    with pytest.raises(UserError, match="a different one"):
        CrackTable(out).check(row("a.jpg", crack_length_px=1.0))
    table = CrackTable(OutFolder(tmp_path, overwrite=True))
    table.check(row("a.jpg", crack_length_px=1.0))
    table.add(row("a.jpg", crack_length_px=1.0))
    table.write()
    assert ",1.00," in lines(out)[0]


def test_somebody_elses_table_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cracks.csv").write_text("name;length\na;3\n")
    with pytest.raises(UserError, match="no table of this command"):
        CrackTable(OutFolder(tmp_path, overwrite=False))


def test_a_photo_named_like_a_formula_is_none_in_a_spreadsheet(tmp_path: Path) -> None:
    table = CrackTable(OutFolder(tmp_path, overwrite=False))
    table.add(row("=HYPERLINK(1).jpg"))
    table.write()
    assert lines(OutFolder(tmp_path, overwrite=False))[0].startswith("./=HYPERLINK")
