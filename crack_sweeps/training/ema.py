"""Averaged weights: a second set that follows the trained one and is evaluated in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from crack_sweeps.errors import CheckpointError


class WeightAverage:
    """The exponential moving average of a model's parameters (Polyak and Juditsky 1992); buffers are copied.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage: without
    that, a short training would be judged by little else than its random start.

    Args:
        model: The network, on its device; the average begins as its copy.
        decay: Share of the old average kept at each update, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._average = {name: tensor.detach().clone() for name, tensor in _live_tensors(model).items()}
        self._swapped = False

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step towards the model's weights, and its buffers as they are."""
        assert not self._swapped, "the model holds the average itself"
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        live = _live_tensors(model)
        parameters = [name for name, tensor in live.items() if isinstance(tensor, nn.Parameter)]
        torch._foreach_lerp_(
            [self._average[name] for name in parameters], [live[name] for name in parameters], 1 - decay
        )
        for name in live.keys() - set(parameters):
            self._average[name].copy_(live[name])

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model holds the averaged weights; after it, its own again, bit for bit, whatever happened.

        The two sets change places, so this takes no memory. Nothing may train the model inside.
        """
        assert not self._swapped, "the average is swapped in already"
        self._swap(model)
        self._swapped = True
        try:
            yield
        finally:
            self._swap(model)
            self._swapped = False

    def state_dict(self) -> dict[str, Any]:
        """The average and how many updates made it, as tensors and plain values. The tensors are not copies."""
        assert not self._swapped, "the model holds the average itself"
        return {"num_updates": self.num_updates, "weights": dict(self._average)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a stored average.

        Raises:
            CheckpointError: It is the average of another model.
        """
        weights: Mapping[str, Tensor] = state["weights"]
        odd = sorted(weights.keys() ^ self._average.keys())
        odd += sorted(k for k in weights.keys() & self._average.keys() if weights[k].shape != self._average[k].shape)
        if odd:
            raise CheckpointError(
                f"the checkpoint's averaged weights belong to another model: `{odd[0]}` differs",
                hint="resume with the experiment that wrote the checkpoint",
            )
        self.num_updates = int(state["num_updates"])
        for name, tensor in self._average.items():
            tensor.copy_(weights[name])

    def _swap(self, model: nn.Module) -> None:
        for name, tensor in _live_tensors(model).items():
            tensor.data, self._average[name].data = self._average[name].data, tensor.data


def _live_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's own parameters and persistent buffers by name, each once even where two names share it."""
    by_identity = {id(tensor): (name, tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    return dict(by_identity.values())
