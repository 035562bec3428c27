"""Log a run's best weights as an MLflow model: code, safetensors and a signature, nothing pickled."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crack_sweeps.runs.events import Event

if TYPE_CHECKING:
    from mlflow import MlflowClient

WEIGHTS = "weights.safetensors"
CONFIG = "config.yaml"
_PACKAGE = Path(__file__).resolve().parent.parent
_FORBIDDEN_IN_MODEL_NAMES = str.maketrans(dict.fromkeys("/:.%\"'", "-"))
# What `pyfunc_model.py` imports through the package's own rooms; the package itself travels as code.
_REQUIREMENTS = (
    "jaxtyping mlflow numpy opencv-python-headless pyarrow pydantic pyyaml safetensors scikit-image scipy "
    "segmentation-models-pytorch timm torch torchvision"
)


def log_model(client: MlflowClient, *, run_dir: Path, run_id: str, experiment_id: str, event: Event, step: int) -> str:
    """Log the model that a `model` event names, or go on where a killed mirror stopped.

    Returns:
        MLflow's id of the model; there is one per run, however often this is called.

    Raises:
        CheckpointError: The weights are missing or damaged.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.entities.logged_model_status import LoggedModelStatus

    found = client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'", max_results=1)
    if found:
        model = found[0]
    else:
        name = run_dir.resolve().name.translate(_FORBIDDEN_IN_MODEL_NAMES)
        tags = {"crack_sweeps.run": run_dir.resolve().name, "crack_sweeps.threshold": str(event["threshold"])}
        model = client.create_logged_model(experiment_id, name=name, source_run_id=run_id, tags=tags)
    if model.status != LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory(prefix="crack_sweeps-model-") as scratch:
            folder = Path(scratch) / "model"
            save_model(
                folder,
                run_dir=run_dir,
                weights=event["path"],
                config=event["config"],
                threshold=float(event["threshold"]),
                identity={"run_id": run_id, "model_id": model.model_id, "artifact_path": model.artifact_location},
            )
            client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    outputs = client.get_run(run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=step)])
    return str(model.model_id)


def save_model(
    folder: Path, *, run_dir: Path, weights: str, config: str, threshold: float, identity: dict[str, Any] | None = None
) -> None:
    """Write the model as a folder that `mlflow.pyfunc.load_model` takes.

    Args:
        folder: Made by this call.
        run_dir: The run.
        weights: Checkpoint in the run with the state dict under "model".
        config: The run's resolved experiment.
        threshold: Probability at and above which a pixel counts as crack; recorded in the model's metadata.
        identity: MLflow's ids, where the model is one of a tracking store.

    Raises:
        CheckpointError: The weights are missing or damaged.
    """
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec
    from safetensors.torch import save_file

    from crack_sweeps.tracking import pyfunc_model
    from crack_sweeps.training.checkpoints import CheckpointFolder

    state = CheckpointFolder((run_dir / weights).parent).load_best()["model"]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1, -1))]),
    )
    with tempfile.TemporaryDirectory(prefix="crack_sweeps-weights-") as scratch:
        save_file({key: tensor.contiguous().clone() for key, tensor in state.items()}, Path(scratch) / WEIGHTS)
        code = Path(scratch) / "code" / _PACKAGE.name
        shutil.copytree(_PACKAGE, code, ignore=shutil.ignore_patterns("__pycache__", "_shipped"))
        mlflow.pyfunc.save_model(
            path=os.fspath(folder),
            python_model=pyfunc_model.__file__,
            artifacts={"weights": os.fspath(Path(scratch) / WEIGHTS), "config": os.fspath(run_dir / config)},
            code_paths=[os.fspath(code)],
            conda_env=_environment(),
            signature=signature,
            input_example=np.zeros((1, 8, 8, 3), np.uint8),
            mlflow_model=Model(**(identity or {}), metadata={"threshold": threshold}),
        )


def requirements() -> list[str]:
    """The installed versions of what the model needs, without a build's local part (`+cpu`)."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in _REQUIREMENTS.split()]


def _environment() -> dict[str, Any]:
    """The same for conda: given as mere requirements, MLflow looks for pip, which an environment of uv has not."""
    pip = {"pip": requirements()}
    dependencies = [f"python={platform.python_version()}", "pip", pip]
    return {"name": "crack_sweeps", "channels": ["conda-forge"], "dependencies": dependencies}
