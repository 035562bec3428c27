"""A figure as plain data for the page's own plotly.js, and the look that all figures share."""

from __future__ import annotations

import html
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Trace = dict[str, Any]
Axis = dict[str, Any]

FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
INK, GREY, FAINT, GRID = "#1d1d1f", "#6b6b70", "#c8c8cc", "#e9e9ec"
# Okabe and Ito's palette (2008), in the order in which neighbours differ most, as in evaluation/curves.py.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GIB = 1 << 30


@dataclass(frozen=True)
class Plot:
    """A figure.

    Args:
        name: Of its element on the page.
        said: What it shows, in a sentence or two.
        traces: As plotly.js takes them.
        layout: As plotly.js takes it, without what all figures share.
        height: px on a screen.
        widest: px on a screen; None is all that there is.
        has_tools: Whether zooming makes sense.
    """

    name: str
    said: str
    traces: Sequence[Trace]
    layout: Mapping[str, Any]
    height: int = 360
    widest: int | None = None
    has_tools: bool = True

    def as_json(self) -> dict[str, Any]:
        """What the page's script draws it from."""
        layout = {**_SHARED, **self.layout, "height": self.height}
        return {"data": list(self.traces), "layout": layout, "has_tools": self.has_tools, "widest": self.widest}


_SHARED: dict[str, Any] = {
    "font": {"family": FONT, "size": 12.5, "color": INK},
    "paper_bgcolor": "#ffffff",
    "plot_bgcolor": "#ffffff",
    "margin": {"l": 62, "r": 18, "t": 34, "b": 52},
    "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": FAINT, "font": {"family": FONT, "size": 12}, "align": "left"},
    "hovermode": "closest",
    "legend": {
        "orientation": "h",
        "x": 0,
        "y": 1.02,
        "yanchor": "bottom",
        "font": {"size": 12},
        "traceorder": "normal",
    },
    "dragmode": "zoom",
}


def axis(title: str = "", **more: Any) -> Axis:
    """An axis as all figures have it."""
    return {
        "title": {"text": plain(title), "font": {"size": 12.5, "color": GREY}, "standoff": 8},
        "gridcolor": GRID,
        "linecolor": FAINT,
        "showline": True,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": FAINT,
        "tickfont": {"size": 11.5, "color": GREY},
        "automargin": True,
        **more,
    }


def panels(count: int, gap: float = 0.07) -> list[tuple[float, float]]:
    """Where panels side by side begin and end, as shares of the figure's width."""
    width = (1 - gap * (count - 1)) / count
    return [(i * (width + gap), i * (width + gap) + width) for i in range(count)]


def note(text: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    """Words in a figure; x and y are shares of it unless said otherwise."""
    return {
        "text": text,
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "showarrow": False,
        "font": {"size": 11.5, "color": GREY},
        **more,
    }


def plain(text: str) -> str:
    """Text as plotly shows it: what looks like markup in a name stays what it is."""
    return html.escape(text, quote=False)


def hover(*lines: str) -> str:
    """Lines of the box beside the pointer, the first one bold."""
    first, *others = [plain(line) for line in lines if line]
    return "<br>".join([f"<b>{first}</b>", *others])


def shade(colour: str, share: float) -> str:
    """A colour on its way from light grey (0) to itself (1)."""
    light = (222, 222, 226)
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    mixed = [round(faint + (full - faint) * share) for faint, full in zip(light, parts, strict=True)]
    return f"#{mixed[0]:02x}{mixed[1]:02x}{mixed[2]:02x}"


def limits(values: Iterable[float], margin: float = 0.06) -> list[float]:
    """Ends of an axis with some air around the values."""
    found = list(values)
    low, high = min(found), max(found)
    air = margin * (high - low) or margin * abs(high) or margin
    return [low - air, high + air]


def middle(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)
