"""Pretrained weights: loaded where they fit, refused in one line where they do not."""

from __future__ import annotations

import os
import time

import pytest
import timm
import torch
from safetensors.torch import save_file

from crack_sweeps.errors import WeightsError
from crack_sweeps.models import weights
from crack_sweeps.models.build import build_model
from crack_sweeps.specs.experiment import HybridModel, SmpModel

TINY = "test_efficientnet"


def unet(checkpoint=None, *, pretrained=False) -> SmpModel:
    encoder = {"model_name": TINY, "pretrained": pretrained, "checkpoint_path": checkpoint}
    return SmpModel.model_validate({"architecture": "unet", "encoder_cfg": encoder})


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(7)
    return timm.create_model(TINY, pretrained=False).state_dict()


def first_weight(segmenter):
    return next(segmenter.encoder.parameters())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_timms_is_loaded_into_the_encoder(tmp_path, state, suffix):
    file = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state}, file)
    assert torch.equal(first_weight(build_model(unet(file))), state["conv_stem.weight"])


def test_swinv2_weights_load_at_another_size(tmp_path):
    name = "swinv2_tiny_window16_256"
    torch.manual_seed(7)
    state = timm.create_model(name, pretrained=False).state_dict()
    file = tmp_path / "model.safetensors"
    save_file(state, file)
    encoder = {"model_name": name, "pretrained": True, "checkpoint_path": file, "img_size": 64}
    segmenter = build_model(HybridModel.model_validate({"encoder_cfg": encoder}))
    loaded = segmenter.encoder.features.state_dict()
    renamed = {key.replace("layers.", "layers_", 1): value for key, value in state.items()}
    assert loaded
    for key, value in loaded.items():
        assert torch.equal(value, renamed[key]), key


def refused(file, match):
    with pytest.raises(WeightsError, match=match) as caught:
        build_model(unet(file))
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_a_file_that_is_not_there_is_named(tmp_path):
    error = refused(tmp_path / "absent.pth", "there is no such file")
    assert "absent.pth" in error.message
    assert "pretrained=false" in error.hint


def test_weights_of_another_architecture_are_refused(tmp_path):
    file = tmp_path / "resnet.safetensors"
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), file)
    refused(file, "does not hold the weights of test_efficientnet")


def test_weights_that_are_only_in_part_there_are_refused(tmp_path, state):
    file = tmp_path / "part.pth"
    torch.save({key: value for key, value in state.items() if "blocks.2" not in key}, file)
    refused(file, "is missing")


def test_weights_in_another_shape_are_refused(tmp_path, state):
    file = tmp_path / "wide.pth"
    torch.save({**state, "conv_stem.weight": torch.zeros(99, 3, 3, 3)}, file)
    refused(file, "1 of .* do not fit, `conv_stem.weight` is in another shape")


def test_weights_with_more_than_the_model_has_are_refused(tmp_path, state):
    file = tmp_path / "more.pth"
    torch.save({**state, "extra.weight": torch.zeros(1)}, file)
    refused(file, "1 that the model lacks, such as `extra.weight`")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, state, suffix, kept):
    file = tmp_path / f"cut{suffix}"
    if suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    refused(file, "cannot be read as weights: it is damaged, or no checkpoint")


def test_a_file_that_is_no_table_of_tensors_is_refused(tmp_path):
    file = tmp_path / "list.pth"
    torch.save([1, 2, 3], file)
    refused(file, "cannot be read as weights")


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_pickle_payload_is_refused_and_not_run(tmp_path):
    file, target = tmp_path / "evil.pth", str(tmp_path / "owned")
    torch.save({"state_dict": Payload(target)}, file)
    refused(file, "holds more than tensors, and is not run")
    assert not os.path.exists(target)


@pytest.fixture
def empty_cache(monkeypatch):
    """A hub whose cache has nothing and whose address does not answer."""
    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda *_args: None)
    monkeypatch.setattr(weights, "hf_hub_url", lambda repo, file: f"http://127.0.0.1:9/{repo}/{file}")


@pytest.mark.usefixtures("empty_cache")
def test_without_a_network_pretrained_weights_fail_in_seconds_and_name_the_file_to_bring():
    start = time.monotonic()
    with pytest.raises(WeightsError, match="weights of test_efficientnet could not be downloaded") as caught:
        build_model(unet(pretrained=True))
    assert time.monotonic() - start < 15
    assert "model.safetensors" in caught.value.hint
    assert "model.encoder_cfg.checkpoint_path=FILE" in caught.value.hint
    assert "model.encoder_cfg.pretrained=false" in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_weights_that_are_in_the_cache_ask_no_network(tmp_path, state, monkeypatch):
    file = tmp_path / "model.safetensors"
    save_file(state, file)
    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda *_args: str(file))
    monkeypatch.setattr(weights, "get_hf_file_metadata", lambda *_args, **_kwargs: pytest.fail("asked the network"))
    assert torch.equal(first_weight(build_model(unet(pretrained=True))), state["conv_stem.weight"])


def test_a_model_that_timm_has_no_weights_for_says_so():
    encoder = {"model_name": "efficientnet_b8", "pretrained": True}
    with pytest.raises(WeightsError, match="timm has no weights for efficientnet_b8"):
        build_model(SmpModel.model_validate({"architecture": "unet", "encoder_cfg": encoder}))
