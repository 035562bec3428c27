"""Pretrained encoder weights: find the file, download it once, refuse what does not fit the model."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from timm.models import load_state_dict
from timm.models.swin_transformer_v2 import SwinTransformerV2, checkpoint_filter_fn
from torch import Tensor

from crack_sweeps.errors import WeightsError

KEY = "model.encoder_cfg"
PROBE_TIMEOUT_S = 5.0  # asked once; the download itself would retry for the better part of a minute
DEFAULT_FILE = "model.safetensors"  # of every timm model on the hub

# Every failure to reach the hub is one of these: its client's errors share the base that HfHubHTTPError has.
HUB_ERRORS: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__bases__)
# What a damaged, foreign or malicious file ends in when it is read without running anything that it contains.
FILE_ERRORS = (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)


def find_weights(model_name: str, *, pretrained: bool, checkpoint_path: Path | None) -> Path | None:
    """The file to load into the encoder, checked against the model; None to start from scratch.

    A checkpoint that is named is loaded, whatever `pretrained` says. A download that is in the cache asks no network.

    Raises:
        WeightsError: No such file, no network, or weights of another model.
    """
    if checkpoint_path is not None:
        if not checkpoint_path.is_file():
            raise WeightsError(
                f"`{KEY}.checkpoint_path` is {checkpoint_path}, and there is no such file", hint=_other_ways(model_name)
            )
        file = checkpoint_path
    elif pretrained:
        file = _download(model_name)
    else:
        return None
    _check(file, model_name)
    return file


def timm_weights(file: Path | None) -> dict[str, Any]:
    """The arguments that make `timm.create_model` load a local file, or nothing."""
    if file is None:
        return {"pretrained": False}
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}


def _download(model_name: str) -> Path:
    source = _hub_source(model_name)
    if source is None:
        raise WeightsError(
            f"`{KEY}.pretrained` is true, but timm has no weights for {model_name}",
            hint=f"train from scratch with {KEY}.pretrained=false, or name {KEY}.checkpoint_path",
        )
    repo, filename = source
    cached = try_to_load_from_cache(repo, filename)
    if isinstance(cached, str):
        return Path(cached)
    try:
        get_hf_file_metadata(hf_hub_url(repo, filename), timeout=PROBE_TIMEOUT_S)
        return Path(hf_hub_download(repo, filename))
    except HUB_ERRORS as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"`{KEY}.pretrained` is true, but the weights of {model_name} could not be downloaded: {reason}",
            hint=_other_ways(model_name),
        ) from error


def _hub_source(model_name: str) -> tuple[str, str] | None:
    """Repository and file name on the hub."""
    config = timm.models.get_pretrained_cfg(model_name, allow_unregistered=True)
    if config is None or not config.hf_hub_id:
        return None
    return config.hf_hub_id, config.hf_hub_filename or DEFAULT_FILE


def _other_ways(model_name: str) -> str:
    source = _hub_source(model_name)
    bring = f"bring {hf_hub_url(*source)} here and name it" if source else "name a file of weights"
    return f"{bring}: {KEY}.checkpoint_path=FILE; or train from scratch: {KEY}.pretrained=false"


def _check(file: Path, model_name: str) -> None:
    """Every weight of the encoder is in the file, in its shape; timm alone would pass over those that are not."""
    given = _read(file)
    with torch.device("meta"):
        model = timm.create_model(model_name)
    if isinstance(model, SwinTransformerV2):
        given = checkpoint_filter_fn(given, model)  # Microsoft's own files name some layers differently
    classifier = model.pretrained_cfg["classifier"]
    heads = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    needed = {
        name: tensor.shape
        for name, tensor in model.state_dict().items()
        if not name.startswith(heads) and not name.endswith("num_batches_tracked")  # that one is a mere counter
    }
    wrong = [name for name, shape in needed.items() if name not in given or given[name].shape != shape]
    if wrong:
        there = "in another shape" if wrong[0] in given else "missing"
        raise WeightsError(
            f"{file} does not hold the weights of {model_name}: {len(wrong)} of {len(needed)} do not fit, "
            f"`{wrong[0]}` is {there}",
            hint=_other_ways(model_name),
        )
    foreign = [name for name in given if name not in model.state_dict() and not name.startswith(heads)]
    if foreign:
        raise WeightsError(
            f"{file} does not hold the weights of {model_name}: it has {len(foreign)} that the model lacks, "
            f"such as `{foreign[0]}`",
            hint=_other_ways(model_name),
        )


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a PyTorch checkpoint; nothing in it is executed."""
    try:
        state: dict[str, Tensor] = load_state_dict(str(file), weights_only=True)
    except FILE_ERRORS as error:
        blocked = isinstance(error.__cause__, pickle.UnpicklingError)
        reason = "it holds more than tensors, and is not run" if blocked else "it is damaged, or no checkpoint"
        raise WeightsError(
            f"{file} cannot be read as weights: {reason}",
            hint="a .safetensors file, or a state dict saved by torch.save, is what is read",
        ) from error
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(
            f"{file} cannot be read as weights: it is not a table of tensors",
            hint="a .safetensors file, or a state dict saved by torch.save, is what is read",
        )
    return state
