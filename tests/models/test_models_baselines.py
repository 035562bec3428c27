"""Baselines: one contract over every architecture, and the library's corners."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch

from crack_sweeps.errors import SpecError, TrainingError
from crack_sweeps.models.baselines import ARCHITECTURES
from crack_sweeps.models.build import build_model, check_built
from crack_sweeps.specs.experiment import SmpArchitecture, SmpModel

TINY = "test_efficientnet"


def baseline(architecture: str, depth: int = 5, model_name: str = TINY, **decoder: object) -> SmpModel:
    encoder = {"model_name": model_name, "pretrained": False, "depth": depth}
    return SmpModel.model_validate({"architecture": architecture, "encoder_cfg": encoder, "decoder_cfg": decoder})


def test_the_table_has_every_architecture_of_the_spec():
    assert set(ARCHITECTURES) == set(get_args(SmpArchitecture))


@pytest.mark.parametrize("depth", [3, 5])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_logits_of_the_images_size_and_starts_at_the_prior(architecture, depth):
    segmenter = build_model(baseline(architecture, depth)).eval()
    with torch.no_grad():
        logits = segmenter(torch.rand(1, 3, 128, 160))
    assert logits.shape == (1, 1, 128, 160)
    assert segmenter.built()["encoder_cfg.depth"] == depth
    bias = next(parameter for name, parameter in segmenter.named_parameters() if "segmentation_head.0.bias" in name)
    assert torch.sigmoid(bias).item() == pytest.approx(0.03)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_trains_at_its_smallest_batch_and_at_no_smaller_one(architecture):
    segmenter = build_model(baseline(architecture)).train()
    assert segmenter(torch.rand(segmenter.min_batch_size, 3, 128, 128)).requires_grad
    if segmenter.min_batch_size > 1:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            segmenter(torch.rand(1, 3, 128, 128))


def test_unet_small_is_small():
    segmenter = build_model(baseline("unet", 4, channels=(64, 32, 16, 16)))
    assert 150_000 < segmenter.built()["num_parameters"] < 300_000


@pytest.mark.parametrize("architecture", ["unet", "unetplusplus", "manet"])
def test_decoder_channels_reach_the_blocks(architecture):
    spec = baseline(architecture, 3, channels=(40, 24, 8))
    assert build_model(spec).built()["decoder_cfg.channels"] == (40, 24, 8)


def test_atrous_rates_reach_the_convolutions_and_the_encoder_stays_at_sixteenth():
    facts = build_model(baseline("deeplabv3plus", atrous_rates=(3, 6, 9))).built()
    assert facts["decoder_cfg.atrous_rates"] == (3, 6, 9)
    assert facts["encoder.output_stride"] == 16


def test_a_setting_that_did_not_reach_the_network_stops_the_run():
    segmenter = build_model(baseline("deeplabv3plus", atrous_rates=(3, 6, 9)))
    for other in (
        baseline("deeplabv3plus", atrous_rates=(3, 6, 12)),
        baseline("deeplabv3"),
        baseline("deeplabv3plus", 4),
        baseline("deeplabv3plus", model_name="test_resnet"),
    ):
        with pytest.raises(TrainingError, match="network that was built has"):
            check_built(segmenter, other)


def test_two_rates_are_refused_in_words():
    with pytest.raises(SpecError, match="must be three rates"):
        build_model(baseline("deeplabv3plus", atrous_rates=(3, 6)))


def test_an_encoder_that_cannot_be_dilated_is_refused_in_words():
    with pytest.raises(SpecError, match="which deeplabv3plus cannot dilate"):
        build_model(baseline("deeplabv3plus", model_name="swinv2_tiny_window8_256"))


@pytest.mark.parametrize(("name", "stages"), [("resnet18", 5), (TINY, 5), ("mobilenetv3_small_050", 5)])
def test_encoder_stages_hold_each_encoder_weight_once(name, stages):
    segmenter = build_model(baseline("unet", model_name=name))
    found = segmenter.encoder_stages()
    assert len(found) == stages
    flat = [id(parameter) for stage in found for parameter in stage]
    assert sorted(flat) == sorted(id(parameter) for parameter in segmenter.encoder.parameters())


@pytest.mark.parametrize("name", ["resnet10t", TINY])
def test_activation_checkpointing_gives_the_same_gradients_and_counts_batch_statistics_once(name):
    torch.manual_seed(0)
    plain = build_model(baseline("unet", model_name=name)).train()
    saving = copy.deepcopy(plain)
    saving.set_activation_checkpointing(True)
    saving.set_activation_checkpointing(True)
    images = torch.rand(2, 3, 64, 64)
    for segmenter in (plain, saving):
        torch.manual_seed(1)
        segmenter(images).square().mean().backward()
    for (key, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)
    for (key, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=f"{key} was updated twice")
