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
        self._pairs: _Pairs | None = None  # of the model that was seen last
        self._swapped = False

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step towards the model's weights, and its buffers as they are.

        On a GPU it only queues work, with a few calls: a walk through all modules and a call for each buffer, a tenth
        of a U-Net's step on an H100, is spared while the model keeps its tensors, as it does once on its device.
        """
        assert not self._swapped, "the model holds the average itself"
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        if self._pairs is None or self._pairs.model is not model:
            self._pairs = _Pairs(model, self._average)
        torch._foreach_lerp_(*self._pairs.parameters, 1 - decay)
        for averages, buffers in self._pairs.buffers:
            torch._foreach_copy_(averages, buffers)

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
        live = _live_tensors(model)
        if self._pairs is not None and self._pairs.model is model:
            assert self._pairs.belong_to(live), "the model got other tensors after it was averaged"
        for name, tensor in live.items():
            tensor.data, self._average[name].data = self._average[name].data, tensor.data


class _Pairs:
    """Average and model, tensor by tensor, as the calls for many tensors at once take them."""

    def __init__(self, model: nn.Module, average: Mapping[str, Tensor]) -> None:
        self.model = model
        self.parameters: tuple[list[Tensor], list[Tensor]] = [], []
        by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}  # one launch copies one type
        for name, tensor in _live_tensors(model).items():
            is_weight = isinstance(tensor, nn.Parameter)
            averages, own = self.parameters if is_weight else by_type.setdefault(tensor.dtype, ([], []))
            averages.append(average[name])
            own.append(tensor)
        self.buffers = list(by_type.values())

    def belong_to(self, live: Mapping[str, Tensor]) -> bool:
        """Whether these are still the tensors that the model computes with."""
        own = [*self.parameters[1], *(tensor for _, buffers in self.buffers for tensor in buffers)]
        return {id(tensor) for tensor in own} == {id(tensor) for tensor in live.values()}


def _live_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's own parameters and persistent buffers by name, each once even where two names share it."""
    by_identity = {id(tensor): (name, tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    return dict(by_identity.values())
