"""Photos in, maps and measures out: what an engineer gets, and what happens to photos that nobody can read."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from trained_run import Workshop

import crack_sweeps
from crack_sweeps.deploy import predict
from crack_sweeps.deploy.network import Network
from crack_sweeps.errors import DataError, UserError

BAR = (slice(10, 14), slice(5, 35))  # rows and columns: 4 px high, 30 px long


def bar_where_it_is_dark(image_HW3: np.ndarray) -> np.ndarray:
    """A net that is .8 sure of crack where the photo is black, and .2 elsewhere."""
    return np.where(image_HW3.max(axis=2) < 20, np.float32(0.8), np.float32(0.2))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is replaced by one whose answers are known."""
    network = Network(bar_where_it_is_dark, device="cpu", precision="float32", tile_px=32)
    monkeypatch.setattr(predict, "load_network", lambda *_, **__: network)


def photo_of_a_bar(path: Path, **options: object) -> Path:
    pixels = np.full((24, 40, 3), 200, np.uint8)
    pixels[BAR] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_maps_measures_and_table_of_a_known_crack(workshop: Workshop, stand_in: None) -> None:
    photo = photo_of_a_bar(Path("in/bar.png"))
    (found,) = crack_sweeps.predict_photos("toy/0", photo, out="out", threshold=0.5, mm_per_px=0.5)
    grey = cv2.imread("out/probability/bar.png", cv2.IMREAD_UNCHANGED)
    assert (grey.dtype, grey.shape) == (np.uint8, (24, 40))
    assert set(np.unique(grey)) == {51, 204}  # .2 and .8 of 255
    mask = cv2.imread("out/mask/bar.png", cv2.IMREAD_UNCHANGED)
    expected = np.zeros((24, 40), np.uint8)
    expected[BAR] = 255
    assert np.array_equal(mask, expected)
    assert (found.photo_width_px, found.photo_height_px) == (40, 24)
    assert found.crack_share == 4 * 30 / (24 * 40)
    # The centre line of a bar 30 px long and 4 wide ends about half a width before either end.
    assert found.crack_length_px == pytest.approx(28, abs=2)
    assert found.crack_max_width_px == 4
    assert found.crack_width_px == pytest.approx(4, abs=0.4)
    for what in ("length", "width", "max_width"):
        assert getattr(found, f"crack_{what}_mm") == 0.5 * getattr(found, f"crack_{what}_px")
    with Path("out/cracks.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["photo"] == "in/bar.png"
    assert float(row["crack_length_mm"]) == pytest.approx(found.crack_length_mm, abs=1e-3)
    assert (row["mm_per_px"], row["threshold"]) == ("0.5", "0.5")


def test_the_overlay_outlines_the_crack_and_leaves_it_to_be_seen(workshop: Workshop, stand_in: None) -> None:
    photo = photo_of_a_bar(Path("bar.png"))
    crack_sweeps.predict_photos("toy/0", photo, out="out", threshold=0.5)
    overlay = cv2.imread("out/overlay/bar.jpg")[..., ::-1].astype(int)
    assert overlay[11:13, 8:32].max() < 70, "inside, the photo is as it was"
    red, green, blue = overlay[9, 10:30].mean(axis=0)
    assert red > 200
    assert green < 90
    assert blue > 100
    assert overlay[20:, :].min() > 170, "far from the crack nothing is painted"


def test_a_photo_on_its_side_is_predicted_upright(workshop: Workshop, stand_in: None) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter, as phones write portrait photos
    photo = photo_of_a_bar(Path("phone.jpg"), exif=exif, quality=100)
    (found,) = crack_sweeps.predict_photos("toy/0", photo, out="out", threshold=0.5)
    assert (found.photo_width_px, found.photo_height_px) == (24, 40)
    for result in (found.probability, found.mask, found.overlay):
        assert cv2.imread(str(result)).shape == (40, 24, 3)
    mask = cv2.imread(str(found.mask), cv2.IMREAD_UNCHANGED)
    columns = np.flatnonzero(mask.any(axis=0))
    assert columns.max() - columns.min() < 8, "the bar stands upright"


def test_a_photo_without_a_crack_has_no_width(workshop: Workshop, stand_in: None) -> None:
    Image.fromarray(np.full((20, 20, 3), 200, np.uint8)).save("plain.png")
    (found,) = crack_sweeps.predict_photos("toy/0", "plain.png", out="out", threshold=0.5, mm_per_px=2)
    assert (found.crack_share, found.crack_length_px, found.crack_length_mm) == (0, 0, 0)
    assert found.crack_width_px is found.crack_max_width_px is found.crack_width_mm is None


def test_the_mask_is_the_networks_map_at_the_runs_threshold(workshop: Workshop) -> None:
    photo = workshop.photos / "test_img" / "test0.png"
    (found,) = crack_sweeps.predict_photos("toy/0", photo, out="out")
    assert found.threshold == workshop.record.threshold
    probability = cv2.imread(str(found.probability), cv2.IMREAD_UNCHANGED) / 255
    mask = cv2.imread(str(found.mask), cv2.IMREAD_UNCHANGED)
    clear = abs(probability - found.threshold) > 0.5 / 255  # the map is rounded to 1/255, the mask is not
    assert np.array_equal(mask[clear] == 255, probability[clear] >= found.threshold)
    assert found.crack_share == (mask == 255).mean()
    again = crack_sweeps.predict_photos("toy/0", photo, out="out")
    assert again == [found], "the same again is no conflict"
    with pytest.raises(UserError, match="different"):
        crack_sweeps.predict_photos("toy/0", photo, out="out", threshold=0.99 if found.threshold < 0.5 else 0.01)


def test_flips_and_rotations_change_the_map_a_little(workshop: Workshop) -> None:
    photo = workshop.photos / "test_img" / "test0.png"
    maps = []
    for tta in (False, True):
        (found,) = crack_sweeps.predict_photos("toy/0", photo, out=f"out-{tta}", tta=tta)
        maps.append(cv2.imread(str(found.probability), cv2.IMREAD_UNCHANGED).astype(int))
    difference = abs(maps[0] - maps[1])
    assert 0 < difference.max() < 128


def test_unreadable_photos_are_named_the_others_done_and_the_exit_code_says_so(
    sweeps: Callable, stand_in: None
) -> None:
    photo_of_a_bar(Path("in/a.png"))
    Path("in/b.jpg").write_bytes(b"not a photo")
    Path("in/c.png").write_bytes(Path("in/a.png").read_bytes()[:60])
    photo_of_a_bar(Path("in/d.jpg"), quality=100)
    answer = sweeps("predict", "toy/0", "in", "--out", "out", "--threshold", "0.5", "--json")
    assert answer.code == 3, answer.err
    found = {entry["photo"]: entry for entry in json.loads(answer.out)}
    assert [entry["error"] is None for entry in found.values()] == [True, False, False, True]
    assert "in/b.jpg: not a whole image" in answer.err
    assert "2 photos skipped: b.jpg, c.png" in answer.err
    assert sorted(path.name for path in Path("out/mask").iterdir()) == ["a.png", "d.png"]
    assert len(Path("out/cracks.csv").read_text().splitlines()) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="names and links of POSIX")
