"""Scores as a table: each metric once, pooled and as the mean of images."""

from __future__ import annotations

from collections.abc import Mapping

from crack_sweeps.console import Table

Figures = Mapping[str, float | None]


def figures_table(figures: Figures) -> Table:
    """The figures of a scoring without its counts; `-` where there is nothing to measure."""
    scores = {name: value for name, value in figures.items() if not name.startswith("num_")}
    names = dict.fromkeys(name.removesuffix("_image") for name in scores)
    rows = [(name, _cell(scores, name), _cell(scores, f"{name}_image")) for name in names]
    return Table(("metric", "pooled", "mean of images"), rows)


def counts_line(figures: Figures) -> str:
    """How many images were empty, in truth or by prediction."""
    empty, alarms, missed = (figures[f"num_{name}"] for name in ("empty_masks", "false_alarms", "missed"))
    return f"{empty:.0f} without a crack ({alarms:.0f} of them with a false alarm); {missed:.0f} all missed"


def _cell(figures: Figures, key: str) -> str:
    if key not in figures:
        return ""
    value = figures[key]
    return "-" if value is None else f"{value:.2f}" if "threshold" in key else f"{value:.4f}"
