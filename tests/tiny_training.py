"""A training that takes milliseconds: a few convolutions over random crops, the same ones whenever it is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from crack_sweeps.models.segmenter import Segmenter
from crack_sweeps.specs.experiment import Training
from crack_sweeps.training.loop import TrainingState

STEPS = 3
SIDE = 16
CPU = torch.device("cpu")


class Overflows(torch.autograd.Function):
    """Leaves values alone; their gradient becomes infinite."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * math.inf


class Tiny(Segmenter):
    """A few convolutions with GroupNorm and dropout, so that random numbers matter."""

    def __init__(self, *, dropout: float = 0.2) -> None:
        super().__init__(mean=[0.5] * 3, std=[0.25] * 3)
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(8, 1, 1))
        self.checkpointing = False

    def forward(self, image_B3HW: Tensor) -> Tensor:
        return self.head(self.encoder(self.normalise(image_B3HW)))

    def encoder_stages(self) -> list[list[nn.Parameter]]:
        return [list(self.encoder.parameters())]

    def set_activation_checkpointing(self, enabled: bool) -> None:
        self.checkpointing = enabled

    def built(self) -> dict[str, object]:
        return {}


def settings(**changes: object) -> Training:
    plain = {"batch_size": 4, "gradient_accumulation_steps": 2, "epochs": 2, "use_amp": False, "learning_rate": 0.01}
    return Training(**{**plain, **changes})


def fresh(
    training: Training,
    make: Callable[[], Tiny] = Tiny,
    *,
    device: torch.device = CPU,
    amp_dtype: torch.dtype | None = None,
) -> TrainingState:
    torch.manual_seed(training.seed)
    return TrainingState(make().to(device), training, device=device, amp_dtype=amp_dtype, steps_per_epoch=STEPS)


def crops(effective: int = 8):
    """The same crops for an epoch whatever the micro-batch and the step to begin with."""

    def batches(epoch: int, first_step: int, micro_batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(epoch)
        image = torch.randint(0, 256, (STEPS * effective, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
        mask = (image[:, :1] < 60).to(torch.uint8)
        for start in range(first_step * effective, STEPS * effective, micro_batch):
            yield image[start : start + micro_batch], mask[start : start + micro_batch]

    return batches


def constant_score(_: nn.Module) -> Mapping[str, float]:
    return {"val/crack_iou": 0.5}


def weights(state: TrainingState) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.model.state_dict().items()}


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    for name in one:
        assert torch.equal(one[name], other[name]), name
