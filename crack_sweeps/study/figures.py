"""A study in pictures: how it improved, what mattered, where good values lie, what was stopped, what memory it took."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from crack_sweeps.specs.study import Objective, Parameter, identified
from crack_sweeps.specs.study_loading import ResolvedStudy
from crack_sweeps.study.calibration import held_bytes
from crack_sweeps.study.canvas import (
    BLUE,
    FAINT,
    GREY,
    ORANGE,
    RED,
    Shades,
    capital,
    colour_bar,
    dress,
    dress_scale,
    limits,
    panels,
    ring,
    save,
)
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import TRAINED, Outcome, Trial
from crack_sweeps.study.importances import find_importances
from crack_sweeps.study.ledger import Row, read_rows
from crack_sweeps.study.scales import FEWEST, Scale, agreement, broken, short_names, spread
from crack_sweeps.study.store import Store

FOREMOST = 20  # lines that stand out from the others
MOST_AXES = 14  # parallel coordinates side by side that still can be read

_GIB = 1 << 30
_METRICS = {"val/crack_iou": "crack IoU (validation)", "val/crack_f1": "crack F1 (validation)"}


@dataclass(frozen=True)
class _Search:
    """One arm of a study, as far as it has come."""

    title: str
    trials: Sequence[Trial]
    rows: Sequence[Row]  # of this arm's trials that ended, in that order
    space: Mapping[str, Parameter]
    objective: Objective
    budget_bytes: int | None

    @property
    def metric(self) -> str:
        return _METRICS.get(self.objective.metric, self.objective.metric)

    @property
    def sign(self) -> int:
        return 1 if self.objective.direction == "maximize" else -1

    @property
    def complete(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.outcome == "complete" and trial.value is not None]

    @property
    def pruned(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.outcome == "pruned" and trial.intermediate]

    @property
    def best(self) -> Trial:
        """The first of those that are best; there must be a complete trial."""
        return max(self.complete, key=lambda trial: (self.sign * (trial.value or 0.0), -trial.number))

    def score(self, trial: Trial) -> float:
        """The value of a complete trial, the best epoch of another."""
        if trial.value is not None:
            return trial.value
        return self.sign * max(self.sign * value for value in trial.intermediate.values())

    def enough(self) -> bool:
        return len(self.complete) >= 1 and len(self.complete) + len(self.pruned) >= FEWEST


def draw_figures(folder: StudyFolder, store: Store, study: ResolvedStudy) -> list[Path]:
    """Draw what the study's trials have to show so far into its folder of figures.

    A picture for which there are too few trials is left out; one that was drawn before is replaced in one step. Those
    of another arm than the main one carry its name.

    Args:
        folder: The study's.
        store: Where its trials are.
        study: What is searched.

    Returns:
        The pictures, PNG.
    """
    folder.figures.mkdir(exist_ok=True)
    rows = list(read_rows(folder))
    drawn: list[Path] = []
    for arm in study.arms:
        is_main = arm is study.arms[0]
        search = _Search(
            title=folder.name + ("" if is_main else f", {arm.name}") + (", quick look" if study.quick_look else ""),
            trials=store.trials(arm.name),
            rows=[row for row in rows if row["arm"] == arm.name],
            space=arm.space,
            objective=study.spec.objective,
            budget_bytes=study.spec.memory_budget_bytes or folder.read_facts().get("memory_budget_bytes"),
        )
        for name, draw in PICTURES.items():
            figure = draw(search)
            if figure is not None:
                path = folder.figures / f"{'' if is_main else f'{arm.name}-'}{name}.png"
                drawn.append(save(figure, path))
    return drawn


# --- how it improved -----------------------------------------------------------------------------


def _history(search: _Search) -> Figure | None:
    """The best so far against trials and against hours of training."""
    if not search.enough():
        return None
    figure, (by_trial, by_hour) = panels(1, 2, width=5.6, height=3.9)
    best = search.best
    _say(figure, search, f"Best {search.metric} {best.value:.3f}, by trial {best.number}")
    hours, elapsed = {}, 0.0
    for row in search.rows:
        elapsed += row["duration_s"] / 3600
        hours[row["number"]] = elapsed
    by_number = {trial.number: float(trial.number) for trial in search.trials}
    unit, factor = ("hours", 1.0) if elapsed >= 1 else ("minutes", 60.0)
    by_time = {number: factor * hour for number, hour in hours.items()}
    for axis, place, label in (
        (by_trial, by_number, "trial"),
        (by_hour, by_time, f"{unit} of training, summed over trials"),
    ):
        _draw_history(axis, search, place)
        dress(axis, label, search.metric if axis is by_trial else "")
    by_trial.xaxis.set_major_locator(MaxNLocator(integer=True))
    _rug(by_trial, [t.number for t in search.trials if t.outcome == "rejected"], ORANGE, "rejected: too much memory")
    _rug(by_trial, [t.number for t in search.trials if t.outcome == "invalid"], GREY, "invalid: not to be built")
    _rug(by_trial, [t.number for t in search.trials if t.outcome in ("failed", "out_of_memory")], RED, "failed")
    width, height = figure.get_size_inches()
    handles, labels = by_trial.get_legend_handles_labels()
    corner = (1 - 0.25 / width, 1 - 0.05 / height)  # beside the title: no place among the trials is free for sure
    figure.legend(
        handles,
        labels,
        loc="upper right",
        bbox_to_anchor=corner,
        ncols=3,
        frameon=False,
        fontsize=8.5,
        handletextpad=0.3,
    )
    return figure


def _draw_history(axis: Axes, search: _Search, place: Mapping[int, float]) -> None:
    pruned = [trial for trial in search.pruned if trial.number in place]
    complete = sorted((t for t in search.complete if t.number in place), key=lambda trial: place[trial.number])
    axis.plot(
        [place[trial.number] for trial in pruned],
        [search.score(trial) for trial in pruned],
        "x",
        color=GREY,
        markersize=5,
        alpha=0.8,
        label="pruned (its best epoch)",
    )
    values = [search.score(trial) for trial in complete]
    axis.plot([place[t.number] for t in complete], values, "o", color=BLUE, markersize=5, label="complete")
    if complete:
        so_far = search.sign * np.maximum.accumulate(search.sign * np.asarray(values))
        end = max(place.values())
        axis.step(
            [*(place[trial.number] for trial in complete), end],
            [*so_far, so_far[-1]],
            where="post",
            color=BLUE,
            linewidth=1.6,
            alpha=0.55,
            label="best so far",
        )
        if search.best.number in place:
            ring(axis, place[search.best.number], search.score(search.best))


def _rug(axis: Axes, numbers: Sequence[int], colour: str, label: str) -> None:
    """Marks on the axis for trials that have no value."""
    if numbers:
        bottom = axis.get_xaxis_transform()
        axis.plot(
            numbers, [0.015] * len(numbers), "|", color=colour, markersize=9, markeredgewidth=1.6,
            transform=bottom, clip_on=False, label=label,
        )  # fmt: skip


# --- what mattered -------------------------------------------------------------------------------


def _importances(search: _Search) -> Figure | None:
    """How much each parameter tells the best complete trials from all complete ones."""
    tried = [(trial.suggestion, search.score(trial)) for trial in search.complete]
    found = find_importances(search.space, tried, maximize=search.sign > 0)
    if found is None:
        return None
    names = short_names(search.space)
    shares = dict(reversed(list(found.shares.items())))  # the largest at the top
    figure, (axis,) = panels(1, 1, width=8.0, height=0.9 + 0.34 * len(shares), left=2.4)
    said = f"What tells the best {found.num_top} of {found.num_complete} complete trials from the others (PED-ANOVA)"
    _say(figure, search, said)
    bars = axis.barh([names[key] for key in shares], list(shares.values()), color=BLUE, height=0.62)
    axis.bar_label(bars, fmt=lambda value: f"{100 * value:.0f} %", padding=4, fontsize=9)
    dress(axis, "share of importance" + (f"; {found.caveat}" if found.caveat else ""), "")
    axis.grid(visible=False, axis="y")
    axis.set_xlim(0, 1.12 * max(shares.values()))
    axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axis.tick_params(axis="y", length=0)
    return figure


# --- where the good values lie -------------------------------------------------------------------


def _slices(search: _Search) -> Figure | None:
    """The objective against each parameter."""
    if not search.enough():
        return None
    keys = [key for key in search.space if any(key in trial.suggestion for trial in search.complete)]
    columns = min(4, len(keys))
    num_rows = math.ceil(len(keys) / columns)
    figure, axes = panels(num_rows, columns, width=3.5, height=2.75, between=(0.3, 0.85), right=1.0)
    _say(
        figure,
        search,
        f"{capital(search.metric)} against each parameter",
        "crosses on the edge: pruned; a ring: the best",
    )
    names = short_names(search.space)
    # Scaled to the complete trials: where others were stopped says little beside them.
    low, high = limits([search.score(trial) for trial in search.complete], margin=0.14)
    edge = low + 0.035 * (high - low) if search.sign > 0 else high - 0.035 * (high - low)
    colours = Shades(0, max(1, max(trial.number for trial in search.trials)), reverse=False)
    for number, (key, axis) in enumerate(zip(keys, axes, strict=False)):
        scale = Scale.of(search.space[key])
        pruned = [trial for trial in search.pruned if key in trial.suggestion]
        complete = [trial for trial in search.complete if key in trial.suggestion]
        for trials, style in ((pruned, {"marker": "x", "s": 24, "c": GREY, "alpha": 0.6}), (complete, {"s": 44})):
            if trials is complete:
                style = {**style, "c": [colours.of(trial.number) for trial in trials], "edgecolors": "white"}
            placed = [(scale.place(t.suggestion[key]), t) for t in trials]
            xs = spread([x for x, _ in placed]) if scale.labels else [x for x, _ in placed]
            at = [
                (x, search.score(t) if trials is complete else edge)
                for x, (known, t) in zip(xs, placed, strict=True)
                if known is not None
            ]
            axis.scatter(
                [x for x, _ in at], [y for _, y in at], linewidths=0.7 if trials is complete else 1.0, zorder=2, **style
            )
            if trials is complete and search.best in trials:
                x, y = at[trials.index(search.best)]
                ring(axis, x, y)
        dress(axis, names[key] + scale.note, search.metric if number % columns == 0 else "")
        dress_scale(scale, axis.xaxis, axis)
        if number % columns:
            axis.tick_params(axis="y", labelleft=False)
    for axis in axes[len(keys) :]:
        axis.set_visible(False)
    for axis in axes:
        axis.set_ylim(low, high)
    colour_bar(figure, colours, "trial", whole=True)
    return figure


def _parallel(search: _Search) -> Figure | None:
    """Each trial as a line over all parameters."""
    if not search.enough():
        return None
    varied = [key for key in search.space if len(_values(search, key)) > 1]
    keys = sorted(varied, key=lambda key: -_agreement(search, key))[:MOST_AXES]
    if not keys:
        return None
    figure, (axis,) = panels(
        1, 1, width=1.6 + 1.45 * len(keys), height=5.0, left=0.85, right=1.5, top=1.35, bottom=0.45
    )
    left_out = len(varied) - len(keys)
    said = f"Trials over their parameters: {search.metric} as colour, the best thick, pruned ones grey"
    _say(
        figure,
        search,
        said,
        "first what orders the complete trials best" + (f"; {left_out} left out" if left_out else ""),
    )
    names = short_names(search.space)
    scores = [search.score(trial) for trial in search.complete]
    colours = Shades(min(scores), max(scores), reverse=search.sign < 0)
    height = {key: _heights(search, key) for key in keys}
    for trial in search.pruned:
        axis.plot(range(len(keys)), [height[k][trial.number] for k in keys], color=FAINT, linewidth=0.7, alpha=0.7)
    ordered = sorted(search.complete, key=lambda trial: search.sign * search.score(trial))
    foremost, best = ordered[-FOREMOST:], search.best
    for trial in ordered:
        is_best = trial is best
        axis.plot(
            range(len(keys)),
            [height[key][trial.number] for key in keys],
            color=colours.of(search.score(trial)),
            linewidth=3.0 if is_best else 1.3,
            alpha=1.0 if is_best else 0.85 if trial in foremost else 0.25,
            solid_capstyle="round",
        )
    for position, key in enumerate(keys):
        _draw_parallel_axis(axis, position, names[key], Scale.of(search.space[key]))
        if any(key not in trial.suggestion for trial in search.complete + search.pruned):
            _boxed(axis, position, _ABSENT, "absent", colour=GREY)
    axis.set_xlim(-0.12, len(keys) - 0.88)
    axis.set_ylim(_ABSENT - 0.03 if any(_ABSENT in height[key].values() for key in keys) else -0.04, 1.04)
    axis.axis("off")
    colour_bar(figure, colours, search.metric)
    return figure


_ABSENT = -0.12  # where the line of a trial passes that has no such parameter


def _heights(search: _Search, key: str) -> dict[int, float]:
    """Where each trial's line crosses the axis of a parameter, from 0 to 1; lines of one choice are spread a little."""
    scale = Scale.of(search.space[key])
    trials = [*search.complete, *search.pruned]
    placed = [scale.share(trial.suggestion[key]) if key in trial.suggestion else None for trial in trials]
    apart = spread(placed, 0.5 / max(2, len(scale.labels))) if scale.labels else placed
    return {t.number: _ABSENT if at is None else at for t, at in zip(trials, apart, strict=True)}


