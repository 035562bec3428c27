"""Each loss against a case computed by hand, and each finite where logits or masks are extreme."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from crack_sweeps.specs.experiment import Loss
from crack_sweeps.training.losses import (
    bce_loss,
    dice_loss,
    focal_loss,
    focal_tversky_loss,
    loss_terms,
    soft_cldice_loss,
    soft_skeleton,
    total_loss,
)

EVERYTHING = Loss(
    focal_weight=0.6, dice_weight=0.4, bce_weight=0.5, tversky_weight=0.7, cldice_weight=0.3, cldice_iterations=3
)


def picture(*rows: list[float]) -> torch.Tensor:
    """One image of one channel."""
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def logit(p: float) -> float:
    return math.log(p / (1 - p))


# Two pixels: a crack pixel called 0.8, a background pixel called 0.4.
LOGITS = picture([logit(0.8), logit(0.4)])
MASK = picture([1.0, 0.0])


def test_cross_entropy_of_two_pixels():
    assert bce_loss(LOGITS, MASK).item() == pytest.approx((-math.log(0.8) - math.log(0.6)) / 2)


def test_focal_loss_of_two_pixels_without_alpha_weighs_both_classes_with_one():
    expected = (-(0.2**2) * math.log(0.8) - 0.4**2 * math.log(0.6)) / 2
    assert focal_loss(LOGITS, MASK, gamma=2.0, alpha=None).item() == pytest.approx(expected)


def test_focal_alpha_is_the_weight_of_the_crack_class():
    expected = (-0.25 * 0.2**2 * math.log(0.8) - 0.75 * 0.4**2 * math.log(0.6)) / 2
    assert focal_loss(LOGITS, MASK, gamma=2.0, alpha=0.25).item() == pytest.approx(expected)


def test_focal_loss_with_gamma_zero_is_cross_entropy():
    assert focal_loss(LOGITS, MASK, gamma=0.0, alpha=None).item() == pytest.approx(bce_loss(LOGITS, MASK).item())


def test_dice_loss_of_two_pixels():
    assert dice_loss(LOGITS, MASK, smooth=1.0).item() == pytest.approx(1 - (2 * 0.8 + 1) / (1.2 + 1 + 1))


def test_dice_is_per_image_and_then_averaged():
    perfect = picture([50.0, -50.0])
    wrong = picture([-50.0, 50.0])
    both = dice_loss(torch.cat([perfect, wrong]), torch.cat([MASK, MASK]), smooth=1.0)
    assert both.item() == pytest.approx((0.0 + (1 - 1 / 3)) / 2)  # pooled over both it would be 1 - 3/5


def test_dice_of_an_image_without_crack_that_is_found_empty_is_zero():
    assert dice_loss(picture([-50.0, -50.0]), torch.zeros_like(MASK), smooth=1.0).item() == pytest.approx(0.0)


def test_focal_tversky_loss_of_two_pixels():
    wrong = 0.3 * 0.4 + 0.7 * 0.2
    expected = (wrong / (0.8 + wrong + 1)) ** 0.75
    got = focal_tversky_loss(LOGITS, MASK, alpha=0.3, beta=0.7, gamma=0.75, smooth=1.0)
    assert got.item() == pytest.approx(expected)


def test_tversky_with_equal_halves_is_dice():
    tversky = focal_tversky_loss(LOGITS, MASK, alpha=0.5, beta=0.5, gamma=1.0, smooth=0.5)
    assert tversky.item() == pytest.approx(dice_loss(LOGITS, MASK, smooth=1.0).item())


def test_the_skeleton_of_a_bar_three_wide_is_its_centre_line():
    bar = torch.zeros(1, 1, 7, 12)
    bar[..., 2:5, 1:11] = 1
    line = soft_skeleton(bar, iterations=3)
    expected = torch.zeros_like(bar)
    expected[..., 3, 2:10] = 1
    expected[..., [2, 4, 2, 4], [1, 1, 10, 10]] = line[..., [2, 4, 2, 4], [1, 1, 10, 10]]  # corners, as published
    assert torch.equal(line, expected)


def test_a_line_one_pixel_wide_is_its_own_skeleton():
    line = torch.zeros(1, 1, 5, 9)
    line[..., 2, :] = 1
    assert torch.equal(soft_skeleton(line, iterations=5), line)


def test_the_skeleton_is_that_of_the_published_max_pool_code():
    def eroded(p):
        rows = -nn.functional.max_pool2d(-p, (3, 1), 1, (1, 0))
        return torch.minimum(rows, -nn.functional.max_pool2d(-p, (1, 3), 1, (0, 1)))

    def opened(p):
        return nn.functional.max_pool2d(eroded(p), 3, 1, 1)

    p = torch.rand(2, 1, 17, 23, generator=torch.Generator().manual_seed(0))
    image, line = p, torch.relu(p - opened(p))
    for _ in range(4):
        image = eroded(image)
        rest = torch.relu(image - opened(image))
        line = line + torch.relu(rest - line * rest)
    assert torch.equal(soft_skeleton(p, iterations=4), line)


def test_cldice_of_a_line_found_by_half_its_length():
    mask = torch.zeros(1, 1, 5, 8)
    mask[..., 2, :] = 1
    found = mask.clone()
    found[..., 4:] = 0
    loss = soft_cldice_loss((found * 2 - 1) * 200, mask, iterations=2, smooth=1.0)
    precision, recall = (4 + 1) / (4 + 1), (4 + 1) / (8 + 1)
    assert loss.item() == pytest.approx(1 - 2 * precision * recall / (precision + recall), abs=1e-6)


def test_cldice_keeps_as_many_maps_as_its_docstring_says():
    p = torch.rand(1, 1, 64, 64, requires_grad=True)
    mask = torch.zeros(1, 1, 64, 64)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    for iterations in (1, 5, 10):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            soft_cldice_loss(p, mask, iterations=iterations, smooth=1.0)
        maps = sum(storage.nbytes() for storage in kept.values()) / (64 * 64 * 4)
        assert maps == pytest.approx(15 * (iterations + 1), rel=0.05)


LOSSES = {
    "focal": lambda x, y: focal_loss(x, y, gamma=2.0, alpha=0.25),
    "focal, gamma .5, no alpha": lambda x, y: focal_loss(x, y, gamma=0.5, alpha=None),
    "bce": bce_loss,
    "dice": lambda x, y: dice_loss(x, y, smooth=1e-3),
    "tversky": lambda x, y: focal_tversky_loss(x, y, alpha=0.3, beta=0.7, gamma=0.75, smooth=1.0),
    "tversky, gamma .1": lambda x, y: focal_tversky_loss(x, y, alpha=0.0, beta=1.0, gamma=0.1, smooth=1e-3),
    "cldice": lambda x, y: soft_cldice_loss(x, y, iterations=3, smooth=1.0),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1e4, 20.0, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_value_and_gradient_are_finite_for_any_mask_and_logit(name, size, dtype):
    masks = {"no crack": torch.zeros(2, 1, 8, 8), "all crack": torch.ones(2, 1, 8, 8)}
    masks["half"] = masks["no crack"].clone()
    masks["half"][..., :4] = 1
    for kind, mask in masks.items():
        for sign in (1, -1, 2 * mask - 1, 1 - 2 * mask):
            logits = (torch.full((2, 1, 8, 8), size) * sign).to(dtype).requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
                value = LOSSES[name](logits, mask)
            value.backward()
            assert value.dtype is torch.float32
            assert torch.isfinite(value), (kind, sign)
            assert torch.isfinite(logits.grad).all(), (kind, sign)


@pytest.mark.parametrize("name", LOSSES)
def test_a_surely_wrong_answer_costs_more_than_a_surely_right_one(name):
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 3, :] = 1
    right, wrong = (2 * mask - 1) * 1e4, (1 - 2 * mask) * 1e4
    assert LOSSES[name](right, mask) < 0.3 < LOSSES[name](wrong, mask)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_finite_differences(name):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 6, 6, dtype=torch.float64, generator=generator).requires_grad_()
    mask = (torch.rand(2, 1, 6, 6, generator=generator) > 0.7).double()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, mask), (logits,))


def test_the_default_loss_is_six_tenths_focal_and_four_tenths_dice():
    terms = loss_terms(LOGITS, MASK, Loss())
    assert list(terms) == ["focal", "dice"]
    assert terms["focal"].item() == pytest.approx(0.6 * focal_loss(LOGITS, MASK, gamma=2.0, alpha=0.25).item())
    assert terms["dice"].item() == pytest.approx(0.4 * dice_loss(LOGITS, MASK, smooth=1.0).item())
    assert total_loss(terms).item() == pytest.approx(terms["focal"].item() + terms["dice"].item())


def test_every_setting_of_the_loss_changes_it():
    logits = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 1, 12, 12)
    mask[..., 3:6, :] = 1
    before = total_loss(loss_terms(logits, mask, EVERYTHING))
    for field in Loss.model_fields:
        value = getattr(EVERYTHING, field)
        changed = EVERYTHING.model_copy(update={field: None if field == "focal_alpha" else value * 2})
        assert total_loss(loss_terms(logits, mask, changed)) != before, field


def test_a_weight_of_zero_leaves_a_term_out():
    for term in ("focal", "dice", "bce", "tversky", "cldice"):
        without = EVERYTHING.model_copy(update={f"{term}_weight": 0.0})
        assert loss_terms(LOGITS, MASK, EVERYTHING).keys() - loss_terms(LOGITS, MASK, without).keys() == {term}


def test_the_loss_under_autocast_is_that_of_float32():
    logits = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    mask = torch.zeros(1, 1, 256, 256, dtype=torch.uint8)
    mask[..., 100:104, :] = 1
    expected = loss_terms(logits.float(), mask.float(), EVERYTHING)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss_terms(logits, mask, EVERYTHING)
    for name, value in expected.items():
        assert got[name].dtype is torch.float32
        assert torch.equal(got[name], value), name


class Small(nn.Module):
    """A network of a few kernels with the normalisation under test."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


