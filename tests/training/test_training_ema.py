"""The average follows the weights as its formula says, and lends itself to the model without leaving a trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crack_sweeps.errors import CheckpointError
from crack_sweeps.training.ema import WeightAverage


def one_weight(value: float) -> nn.Linear:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, value)
    return net


def averaged(average: WeightAverage, net: nn.Module) -> dict[str, torch.Tensor]:
    with average.swapped_in(net):
        return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def test_three_updates_by_hand():
    net = one_weight(0.0)
    average = WeightAverage(net, 0.2)
    expected = 0.0
    for update, value in enumerate((1.0, 2.0, -1.0), start=1):
        nn.init.constant_(net.weight, value)
        average.update(net)
        decay = min(0.2, (1 + update) / (10 + update))  # 2/11, then .2, .2
        expected = decay * expected + (1 - decay) * value
    assert averaged(average, net)["weight"].item() == pytest.approx(expected)


def test_a_long_training_reaches_the_decay_that_was_asked_for():
    net = one_weight(0.0)
    average = WeightAverage(net, 0.9)
    average.num_updates = 1000
    nn.init.constant_(net.weight, 1.0)
    average.update(net)
    assert averaged(average, net)["weight"].item() == pytest.approx(0.1)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("table", torch.ones(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


def trained() -> tuple[Normed, WeightAverage]:
    torch.manual_seed(0)
    net = Normed().to(memory_format=torch.channels_last)
    average = WeightAverage(net, 0.99)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        average.update(net)
    return net, average


def test_buffers_are_copied_not_averaged():
    net, average = trained()
    inside = averaged(average, net)
    assert torch.equal(inside["norm.running_mean"], net.norm.running_mean)
    assert inside["norm.num_batches_tracked"] == 3
    assert not torch.equal(inside["conv.weight"], net.conv.weight)


def test_the_models_own_weights_come_back_bit_for_bit():
    net, average = trained()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    identities = [id(parameter) for parameter in net.parameters()]

    def evaluation_that_fails() -> None:
        with average.swapped_in(net):
            assert not torch.equal(net.conv.weight, before["conv.weight"])
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        evaluation_that_fails()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert [id(parameter) for parameter in net.parameters()] == identities  # the optimizer knows them by identity
    assert net.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_training_goes_on_after_an_evaluation_as_if_there_had_been_none():
    finals = []
    for evaluates in (False, True):
        net, average = trained()
        if evaluates:
            averaged(average, net)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)
        net(torch.ones(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        average.update(net)
        finals.append((net.conv.weight.detach(), averaged(average, net)["conv.weight"]))
    assert torch.equal(finals[0][0], finals[1][0])
    assert torch.equal(finals[0][1], finals[1][1])


def test_a_stored_average_goes_on_bit_for_bit():
    net, average = trained()
    stored = {
        "num_updates": average.num_updates,
        "weights": {k: v.clone() for k, v in average.state_dict()["weights"].items()},
    }
    copy = WeightAverage(Normed(), 0.99)
    copy.load_state_dict(stored)
    for one in (average, copy):
        one.update(net)
    left, right = average.state_dict(), copy.state_dict()
    assert left["num_updates"] == right["num_updates"] == 4
    assert all(torch.equal(tensor, right["weights"][name]) for name, tensor in left["weights"].items())


def test_one_average_may_follow_a_model_and_its_copy_in_turns():
    one, other = one_weight(0.0), one_weight(4.0)
    average = WeightAverage(one, 0.2)  # below (1 + n) / (10 + n), except at n = 1: 2 / 11
    expected = 0.0
    for number, net in enumerate((other, one, other), start=1):
        average.update(net)
        decay = min(0.2, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * net.weight.item()
    assert averaged(average, one)["weight"].item() == pytest.approx(expected)


def test_a_model_that_got_other_tensors_is_noticed_before_it_is_evaluated():
    net, average = trained()
    net.norm.running_mean = net.norm.running_mean.clone()
    with pytest.raises(AssertionError, match="other tensors"), average.swapped_in(net):
        pass


def test_the_average_of_another_model_is_refused():
    _, average = trained()
    for other in (one_weight(0.0), nn.Sequential(nn.Conv2d(3, 4, 3))):
        with pytest.raises(CheckpointError, match="another model"):
            average.load_state_dict(WeightAverage(other, 0.99).state_dict())


def test_a_tensor_with_two_names_is_swapped_once():
    net = nn.Sequential(one_weight(0.0), nn.Linear(1, 1, bias=False))
    net[1].weight = net[0].weight
    average = WeightAverage(net, 0.5)
    nn.init.constant_(net[0].weight, 1.0)
    with average.swapped_in(net):
        assert net[1].weight.item() == 0.0
    assert net[1].weight.item() == 1.0


def test_nobody_averages_or_stores_while_the_average_is_lent_out():
    net, average = trained()
    with average.swapped_in(net):
        for forbidden in (lambda: average.update(net), average.state_dict, average.swapped_in(net).__enter__):
            with pytest.raises(AssertionError):
                forbidden()
