"""The hybrid as a whole: sizes, gradients, settings that reach the modules, cost."""

from __future__ import annotations

import copy

import pytest
import timm
import torch

from crack_sweeps.errors import SpecError, TrainingError
from crack_sweeps.models.build import build_model, check_built
from crack_sweeps.models.cost import count_parameters, flops
from crack_sweeps.models.encoder import SwinEncoder
from crack_sweeps.models.hybrid import dead_rate_warnings
from crack_sweeps.specs.experiment import HybridModel

WINDOW_8 = "swinv2_tiny_window8_256"
WINDOW_16 = "swinv2_tiny_window16_256"


def hybrid(
    img_size: int = 64, model_name: str = WINDOW_8, norm: str = "group", **parts: dict[str, object]
) -> HybridModel:
    encoder = {"model_name": model_name, "pretrained": False, "img_size": img_size}
    bottleneck = {"out_channels": 32, "atrous_rates": (1, 2), **parts.get("bottleneck_cfg", {})}
    decoder = {"width_multiplier": 0.25, **parts.get("decoder_cfg", {})}
    return HybridModel.model_validate(
        {"encoder_cfg": encoder, "bottleneck_cfg": bottleneck, "decoder_cfg": decoder, "norm": norm}
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(hybrid())


@pytest.mark.parametrize(
    ("name", "img_size"),
    [
        (WINDOW_8, 128),
        (WINDOW_16, 96),
        *(
            pytest.param(name, size, marks=pytest.mark.slow)
            for name in (WINDOW_8, WINDOW_16)
            for size in (224, 256, 320, 352, 480, 512)
        ),
    ],
)
def test_logits_have_the_size_of_the_image_at_sizes_that_the_windows_do_not_divide(name, img_size):
    segmenter = build_model(hybrid(img_size, name)).eval()
    with torch.no_grad():
        assert segmenter(torch.rand(1, 3, img_size, img_size)).shape == (1, 1, img_size, img_size)
    assert segmenter.built()["encoder_cfg.img_size"] == img_size


@pytest.mark.parametrize(
    "parts",
    [
        {"bottleneck_cfg": {"stride": 16, "atrous_rates": (1, 3)}},
        {"decoder_cfg": {"upsample_mode": "transposed", "use_cbam": False}},
        {"decoder_cfg": {"upsample_mode": "pixel_shuffle", "width_multiplier": 0.3}},
        {"decoder_cfg": {"full_resolution_skips": False}},
        {"norm": "batch"},
    ],
    ids=str,
)
def test_every_setting_builds_a_network_that_learns_in_all_its_parts_from_a_batch_of_one(parts):
    torch.manual_seed(0)
    segmenter = build_model(hybrid(**parts)).train()  # build_model has read every setting back
    logits = segmenter(torch.rand(1, 3, 64, 64))
    assert logits.shape == (1, 1, 64, 64)
    logits.square().sum().backward()
    without = [name for name, parameter in segmenter.named_parameters() if parameter.grad is None]
    assert without == []


def test_a_setting_that_did_not_reach_the_network_stops_the_run(model):
    check_built(model, hybrid())
    for other in (
        hybrid(bottleneck_cfg={"atrous_rates": (1, 3)}),
        hybrid(bottleneck_cfg={"stride": 16}),
        hybrid(bottleneck_cfg={"dropout": 0.3}),
        hybrid(decoder_cfg={"use_cbam": False}),
        hybrid(decoder_cfg={"upsample_mode": "transposed"}),
        hybrid(decoder_cfg={"full_resolution_skips": False}),
        hybrid(decoder_cfg={"width_multiplier": 1.0}),
        hybrid(img_size=96),
        hybrid(model_name=WINDOW_16),
        hybrid(norm="batch"),
    ):
        with pytest.raises(TrainingError, match="network that was built has"):
            check_built(model, other)


def test_the_first_guess_is_the_share_of_crack_pixels(model):
    with torch.no_grad():
        mean = model.eval()(torch.rand(2, 3, 64, 64)).sigmoid().mean().item()
    assert 0.01 < mean < 0.1


def test_an_image_of_another_size_is_refused_with_both_sizes(model):
    with pytest.raises(ValueError, match="built for 64x64 px and was given 96x96"):
        model(torch.rand(1, 3, 96, 96))


def test_a_samples_logits_do_not_depend_on_its_neighbours_in_the_batch(model):
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        together, alone = model.eval()(images), torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_activation_checkpointing_gives_the_same_gradients():
    torch.manual_seed(0)
    plain = build_model(hybrid(norm="batch")).train()
    saving = copy.deepcopy(plain)
    saving.set_activation_checkpointing(True)
    images = torch.rand(2, 3, 64, 64)
    for segmenter in (plain, saving):
        torch.manual_seed(1)  # dropout and stochastic depth
        segmenter(images).square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=f"{name} was updated twice")


