"""The logged model: loads without pickle in another process's shoes, and predicts what the run predicted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crack_sweeps.evaluation.tiles import predict_image
from crack_sweeps.models.build import build_model
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.loading import dump
from crack_sweeps.tracking import mirror, model, patience
from crack_sweeps.tracking.quiet import quiet_mlflow
from crack_sweeps.training.checkpoints import CheckpointFolder

TINY = Experiment.model_validate(
    {
        "name": "tiny",
        "model": {
            "architecture": "unet",
            "encoder_cfg": {"model_name": "resnet18", "pretrained": False, "depth": 3},
            "decoder_cfg": {"channels": (16, 16, 8)},
        },
        "data": {"crop_px": 64},
    }
)


@pytest.fixture
def trained(make_run: Callable[..., Any]) -> Any:
    """A run with weights (untrained ones) and a `model` event."""
    run = make_run().created().attempt().epoch(1)
    (run.path / "config.yaml").write_text(dump(TINY))
    torch.manual_seed(0)
    CheckpointFolder(run.path / "checkpoints").save_best({"model": build_model(TINY.model).state_dict(), "epoch": 1})
    run.log.append("model", path="checkpoints/best_model.pth", config="config.yaml", threshold=0.37)
    return run


def logged_models(shown: Any) -> list[Any]:
    run = shown.only_run()
    return list(shown.client.search_logged_models([run.info.experiment_id]))


def test_a_logged_model_predicts_like_the_run_holds_no_pickle_and_is_logged_once(
    with_store: Path, trained: Any, shown: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_mlflow()
    import mlflow.pyfunc

    finalize = shown().client.finalize_logged_model
    died: list[bool] = []

    def die_before_the_end(self: Any, *arguments: Any) -> Any:
        if not died:
            died.append(True)
            raise ConnectionError("gone")
        return finalize(*arguments)

    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(mlflow.MlflowClient, "finalize_logged_model", die_before_the_end)
    mirror.send(trained.finish().path)
    (trained.path / "tracking.json").unlink()
    mirror.send(trained.path)
    assert died
    (logged,) = logged_models(shown())
    assert logged.status == "READY"
    run = shown().only_run()
    assert [output.model_id for output in run.outputs.model_outputs] == [logged.model_id]
    assert run.data.tags["crack_sweeps.model_id"] == logged.model_id

    folder = Path(logged.artifact_location.removeprefix("file://"))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert "artifacts/weights.safetensors" in files
    assert "code/crack_sweeps/models/build.py" in files
    assert not [
        name for name in files if name.endswith((".pkl", ".pth", ".pickle", "uv.lock")) or "__pycache__" in name
    ]
    requirements = (folder / "requirements.txt").read_text().split()
    assert f"torch=={torch.__version__.partition('+')[0]}" in requirements

    loaded = mlflow.pyfunc.load_model(str(folder))
    assert loaded.metadata.metadata == {"threshold": 0.37}
    assert str(loaded.metadata.signature.inputs) == "[Tensor('uint8', (-1, -1, -1, 3))]"
    photos_N = np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), dtype=np.uint8)
    torch.manual_seed(0)
    expected_HW = predict_image(
        build_model(TINY.model).eval(),
        photos_N[1],
        tile_px=64,
        overlap=0.25,
        device=torch.device("cpu"),
        batch_size=4,
        amp_dtype=None,
    )
    predicted_NHW = loaded.predict(photos_N)
    assert (predicted_NHW.shape, predicted_NHW.dtype) == ((2, 70, 90), np.float32)
    np.testing.assert_array_equal(predicted_NHW[1], expected_HW)


def test_damaged_weights_cost_the_model_and_not_the_run(
    with_store: Path, trained: Any, shown: Callable[[], Any]
) -> None:
    weights = trained.path / "checkpoints" / "best_model.pth"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    mirror.send(trained.finish().path)
    run = shown().only_run()
    assert run.info.status == "FINISHED"
    assert "best_model.pth" in run.data.tags["crack_sweeps.model_error"]


def test_every_requirement_is_an_installed_distribution_with_a_public_version() -> None:
    requirements = model.requirements()
    assert all(requirement.partition("==")[2] and "+" not in requirement for requirement in requirements)
