"""The files that a study is shown with, written into its folder when all is trained; its run in MLflow takes them."""

from __future__ import annotations

import json
from pathlib import Path

from crack_sweeps import durable
from crack_sweeps.leaderboard.board import board
from crack_sweeps.leaderboard.records import Records, read_records
from crack_sweeps.leaderboard.report.write import write_report
from crack_sweeps.leaderboard.wording import csv_text, markdown
from crack_sweeps.study.folder import StudyFolder


def write_artifacts(folder: StudyFolder) -> list[Path]:
    """Leaderboard as JSON, CSV and Markdown, where a trial is complete; and the report, which says what is missing.

    Raises:
        UserError: A file of the study is damaged, or its rows cannot be compared.
    """
    records = read_records(folder)
    complete = any(row["outcome"] == "complete" for row in records.trials)
    return [*(_leaderboard(folder, records) if complete else ()), write_report(folder)]


def _leaderboard(folder: StudyFolder, records: Records) -> list[Path]:
    found = board(folder, records=records)
    texts = {
        "leaderboard.json": json.dumps(found.as_list(), indent=1, allow_nan=False) + "\n",
        "leaderboard.csv": csv_text(found),
        "leaderboard.md": markdown(found),
    }
    for name, text in texts.items():
        durable.write_text(folder.path / name, text)
    return [folder.path / name for name in texts]