def test_activation_checkpointing_keeps_fewer_activations(model):
    kept: list[int] = []
    segmenter = copy.deepcopy(model).train()
    for enabled in (False, True):
        segmenter.set_activation_checkpointing(enabled)
        sizes: dict[int, int] = {}

        def pack(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            segmenter(torch.rand(1, 3, 64, 64))
        kept.append(sum(sizes.values()))
    assert kept[1] < 0.5 * kept[0]


def test_encoder_stages_hold_each_encoder_weight_once_from_input_to_deep(model):
    stages = model.encoder_stages()
    assert len(stages) == 4
    flat = [id(parameter) for stage in stages for parameter in stage]
    assert sorted(flat) == sorted(id(parameter) for parameter in model.encoder.parameters())
    assert any(parameter is model.encoder.features["patch_embed"].proj.weight for parameter in stages[0])
    assert any(parameter is model.encoder.features["layers_3"].blocks[1].norm2.weight for parameter in stages[3])


def test_at_its_native_size_the_encoder_is_timms_own():
    torch.manual_seed(0)
    ours = SwinEncoder(WINDOW_16, weights=None, img_size=256, drop_path_rate=0.1).eval()
    theirs = timm.create_model(WINDOW_16, features_only=True, pretrained=False).eval()
    theirs.load_state_dict(ours.features.state_dict())
    image = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        for a, b in zip(ours(image), theirs(image), strict=True):
            torch.testing.assert_close(a, b.permute(0, 3, 1, 2))


def test_a_learned_offset_means_the_same_number_of_cells_at_every_size():
    def deepest(img_size: int) -> torch.Tensor:
        with torch.device("cpu"):
            encoder = SwinEncoder(WINDOW_16, weights=None, img_size=img_size, drop_path_rate=0.0)
        return encoder.features["layers_3"].blocks[0].attn.relative_coords_table[0]

    native, small = deepest(256), deepest(128)  # windows of 8 and 4 cells: offsets -7..7 and -3..3
    torch.testing.assert_close(small, native[4:-4, 4:-4])


def test_a_name_may_carry_the_tag_of_its_weights():
    assert build_model(hybrid(model_name=f"{WINDOW_8}.ms_in1k")).built()["encoder_cfg.model_name"] == WINDOW_8


@pytest.mark.parametrize("name", ["swinv2_cr_tiny_224", "resnet50"])
def test_an_encoder_that_is_not_swinv2_is_refused_in_words(name):
    with pytest.raises(SpecError, match="which is not SwinV2"):
        build_model(hybrid(model_name=name))


def test_dead_rates_are_told_with_the_map_and_the_way_out():
    spec = hybrid(256, bottleneck_cfg={"atrous_rates": (1, 6, 12, 18)})
    (line,) = dead_rate_warnings(spec)
    assert "8x8 cells: 12, 18 reach past it" in line
    assert dead_rate_warnings(hybrid(128)) == []


def test_flops_are_those_of_a_convolution_counted_by_hand():
    conv = torch.nn.Conv2d(3, 4, 3, padding=1)
    assert flops(conv, 8) == 2 * 8 * 8 * 4 * 3 * 9
    assert count_parameters(conv) == 4 * 3 * 9 + 4


def test_counting_the_cost_leaves_the_model_as_it_was(model):
    model.train()
    before = [parameter.clone() for parameter in model.parameters()]
    assert flops(model, 64) > 1e8
    assert model.training
    for parameter, was in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, was)
