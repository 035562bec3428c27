"""The files that a study is shown with, written into its folder when all is trained; its run in MLflow takes them."""

from __future__ import annotations

import json
from pathlib import Path

from crack_sweeps import durable
from crack_sweeps.leaderboard.board import Board
from crack_sweeps.leaderboard.report.findings import read_findings
from crack_sweeps.leaderboard.report.write import default_path, page
from crack_sweeps.leaderboard.wording import csv_text, markdown
from crack_sweeps.study.folder import StudyFolder


def write_artifacts(folder: StudyFolder) -> list[Path]:
    """Leaderboard as JSON, CSV and Markdown, where there is something to rank; and the report, which says what is not.

    A study ends whatever was lost of its runs: the report stands for a leaderboard that cannot be made, and says why.

    Raises:
        UserError: A file of the study itself is damaged.
    """
    findings = read_findings(folder, at_end=True)
    written = _leaderboard(folder, findings.board) if findings.board is not None else []
    durable.write_text(default_path(folder), page(findings))
    return [*written, default_path(folder)]


def _leaderboard(folder: StudyFolder, found: Board) -> list[Path]:
    texts = {
        "leaderboard.json": json.dumps(found.as_list(), indent=1, allow_nan=False) + "\n",
        "leaderboard.csv": csv_text(found),
        "leaderboard.md": markdown(found),
    }
    for name, text in texts.items():
        durable.write_text(folder.path / name, text)
    return [folder.path / name for name in texts]
