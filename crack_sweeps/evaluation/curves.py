"""Curves as PNG: a training over its epochs, and precision against recall with the chosen threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from crack_sweeps.evaluation.counts import PixelCounts
from crack_sweeps.evaluation.scores import metrics, pooled
from crack_sweeps.evaluation.thresholds import THRESHOLDS, threshold_index

# Okabe and Ito's palette (2008), in the order in which neighbours differ most.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#777777"
# Side of a panel, inches at 100 dots an inch: three in a row fit on a screen.
_PANEL_INCHES = (5.2, 4.0)
_DPI = 100

# What is drawn together: title, what the names of its metrics begin with, and whether the axis is a share of 1.
_PANELS = (
    ("loss", ("train/loss", "val/loss"), False),
    ("validation", ("val/crack_",), True),
    ("learning rate", ("lr",), False),
)


def training_curves(epochs: Sequence[tuple[int, Mapping[str, float]]], path: Path) -> Path:
    """Draw loss, validation scores and learning rate over the epochs; a metric that an epoch lacks leaves a gap.

    Args:
        epochs: The number of each epoch with its metrics, keyed as tracked: `train/loss`, `lr` ...
        path: The PNG to write; its folder must exist.
    """
    named = sorted({name for _, values in epochs for name in values})
    panels = [
        (title, [name for name in named if name.startswith(prefixes)], is_share)
        for title, prefixes, is_share in _PANELS
    ]
    panels = [panel for panel in panels if panel[1]]
    figure, axes = _panels(max(1, len(panels)))
    for axis, (title, names, is_share) in zip(axes, panels, strict=False):
        for name, colour in zip(names, _cycled(len(names)), strict=True):
            course = [(epoch, values.get(name, math.nan)) for epoch, values in epochs]
            marker = "o" if len(epochs) <= 30 else None
            axis.plot(
                *zip(*course, strict=True), color=colour, marker=marker, markersize=3.5, linewidth=1.6, label=name
            )
        _dress(axis, title, "epoch", "")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if is_share:
            _mark_best(axis, epochs)
            axis.set_ylim(bottom=0)
        axis.legend(frameon=False, fontsize=9)
    if not panels:
        _dress(axes[0], "no epoch was finished", "epoch", "")
    return _saved(figure, path)


def precision_recall_curve(counts: PixelCounts, threshold: float, path: Path, *, title: str = "") -> Path:
    """Draw precision against recall, and the scores against the threshold, pooled over the images.

    Args:
        counts: Of the split that is named in the title.
        threshold: Marked in both.
        path: The PNG to write; its folder must exist.
        title: What the curves are of, such as `validation, 60 images`.
    """
    by_threshold = metrics(counts.sweep())
    chosen = pooled(counts, threshold)
    index = threshold_index(threshold) - 1
    figure, (curve, scores) = _panels(2)

    _draw_equal_f1(curve)
    curve.plot(by_threshold["recall"], by_threshold["precision"], color=_COLOURS[0], linewidth=1.8)
    # The curve falls, so the space at the lower left of a point is free of it.
    _ring(curve, chosen["recall"], chosen["precision"])
    note = f"t = {threshold:.2f}\nF1 {chosen['crack_f1']:.3f}"
    _note(curve, chosen["recall"], chosen["precision"], note, above=chosen["precision"] < 0.25)
    _dress(curve, "precision and recall" + (f": {title}" if title else ""), "recall", "precision")
    curve.set_xlim(0, 1.02)
    curve.set_ylim(0, 1.02)

    labels = {"crack_iou": "crack IoU", "crack_f1": "F1", "precision": "precision", "recall": "recall"}
    for (name, label), colour in zip(labels.items(), _COLOURS, strict=False):
        is_headline = name in ("crack_iou", "crack_f1")
        scores.plot(
            THRESHOLDS,
            by_threshold[name],
            color=colour,
            linewidth=1.8 if is_headline else 1.0,
            linestyle="-" if is_headline else "--",
            label=label,
        )
    scores.axvline(float(THRESHOLDS[index]), color=_GREY, linewidth=1, linestyle=":")
    # No other score is ever below crack IoU, so the floor of the picture is free unless it is low.
    _ring(scores, threshold, chosen["crack_iou"])
    note = f"t = {threshold:.2f}\nIoU {chosen['crack_iou']:.3f}"
    _note(scores, threshold, 0.0 if chosen["crack_iou"] > 0.2 else chosen["crack_iou"], note, above=True)
    _dress(scores, "scores by threshold, pooled", "threshold", "")
    scores.set_xlim(0, 1)
    scores.set_ylim(0, 1.02)
    scores.legend(frameon=False, fontsize=9)
    return _saved(figure, path)


def _panels(num_panels: int) -> tuple[Figure, list[Axes]]:
    """A figure of its own, with no state shared with anybody who uses matplotlib in this process."""
    panel_width, height = _PANEL_INCHES
    width = panel_width * num_panels
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    # Margins in inches, with room for tick labels; matplotlib's own layout engines draw everything twice to find them.
    figure.subplots_adjust(left=0.7 / width, right=1 - 0.2 / width, bottom=0.55 / height, top=1 - 0.4 / height)
    figure.subplots_adjust(wspace=0.8 / panel_width)
    return figure, list(figure.subplots(1, num_panels, squeeze=False)[0])


def _cycled(number: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(number)]


def _dress(axis: Axes, title: str, x_label: str, y_label: str) -> None:
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _ring(axis: Axes, x: float, y: float) -> None:
    axis.plot([x], [y], marker="o", markersize=8, markerfacecolor="white", markeredgecolor="black", markeredgewidth=1.6)


def _note(axis: Axes, x: float, y: float, text: str, *, above: bool) -> None:
    """Two lines beside a ring, on the side that has room for them."""
    to_left = x > 0.25
    axis.annotate(
        text,
        (x, y),
        xytext=(-9 if to_left else 9, 9 if above else -9),
        textcoords="offset points",
        ha="right" if to_left else "left",
        va="bottom" if above else "top",
        fontsize=9,
    )


def _mark_best(axis: Axes, epochs: Sequence[tuple[int, Mapping[str, float]]]) -> None:
    """A ring at the epoch of the best crack IoU."""
    scored = [
        (values["val/crack_iou"], -epoch)
        for epoch, values in epochs
        if math.isfinite(values.get("val/crack_iou", math.nan))
    ]
    if scored:
        best, negative_epoch = max(scored)
        axis.plot([-negative_epoch], [best], marker="o", markersize=9, markerfacecolor="none", markeredgecolor="black")
        axis.set_title(f"validation: best crack IoU {best:.3f} at epoch {-negative_epoch}", loc="left", fontsize=11)


def _draw_equal_f1(axis: Axes) -> None:
    """Faint lines of equal F1: precision = F1 recall / (2 recall - F1)."""
    for f1 in np.arange(0.2, 1.0, 0.2):
        recall = np.linspace(f1 / (2 - f1), 1, 60)
        axis.plot(recall, f1 * recall / (2 * recall - f1), color="#bbbbbb", linewidth=0.8)
        axis.annotate(f"F1 {f1:.1f}", (1, f1 / (2 - f1)), ha="right", va="bottom", fontsize=7, color=_GREY)


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, format="png")
    return path