def gradient(model: nn.Module, image: torch.Tensor, mask: torch.Tensor, micro_batch: int) -> list[torch.Tensor]:
    """The gradient accumulated over micro-batches, as the loop does it."""
    model.zero_grad()
    num_parts = len(image) // micro_batch
    for part, truth in zip(image.split(micro_batch), mask.split(micro_batch), strict=True):
        (total_loss(loss_terms(model(part), truth, EVERYTHING)) / num_parts).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def eight_crops() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(8, 3, 12, 12, generator=generator, dtype=torch.float64)
    mask = torch.zeros(8, 1, 12, 12)
    for index in range(7):  # the last crop has no crack: its Dice must count as much as any other's
        mask[index, 0, index : index + 1 + index % 3] = 1
    return image, mask


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
@pytest.mark.parametrize("norm", ["group", "batch, frozen"])
def test_accumulated_micro_batches_give_the_gradient_of_the_large_batch(norm, micro_batch):
    torch.manual_seed(0)
    model = Small(nn.GroupNorm(4, 8) if norm == "group" else nn.BatchNorm2d(8).eval()).double()
    image, mask = eight_crops()
    large = gradient(model, image, mask, 8)
    for small, whole in zip(gradient(model, image, mask, micro_batch), large, strict=True):
        torch.testing.assert_close(small, whole, rtol=1e-10, atol=1e-14)


def test_batch_norm_that_is_not_frozen_does_not():
    torch.manual_seed(0)
    model = Small(nn.BatchNorm2d(8)).double()
    image, mask = eight_crops()
    large = gradient(model, image, mask, 8)
    assert any(
        not torch.allclose(small, whole, rtol=1e-3)
        for small, whole in zip(gradient(model, image, mask, 2), large, strict=True)
    )
