"""The same photos under every arm: the leader's best, median and worst of those that all of them drew, made small."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from crack_sweeps.evaluation.overlay_panels import Overlay, find_overlays
from crack_sweeps.leaderboard.images import read_scores
from crack_sweeps.leaderboard.report.findings import Findings
from crack_sweeps.runs.directory import RunDirectory

MAX_WIDTH_PX = 640  # of a panel: twice what a page has room for
QUALITY = 82  # WebP: 20 to 60 kB a panel, and lines of one pixel stay lines


@dataclass(frozen=True)
class Panel:
    """One small picture.

    Args:
        title: Whose it is, or what it shows.
        uri: The picture itself, as a data address; None where there is none.
        crack_iou: Of the arm on this photo; None for photo and truth.
    """

    title: str
    uri: str | None
    crack_iou: float | None = None


@dataclass(frozen=True)
class Photograph:
    """A photo with its truth and the errors of every arm.

    Args:
        kind: How the leader did on it, among the photos that all arms drew.
        name: Of the photo.
        panels: Photo and truth, then the arms.
    """

    kind: Literal["best", "median", "worst"]
    name: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Gallery:
    """Photos to look at.

    Args:
        leader: The arm that they were picked by.
        num_candidates: Photos that they were picked from.
        drawn_by_all: Every arm with pictures drew these; else they are those that the leader drew.
        photographs: Best, median, worst, as far as there are so many.
        lacking: Arms that drew none of them.
    """

    leader: str
    num_candidates: int
    drawn_by_all: bool
    photographs: Sequence[Photograph]
    lacking: Sequence[str]


@dataclass(frozen=True)
class _Drawn:
    """What one training of an arm drew and scored."""

    overlays: Mapping[str, Overlay]
    crack_iou: Mapping[str, float]
    blank: frozenset[str]  # no crack, none claimed: nothing to see


def gallery(findings: Findings) -> Gallery | None:
    """The photos by which arms are compared; None where no arm drew any."""
    drawn = {arm: found for arm, runs in findings.chosen.items() if (found := _first_drawn(runs)) is not None}
    if not drawn:
        return None
    leader = next((row.arm for row in findings.board.ranked if row.arm in drawn), None) if findings.board else None
    leader = leader or next(iter(drawn))
    shared = set.intersection(*(set(found.overlays) for found in drawn.values()))
    candidates = shared or set(drawn[leader].overlays)
    scores = drawn[leader].crack_iou
    seen = sorted((name for name in candidates if name not in drawn[leader].blank), key=lambda n: (-scores[n], n))
    picked = _best_median_worst(seen or sorted(candidates))
    return Gallery(
        leader=leader,
        num_candidates=len(candidates),
        drawn_by_all=bool(shared),
        photographs=[Photograph(kind, name, _panels(name, leader, drawn)) for kind, name in picked],
        lacking=[arm for arm in findings.chosen if arm not in drawn],
    )


def _first_drawn(runs: Sequence[RunDirectory]) -> _Drawn | None:
    """The first training that kept pictures of photos that it scored."""
    for run in runs:
        overlays = {overlay.photo: overlay for overlay in find_overlays(run.predictions)}
        if overlays and run.scores.is_file():
            counts = read_scores([run.scores]).counts
            scores = dict(zip(counts.names, counts.scores("crack_iou")[:, 0].tolist(), strict=True))
            nothing_I = (counts.tp_IS + counts.fp_IS + counts.fn_IS)[:, 0] == 0
            blank = frozenset(name for name, nothing in zip(counts.names, nothing_I, strict=True) if nothing)
            return _Drawn({name: seen for name, seen in overlays.items() if name in scores}, scores, blank)
    return None


def _best_median_worst(ranked: Sequence[str]) -> list[tuple[Literal["best", "median", "worst"], str]]:
    """Of names in the order of their scores; none twice."""
    places: dict[Literal["best", "median", "worst"], int] = {
        "best": 0,
        "worst": len(ranked) - 1,
        "median": len(ranked) // 2,
    }
    found: dict[str, Literal["best", "median", "worst"]] = {}
    for kind, place in places.items():
        found.setdefault(ranked[place], kind)
    return [(found[name], name) for name in ranked if name in found]


def _panels(name: str, leader: str, drawn: Mapping[str, _Drawn]) -> list[Panel]:
    of_leader = drawn[leader].overlays[name]
    panels = [Panel("photo", _small(of_leader.panel("photo"))), Panel("truth", _small(of_leader.panel("truth")))]
    for arm, found in drawn.items():
        overlay = found.overlays.get(name)
        uri = _small(overlay.panel("errors")) if overlay is not None else None
        panels.append(Panel(arm, uri, found.crack_iou.get(name)))
    return panels


def _small(panel: Image.Image) -> str:
    """A panel as a data address."""
    if panel.width > MAX_WIDTH_PX:
        size = (MAX_WIDTH_PX, max(1, round(panel.height * MAX_WIDTH_PX / panel.width)))
        panel = panel.resize(size, Image.Resampling.LANCZOS)
    content = io.BytesIO()
    panel.convert("RGB").save(content, format="WEBP", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
