"""All generators of random numbers that a training draws from: as stored in a checkpoint, and put back."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def torch_random_state(device: torch.device) -> dict[str, Any]:
    """The generators of torch alone: what a step draws from."""
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_torch_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Go back to what `torch_random_state` gave."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state_all(state["cuda"])


def random_state(device: torch.device) -> dict[str, Any]:
    """All generators, as tensors and plain values."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        **torch_random_state(device),
        "python": [version, list(words), gauss],
        "numpy": [kind, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
    }


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Go back to what `random_state` gave."""
    restore_torch_random_state(state, device)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
