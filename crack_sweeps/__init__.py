"""Train, search and honestly compare crack-segmentation models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crack_sweeps.api import evaluate_run as evaluate_run
    from crack_sweeps.api import plan as plan
    from crack_sweeps.api import predict_photos as predict_photos
    from crack_sweeps.api import run as run
    from crack_sweeps.api import training as training
    from crack_sweeps.data.check import check_data as check_data
    from crack_sweeps.data.importing import import_data as import_data
    from crack_sweeps.leaderboard.board import read_leaderboard as read_leaderboard
    from crack_sweeps.leaderboard.report.write import write_report as write_report
    from crack_sweeps.scoring import score_predictions as score_predictions
    from crack_sweeps.search import plan_study as plan_study
    from crack_sweeps.search import run_study as run_study
    from crack_sweeps.search import searching as searching

_HOMES = {
    **dict.fromkeys(("evaluate_run", "plan", "predict_photos", "run", "training"), "crack_sweeps.api"),
    "check_data": "crack_sweeps.data.check",
    "import_data": "crack_sweeps.data.importing",
    "read_leaderboard": "crack_sweeps.leaderboard.board",  # `leaderboard` is a room
    "write_report": "crack_sweeps.leaderboard.report.write",
    "score_predictions": "crack_sweeps.scoring",
    **dict.fromkeys(("plan_study", "run_study", "searching"), "crack_sweeps.search"),  # `study` is a room
}
__all__ = [
    "check_data",
    "evaluate_run",
    "import_data",
    "plan",
    "plan_study",
    "predict_photos",
    "read_leaderboard",
    "run",
    "run_study",
    "score_predictions",
    "searching",
    "training",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """`crack_sweeps.run` and the like, imported when first used: they load torch or Optuna."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
