"""Test-time augmentation: each tile is seen in its eight flips and rotations, and the probabilities are averaged."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class EightFold(nn.Module):
    """A segmenter that looks at its square input in all eight ways and gives the logit of the mean probability.

    The mean is taken in float64, so that eight equal probabilities give that very one in float32.
    """

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image_B3TT: Float[Tensor, "B 3 T T"]) -> Float[Tensor, "B 1 T T"]:
        """Logits of "this pixel is crack"."""
        total_B1TT: Tensor | None = None
        for mirrored in (False, True):
            for quarter_turns in range(4):
                seen_B3TT = image_B3TT.flip(-1) if mirrored else image_B3TT
                turned_B3TT = torch.rot90(seen_B3TT, quarter_turns, (-2, -1)).contiguous()
                said_B1TT = torch.sigmoid(self.segmenter(turned_B3TT).float()).double()
                upright_B1TT = torch.rot90(said_B1TT, -quarter_turns, (-2, -1))
                back_B1TT = upright_B1TT.flip(-1) if mirrored else upright_B1TT
                total_B1TT = back_B1TT if total_B1TT is None else total_B1TT + back_B1TT
        assert total_B1TT is not None
        return torch.logit(total_B1TT / 8)
