"""SCORES.md: each figure that can be printed is defined there, nothing else is, and its examples are computed anew."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import crack_sweeps.evaluation
from crack_sweeps.evaluation.protocols import PROTOCOLS, score_maps
from crack_sweeps.evaluation.relaxed import RADII_PX
from crack_sweeps.evaluation.shapes import OVER_CRACK_IMAGES

PAGE = (Path(crack_sweeps.evaluation.__file__).parent / "SCORES.md").read_text(encoding="utf-8")
DEFINITION = re.compile(r"^\| `([^`]+)` \| (pooled, image|pooled|image|once) \| ", re.MULTILINE)


def keys(name: str, given: str) -> set[str]:
    """The keys that a line of the page defines."""
    names = {name.replace("Rpx", f"{radius}px") for radius in RADII_PX} if "Rpx" in name else {name}
    plain = names if given != "image" else set()
    return plain | ({f"{name}_image" for name in names} if "image" in given else set())


def printed() -> set[str]:
    """Every figure of every protocol."""
    mask = np.eye(8, dtype=np.uint8)
    maps = [("a", "a", (0.9 * mask).astype(np.float32), mask)]
    return {name for protocol in PROTOCOLS for name in score_maps(maps, threshold=None, protocol=protocol).figures}


def test_each_figure_has_a_line_and_each_line_a_figure() -> None:
    defined = [key for name, given in DEFINITION.findall(PAGE) for key in sorted(keys(name, given))]
    assert len(defined) == len(set(defined))
    assert set(defined) == printed()


def test_a_line_that_is_missing_would_be_found() -> None:
    defined = {
        key for name, given in DEFINITION.findall(PAGE.replace("| `cldice` |", "|")) for key in keys(name, given)
    }
    assert defined != printed()


def test_each_protocol_and_every_key_that_a_sentence_names_exists() -> None:
    assert set(re.findall(r"^- \*\*`([^`]+)`\*\*", PAGE, re.MULTILINE)) == set(PROTOCOLS)
    named = set(
        re.findall(r"`((?:oracle|crack|two_class|relaxed|cldice|num|ois|ods|width|area|length)[a-z0-9_/]*)`", PAGE)
    )
    assert named - {"oracle"} <= printed()


def test_means_over_images_with_a_crack_are_those_that_the_page_names() -> None:
    assert {"fragmentation", "area_error", "length_error", "width_error"} == OVER_CRACK_IMAGES
    assert "Errors of size and pieces per piece need a crack" in PAGE


def depth_of_black_hat(path: Path) -> np.ndarray:
    """The floor's depth before it is cut at 5 % of the pixels, times 3, as 8-bit grey."""
    grey = cv2.GaussianBlur(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2GRAY), (0, 0), 2.0)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21))
    return np.clip(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, disc).astype(int) * 3, 0, 255).astype(np.uint8)


@pytest.mark.slow
def test_the_stand_ins_figures_are_those_on_the_page(deepcrack: Path, tmp_path: Path) -> None:
    from crack_sweeps.scoring import score_predictions

    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for photo in (deepcrack / f"{split}_img").iterdir():
            cv2.imwrite(str(tmp_path / split / f"{photo.stem}.png"), depth_of_black_hat(photo))
    pair, val = ((tmp_path / split, deepcrack / f"{split}_lab") for split in ("test", "train"))
    ours = score_predictions(*pair, val=val, jobs=2)
    looser = score_predictions(*pair, protocol="resize512-oracle", jobs=2)
    rows = re.findall(r"^\| `([a-z0-9_]+)`[^|]*\| \.\d{3} \| (\.\d{3}) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 8
    for name, said in rows:
        assert f"{ours.metrics[name]:.3f}".lstrip("0") == said, name
    shown = [ours.metrics[name] for name, _ in rows]
    spread = max(shown) - min(shown)
    assert f"and of {100 * spread:.0f} here" in PAGE

    def row(label: str) -> list[str]:
        (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {label}")]
        return re.findall(r"\.\d+", line)

    figures = looser.metrics
    assert row("threshold") == [f"{each.threshold:.2f}".lstrip("0") for each in (ours, looser)]
    expected = {
        "headline": [ours.metrics["crack_iou"], figures["oracle/ods_two_class_miou_image"]],
        "F1, mean": [ours.metrics["crack_f1_image"], figures["oracle/ods_f1_image"]],
        "F1, each": [figures["oracle/ois_f1_image"]],
    }
    for label, values in expected.items():
        assert row(label) == [f"{value:.3f}".lstrip("0") for value in values], label
