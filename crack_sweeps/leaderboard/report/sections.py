"""The report's sections in reading order, each as far as the study has come: what is missing is said in its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from crack_sweeps.leaderboard.report import progress_plots, result_plots, space_plots
from crack_sweeps.leaderboard.report.findings import Findings
from crack_sweeps.leaderboard.report.markup import Html, joined, tag
from crack_sweeps.leaderboard.report.pictures import Gallery, gallery
from crack_sweeps.leaderboard.report.plots import Plot
from crack_sweeps.leaderboard.report.reproduction import environment, reproduction
from crack_sweeps.leaderboard.report.tables import (
    Cell,
    Column,
    arm_cell,
    leaderboard,
    scale_said,
    swatch,
    table,
)
from crack_sweeps.leaderboard.report.words import counted, figure, hours, memory, settings_lines
from crack_sweeps.leaderboard.wording import caveats
from crack_sweeps.study.calibration import held_bytes
from crack_sweeps.study.ledger import Row

KEY = {"found": "#000000", "false alarm": "#d55e00", "missed": "#0072b2"}  # as evaluation/overlays.py paints them
LOST = ("failed", "out_of_memory", "invalid", "rejected")  # in the order in which they are told


@dataclass
class Page:
    """What a page is made of, while it is being made.

    Args:
        findings: What it tells.
        plots: Figures that its script is to draw.
    """

    findings: Findings
    plots: list[Plot] = field(default_factory=list)

    def plot(self, plot: Plot | None, missing: str) -> Html:
        """The place of a figure, or the words that stand there instead."""
        if plot is None:
            return tag("p", missing, class_="missing")
        self.plots.append(plot)
        style = f"height:{plot.height}px"  # before it is drawn, so that nothing jumps
        style += f";max-width:{plot.widest}px" if plot.widest is not None else ""
        drawing = tag("div", id=plot.name, class_="plot", style=style, role="img", aria_label=plot.said)
        return tag("figure", drawing, tag("figcaption", plot.said))


Section = Callable[[Page], Iterator[Html]]


def sections() -> dict[str, tuple[str, Section]]:
    """Anchor, to heading and content."""
    return {
        "leaderboard": ("Leaderboard", _leaderboard),
        "search": ("How the search went", _search),
        "pictures": ("The same photos under every arm", _pictures),
        "precision": ("Precision and recall", _precision),
        "cost": ("Memory and speed", _cost),
        "space": ("What mattered", _space),
        "failures": ("Failures and rejections", _failures),
        "reproduce": ("Settings to reproduce", reproduction_section),
        "environment": ("Environment", environment_section),
        "trials": ("All trials", _trials),
    }


def reproduction_section(page: Page) -> Iterator[Html]:
    """Commands and settings."""
    yield from reproduction(page.findings)


def environment_section(page: Page) -> Iterator[Html]:
    """Machine, versions, data."""
    yield from environment(page.findings)


# --- the leaderboard -----------------------------------------------------------------------------


def _leaderboard(page: Page) -> Iterator[Html]:
    board = page.findings.board
    if board is None:
        error = page.findings.no_board
        assert error is not None, "a study has a leaderboard or a reason for none"
        yield tag("p", f"Nothing can be ranked yet: {error.message}.", class_="missing")
        if error.hint:
            yield tag("p", f"What to do: {error.hint}.", class_="missing")
        return
    yield leaderboard(page.findings, board)
    images = {"test": "test", "val": "validation"}[board.split]
    read = caveats(board)[0]
    yield tag(
        "p",
        f"Scored on {counted(board.num_images, f'{images} image')}, whole and at native resolution, at the threshold "
        "that validation chose for each training. Pooled figures add up the pixels of all images; means of images "
        "weigh every image alike. Each figure is the mean over the seeds. Rows are compared with the leader on the "
        f"same images, corrected for their number (Holm). {read[:1].upper()}{read[1:]}. {scale_said(board)}",
        class_="fine",
    )


# --- the search ----------------------------------------------------------------------------------


def _search(page: Page) -> Iterator[Html]:
    findings = page.findings
    yield page.plot(progress_plots.best_so_far(findings), "No trial is complete yet, so there is no best so far.")
    yield tag("h3", "Budget of each arm")
    yield _budget_table(findings)
    if len(findings.arms) > 1:
        yield tag(
            "p",
            "Arms are given equal budgets in epochs of search: a trial that is stopped early costs less than one that "
            "is not. An arm below 90 % of the largest is under-tuned.",
            class_="fine",
        )
    yield tag("h3", "Training curves")
    yield page.plot(
        progress_plots.learning_curves(findings), "No complete training has its log in place, so there are no curves."
    )


def _budget_table(findings: Findings) -> Html:
    columns = [
        Column("arm", "text"),
        *(Column(title) for title in ("trials trained", "complete", "stopped early", "rejected", "invalid", "failed")),
        Column("epochs of search"),
        Column("search"),
        Column("finalists"),
        Column("their training"),
        Column("in words", "text"),
    ]
    rows = []
    for budget in findings.budgets:
        count = Counter(row["outcome"] for row in findings.records.searched(budget.arm))
        failed = count["failed"] + count["out_of_memory"]
        never = count["rejected"], count["invalid"]
        numbers = [budget.num_trials, count["complete"], count["pruned"], *never, failed, budget.num_epochs]
        rows.append(
            [
                arm_cell(findings, budget.arm),
                *(Cell(str(number), number) for number in numbers),
                Cell(hours(budget.search_s), budget.search_s),
                Cell(str(budget.num_finalists), budget.num_finalists),
                Cell(hours(budget.finalist_s), budget.finalist_s),
                Cell(budget.note or "the only arm"),
            ]
        )
    return table(columns, [rows], name="budgets")


# --- pictures ------------------------------------------------------------------------------------


def _pictures(page: Page) -> Iterator[Html]:
    found = gallery(page.findings)
    if found is None:
        yield tag(
            "p",
            "No run that stands for an arm kept pictures that can be shown here: they are drawn when a finalist ends.",
            class_="missing",
        )
        return
    yield tag("p", _how_picked(found), class_="fine")
    yield tag("p", *(_key(colour, word) for word, colour in KEY.items()), class_="key")
    for photo in found.photographs:
        panels = []
        for panel in photo.panels:
            scored = f"IoU {figure(panel.crack_iou)}" if panel.crack_iou is not None else ""
            heading = tag("figcaption", panel.title, tag("small", scored))
            what = panel.title if panel.crack_iou is None else f"errors of {panel.title}"
            drawn = (
                tag("img", src=panel.uri, alt=f"{what}, {photo.name}", loading="eager")
                if panel.uri is not None
                else tag("p", "not drawn", class_="missing")
            )
            panels.append(tag("figure", heading, drawn))
        columns = f"grid-template-columns:repeat({min(len(panels), 6)},1fr)"
        yield tag("h3", f"{photo.kind}: {photo.name}")
        yield tag("div", *panels, class_="photos", style=columns)


def _key(colour: str, word: str) -> Html:
    return joined([swatch(colour), f"{word} "])


def _how_picked(found: Gallery) -> str:
    photos = counted(found.num_candidates, "validation photo")
    if found.drawn_by_all:
        said = f"Of {photos} that every arm drew, those on which {found.leader} did best, middling and worst"
    else:
        said = f"No photo was drawn for every arm; these are the best, a middling and the worst of {photos} that "
        said += f"{found.leader} drew (when finalists end, all of them draw the same photos)"
    said += ". Of each arm the first training that kept pictures. A click enlarges."
    return said + (f" Without pictures: {', '.join(found.lacking)}." if found.lacking else "")


# --- results -------------------------------------------------------------------------------------


def _precision(page: Page) -> Iterator[Html]:
    yield page.plot(
        result_plots.precision_recall(page.findings),
        "No training that stands for an arm has its curve.json in place.",
    )


def _cost(page: Page) -> Iterator[Html]:
    yield page.plot(
        result_plots.trade_offs(page.findings), "Neither memory nor speed of any complete training was measured."
    )
    yield tag("h3", "Forecast against measured memory")
    budget = result_plots.memory_budget(page.findings)
    said = f" The budget was {memory(budget)}." if budget is not None else ""
    yield page.plot(
        result_plots.forecasts(page.findings), f"No training has both a forecast and a measured peak yet.{said}"
    )


def _space(page: Page) -> Iterator[Html]:
    for arm in page.findings.arms:
        yield tag("h3", swatch(page.findings.colour(arm.name)), arm.name)
        searched = space_plots.Searched.of(page.findings, arm.name)
        if not arm.space:
            yield tag("p", "Nothing was searched: this arm trains its settings as they are shipped.", class_="missing")
            continue
        if space_plots.too_few(searched):
            count = counted(len(searched.complete), "complete trial")
            yield tag("p", f"{count}: too few to show what mattered.", class_="missing")
            continue
        complete = len(searched.complete)
        yield tag("h4", "Importances")
        yield page.plot(
            space_plots.importances(searched),
            f"No importances of {counted(complete, 'complete trial')}: they are too few, or nothing mattered.",
        )
        yield tag("h4", "Parallel coordinates")
        yield page.plot(space_plots.parallel(searched), "All trials had the same settings.")
        yield tag("h4", "Slices")
        yield page.plot(space_plots.slices(searched), "All trials had the same settings.")


# --- trials --------------------------------------------------------------------------------------


def _failures(page: Page) -> Iterator[Html]:
    trials = page.findings.records.trials
    lost = sorted((row for row in trials if row["outcome"] in LOST), key=lambda row: LOST.index(row["outcome"]))
    pruned = sum(row["outcome"] == "pruned" for row in trials)
    if not lost:
        yield tag("p", "No trial failed, and none was rejected or invalid.")
    else:
        columns = [Column(title, "text") for title in ("trial", "arm", "what happened")]
        columns += [Column("epochs"), Column("forecast"), Column("reason", "text")]
        rows = [
            [
                Cell(row["trial"]),
                arm_cell(page.findings, row.get("finalist_of") or row["arm"]),
                Cell(row["outcome"].replace("_", " ")),
                Cell(str(row["num_epochs"]), row["num_epochs"]),
                Cell(memory(row["needed_bytes"]), row["needed_bytes"]),
                Cell(row["reason"] or "no reason is on file"),
            ]
            for row in lost
        ]
        count = Counter(row["outcome"] for row in lost)
        yield tag("p", ", ".join(f"{count[kind]} {kind.replace('_', ' ')}" for kind in LOST if count[kind]) + ".")
        yield tag("div", table(columns, [rows], name="lost"), class_="tall")
    if pruned:
        yield tag(
            "p",
            f"{counted(pruned, 'more trial was', 'more trials were')} stopped early because others did better: "
            "that is how the search saves time, and no failure.",
            class_="fine",
        )


def _trials(page: Page) -> Iterator[Html]:
    rows = [_trial_cells(page.findings, row) for row in page.findings.records.trials]
    if not rows:
        yield tag("p", "No trial has ended yet.", class_="missing")
        return
    columns = [Column("trial", "text"), Column("arm", "text"), Column("outcome", "text"), Column("value")]
    columns += [Column(title) for title in ("epochs", "time", "peak memory", "crops/s", "seed")]
    columns.append(Column("settings", "text"))
    content = tag("div", table(columns, [rows], name="all-trials"), class_="tall")
    yield tag("details", tag("summary", f"{counted(len(rows), 'training')} in the order in which they ended"), content)


def _trial_cells(findings: Findings, row: Row) -> Sequence[Cell]:
    held, speed = held_bytes(row), row.get("images_per_s")
    arm = row.get("finalist_of") or row["arm"]
    return [
        Cell(row["trial"]),
        arm_cell(findings, arm, arm + (", finalist" if row.get("finalist_of") else "")),
        Cell(row["outcome"].replace("_", " ")),
        Cell(figure(row["value"]), row["value"]),
        Cell(str(row["num_epochs"]), row["num_epochs"]),
        Cell(hours(row["duration_s"]), row["duration_s"]),
        Cell(memory(held), held),
        Cell("–" if speed is None else f"{speed:.1f}", speed),
        Cell("–" if row["seed"] is None else str(row["seed"]), row["seed"]),
        Cell("; ".join(settings_lines(row["suggestion"])) or "as shipped"),
    ]
