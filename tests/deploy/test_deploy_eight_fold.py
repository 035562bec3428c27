"""Eight views of a tile, averaged where they belong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from crack_sweeps.deploy.eight_fold import EightFold


class FirstColumn(nn.Module):
    """Sure of crack in the first column of whatever it is shown, and sure of none elsewhere."""

    def forward(self, image: Tensor) -> Tensor:
        logits = torch.full((image.shape[0], 1, *image.shape[2:]), -100.0)
        logits[..., 0] = 100.0
        return logits


class Brightness(nn.Module):
    """Looks at each pixel alone, so that turning makes no difference."""

    def forward(self, image: Tensor) -> Tensor:
        return 3 * image.sum(dim=1, keepdim=True) - 4


def test_what_a_net_says_of_a_place_is_averaged_over_the_eight_ways_of_seeing_it() -> None:
    probability = torch.sigmoid(EightFold(FirstColumn())(torch.zeros(2, 3, 3, 3)))
    # A corner is in the first column in four of the eight views, the middle of a side in two, the centre in none.
    expected = torch.tensor([[0.5, 0.25, 0.5], [0.25, 0.0, 0.25], [0.5, 0.25, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(probability, expected.expand(2, 1, 3, 3), atol=1e-12, rtol=0)


def test_a_net_that_does_not_care_for_directions_says_the_same_as_alone() -> None:
    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    alone = torch.sigmoid(Brightness()(image))
    torch.testing.assert_close(torch.sigmoid(EightFold(Brightness())(image).float()), alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("certain", [-300.0, 300.0])
def test_certainty_stays_certain(certain: float) -> None:
    class Certain(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.full_like(image[:, :1], certain)

    probability = torch.sigmoid(EightFold(Certain())(torch.zeros(1, 3, 2, 2)).float())
    assert torch.equal(probability, torch.full((1, 1, 2, 2), float(certain > 0)))