def test_names_that_no_terminal_shows_are_told_on_one_line(sweeps: Callable, stand_in: None) -> None:
    photo_of_a_bar(Path("in/a\nb.png"))
    photo_of_a_bar(Path("in", "x" * 200 + ".png"))
    Path("in/link.png").symlink_to("nowhere")
    answer = sweeps("predict", "toy/0", "in", "--out", "out", "--threshold", "0.5")
    assert answer.code == 3, answer.err
    assert len(answer.out.splitlines()) == 4
    assert "a\\nb.png" in answer.out
    assert max(map(len, answer.out.splitlines())) < 110
    assert "in/link.png: no such file" in answer.err
    assert [path.parent.name for path in sorted(Path("out").rglob("a_b.*"))] == ["mask", "overlay", "probability"]


def test_nothing_readable_is_a_mistake(sweeps: Callable, stand_in: None) -> None:
    Path("in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Path("in", name).write_bytes(b"")
    answer = sweeps("predict", "toy/0", "in", "--out", "out")
    assert answer.code == 2
    assert "error: no photo could be predicted: in/a.jpg" in answer.err
    assert not Path("out").exists()
    with pytest.raises(DataError, match="no photo could be predicted"):
        crack_sweeps.predict_photos("toy/0", "in", out="out")


def test_a_prediction_that_is_no_number_is_a_failure_and_no_map(
    sweeps: Callable, stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sometimes_broken(image_HW3: np.ndarray) -> np.ndarray:
        fill = np.nan if image_HW3.max() < 20 else 0.2
        return np.full(image_HW3.shape[:2], fill, np.float32)

    network = Network(sometimes_broken, device="cpu", precision="float32", tile_px=32)
    monkeypatch.setattr(predict, "load_network", lambda *_, **__: network)
    photo_of_a_bar(Path("in/a.png"))
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save("in/b.png")
    answer = sweeps("predict", "toy/0", "in", "--out", "out")
    assert answer.code == 3
    assert "in/b.png: the network's prediction is not a number" in answer.err
    assert not Path("out/mask/b.png").exists()


def test_photos_that_only_the_suffix_tells_apart_each_get_their_results(sweeps: Callable, stand_in: None) -> None:
    photo_of_a_bar(Path("in/a.png"))
    photo_of_a_bar(Path("in/a.jpg"))
    answer = sweeps("predict", "toy/0", "in", "--out", "out", "--threshold", "0.5")
    assert answer.code == 0, answer.err
    assert sorted(path.name for path in Path("out/mask").iterdir()) == ["a.jpg.png", "a.png.png"]
    assert answer.out.splitlines()[0].split() == [
        "photo",
        "crack",
        "share",
        "length",
        "mean",
        "width",
        "greatest",
        "width",
    ]
    assert answer.out.splitlines()[1].startswith("a.jpg")


def test_results_never_replace_the_photos_that_they_come_from(workshop: Workshop, stand_in: None) -> None:
    photo = photo_of_a_bar(Path("data/mask/a.png"))
    before = photo.read_bytes()
    with pytest.raises(UserError, match="is where the photos lie"):
        crack_sweeps.predict_photos("toy/0", "data/mask", out="data", overwrite=True)
    assert photo.read_bytes() == before


def test_an_interrupt_keeps_what_is_done(sweeps: Callable, stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(image_HW3: np.ndarray) -> np.ndarray:
        if image_HW3.shape[0] == 20:
            raise KeyboardInterrupt
        return bar_where_it_is_dark(image_HW3)

    network = Network(interrupted, device="cpu", precision="float32", tile_px=32)
    monkeypatch.setattr(predict, "load_network", lambda *_, **__: network)
    photo_of_a_bar(Path("in/a.png"))
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save("in/b.png")
    answer = sweeps("predict", "toy/0", "in", "--out", "out", "--threshold", "0.5")
    assert answer.code == 130
    assert "the results of 1 of 2 photos are in out" in answer.err
    assert "in/a.png" in Path("out/cracks.csv").read_text()
