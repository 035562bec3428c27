"""The fingerprint changes with the mathematics of an experiment and with nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from crack_sweeps.specs.experiment import Experiment, HybridModel, SmpModel
from crack_sweeps.specs.fingerprint import NO_MATHEMATICS, canonical, fingerprint
from crack_sweeps.specs.loading import resolve
from crack_sweeps.specs.overrides import apply_overrides, parse_override
from crack_sweeps.specs.settings import dotted, leaves

EVERY_TERM = [f"training.loss.{term}_weight=0.5" for term in ("focal", "dice", "bce", "tversky", "cldice")]
HYBRID = {"name": "x", "model": {"architecture": "swinv2_hybrid"}}
UNET = {
    "name": "x",
    "model": {"architecture": "unet", "encoder_cfg": {"depth": 3}, "decoder_cfg": {"channels": [8, 8, 8]}},
}
DEEPLAB = {"name": "x", "model": {"architecture": "deeplabv3plus"}}

# Another valid value of each setting; `data.crop_px` moves with img_size, so it is tried on the U-Net.
OTHER = {
    "name": "y", "model.encoder_cfg.model_name": "swinv2_tiny_window8_256", "model.encoder_cfg.pretrained": "false",
    "model.encoder_cfg.checkpoint_path": "w.safetensors", "model.encoder_cfg.img_size": "320",
    "model.encoder_cfg.drop_path_rate": "0.2", "model.bottleneck_cfg.out_channels": "128",
    "model.bottleneck_cfg.atrous_rates": "1,2",
    "model.bottleneck_cfg.stride": "16", "model.bottleneck_cfg.dropout": "0.3",
    "model.decoder_cfg.use_cbam": "false", "model.decoder_cfg.upsample_mode": "transposed",
    "model.decoder_cfg.full_resolution_skips": "false", "model.decoder_cfg.width_multiplier": "1.0",
    "model.norm": "batch",
    "training.learning_rate": "0.5", "training.encoder_lr_multiplier": "0.5", "training.layer_decay": "0.5",
    "training.weight_decay": "0.5", "training.batch_size": "2", "training.gradient_accumulation_steps": "2",
    "training.use_amp": "false", "training.amp_dtype": "float16",
    "training.epochs": "7", "training.steps_per_epoch": "7",
    "training.schedule": "poly", "training.warmup_fraction": "0.5", "training.min_lr_fraction": "0.5",
    "training.gradient_clip_norm": "null", "training.ema_decay": "0.5", "training.early_stopping_patience": "null",
    "training.monitor": "val/recall",
    "training.seed": "7", "training.activation_checkpointing": "true", "training.channels_last": "false",
    "training.compile": "true", "training.deterministic": "false", "training.loss.focal_weight": "0.7",
    "training.loss.dice_weight": "0.7", "training.loss.focal_alpha": "null", "training.loss.focal_gamma": "1.0",
    "training.loss.dice_smooth": "2.0", "training.loss.bce_weight": "0.7", "training.loss.tversky_weight": "0.7",
    "training.loss.tversky_alpha": "0.7", "training.loss.tversky_beta": "0.3", "training.loss.tversky_gamma": "1.0",
    "training.loss.cldice_weight": "0.7", "training.loss.cldice_iterations": "7", "data.path": "photos",
    "data.sets": "{path: a}, {path: b, weight: 2.0}",
    "data.mask.crack_values": "2", "data.mask.threshold": "9", "data.mask.invert": "true", "data.mask.channel": "red",
    "data.split_seed": "7", "data.val_fraction": "0.5", "data.group_pattern": "(a)", "data.crack_crop_fraction": "0.5",
    "data.cache_gib": "7.0", "data.num_workers": "7", "data.loader_timeout_s": "7.0",
    "data.transform.augmentations": "A.VerticalFlip(p=0.5)", "evaluation.tile_overlap": "0.5",
    "evaluation.images_per_epoch": "7", "evaluation.num_overlays": "7",
}  # fmt: skip
OTHER_SMP = {
    "model.architecture": "manet", "model.encoder_cfg.model_name": "resnet18", "model.encoder_cfg.depth": "4",
    "model.decoder_cfg.channels": "4,4,4", "model.decoder_cfg.atrous_rates": "1,2,3", "data.crop_px": "512",
    "evaluation.tile_px": "512",
}  # fmt: skip


def made(spec: dict[str, Any], *overrides: str) -> Experiment:
    return Experiment.model_validate(apply_overrides(spec, [parse_override(text) for text in overrides]))


def test_the_cases_below_cover_every_setting() -> None:
    named = {dotted(keys) for family in (HybridModel, SmpModel) for keys in leaves(family)}
    assert named - {*OTHER, *OTHER_SMP} == set()


@pytest.mark.parametrize("key", OTHER)
def test_a_setting_changes_the_fingerprint_exactly_if_it_changes_the_mathematics(key: str) -> None:
    before = made(HYBRID, *(text for text in EVERY_TERM if not text.startswith(f"{key}=")))
    after = made(HYBRID, f"{key}={OTHER[key]}", *(text for text in EVERY_TERM if not text.startswith(f"{key}=")))
    # A file of weights stands for the download: with `pretrained: true` it is the same mathematics.
    neutral = key in NO_MATHEMATICS or key == "model.encoder_cfg.checkpoint_path"
    assert (fingerprint(before) == fingerprint(after)) is neutral


@pytest.mark.parametrize("key", OTHER_SMP)
def test_a_baselines_own_settings_are_in_its_fingerprint(key: str) -> None:
    spec = DEEPLAB if key.endswith(("atrous_rates", "depth")) else UNET
    assert fingerprint(made(spec)) != fingerprint(made(spec, f"{key}={OTHER_SMP[key]}"))


def test_accumulation_is_the_large_batch_without_batch_norm_and_another_experiment_with_it() -> None:
    split = ("training.batch_size=2", "training.gradient_accumulation_steps=8")
    assert fingerprint(made(HYBRID)) == fingerprint(made(HYBRID, *split))
    assert fingerprint(made(UNET)) != fingerprint(made(UNET, *split))
    assert fingerprint(made(HYBRID, "model.norm=batch")) != fingerprint(made(HYBRID, "model.norm=batch", *split))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((), ("data.crop_px=256",)),
        ((), ("evaluation.tile_px=256",)),
        ((), ("training.loss.tversky_gamma=2.0",)),
        (("data.transform.augmentations=A.Blur(3,p=1)",), ("data.transform.augmentations=A.Blur(p=1, blur_limit=3)",)),
    ],
)
def test_two_ways_of_saying_the_same_are_one(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert canonical(made(HYBRID, *one)) == canonical(made(HYBRID, *other))


def test_a_fingerprint_is_12_hexadecimal_digits_and_the_same_tomorrow() -> None:
    # Recorded from this code: it names runs on people's disks, so a change of it must be meant.
    assert fingerprint(resolve("unet_small", profile="none").experiment) == "49eeb2b4f78c"
