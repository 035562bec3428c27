"""What mattered in an arm's space: importances, trials as lines over all parameters, the objective against each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crack_sweeps.leaderboard.report.findings import Findings
from crack_sweeps.leaderboard.report.plots import (
    FAINT,
    INK,
    Plot,
    Trace,
    axis,
    hover,
    limits,
    note,
    panels,
    plain,
    shade,
)
from crack_sweeps.leaderboard.report.words import counted, setting, settings_lines
from crack_sweeps.specs.study import Choices, Parameter, Range, identified
from crack_sweeps.study.importances import find_importances
from crack_sweeps.study.ledger import Row
from crack_sweeps.study.scales import FEWEST, Scale, agreement, broken, short_names, spread

MOST_AXES = 12  # side by side that still can be read
MOST_COLUMNS = 6
SHADES = 8  # of the lines: as many colours as an eye can put in order
ABSENT = -0.12  # where a line passes that has no such parameter


@dataclass(frozen=True)
class Searched:
    """An arm's trials, as these figures need them.

    Args:
        arm: Its name.
        space: What was searched.
        complete: Rows of complete trials.
        stopped: Rows of trials that were stopped early.
        sign: 1 where more is better, else -1.
        colour: The arm's.
        metric: The objective in words.
    """

    arm: str
    space: Mapping[str, Parameter]
    complete: Sequence[Row]
    stopped: Sequence[Row]
    sign: int
    colour: str
    metric: str

    @classmethod
    def of(cls, findings: Findings, arm: str) -> Searched:
        """One arm of a study."""
        rows = findings.records.searched(arm)
        return cls(
            arm=arm,
            space=next(known.space for known in findings.arms if known.name == arm),
            complete=findings.complete(arm),
            stopped=[row for row in rows if row["outcome"] == "pruned" and row["last_value"] is not None],
            sign=findings.sign,
            colour=findings.colour(arm),
            metric=findings.metric,
        )

    @property
    def best(self) -> Row:
        """The first of the best; there must be a complete trial."""
        return max(self.complete, key=lambda row: self.sign * row["value"])

    def ordered(self) -> list[str]:
        """Parameters that vary, first what orders the complete trials best."""
        rows = [*self.complete, *self.stopped]
        varied = [
            key
            for key in self.space
            if len({identified(r["suggestion"][key]) if key in r["suggestion"] else None for r in rows}) > 1
        ]

        def strength(key: str) -> float:
            tried = [(r["suggestion"][key], r["value"]) for r in self.complete if key in r["suggestion"]]
            return agreement(Scale.of(self.space[key]), tried)

        return sorted(varied, key=lambda key: -strength(key))


def too_few(searched: Searched) -> bool:
    """Whether the trials are too few to show a space with."""
    return not searched.complete or len(searched.complete) + len(searched.stopped) < FEWEST


# --- importances ---------------------------------------------------------------------------------


def importances(searched: Searched) -> Plot | None:
    """How much each parameter tells the best complete trials from all; None where they are too few."""
    tried = [(row["suggestion"], row["value"]) for row in searched.complete]
    found = find_importances(searched.space, tried, maximize=searched.sign > 0)
    if found is None:
        return None
    names = short_names(searched.space)
    keys = list(found.shares)[:MOST_AXES][::-1]  # plotly draws the first at the foot
    shares = [found.shares[key] for key in keys]
    said = f"What tells the best {found.num_top} of {found.num_complete} complete trials from the rest (PED-ANOVA)"
    return Plot(
        name=f"importances-{searched.arm}",
        said=f"{said}: {found.caveat}." if found.caveat else f"{said}.",
        traces=[
            {
                "type": "bar",
                "orientation": "h",
                "x": shares,
                "y": [plain(names[key]) for key in keys],
                "text": [f"{100 * share:.0f} %" for share in shares],
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": searched.colour},
                "hovertext": [plain(key) for key in keys],
                "hovertemplate": "%{hovertext}: %{text}<extra></extra>",
            }
        ],
        layout={
            "xaxis": axis("share of importance", tickformat=".0%", range=[0, 1.15 * max(shares)]),
            "yaxis": axis(ticks="", showgrid=False),
            "bargap": 0.45,
            "showlegend": False,
            "margin": {"l": 20, "r": 24, "t": 8, "b": 48},
        },
        height=84 + 24 * len(keys),
        widest=760,
        has_tools=False,
    )


# --- parallel coordinates ------------------------------------------------------------------------


def parallel(searched: Searched) -> Plot | None:
    """Each trial as a line over all parameters; None where nothing varies."""
    keys = searched.ordered()
    if not keys or too_few(searched):
        return None
    shown = keys[:MOST_AXES]
    heights = {key: _heights(searched, key) for key in shown}
    values = [row["value"] for row in searched.complete]
    low, high = min(values), max(values)

    def share(row: Row) -> float:
        along = (row["value"] - low) / (high - low) if high > low else 1.0
        return along if searched.sign > 0 else 1 - along

    bins: list[list[Row]] = [[] for _ in range(SHADES)]
    for row in sorted(searched.complete, key=share):
        if row is not searched.best:
            bins[min(SHADES - 1, int(share(row) * SHADES))].append(row)
    traces = [_lines(searched.stopped, heights, color="#e4e4e7", width=1.0)]
    traces += [
        _lines(rows, heights, color=shade(searched.colour, 0.12 + 0.75 * at / (SHADES - 1)), width=1.4)
        for at, rows in enumerate(bins)
    ]
    traces.append(_lines([searched.best], heights, color=searched.colour, width=3.4))
    names = short_names(searched.space)
    notes, lines = [], []
    for place, key in enumerate(shown):
        scale = Scale.of(searched.space[key])
        lines.append(_vertical(place))
        notes.append(
            note(
                _broken(names[key]),
                place,
                1.05,
                xref="x",
                yref="y",
                yanchor="bottom",
                font={"size": 11.5},
            )
        )
        notes += [
            note(plain(_cut(label)), place, height, xref="x", yref="y", xanchor="left", xshift=4, bgcolor=_PAPER)
            for height, label in scale.marks()
        ]
    is_absent = any(ABSENT in height.values() for height in heights.values())
    if is_absent:
        notes.append(note("absent", -0.02, ABSENT, xref="x", yref="y", xanchor="right"))
    left_out = f" {len(keys) - len(shown)} more are left out." if len(keys) > len(shown) else ""
    return Plot(
        name=f"parallel-{searched.arm}",
        said="One line a complete trial: the darker, the better; the thick one is the best, grey ones were stopped "
        f"early. First stands what orders the trials best.{left_out}",
        traces=[trace for trace in traces if trace["x"]],
        layout={
            "xaxis": {"visible": False, "range": [-0.25, len(shown) - 0.45], "fixedrange": True},
            "yaxis": {"visible": False, "range": [ABSENT - 0.06 if is_absent else -0.06, 1.26], "fixedrange": True},
            "annotations": notes,
            "shapes": lines,
            "showlegend": False,
            "margin": {"l": 30, "r": 30, "t": 6, "b": 6},
        },
        height=380,
        has_tools=False,
    )


_PAPER = "rgba(255,255,255,0.82)"


def _heights(searched: Searched, key: str) -> dict[str, float]:
    """Where each trial's line crosses a parameter's axis, 0 to 1; lines of one choice are drawn apart a little."""
    scale = Scale.of(searched.space[key])
    rows = [*searched.complete, *searched.stopped]
    placed = [scale.share(row["suggestion"][key]) if key in row["suggestion"] else None for row in rows]
    apart = spread(placed, 0.5 / max(2, len(scale.labels))) if scale.labels else placed
    return {row["trial"]: ABSENT if at is None else at for row, at in zip(rows, apart, strict=True)}


def _lines(rows: Sequence[Row], heights: Mapping[str, Mapping[str, float]], *, color: str, width: float) -> Trace:
    """Lines of several trials as one trace, with gaps between them."""
    xs: list[int | None] = []
    ys: list[float | None] = []
    text: list[str] = []
    for row in rows:
        said = hover(_told(row), *settings_lines(row["suggestion"]))
        xs += [*range(len(heights)), None]
        ys += [*(height[row["trial"]] for height in heights.values()), None]
        text += [said] * (len(heights) + 1)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": xs,
        "y": ys,
        "text": text,
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": color, "width": width},
    }


def _told(row: Row) -> str:
    value = row["value"] if row["value"] is not None else row["last_value"]
    return f"{row['trial']}: {value:.3f}" + ("" if row["value"] is not None else ", stopped early")


def _vertical(place: float) -> dict[str, Any]:
    line = {"color": INK, "width": 0.9}
    return {"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "line": line, "layer": "above"}


def _broken(name: str) -> str:
    return "<br>".join(map(plain, broken(name)))


def _cut(label: str, most: int = 18) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}…"


# --- slices --------------------------------------------------------------------------------------


def slices(searched: Searched) -> Plot | None:
    """The objective of complete trials against each parameter that varies."""
    keys = searched.ordered()[:MOST_AXES]
    if not keys or too_few(searched):
        return None
    num_rows = math.ceil(len(keys) / MOST_COLUMNS)
    num_columns = max(3, math.ceil(len(keys) / num_rows))  # rows of even length
    across = panels(num_columns, gap=0.03)
    down = list(reversed(panels(num_rows, gap=0.3 / num_rows)))
    names = short_names(searched.space)
    low, high = limits([row["value"] for row in searched.complete], margin=0.12)
    edge = low + 0.03 * (high - low) if searched.sign > 0 else high - 0.03 * (high - low)
    traces: list[Trace] = []
    layout: dict[str, Any] = {"showlegend": False, "margin": {"l": 62, "r": 14, "t": 30, "b": 56}}
    for place, key in enumerate(keys):
        row, column = divmod(place, num_columns)
        suffix = "" if place == 0 else str(place + 1)
        scale = Scale.of(searched.space[key])
        traces += _slice(searched, key, scale, edge, suffix)
        title = names[key] + (f" ({scale.note.strip()})" if scale.note else "")
        layout[f"xaxis{suffix}"] = axis(
            _cut(title, 38), domain=list(across[column]), anchor=f"y{suffix}", **_ticks(scale)
        )
        layout[f"yaxis{suffix}"] = axis(
            searched.metric if column == 0 else "",
            domain=list(down[row]),
            anchor=f"x{suffix}",
            range=[low, high],
            showticklabels=column == 0,
            nticks=5,
        )
    num = counted(len(searched.stopped), "trial was", "trials were")
    stopped = f" {num} stopped early: a cross on the edge." if searched.stopped else ""
    return Plot(
        name=f"slices-{searched.arm}",
        said=f"One point a complete trial; the best has a ring.{stopped}",
        traces=traces,
        layout=layout,
        height=90 + 190 * num_rows,
    )


def _slice(searched: Searched, key: str, scale: Scale, edge: float, suffix: str) -> Iterator[Trace]:
    for rows, is_stopped in ((searched.stopped, True), (searched.complete, False)):
        placed = [(scale.place(r["suggestion"][key]), r) for r in rows if key in r["suggestion"]]
        known = [(x, row) for x, row in placed if x is not None]
        if not known:
            continue
        xs = spread([x for x, _ in known]) if scale.labels else [x for x, _ in known]
        is_best = [row is searched.best for _, row in known]
        marker: dict[str, Any] = (
            {"symbol": "x-thin", "size": 5, "line": {"color": FAINT, "width": 1.2}}
            if is_stopped
            else {
                "color": searched.colour,
                "opacity": 0.75,
                "size": [10 if best else 6.5 for best in is_best],
                "line": {"color": [INK if best else "#ffffff" for best in is_best], "width": 1.2},
            }
        )
        yield {
            "type": "scatter",
            "mode": "markers",
            "x": xs,
            "y": [edge if is_stopped else row["value"] for _, row in known],
            "text": [hover(_told(row), f"{key} = {setting(row['suggestion'][key])}") for _, row in known],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": marker,
            "xaxis": f"x{suffix}",
            "yaxis": f"y{suffix}",
        }


def _ticks(scale: Scale) -> dict[str, Any]:
    """Ticks and limits of the axis that a parameter lies along."""
    parameter = scale.parameter
    if isinstance(parameter, Choices):
        return {
            "tickmode": "array",
            "tickvals": list(range(len(scale.labels))),
            "ticktext": [plain(_cut(label)) for label in scale.labels],
            "range": [-0.5, len(scale.labels) - 0.5],
            "showgrid": False,
        }
    assert isinstance(parameter, Range)
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        ends = [math.log10(low), math.log10(high)]
        air = 0.04 * (ends[1] - ends[0])
        ticks = [low, math.sqrt(low * high), high]
        return {
            "type": "log",
            "range": [ends[0] - air, ends[1] + air],
            "tickmode": "array",
            "tickvals": ticks,
            "ticktext": [f"{tick:.2g}" for tick in ticks],
        }
    air = 0.04 * (high - low)
    ticks = [low, (low + high) / 2, high]
    return {
        "range": [low - air, high + air],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [f"{tick:.2g}" for tick in ticks],
    }