def _draw_parallel_axis(axis: Axes, position: int, name: str, scale: Scale) -> None:
    axis.plot([position, position], [0, 1], color="black", linewidth=0.9, zorder=3)
    head = "\n".join(broken(name)) + (f"\n{scale.note.strip()}" if scale.note else "")
    axis.text(position, 1.06, head, ha="center", va="bottom", fontsize=9)
    for height, label in scale.marks():
        _boxed(axis, position, height, label)


def _boxed(axis: Axes, x: float, y: float, text: str, *, colour: str = "black") -> None:
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    axis.text(x + 0.03, y, text, fontsize=8, va="center", ha="left", color=colour, bbox=box, zorder=4)


# --- what was stopped ----------------------------------------------------------------------------


def _learning_curves(search: _Search) -> Figure | None:
    """The objective after each epoch of each trial."""
    courses = [trial for trial in search.trials if trial.intermediate and trial.outcome in TRAINED]
    if len(courses) < FEWEST:
        return None
    figure, (axis,) = panels(1, 1, width=8.6, height=4.6, right=1.5)
    epochs = sum(max(trial.intermediate) for trial in courses)
    _say(
        figure,
        search,
        f"{capital(search.metric)} after each epoch; the best trial is thick",
        f"{epochs} epochs in all",
    )
    for kind, outcomes, line, cross in (
        ("pruned", {"pruned"}, FAINT, GREY),
        ("failed", {"failed", "out_of_memory"}, "#efb48f", RED),
    ):
        ended = [trial for trial in courses if trial.outcome in outcomes]
        for trial in ended:
            _draw_course(axis, trial, color=line, linewidth=1.0, zorder=1)
        if ended:
            last = [max(trial.intermediate) for trial in ended]
            figures = [trial.intermediate[epoch] for trial, epoch in zip(ended, last, strict=True)]
            axis.plot(last, figures, "x", color=cross, markersize=5, zorder=5, label=f"{kind} here")
    if search.complete:
        scores = [search.score(trial) for trial in search.complete]
        colours = Shades(min(scores), max(scores), reverse=search.sign < 0)
        for trial in search.complete:
            is_best = trial is search.best
            _draw_course(
                axis, trial, color=colours.of(search.score(trial)), linewidth=3 if is_best else 1.3, zorder=2 + is_best
            )
        colour_bar(figure, colours, f"{search.metric}, final")
    dress(axis, "epoch", search.metric)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(search.complete) < len(courses):
        axis.legend(frameon=False, fontsize=9)
    return figure


