"""Curves: pictures come out whatever the figures are, show what they should, and leave matplotlib alone."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from crack_sweeps.evaluation.counts import PixelCounts, count_pixels
from crack_sweeps.evaluation.curves import precision_recall_curve, training_curves

EPOCHS = [
    (1, {"train/loss": 0.9, "val/crack_iou": 0.1, "val/crack_f1": 0.2, "lr": 1e-4, "images_per_s": 7.0}),
    (2, {"train/loss": 0.5, "val/crack_iou": 0.4, "val/crack_f1": 0.6, "lr": 1e-3, "images_per_s": 7.0}),
    (3, {"train/loss": 0.4, "val/crack_iou": 0.3, "val/crack_f1": 0.5, "lr": 5e-4, "images_per_s": 7.0}),
]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, to look into."""
    saved: list[Figure] = []
    savefig = Figure.savefig

    def keep(figure: Figure, *args: object, **kwargs: object) -> None:
        saved.append(figure)
        savefig(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def counts() -> PixelCounts:
    rng = np.random.default_rng(0)
    mask = (rng.random((40, 40)) < 0.1).astype(np.uint8)
    probability = (0.6 * mask + 0.4 * rng.random((40, 40))).astype(np.float32)
    return count_pixels(probability, mask)


def assert_picture(path: Path, width: int) -> None:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width == width
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_a_training_is_drawn_as_loss_scores_and_learning_rate(tmp_path: Path, figures: list[Figure]) -> None:
    assert_picture(training_curves(EPOCHS, tmp_path / "training.png"), 1560)
    loss, scores, rate = figures[0].axes
    assert loss.get_lines()[0].get_xydata().tolist() == [[1, 0.9], [2, 0.5], [3, 0.4]]
    assert {line.get_label() for line in scores.get_lines()} >= {"val/crack_iou", "val/crack_f1"}
    assert scores.get_title(loc="left") == "validation: best crack IoU 0.400 at epoch 2"
    assert rate.get_title(loc="left") == "learning rate"


@pytest.mark.parametrize(
    "epochs",
    [
        [],
        EPOCHS[:1],
        [(1, {"train/loss": 0.5}), (2, {"train/loss": float("nan"), "val/crack_iou": float("nan")})],
        [
            (1, {"train/loss": 0.5, "lr": 0.1}),
            (2, {"lr": 0.1}),
            (5, {"train/loss": float("inf"), "val/crack_iou": 0.0}),
        ],
        [(1, {"images_per_s": 3.0})],
        [(epoch, {"train/loss": 1 / epoch}) for epoch in range(1, 500)],
    ],
    ids=["none", "one", "nan", "gaps", "nothing-to-draw", "many"],
)
def test_any_training_can_be_drawn(epochs: list[tuple[int, dict[str, float]]], tmp_path: Path) -> None:
    with Image.open(training_curves(epochs, tmp_path / "training.png")) as picture:
        assert picture.format == "PNG"


def test_precision_and_recall_are_those_of_plain_comparison_and_the_threshold_is_marked(
    tmp_path: Path, figures: list[Figure]
) -> None:
    rng = np.random.default_rng(1)
    mask = (rng.random((30, 30)) < 0.2).astype(np.uint8)
    probability = (0.3 * mask + 0.7 * rng.random((30, 30))).astype(np.float32)
    path = precision_recall_curve(count_pixels(probability, mask), 0.42, tmp_path / "pr.png", title="validation")
    assert_picture(path, 1040)
    curve, scores = figures[0].axes
    assert curve.get_title(loc="left") == "precision and recall: validation"
    said = probability >= np.float32(0.42)
    true = mask == 1
    recall, precision = (said & true).sum() / true.sum(), (said & true).sum() / said.sum()
    marked = [line.get_xydata()[0].tolist() for line in curve.get_lines() if len(line.get_xydata()) == 1]
    assert marked == [[pytest.approx(recall), pytest.approx(precision)]]
    drawn = next(line for line in curve.get_lines() if len(line.get_xydata()) == 99)
    assert drawn.get_xydata()[41].tolist() == [pytest.approx(recall), pytest.approx(precision)]
    assert any("t = 0.42" in text.get_text() for text in scores.texts)


@pytest.mark.parametrize(
    ("probability", "crack"), [(0.0, 0), (0.0, 1), (1.0, 0), (1.0, 1)], ids=["quiet", "blind", "alarmed", "all-right"]
)
def test_any_counts_can_be_drawn(probability: float, crack: int, tmp_path: Path) -> None:
    threshold = 0.99 if crack else 0.01
    image = count_pixels(np.full((3, 3), probability, np.float32), np.full((3, 3), crack, np.uint8))
    assert_picture(precision_recall_curve(image, threshold, tmp_path / "pr.png"), 1040)


def test_drawing_changes_no_setting_of_matplotlib_and_needs_no_pyplot(tmp_path: Path) -> None:
    before, had_pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    training_curves(EPOCHS, tmp_path / "training.png")
    precision_recall_curve(counts(), 0.5, tmp_path / "pr.png")
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot
