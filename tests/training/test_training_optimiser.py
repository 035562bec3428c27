"""Every parameter learns at the rate that was asked for, and the rate's course depends on the step alone."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import nn

from crack_sweeps.specs.experiment import Training
from crack_sweeps.training.optimiser import build_optimizer, is_decayed, learning_rate_factor, parameter_groups


class Attention(nn.Module):
    """The parameters of a SwinV2 attention that must not decay, with their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.ones(2, 1, 1))
        self.cpb_mlp = nn.Linear(2, 4)
        self.qkv = nn.Linear(4, 12, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(4))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(3, 2))


class Encoder(nn.Module):
    """Three stages."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.middle = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.deep = Attention()


class Net(nn.Module):
    """The part of a Segmenter that the optimizer sees."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4))
        self.encoder = Encoder()  # after the decoder, so that the order of groups is not that of definition
        self.head = nn.Conv2d(4, 1, 1)

    def encoder_stages(self) -> list[list[nn.Parameter]]:
        return [list(part.parameters()) for part in (self.encoder.stem, self.encoder.middle, self.encoder.deep)]


TRAINING = Training(learning_rate=0.01, encoder_lr_multiplier=0.1, layer_decay=0.5, weight_decay=0.05)


def by_name(net: Net, training: Training = TRAINING) -> dict[str, dict[str, float]]:
    """Each parameter's settings, read back from the optimizer."""
    optimizer = build_optimizer(net, training)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return {
        names[id(parameter)]: {"lr": group["lr"], "peak_lr": group["peak_lr"], "decay": group["weight_decay"]}
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_every_parameter_is_in_exactly_one_group():
    net = Net()
    grouped = [id(parameter) for group in parameter_groups(net, TRAINING) for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in net.parameters())


def test_groups_run_from_input_to_output_and_are_named():
    names = [group["name"] for group in build_optimizer(Net(), TRAINING).param_groups]
    assert names == [
        "encoder.0.no_decay", "encoder.0",
        "encoder.1.no_decay", "encoder.1",
        "encoder.2.no_decay", "encoder.2",
        "decoder.no_decay", "decoder",
    ]  # fmt: skip


def test_learning_rates_are_those_of_the_spec():
    read = by_name(Net())
    expected = {
        "head.weight": 0.01,
        "decoder.0.weight": 0.01,
        "encoder.deep.qkv.weight": 0.01 * 0.1,
        "encoder.middle.0.weight": 0.01 * 0.1 * 0.5,
        "encoder.stem.weight": 0.01 * 0.1 * 0.25,
    }
    for name, rate in expected.items():
        assert read[name]["lr"] == read[name]["peak_lr"] == pytest.approx(rate), name


def test_only_matrices_and_kernels_decay():
    decayed = {name for name, settings in by_name(Net()).items() if settings["decay"]}
    assert decayed == {
        "encoder.stem.weight", "encoder.middle.0.weight", "encoder.deep.qkv.weight",
        "decoder.0.weight", "head.weight",
    }  # fmt: skip
    assert {settings["decay"] for settings in by_name(Net()).values()} == {0.0, 0.05}


def test_position_tables_of_other_transformers_do_not_decay():
    assert not is_decayed("encoder.pos_embed", nn.Parameter(torch.zeros(1, 4, 8)))
    assert is_decayed("encoder.blocks.0.mlp.fc1.weight", nn.Parameter(torch.zeros(4, 8)))


def test_a_frozen_parameter_is_left_out():
    net = Net()
    net.head.weight.requires_grad_(False)
    assert "head.weight" not in by_name(net)


def test_stages_that_are_not_the_whole_encoder_are_our_bug():
    net = Net()
    net.encoder_stages = lambda: [list(net.encoder.stem.parameters())]
    with pytest.raises(AssertionError, match="not the whole encoder"):
        build_optimizer(net, TRAINING)
    net.encoder_stages = lambda: [list(net.encoder.parameters()), list(net.encoder.stem.parameters())]
    with pytest.raises(AssertionError, match="two encoder stages"):
        build_optimizer(net, TRAINING)


def test_the_fused_kernel_is_used_and_computes_what_the_plain_one_does():
    """In channels-last memory, and across a stored and loaded state, where strides could be lost."""
    finals = []
    for fused in (True, False):
        net, optimizer = _small_and_its_optimizer(fused)
        for step in range(6):
            if step == 3:
                stored = io.BytesIO()
                torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, stored)
                stored.seek(0)
                state = torch.load(stored, weights_only=True)
                net, optimizer = _small_and_its_optimizer(fused)
                net.load_state_dict(state["net"])
                optimizer.load_state_dict(state["optimizer"])
            x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            net.encoder.stem(x.contiguous(memory_format=torch.channels_last)).square().mean().backward()
            optimizer.step()
        finals.append(net.encoder.stem.weight.detach())
    assert not torch.equal(finals[0], Net().encoder.stem.weight)
    torch.testing.assert_close(finals[0], finals[1], rtol=1e-5, atol=1e-6)


def _small_and_its_optimizer(fused: bool) -> tuple[Net, torch.optim.AdamW]:
    torch.manual_seed(0)
    net = Net().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(net, TRAINING)
    assert all(group["fused"] for group in optimizer.param_groups)
    if not fused:
        optimizer = torch.optim.AdamW(parameter_groups(net, TRAINING), fused=False)
    return net, optimizer


# --- schedule --------------------------------------------------------------------------------------


def test_cosine_rises_to_the_peak_and_falls_to_the_last_rate():
    factor = learning_rate_factor(Training(warmup_fraction=0.4, min_lr_fraction=0.1), 10)
    assert [factor(step) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factor(6) == pytest.approx(0.1 + 0.9 * 0.5)  # half way from step 3 to step 9
    assert factor(9) == pytest.approx(0.1)
    assert factor(99) == pytest.approx(0.1)


def test_poly_falls_with_the_power_of_nine_tenths():
    factor = learning_rate_factor(Training(schedule="poly", warmup_fraction=0.0, min_lr_fraction=0.0), 5)
    assert [factor(step) for step in range(5)] == pytest.approx([1, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0])


def test_constant_stays_at_the_peak_after_the_warm_up():
    factor = learning_rate_factor(Training(schedule="constant", warmup_fraction=0.5), 4)
    assert [factor(step) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["cosine", "poly", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 0.99])
@pytest.mark.parametrize("total", [1, 2, 3, 7, 1000])
def test_every_schedule_reaches_the_peak_and_ends_where_it_should(schedule, warmup, total):
    training = Training(schedule=schedule, warmup_fraction=warmup, min_lr_fraction=0.01)
    factors = [learning_rate_factor(training, total)(step) for step in range(total)]
    assert max(factors) == 1.0
    assert all(math.isfinite(factor) and factor > 0 for factor in factors)
    top = factors.index(1.0)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    if total > 1:
        assert factors[-1] == pytest.approx(1.0 if schedule == "constant" else 0.01)


def test_a_step_that_cannot_be_is_our_bug():
    with pytest.raises(AssertionError):
        learning_rate_factor(TRAINING, 10)(-1)


@pytest.mark.gpu
def test_on_a_gpu_the_fused_kernel_is_used():
    optimizer = build_optimizer(Net().cuda(), TRAINING)
    assert all(group["fused"] for group in optimizer.param_groups)
