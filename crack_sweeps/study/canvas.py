"""How a study's pictures look: colours, panels and axes, the same in all of them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from crack_sweeps import durable
from crack_sweeps.specs.study import Choices
from crack_sweeps.study.scales import Scale

# Okabe and Ito's palette (2008).
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GREY, FAINT = "#666666", "#c9c9c9"
_DPI = 100
_SHADES: Colormap = ListedColormap(colormaps["viridis"](np.linspace(0.95, 0.0, 256)))  # the best is dark on white


@dataclass(frozen=True)
class Shades:
    """Values as shades, the best the darkest."""

    low: float
    high: float
    reverse: bool

    @property
    def shades(self) -> Colormap:
        """From the worst to the best."""
        return _SHADES.reversed() if self.reverse else _SHADES

    @property
    def scale(self) -> Normalize:
        """Values to shares of the way from `low` to `high`."""
        return Normalize(self.low, self.high if self.high > self.low else self.low + 1e-9)

    def of(self, value: float) -> Any:
        """The colour of a value, RGBA."""
        return self.shades(self.scale(value))


def panels(
    num_rows: int,
    num_columns: int,
    *,
    width: float,
    height: float,
    left: float = 0.85,
    right: float = 0.35,
    top: float = 0.85,
    bottom: float = 0.65,
    between: tuple[float, float] = (0.75, 0.7),
) -> tuple[Figure, list[Axes]]:
    """A figure of its own, with no state shared with anybody who uses matplotlib in this process; sizes in inches."""
    across, down = between
    total_width = left + right + num_columns * width + (num_columns - 1) * across
    total_height = top + bottom + num_rows * height + (num_rows - 1) * down
    figure = Figure(figsize=(total_width, total_height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=left / total_width,
        right=1 - right / total_width,
        bottom=bottom / total_height,
        top=1 - top / total_height,
        wspace=across / width,
        hspace=down / height,
    )
    return figure, list(figure.subplots(num_rows, num_columns, squeeze=False).flat)


def dress(axis: Axes, x_label: str, y_label: str) -> None:
    """Labels, a faint grid, and no frame."""
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def dress_scale(scale: Scale, along: Any, axis: Axes) -> None:
    """Ticks and limits of the axis that this parameter lies along."""
    if isinstance(scale.parameter, Choices):
        turned = sum(map(len, scale.labels)) > 30
        along.set_ticks(
            range(len(scale.labels)),
            scale.labels,
            rotation=22 if turned else 0,
            ha="right" if turned else "center",
            fontsize=8,
        )
        axis.set_xlim(-0.5, len(scale.labels) - 0.5)
        axis.grid(visible=False, axis="x")  # trials of one choice are spread beside its mark
        return
    low, high = float(scale.parameter.low), float(scale.parameter.high)
    if scale.parameter.log:
        axis.set_xscale("log")
        axis.set_xlim(low / (high / low) ** 0.04, high * (high / low) ** 0.04)
        ticks = [low, math.sqrt(low * high), high] if high / low < 100 else None
        if ticks is not None:
            along.set_ticks(ticks, [f"{tick:.2g}" for tick in ticks])
            along.set_minor_locator(NullLocator())
    else:
        margin = 0.04 * (high - low)
        axis.set_xlim(low - margin, high + margin)
        along.set_major_locator(MaxNLocator(4, integer=scale.parameter.whole))


def ring(axis: Axes, x: float, y: float) -> None:
    """Around the best trial."""
    axis.plot(
        [x], [y], "o", markersize=10, markerfacecolor="none", markeredgecolor="black", markeredgewidth=1.3, zorder=5
    )


def colour_bar(figure: Figure, colours: Shades, label: str, *, whole: bool = False) -> None:
    """A narrow bar at the right edge, as high as the panels."""
    width = figure.get_size_inches()[0]
    panels = figure.axes[0].get_position()
    bottom = min(axis.get_position().y0 for axis in figure.axes)
    place = (1 - 0.85 / width, bottom, 0.14 / width, panels.y1 - bottom)
    bar = figure.colorbar(ScalarMappable(colours.scale, colours.shades), cax=figure.add_axes(place), label=label)
    bar.outline.set_visible(False)
    if whole:
        bar.locator = MaxNLocator(integer=True)
        bar.update_ticks()


def limits(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """Limits of an axis with some air around the values."""
    low, high = min(values), max(values)
    air = margin * (high - low) or margin * abs(high) or margin
    return low - air, high + air


def capital(text: str) -> str:
    """With its first letter as a capital."""
    return text[:1].upper() + text[1:]


def save(figure: Figure, path: Path) -> Path:
    """As PNG, whole or not at all: the mirror may be reading the one before."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    durable.write_bytes(path, content.getvalue())
    return path
