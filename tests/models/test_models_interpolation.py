"""Bilinear upsampling: torch's values, and a gradient of our own that is torch's too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from crack_sweeps.models.build import build_model
from crack_sweeps.models.interpolation import BilinearUpsample, _Bilinear, make_upsampling_deterministic
from crack_sweeps.specs.experiment import SmpModel

LAYOUTS = [torch.contiguous_format, torch.channels_last]
FACTORS = [(2, False), (4, True), (3, False), (1, True)]


def both_gradients(x: Tensor, factor: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Of the same random sum over the result: ours, and that of torch's own kernel."""
    native = nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=align_corners)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    raised, expected = _Bilinear.apply(ours, factor, align_corners), native(theirs)
    assert torch.equal(raised, expected)
    weights = summed_with(expected)
    raised.backward(weights)
    expected.backward(weights)
    assert ours.grad is not None
    assert theirs.grad is not None
    return ours.grad, theirs.grad


def summed_with(raised: Tensor) -> Tensor:
    """What the result is multiplied with before it is added up; the same for each type and device."""
    weights = torch.randn(raised.shape, generator=torch.Generator().manual_seed(1)).to(raised.device, raised.dtype)
    return weights.contiguous(memory_format=layout_of(raised))


def exact_gradient_and_rounding(x: Tensor, factor: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """The gradient in float64, and how far from it the two matrix products may lie by rounding alone, pixel by pixel.

    A sum of n products in any order errs by at most n + 1 roundings of the sum of absolute values, one of the weights
    included (Higham 2002, section 3.1). At most 2 (factor + 1) new pixels of a side take something of an old one. In
    half precision both products are added up in float32; their results are rounded to it.
    """
    native = nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=align_corners)
    found = []
    for change in (torch.Tensor.clone, torch.abs):
        leaf = x.double().cpu().requires_grad_()
        raised = native(leaf)
        raised.backward(change(summed_with(raised.to(x.dtype)).double()))
        found.append(leaf.grad)
    exact, size = found
    assert exact is not None
    assert size is not None
    half = torch.finfo(torch.float32).eps / 2
    roundings = (1 + half) ** (2 * (2 * (factor + 1) + 1))
    if x.dtype is not torch.float32:
        roundings *= (1 + torch.finfo(x.dtype).eps / 2) ** 2
    return exact, (roundings - 1) * size


def layout_of(x: Tensor) -> torch.memory_format:
    return next(layout for layout in reversed(LAYOUTS) if x.is_contiguous(memory_format=layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("factor", "align_corners"), FACTORS)
def test_the_gradient_is_torchs(factor, align_corners, layout):
    x = torch.randn(2, 5, 6, 9).contiguous(memory_format=layout)
    ours, theirs = both_gradients(x, factor, align_corners)
    torch.testing.assert_close(ours, theirs)
    assert layout_of(ours) is layout_of(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("factor", "align_corners"), FACTORS)
def test_it_is_exact_but_for_rounding(factor, align_corners, dtype):
    """Torch's own is not: far from the left edge float32 knows the positions of its pixels to some millionths."""
    x = torch.randn(1, 2, 32, 48, dtype=dtype)
    ours, _ = both_gradients(x, factor, align_corners)
    exact, bound = exact_gradient_and_rounding(x, factor, align_corners)
    assert ((ours.double() - exact).abs() <= bound).all()


def test_in_half_precision_it_is_as_near_to_the_true_gradient_as_torchs():
    for factor, align_corners in FACTORS:
        x = torch.randn(2, 8, 16, 16, dtype=torch.bfloat16)
        ours, theirs = both_gradients(x, factor, align_corners)
        exact, _ = exact_gradient_and_rounding(x, factor, align_corners)
        assert (ours - exact).abs().max() <= (theirs - exact).abs().max() + 2**-6 * exact.abs().max()


def test_by_hand_a_pixel_gives_three_quarters_and_a_quarter_to_its_neighbours():
    x = torch.zeros(1, 1, 1, 3, requires_grad=True)
    _Bilinear.apply(x, 2, False)[0, 0, 0].backward(torch.tensor([1.0, 0, 0, 0, 16.0, 0]))
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [1.0, 4.0, 12.0]


def test_on_a_processor_it_is_torchs_upsampling():
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        raised = BilinearUpsample(2, align_corners=False)(x)
    finally:
        torch.use_deterministic_algorithms(False)
    assert raised.grad_fn is not None
    assert "UpsampleBilinear2D" in raised.grad_fn.name()


def test_in_other_peoples_networks_bilinear_upsampling_by_whole_numbers_is_replaced_and_nothing_else():
    network = nn.Sequential(
        nn.Upsample(scale_factor=4, mode="bilinear", align_corners=True),
        nn.UpsamplingBilinear2d(scale_factor=2),
        nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear")),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Upsample(scale_factor=1.5, mode="bilinear"),
        nn.Upsample(size=(8, 8), mode="bilinear"),
    )
    x = torch.randn(1, 2, 4, 4)
    before = [layer(x) for layer in network]
    make_upsampling_deterministic(network)
    replaced = [isinstance(layer, BilinearUpsample) for layer in network]
    assert replaced == [True, True, False, False, False, False]
    assert isinstance(network[2][0], BilinearUpsample)
    assert all(torch.equal(layer(x), was) for layer, was in zip(network, before, strict=True))


def test_a_deeplab_has_no_other_bilinear_upsampling_module():
    encoder = {"model_name": "test_efficientnet", "pretrained": False}
    model = build_model(SmpModel.model_validate({"architecture": "deeplabv3plus", "encoder_cfg": encoder}))
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Upsample)]
    assert len(layers) == 2
    assert all(isinstance(layer, BilinearUpsample) for layer in layers)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("factor", "align_corners"), FACTORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_values_are_the_native_kernels_and_gradients_the_same_bits_twice(
    factor, align_corners, layout, dtype, monkeypatch
):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it torch refuses matrix products
    torch.manual_seed(0)
    x = torch.randn(4, 24, 32, 48, device="cuda", dtype=dtype).contiguous(memory_format=layout)
    ours, theirs = (found.double().cpu() for found in both_gradients(x, factor, align_corners))
    exact, bound = exact_gradient_and_rounding(x, factor, align_corners)
    print(f"\nlargest error: ours {(ours - exact).abs().max():.2e}, torch's {(theirs - exact).abs().max():.2e}")
    assert ((ours - exact).abs() <= bound).all()
    assert (ours - exact).square().mean() <= (theirs - exact).square().mean()
    layer = BilinearUpsample(factor, align_corners=align_corners)
    native = layer(x)
    torch.use_deterministic_algorithms(True)
    try:
        gradients = []
        for _ in range(2):
            leaf = x.clone().requires_grad_()
            raised = layer(leaf)
            assert torch.equal(raised, native)
            raised.square().sum().backward()
            gradients.append(leaf.grad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*gradients)
