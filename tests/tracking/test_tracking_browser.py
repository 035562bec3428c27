"""MLflow's pages in headless Chromium: a study is listed, its runs compare by what varied, its files are shown."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest

from crack_sweeps.tracking.state import Trainer
from crack_sweeps.tracking.study_mirror import follow_study
from crack_sweeps.tracking.ui import page, ui_command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from browser import Browser, find_chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed; CHROMIUM=/path/to/it names one"),
]
START_S = 120.0
RATES = (0.001, 0.003, 0.01)


@pytest.fixture
def study(with_store: Path, make_study: Callable[..., Any]) -> Any:
    """Three trials that differ in one setting, with a picture each; the study's run has leaderboard and report."""
    study = make_study()
    study.created().attempt()
    for number, rate in enumerate(RATES):
        params = {"training.learning_rate": rate, "training.epochs": 2}
        run = study.begin(study.named(number), shown_as=f"toy/{number}", params=params).attempt()
        for epoch in (1, 2):
            run.epoch(epoch)
        picture = np.full((40, 60, 3), 80 * number, np.uint8)
        cv2.imwrite(str(run.path / "predictions" / "pictures.jpg"), picture)
        run.log.append("artifact", path="predictions/pictures.jpg", to="")
        run.finish()
    (study.path / "report.html").write_text("<!doctype html><title>report</title><h1>Who wins</h1>")
    (study.path / "leaderboard.md").write_text("# Leaderboard\n")
    for name in ("report.html", "leaderboard.md"):
        study.log.append("artifact", path=name, to="")
    study.told(3, 0.2).finish()
    follow_study(study.path, Trainer.this_process(), poll_s=0.01)
    return study


@pytest.fixture
def port(study: Any) -> Iterator[int]:
    """Of `sweeps ui`, which serves the study's store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    with Path("ui.log").open("wb") as log:
        server = subprocess.Popen(ui_command(number), stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(number)
        yield number
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.3)
    raise AssertionError(f"no server within {START_S:.0f} s: {Path('ui.log').read_text(errors='replace')[-2000:]}")


def words(tab: Browser, *wanted: str) -> str:
    """What is to be read once all that is wanted is there."""
    tests = " && ".join(f"document.body.innerText.includes({json.dumps(word)})" for word in wanted)
    return str(tab.wait(f"({tests}) && document.body.innerText"))


def test_the_study_is_listed_and_its_three_runs_compare_by_what_varied_with_their_pictures(
    port: int, shown: Callable[[], Any], tmp_path: Path
) -> None:
    runs = shown().named("toy")
    experiment = runs["study toy"].info.experiment_id
    trials = [runs[f"toy/{number}"].info.run_id for number in range(len(RATES))]
    with Browser(tmp_path / "profile", width=1500) as tab:
        tab.open(page(port, None))
        words(tab, "toy")
        tab.open(page(port, experiment))
        words(tab, "study toy")
        chosen = f"runs={quote(json.dumps(trials))}&experiments={quote(json.dumps([experiment]))}"
        tab.open(f"http://127.0.0.1:{port}/#/compare-runs?{chosen}")
        said = words(tab, "Comparing 3 Runs", "training.learning_rate", *(f"toy/{number}" for number in range(3)))
        assert all(str(rate) in said for rate in RATES)
        tab.wait("document.querySelector('svg.main-svg')", timeout_s=120)  # parallel coordinates of what varied
        click(tab, "pictures.jpg")
        shown_pictures = "[...document.querySelectorAll('img')].filter(i => i.naturalWidth === 60).map(i => i.src)"
        tab.wait(f"new Set({shown_pictures}).size === {len(RATES)}")  # each is there twice, small and to be zoomed


def test_leaderboard_and_report_are_files_of_the_studys_run(
    port: int, shown: Callable[[], Any], tmp_path: Path
) -> None:
    study = shown().named("toy")["study toy"].info
    with Browser(tmp_path / "profile", width=1500) as tab:
        tab.open(f"http://127.0.0.1:{port}/#/experiments/{study.experiment_id}/runs/{study.run_id}/artifacts")
        words(tab, "leaderboard.md", "report.html")
        click(tab, "report.html")
        tab.wait("document.querySelector('iframe')")


def click(tab: Browser, word: str) -> None:
    """Click on what says just this word."""
    innermost = f"[...document.querySelectorAll('*')].filter(e => e.textContent.trim() === {word!r}).pop()"
    tab.wait(innermost)
    tab.ask(f"{innermost}.click()")