def _draw_course(axis: Axes, trial: Trial, **style: Any) -> None:
    epochs = sorted(trial.intermediate)
    marker = "o" if len(epochs) == 1 else None
    axis.plot(epochs, [trial.intermediate[epoch] for epoch in epochs], marker=marker, markersize=3, **style)


# --- what memory took ----------------------------------------------------------------------------


def _memory(search: _Search) -> Figure | None:
    """Forecast against measured peaks."""
    pairs = [(row["needed_bytes"], held) for row in search.rows if row["needed_bytes"] and (held := held_bytes(row))]
    if len(pairs) < FEWEST:
        return None
    errors = [forecast / held - 1 for forecast, held in pairs]
    figure, (axis,) = panels(1, 1, width=6.4, height=5.0)
    middle = statistics.median(map(abs, errors))
    over, under = max(0.0, *errors), max(0.0, *(-error for error in errors))
    _say(
        figure,
        search,
        f"Memory: the forecast is {100 * middle:.1f} % off (median of {len(pairs)} trials)",
        f"at most {100 * over:.1f} % over, {100 * under:.1f} % under",
    )
    forecasts, measured = ([pair[side] / _GIB for pair in pairs] for side in (0, 1))
    # The same scale on both axes, so that the diagonal is what a right forecast is.
    low, high = limits([*forecasts, *measured], margin=0.12)
    ends = np.array([low, high])
    axis.fill_between(ends, 0.9 * ends, 1.1 * ends, color="#eeeeee", zorder=0, label="10 % over or under")
    axis.plot(ends, ends, color=GREY, linewidth=1, zorder=1)
    axis.scatter(forecasts, measured, s=30, c=BLUE, edgecolors="white", linewidths=0.7, zorder=3, label="a trial")
    if search.budget_bytes and low < search.budget_bytes / _GIB < high:
        axis.axvline(search.budget_bytes / _GIB, color=ORANGE, linestyle="--", linewidth=1.4, label="budget")
    dress(axis, "forecast peak, calibrated, GiB", "measured peak, GiB")
    axis.set_xlim(low, high)
    axis.set_ylim(low, high)
    axis.legend(frameon=False, fontsize=9, loc="upper left")
    return figure


