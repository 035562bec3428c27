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
    weights = torch.randn(expected.shape, device=x.device).to(x.dtype).contiguous(memory_format=layout_of(x))
    raised.backward(weights)
    expected.backward(weights)
    assert ours.grad is not None
    assert theirs.grad is not None
    return ours.grad, theirs.grad


def layout_of(x: Tensor) -> torch.memory_format:
    return next(layout for layout in reversed(LAYOUTS) if x.is_contiguous(memory_format=layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("factor", "align_corners"), FACTORS)
def test_the_gradient_is_torchs(factor, align_corners, layout):
    x = torch.randn(2, 5, 6, 9).contiguous(memory_format=layout)
    ours, theirs = both_gradients(x, factor, align_corners)
    torch.testing.assert_close(ours, theirs)
    assert layout_of(ours) is layout_of(x)


def test_in_half_precision_it_is_as_near_to_the_true_gradient_as_torchs():
    for factor, align_corners in FACTORS:
        x = torch.randn(2, 8, 16, 16, dtype=torch.bfloat16)
        torch.manual_seed(0)
        ours, theirs = both_gradients(x, factor, align_corners)
        torch.manual_seed(0)
        _, exact = both_gradients(x.double(), factor, align_corners)
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
    x = torch.randn(4, 24, 32, 48, device="cuda", dtype=dtype).contiguous(memory_format=layout)
    ours, theirs = both_gradients(x, factor, align_corners)
    torch.testing.assert_close(ours, theirs, **({} if dtype is torch.float32 else {"atol": 0.1, "rtol": 0.03}))
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
