"""Benchmarks that need a GPU skip where there is none, and say so."""

from __future__ import annotations

import pytest


@pytest.fixture
def gpu() -> str:
    """The card's name."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU")
    return torch.cuda.get_device_name(0)
