"""The parts of the hybrid, each on cases small enough to compute by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from crack_sweeps.models.aspp import ASPP, dead_rates
from crack_sweeps.models.cbam import CBAM, ChannelAttention
from crack_sweeps.models.convolution import ConvNormAct, GroupNorm, make_norm, round_channels
from crack_sweeps.models.decoder import Decoder, DecoderStage
from crack_sweeps.models.segmenter import start_at_prior
from crack_sweeps.models.stem import Stem
from crack_sweeps.models.upsample import UPSAMPLES, PixelShuffle, Transposed


@pytest.mark.parametrize(
    ("cells", "rates", "dead"),
    [
        (8, (1, 6, 12, 18), (12, 18)),
        (16, (1, 6, 12, 18), (18,)),
        (32, (1, 6, 12, 18), ()),
        (4, (1, 2, 3), ()),
        (1, (1,), ()),
    ],
)
def test_a_rate_is_dead_when_every_off_centre_tap_falls_outside_the_map(cells, rates, dead):
    assert dead_rates(cells, rates) == dead
    for rate in rates:
        if rate == 1:
            continue
        conv = torch.nn.Conv2d(1, 1, 3, padding=rate, dilation=rate, bias=False)
        torch.nn.init.ones_(conv.weight)
        centre_alone = torch.equal(conv(torch.ones(1, 1, cells, cells)), torch.ones(1, 1, cells, cells))
        assert centre_alone == (rate in dead)


def test_aspp_reads_its_rates_back_from_the_convolutions():
    assert ASPP(8, 8, (1, 3, 6), dropout=0.0, norm="group").atrous_rates == (1, 3, 6)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_every_branch_of_the_aspp_learns_from_a_batch_of_one(norm):
    torch.manual_seed(0)
    aspp = ASPP(16, 8, (1, 2, 3), dropout=0.1, norm=norm).train()
    aspp(torch.randn(1, 16, 4, 4)).square().sum().backward()
    for name, parameter in aspp.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_pooling_branch_sees_the_whole_image():
    torch.manual_seed(0)
    pooling = ASPP(16, 8, (1,), dropout=0.0, norm="group").pooling
    x = torch.randn(1, 16, 4, 4)
    far_away = x.clone()
    far_away[..., 3, 3] += 10
    assert not torch.equal(pooling(x)[..., 0, 0], pooling(far_away)[..., 0, 0])


def test_channel_attention_weighs_each_channel_by_its_mean_and_maximum():
    attention = ChannelAttention(8)
    x = torch.zeros(1, 8, 2, 2)
    x[:, :, 0, 0] = 4.0  # mean 1, maximum 4
    expected = (attention.mlp(torch.full((1, 8), 1.0)) + attention.mlp(torch.full((1, 8), 4.0))).sigmoid()
    torch.testing.assert_close(attention(x)[:, :, 0, 0], expected)


def test_cbam_only_ever_scales_down():
    x = torch.randn(2, 16, 8, 8)
    assert torch.all(CBAM(16)(x).abs() <= x.abs())


def test_a_transposed_convolution_starts_as_bilinear_interpolation():
    x = torch.randn(1, 8, 6, 6)
    inner = (..., slice(1, -1), slice(1, -1))  # at the rim interpolation repeats the edge, the convolution pads with 0
    torch.testing.assert_close(Transposed(8)(x)[inner], F.interpolate(x, scale_factor=2, mode="bilinear")[inner])


def test_pixel_shuffle_starts_without_a_checkerboard():
    up = PixelShuffle(8)
    y = up(torch.randn(1, 8, 6, 6))
    nearest = y[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(y, nearest)
    assert y.std() > 0


@pytest.mark.parametrize("mode", UPSAMPLES)
def test_every_upsample_doubles_the_map_and_keeps_the_channels(mode):
    assert UPSAMPLES[mode](8)(torch.randn(2, 8, 3, 5)).shape == (2, 8, 6, 10)


@pytest.mark.parametrize("width", [0.1, 7.0, 12.0, 24.0, 100.0, 264.0, 1536.0])
def test_every_width_can_be_normalised_in_groups(width):
    channels = round_channels(width)
    assert channels >= 8
    assert make_norm("group", channels)(torch.randn(1, channels, 2, 2)).shape[1] == channels


def test_group_norm_equals_torchs():
    x = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(GroupNorm(2, 16)(x), torch.nn.GroupNorm(2, 16)(x))


@pytest.mark.gpu
def test_group_norm_stays_in_half_precision_under_autocast_and_agrees_with_float32():
    x = torch.randn(2, 16, 32, 32, device="cuda")
    norm = GroupNorm(2, 16).cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        half = norm(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), norm(x), atol=0.05, rtol=0.02)


def test_a_dilated_convolution_keeps_the_size_of_the_map():
    assert ConvNormAct(8, 8, dilation=5, norm="group")(torch.randn(1, 8, 7, 9)).shape == (1, 8, 7, 9)


def test_the_stem_gives_full_and_half_resolution():
    full, half = Stem(8, 16, norm="group")(torch.rand(1, 3, 32, 48))
    assert full.shape == (1, 8, 32, 48)
    assert half.shape == (1, 16, 16, 24)


def test_a_decoder_stage_without_a_skip_still_doubles_the_map():
    stage = DecoderStage(16, 0, 8, use_cbam=True, upsample_mode="bilinear", norm="group")
    assert stage(torch.randn(1, 16, 4, 4), None).shape == (1, 8, 8, 8)
    assert (stage.skip_channels, stage.out_channels, stage.upsample_mode) == (0, 8, "bilinear")


def test_the_decoder_goes_from_deep_to_full_one_skip_at_a_time():
    decoder = Decoder(32, [16, 8, 0], [16, 8, 8], use_cbam=False, upsample_mode="bilinear", norm="group")
    y = decoder(torch.randn(1, 32, 4, 4), [torch.randn(1, 16, 8, 8), torch.randn(1, 8, 16, 16), None])
    assert y.shape == (1, 8, 32, 32)


def test_the_head_starts_at_the_share_of_crack_pixels():
    head = torch.nn.Conv2d(8, 1, 1)
    start_at_prior(head, prior=0.03)
    assert math.isclose(torch.sigmoid(head.bias).item(), 0.03, rel_tol=1e-5)
