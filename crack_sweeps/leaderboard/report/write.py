"""Puts a report together: one file with its own script, style and figures, which asks no network for anything."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from crack_sweeps import durable
from crack_sweeps.errors import UserError
from crack_sweeps.leaderboard.report.answer import answer, caveats, of_what
from crack_sweeps.leaderboard.report.findings import Findings, read_findings
from crack_sweeps.leaderboard.report.markup import Html, joined, script_json, tag
from crack_sweeps.leaderboard.report.sections import Page, Section, sections
from crack_sweeps.leaderboard.report.words import counted
from crack_sweeps.study.folder import StudyFolder, find_study

# The page may run its own script and show its own pictures, and ask nobody for anything.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; form-action 'none'"
)


def default_path(folder: StudyFolder) -> Path:
    """Where a study's report lies."""
    return folder.path / "report.html"


def write_report(study: StudyFolder | str | None = None, path: Path | None = None) -> Path:
    """Write a study's report, as far as the study has come.

    Args:
        study: Its folder or its name, with its version or without; None is the newest.
        path: The file; None: report.html in the study's folder.

    Returns:
        The file.

    Raises:
        UserError: A file of the study is damaged, or the report cannot be written there.
    """
    folder = study if isinstance(study, StudyFolder) else find_study(study)
    path = path if path is not None else default_path(folder)
    if path.is_dir():
        raise UserError(f"{path}: is a folder", hint=f"name a file, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist", hint="make it first")
    durable.write_text(path, page(read_findings(folder)))
    return path


def page(findings: Findings) -> str:
    """The whole file."""
    making = Page(findings)
    body = [
        tag("section", tag("h2", heading, id=anchor), *_content(content, making))
        for anchor, (heading, content) in sections().items()
    ]
    title = f"{findings.name}: report"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width"),
        tag("title", title),
        tag("style", _resource("page.css")),
    )
    figures = {plot.name: plot.as_json() for plot in making.plots}
    whole = tag(
        "html",
        head,
        tag(
            "body",
            _header(findings),
            tag("main", *body),
            _footer(findings),
            tag("dialog", id="enlarged"),
            tag("script", script_json(figures), id="figures", type="application/json"),
            tag("script", _plotly()),
            tag("script", _resource("page.js")),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{whole}\n"


def _content(section: Section, making: Page) -> Iterator[Html]:
    """A section, up to the first file of a run that is damaged: that costs its figure, and is said in its place."""
    try:
        yield from section(making)
    except UserError as error:
        yield tag("p", f"What belongs here is missing: {error.message}.", class_="missing")


def _header(findings: Findings) -> Html:
    trainings = counted(len(findings.records.trials), "training")
    over = f"{of_what(findings)}; {counted(len(findings.arms), 'arm')}, {trainings}"
    warned = list(caveats(findings))
    return tag(
        "header",
        tag("p", over, class_="over"),
        tag("h1", _with_bold(answer(findings), [arm.name for arm in findings.arms])),
        tag("ul", *(tag("li", _with_code(caveat)) for caveat in warned), class_="caveats") if warned else Html(),
        tag("nav", *(tag("a", heading, href=f"#{anchor}") for anchor, (heading, _) in sections().items())),
    )


def _with_bold(text: str, names: Sequence[str]) -> Html:
    """The text with these names in it set in bold."""
    parts = re.split(f"({'|'.join(re.escape(name) for name in sorted(names, key=len, reverse=True))})", text)
    return joined(tag("b", part) if part in names else part for part in parts)


def _with_code(text: str) -> Html:
    """The text with what stands in backticks set as code."""
    return joined(tag("code", part) if at % 2 else part for at, part in enumerate(text.split("`")))


def _footer(findings: Findings) -> Html:
    made = time.strftime("%Y-%m-%d %H:%M")
    return tag(
        "footer",
        f"Made on {made} by crack_sweeps {version('crack_sweeps')} from the ledger of study {findings.name}, which "
        f"began on {findings.standing.began[:10]}. It needs no network; plotly.js, which is in it, draws the figures.",
    )


def _resource(name: str) -> Html:
    return Html(files("crack_sweeps.leaderboard.report").joinpath(name).read_text(encoding="utf-8"))


def _plotly() -> Html:
    from plotly.offline import get_plotlyjs

    return joined([Html(get_plotlyjs())])
