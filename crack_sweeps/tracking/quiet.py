"""MLflow's own switches, set before it is imported: no telemetry, no chatter, no repeating of its own."""

from __future__ import annotations

import os
import warnings

# A user's own value wins: each of these is a documented environment variable of MLflow, GitPython or uv.
_SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # alembic's migrations are told at INFO
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # The model's requirements are given; a lock file would carry the names of download hosts into the model.
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_LOG_UV_FILES": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}

# What MLflow 3.17 says about its own code on being imported; nobody here can act on it.
_WARNINGS = (
    r"The ``noload`` loader strategy is deprecated",  # SQLAlchemy 2.1
    r".*Any type hint is inferred as AnyType",
)


def quiet_mlflow() -> None:
    """Call before the first import of mlflow in a process."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    # Set, whatever it was: MLflow repeats a request whose answer was lost, and a repeated `create_run` makes two runs.
    # The mirror repeats too, but looks first. (MLflow's own 7 retries also block for 246 s.)
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