PICTURES: dict[str, Callable[[_Search], Figure | None]] = {
    "history": _history,
    "importances": _importances,
    "slices": _slices,
    "parallel": _parallel,
    "learning_curves": _learning_curves,
    "memory": _memory,
}


def _agreement(search: _Search, key: str) -> float:
    tried = [(t.suggestion[key], search.score(t)) for t in search.complete if key in t.suggestion]
    return agreement(Scale.of(search.space[key]), tried)


def _values(search: _Search, key: str) -> set[Any]:
    trials = [*search.complete, *search.pruned]
    return {identified(trial.suggestion[key]) if key in trial.suggestion else None for trial in trials}


def _say(figure: Figure, search: _Search, title: str, more: str = "") -> None:
    """What is shown, and of how many trials."""
    width, height = figure.get_size_inches()
    count = Counter(trial.outcome for trial in search.trials)
    counts = ", ".join(f"{count[o]} {o.replace('_', ' ')}" for o in get_args(Outcome) if count[o])
    caption = f"study {search.title}: {len(search.trials)} trials ({counts})" + (f"; {more}" if more else "")
    for text, down, style in ((title, 0.12, {"fontsize": 12}), (caption, 0.40, {"fontsize": 9, "color": GREY})):
        figure.text(0.15 / width, 1 - down / height, text, ha="left", va="top", **style)
