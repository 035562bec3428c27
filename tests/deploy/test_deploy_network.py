"""A trained network on a machine that is not the one it was trained on: less memory, another arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from trained_run import Workshop

from crack_sweeps.deploy import network
from crack_sweeps.deploy.trained import find_trained
from crack_sweeps.errors import OutOfMemory
from crack_sweeps.evaluation import evaluate

PHOTO = np.zeros((40, 40, 3), np.uint8)


def fits(most: int, tried: list[int]) -> Callable[..., np.ndarray]:
    """`predict_image` on a device that holds so many tiles at once."""

    def predict_image(*_: Any, batch_size: int, **__: Any) -> np.ndarray:
        tried.append(batch_size)
        if batch_size > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return np.zeros((40, 40), np.float32)

    return predict_image


def loaded(workshop: Workshop, said: list[str], *, batch_size: int) -> network.Network:
    config = workshop.run.config
    config.write_text(config.read_text().replace("batch_size: 2", f"batch_size: {batch_size}"))
    return network.load_network(find_trained("toy/0"), profile="cpu", tta=False, notify=said.append)


def test_out_of_memory_halves_the_tiles_at_once_for_good_and_says_so(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    tried: list[int] = []
    predict = loaded(workshop, said, batch_size=8).predict
    monkeypatch.setattr(evaluate, "predict_image", fits(2, tried))
    predict(PHOTO)
    predict(PHOTO)
    assert tried == [8, 4, 2, 2]
    assert said == ["out of memory: 4 tiles at once from here on", "out of memory: 2 tiles at once from here on"]


def test_a_device_that_holds_not_one_tile_is_an_error_with_a_way_out(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = loaded(workshop, [], batch_size=2).predict
    monkeypatch.setattr(evaluate, "predict_image", fits(0, []))
    with pytest.raises(OutOfMemory, match="no memory for one tile of 32 px") as caught:
        predict(PHOTO)
    assert "--profile cpu" in str(caught.value.hint)


def test_a_type_that_this_device_does_not_compute_with_becomes_float32_and_is_told(workshop: Workshop) -> None:
    config = workshop.run.config
    text = config.read_text().replace("use_amp: false", "use_amp: true")
    assert "amp_dtype: auto" in text
    config.write_text(text.replace("amp_dtype: auto", "amp_dtype: float16"))
    said: list[str] = []
    assert loaded(workshop, said, batch_size=2).precision == "float32"
    assert said == ["cpu does not compute with float16, as the training did: float32 here"]
