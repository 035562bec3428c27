"""What was reached and what it cost: the objective against memory and speed, forecasts, precision against recall."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crack_sweeps.evaluation.counts import PixelCounts, stack
from crack_sweeps.evaluation.curve_file import read_curve
from crack_sweeps.evaluation.scores import metrics
from crack_sweeps.leaderboard.report.findings import Findings
from crack_sweeps.leaderboard.report.plots import (
    FAINT,
    GIB,
    GREY,
    INK,
    Plot,
    Trace,
    axis,
    hover,
    limits,
    middle,
    note,
    panels,
)
from crack_sweeps.leaderboard.report.words import counted, memory, settings_lines
from crack_sweeps.study.calibration import held_bytes
from crack_sweeps.study.ledger import Row


@dataclass(frozen=True)
class _Point:
    """A complete training with what it cost."""

    row: Row
    arm: str
    cost: float
    is_finalist: bool


# --- the objective against memory and speed ------------------------------------------------------


def trade_offs(findings: Findings) -> Plot | None:
    """The objective against peak memory and against speed, with the Pareto fronts; None where neither is known."""
    sides = [
        (_points(findings, lambda row: (held_bytes(row) or 0) / GIB or None), "peak memory, GiB", -1),
        (_points(findings, lambda row: row.get("images_per_s")), "speed, crops trained per second", 1),
    ]
    sides = [side for side in sides if side[0]]
    if not sides:
        return None
    domains = panels(len(sides), gap=0.06)
    traces: list[Trace] = []
    layout: dict[str, Any] = {}
    for place, (points, title, better) in enumerate(sides):
        suffix = "" if place == 0 else "2"
        traces += _trade_off(findings, points, better, suffix)
        layout[f"xaxis{suffix}"] = axis(title, domain=list(domains[place]), anchor=f"y{suffix}")
        layout[f"yaxis{suffix}"] = axis(findings.metric if place == 0 else "", anchor=f"x{suffix}")
        if place:
            layout["yaxis2"] |= {"matches": "y", "showticklabels": False}
    known = {title for _, title, _ in sides}
    missing = "" if len(known) == 2 else " The other cost was not measured."
    return Plot(
        name="trade-offs",
        said="Complete trials as points, finalists as diamonds. The dotted line joins what nothing beats in both: "
        f"better costs more memory, or time.{missing}",
        traces=traces,
        layout=layout,
        height=400,
    )


def _points(findings: Findings, cost: Any) -> list[_Point]:
    points = []
    for row in findings.records.trials:
        spent = cost(row)
        if row["outcome"] == "complete" and row["value"] is not None and spent is not None:
            finalist_of = row.get("finalist_of")
            points.append(_Point(row, finalist_of or row["arm"], spent, finalist_of is not None))
    return points


def _trade_off(findings: Findings, points: Sequence[_Point], better: int, suffix: str) -> Iterator[Trace]:
    where = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
    front = pareto([(better * p.cost, findings.sign * p.row["value"]) for p in points])
    along = sorted((points[at] for at in front), key=lambda p: p.cost)
    yield {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": [p.cost for p in along],
        "y": [p.row["value"] for p in along],
        "line": {"color": INK, "width": 1.2, "dash": "dot", "shape": "hv" if better < 0 else "vh"},
        "hoverinfo": "skip",
        "showlegend": not suffix,
        "legendgroup": "front",
        **where,
    }
    for arm in dict.fromkeys(p.arm for p in points):
        of_arm = [(at, p) for at, p in enumerate(points) if p.arm == arm]
        yield {
            "type": "scatter",
            "mode": "markers",
            "name": arm,
            "legendgroup": arm,
            "showlegend": not suffix,
            "x": [p.cost for _, p in of_arm],
            "y": [p.row["value"] for _, p in of_arm],
            "text": [_cost_said(p) for _, p in of_arm],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {
                "color": findings.colour(arm),
                "opacity": 0.8,
                "symbol": ["diamond" if p.is_finalist else "circle" for _, p in of_arm],
                "size": [10 if p.is_finalist else 7 for _, p in of_arm],
                "line": {"color": [INK if at in front else "#ffffff" for at, _ in of_arm], "width": 1.2},
            },
            **where,
        }


def _cost_said(point: _Point) -> str:
    row = point.row
    speed = row.get("images_per_s")
    return hover(
        f"{row['trial']}: {row['value']:.3f}",
        f"{memory(held_bytes(row))} at its peak",
        f"{speed:.1f} crops/s" if speed is not None else "",
        *settings_lines(row["suggestion"]),
    )


def pareto(goods: Sequence[tuple[float, float]]) -> set[int]:
    """Places of the pairs that no other beats: none is as good in both and better in one. More is better in both."""
    order = sorted(range(len(goods)), key=lambda at: (-goods[at][0], -goods[at][1]))
    front: list[int] = []
    for at in order:
        if not front or goods[at][1] > goods[front[-1]][1] or goods[at] == goods[front[-1]]:
            front.append(at)
    return set(front)


# --- forecast against measured memory ------------------------------------------------------------


def forecasts(findings: Findings) -> Plot | None:
    """Measured against forecast peak memory; None where nothing was measured."""
    pairs = [
        (row, row["needed_bytes"] / GIB, held / GIB)
        for row in findings.records.trials
        if row["needed_bytes"] and (held := held_bytes(row))
    ]
    if not pairs:
        return None
    errors = [needed / held - 1 for _, needed, held in pairs]
    over, under = max(0.0, *errors), max(0.0, *(-error for error in errors))
    low, high = limits([side for _, needed, held in pairs for side in (needed, held)], margin=0.12)
    ends = [low, high]
    traces: list[Trace] = [
        _band(ends, 0.9, fill="none"),
        {**_band(ends, 1.1, fill="tonexty"), "name": "within 10 %", "showlegend": True},
        {**_band(ends, 1.0, fill="none"), "line": {"color": GREY, "width": 1}},
    ]
    arms = dict.fromkeys(row.get("finalist_of") or row["arm"] for row, _, _ in pairs)
    for arm in arms:
        of_arm = [pair for pair in pairs if (pair[0].get("finalist_of") or pair[0]["arm"]) == arm]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": arm,
                "x": [needed for _, needed, _ in of_arm],
                "y": [held for _, _, held in of_arm],
                "text": [
                    hover(row["trial"], f"forecast {needed:.2f} GiB", f"measured {held:.2f} GiB")
                    for row, needed, held in of_arm
                ],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"color": findings.colour(arm), "size": 7, "line": {"color": "#ffffff", "width": 0.8}},
            }
        )
    layout: dict[str, Any] = {
        "xaxis": axis("forecast peak, GiB", range=ends),
        "yaxis": axis("measured peak, GiB", range=ends),
    }
    budget = memory_budget(findings)
    if budget is not None and low < budget / GIB < high:
        place = budget / GIB
        layout["shapes"] = [
            {
                "type": "line",
                "x0": place,
                "x1": place,
                "y0": 0,
                "y1": 1,
                "yref": "paper",
                "line": {"color": GREY, "width": 1.2, "dash": "dash"},
            }
        ]
        layout["annotations"] = [note("budget", place, 0.02, xref="x", xanchor="right", yanchor="bottom", xshift=-4)]
    wrong = f"{100 * middle([abs(error) for error in errors]):.1f} % off in the median"
    return Plot(
        name="forecasts",
        said=f"{counted(len(pairs), 'training')}: the forecast was {wrong}, at most {100 * over:.1f} % too high and "
        f"{100 * under:.1f} % too low. Above the diagonal more was held than forecast.",
        traces=traces,
        layout=layout,
        height=430,
        widest=640,
    )


def memory_budget(findings: Findings) -> float | None:
    """Bytes that a trial might take; None where that was never decided."""
    known = findings.records.study.spec.memory_budget_bytes
    found: float | None = known or findings.records.folder.read_facts().get("memory_budget_bytes")
    return found


def _band(ends: Sequence[float], factor: float, *, fill: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(ends),
        "y": [factor * end for end in ends],
        "line": {"width": 0, "color": FAINT},
        "fill": fill,
        "fillcolor": "rgba(120,120,130,0.10)",
        "hoverinfo": "skip",
        "showlegend": False,
    }


# --- precision against recall --------------------------------------------------------------------


def precision_recall(findings: Findings) -> Plot | None:
    """Precision against recall of the trainings that stand for the arms; None where no run kept its curve."""
    split = findings.board.split if findings.board is not None else "val"
    traces = list(_equal_f1())
    num_drawn = 0
    for arm, runs in findings.chosen.items():
        paths = [run.test_curve if split == "test" else run.curve for run in runs]
        curves = [read_curve(path) for path in paths if path.is_file()]
        if not curves:
            continue
        num_drawn += len(curves)
        together = PixelCounts(*(sum_of(curves, side) for side in ("crack_NK", "background_NK")))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": arm,
                "legendgroup": arm,
                **_curve(together),
                "hovertemplate": f"{hover(arm)}<br>threshold %{{text}}<br>recall %{{x:.3f}}<br>precision %{{y:.3f}}"
                "<extra></extra>",
                "line": {"color": findings.colour(arm), "width": 2.2},
            }
        )
        chosen = [_at(counts, threshold) for counts, threshold in curves]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "legendgroup": arm,
                "showlegend": False,
                "x": [recall for recall, _ in chosen],
                "y": [precision for _, precision in chosen],
                "text": [f"{threshold:.2f}" for _, threshold in curves],
                "hovertemplate": f"{hover(arm)}<br>chosen threshold %{{text}}<br>recall %{{x:.3f}}<br>"
                "precision %{y:.3f}<extra></extra>",
                "marker": {"color": "#ffffff", "size": 9, "line": {"color": findings.colour(arm), "width": 2}},
            }
        )
    if not num_drawn:
        return None
    images = {"test": "test", "val": "validation"}[split]
    return Plot(
        name="precision-recall",
        said=f"All {images} pixels together, the trainings of an arm added up. A ring is a training at the threshold "
        "that validation chose for it; faint lines join equal F1.",
        traces=traces,
        layout={
            "xaxis": axis("recall", range=[0, 1.08], tickvals=[0, 0.2, 0.4, 0.6, 0.8, 1]),
            "yaxis": axis("precision", range=[0, 1.01]),
        },
        height=520,
        widest=760,
    )


def sum_of(curves: Sequence[tuple[PixelCounts, float]], side: str) -> Any:
    """Counts of several trainings added up, as those of one image."""
    return getattr(stack([counts for counts, _ in curves]), side).sum(axis=0, keepdims=True)


def _curve(counts: PixelCounts) -> dict[str, list[Any]]:
    """Recall and precision at the thresholds at which any crack is found: above them there is nothing to be right."""
    swept = counts.sweep()
    scores = metrics(swept)
    found = np.flatnonzero(swept.tp > 0)
    return {
        "x": [round(float(scores["recall"][at]), 4) for at in found],
        "y": [round(float(scores["precision"][at]), 4) for at in found],
        "text": [f"{(at + 1) / 100:.2f}" for at in found.tolist()],
    }


def _at(counts: PixelCounts, threshold: float) -> tuple[float, float]:
    scores = metrics(counts.at(threshold).pooled())
    return round(float(scores["recall"][0]), 4), round(float(scores["precision"][0]), 4)


def _equal_f1() -> Iterator[Trace]:
    """Faint lines of equal F1: precision = F1 recall / (2 recall - F1)."""
    for f1 in (0.2, 0.4, 0.6, 0.8):
        first = f1 / (2 - f1)
        recall = first + (1 - first) * np.linspace(0, 1, 40) ** 2.5  # dense where the line is steep
        yield {
            "type": "scatter",
            "mode": "lines+text",
            "x": [round(float(x), 4) for x in recall],
            "y": [round(float(f1 * x / (2 * x - f1)), 4) for x in recall],
            "text": ["" for _ in recall[:-1]] + [f"F1 {f1:.1f}"],
            "textposition": "middle right",
            "textfont": {"size": 10.5, "color": GREY},
            "line": {"color": FAINT, "width": 0.8},
            "hoverinfo": "skip",
            "showlegend": False,
        }
