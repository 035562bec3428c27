"""How a search went: the best so far against what it cost, and the trainings that stand for the arms by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from crack_sweeps.errors import UserError
from crack_sweeps.leaderboard.report.findings import Findings
from crack_sweeps.leaderboard.report.plots import Plot, Trace, axis, hover, panels, shade
from crack_sweeps.leaderboard.report.words import settings_lines
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.events import read_events
from crack_sweeps.study.ledger import Row

CROWDED = 60  # trials of an arm, above which marks are small


def best_so_far(findings: Findings) -> Plot | None:
    """The best value of each arm against epochs and against hours of training; None before the first value."""
    if not any(findings.complete(arm.name) for arm in findings.arms):
        return None
    hours = max(sum(row["duration_s"] for row in findings.records.searched(arm.name)) for arm in findings.arms) / 3600
    unit, per_hour = ("hours", 1.0) if hours >= 1 else ("minutes", 60.0)
    traces: list[Trace] = []
    for arm in findings.arms:
        rows = findings.records.searched(arm.name)
        epochs = list(accumulate(row["num_epochs"] for row in rows))
        times = list(accumulate(row["duration_s"] / 3600 * per_hour for row in rows))
        traces += _course(findings, arm.name, rows, epochs, "", legend=True)
        traces += _course(findings, arm.name, rows, times, "2", legend=False)
    (left, right), (left2, right2) = panels(2, gap=0.06)
    return Plot(
        name="best-so-far",
        said="A step is the best value so far, a ring a complete trial, a cross a trial that was stopped early, at its "
        "last value. Equal budgets are equal epochs: an arm that ends further left was given less.",
        traces=traces,
        layout={
            "xaxis": axis("epochs trained, summed over the arm's trials", domain=[left, right], rangemode="tozero"),
            "xaxis2": axis(f"{unit} of training", domain=[left2, right2], rangemode="tozero", anchor="y2"),
            "yaxis": axis(findings.metric),
            "yaxis2": axis(matches="y", anchor="x2", showticklabels=False),
        },
        height=380,
    )


def _course(
    findings: Findings, arm: str, rows: Sequence[Row], places: Sequence[float], panel: str, *, legend: bool
) -> Iterator[Trace]:
    colour = findings.colour(arm)
    where = {"xaxis": f"x{panel}", "yaxis": f"y{panel}", "legendgroup": arm, "showlegend": False}
    placed = list(zip(rows, places, strict=True))
    done = [(row, x) for row, x in placed if row["outcome"] == "complete" and row["value"] is not None]
    stopped = [(row, x) for row, x in placed if row["outcome"] == "pruned" and row["last_value"] is not None]
    size = 6.5 if len(rows) <= CROWDED else 4.5
    if stopped:
        yield {
            **_points(stopped, "last_value", "stopped"),
            "marker": {"symbol": "x-thin", "size": size, "line": {"color": shade(colour, 0.45), "width": 1.3}},
            **where,
        }
    if not done:
        return
    yield {
        **_points(done, "value", "complete"),
        "marker": {"symbol": "circle-open", "size": size, "line": {"width": 1.3}, "color": colour},
        **where,
    }
    best = list(accumulate((row["value"] for row, _ in done), max if findings.sign > 0 else min))
    yield {
        "type": "scatter",
        "mode": "lines",
        "name": arm,
        "x": [*(x for _, x in done), places[-1]],
        "y": [*best, best[-1]],
        "line": {"color": colour, "width": 2.4, "shape": "hv"},
        "hoverinfo": "skip",
        **where,
        "showlegend": legend,
    }


def _points(placed: Sequence[tuple[Row, float]], key: str, said: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x for _, x in placed],
        "y": [row[key] for row, _ in placed],
        "text": [
            hover(f"{row['trial']}: {row[key]:.3f}, {said}", *settings_lines(row["suggestion"])) for row, _ in placed
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }


def learning_curves(findings: Findings) -> Plot | None:
    """The objective after each epoch of the trainings that stand for the arms; None where their logs are gone."""
    metric = findings.records.study.spec.objective.metric
    traces: list[Trace] = []
    longest = 0
    for arm, runs in findings.chosen.items():
        for number, run in enumerate(runs):
            course = _epochs(run, metric)
            if not course:
                continue
            longest = max(longest, max(course))
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if len(course) == 1 else "lines",
                    "name": arm,
                    "legendgroup": arm,
                    "showlegend": not any(trace["name"] == arm for trace in traces),
                    "x": list(course),
                    "y": list(course.values()),
                    "line": {"color": findings.colour(arm), "width": 1.6},
                    "text": [hover(f"{arm}, training {number + 1}", run.name)] * len(course),
                    "hovertemplate": "%{text}<br>epoch %{x}: %{y:.3f}<extra></extra>",
                }
            )
    if not traces:
        return None
    return Plot(
        name="learning-curves",
        said="One line a training. Between epochs only a few validation photos are scored, at the threshold that suits "
        "them best: these figures show whether training had settled, and differ from those of the table.",
        traces=traces,
        layout={
            "xaxis": axis("epoch", range=[0, longest + 0.5], **({"dtick": 1} if longest <= 12 else {})),
            "yaxis": axis(findings.metric),
        },
        height=320,
    )


def _epochs(run: RunDirectory, metric: str) -> dict[int, float]:
    """The objective after each epoch."""
    try:
        epochs = [event for event in read_events(run.events) if event["kind"] == "epoch"]
    except ValueError as error:
        raise UserError(f"{run.events}: is damaged ({error})") from error
    return {e["epoch"]: e["metrics"][metric] for e in epochs if e["metrics"].get(metric) is not None}
