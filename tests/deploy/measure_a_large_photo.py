"""Predict one photo of 48 MP and print what it cost: `python measure_a_large_photo.py RUN PHOTO`, in bytes as JSON."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor, nn

from crack_sweeps.deploy import network, predict
from crack_sweeps.deploy.trained import TrainedRun
from crack_sweeps.evaluation.evaluate import predictor


class Darkness(nn.Module):
    """Sure of crack where the photo is dark; costs next to nothing, so that the photo's own memory is what is seen."""

    def forward(self, image: Tensor) -> Tensor:
        return 20 * (0.3 - image.mean(dim=1, keepdim=True))


def stand_in(trained: TrainedRun, **_: object) -> network.Network:
    overlap = trained.experiment.evaluation.tile_overlap
    device = torch.device("cpu")
    predict_photo = predictor(
        Darkness(), tile_px=512, overlap=overlap, device=device, batch_size=4, amp_dtype=None, notify=print
    )
    return network.Network(predict_photo, "cpu", "float32", 512)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    predict.load_network = stand_in  # type: ignore[assignment]
    run, photo = sys.argv[1:]
    small = Path("small.png")
    Image.fromarray(np.zeros((600, 600, 3), np.uint8)).save(small)
    predict.predict_photos(run, small, out="out", threshold=0.5)
    before = psutil.Process().memory_info().rss
    (found,) = predict.predict_photos(run, photo, out="out", threshold=0.5)
    print(json.dumps({"peak": peak_bytes() - before, "before": before, **found.as_dict()}))
