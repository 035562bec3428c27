"""What MLflow runs to serve a logged model: photos in, crack probabilities out. This file is copied into the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
from mlflow.models import set_model


class CrackSegmenter(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow has no types
    """uint8 RGB photos of one size, shape (N, H, W, 3), become float32 probabilities of shape (N, H, W)."""

    def load_context(self, context: Any) -> None:
        """Build the network that config.yaml describes and fill it from safetensors."""
        import torch
        from safetensors.torch import load_file

        from crack_sweeps.models.build import build_model
        from crack_sweeps.specs.experiment import Experiment
        from crack_sweeps.specs.yaml import load_yaml

        settings = load_yaml(Path(context.artifacts["config"]))
        # The weights are here: nothing is to be downloaded, and the trainer's own files are not on this machine.
        settings["model"]["encoder_cfg"] |= {"pretrained": False, "checkpoint_path": None}
        self.experiment = Experiment.model_validate(settings)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = build_model(self.experiment.model)
        self.model.load_state_dict(load_file(context.artifacts["weights"]))
        self.model.to(self.device).eval()

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:  # noqa: ARG002
        """Probabilities at native resolution, by the same overlapping tiles that the run was scored with."""
        from crack_sweeps.evaluation.tiles import predict_image

        maps = [
            predict_image(
                self.model,
                image,
                tile_px=self.experiment.tile_px,
                overlap=self.experiment.evaluation.tile_overlap,
                device=self.device,
                batch_size=self.experiment.training.batch_size,
                amp_dtype=None,
            )
            for image in np.asarray(model_input, dtype=np.uint8)
        ]
        return np.stack(maps)


set_model(CrackSegmenter())
