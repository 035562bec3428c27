"""Baselines of segmentation-models-pytorch over timm encoders, behind the interface of the hybrid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import segmentation_models_pytorch as smp
from jaxtyping import Float
from torch import Tensor, nn

from crack_sweeps.errors import SpecError
from crack_sweeps.models.interpolation import make_upsampling_deterministic
from crack_sweeps.models.segmenter import (
    Fact,
    Segmenter,
    count_batch_statistics_once,
    stages_by_resolution,
    start_at_prior,
)
from crack_sweeps.models.weights import find_weights, timm_weights
from crack_sweeps.specs.experiment import SmpArchitecture, SmpModel

ARCHITECTURES: dict[SmpArchitecture, Callable[..., nn.Module]] = {
    "unet": smp.Unet,
    "unetplusplus": smp.UnetPlusPlus,
    "manet": smp.MAnet,
    "linknet": smp.Linknet,
    "fpn": smp.FPN,
    "pspnet": smp.PSPNet,
    "deeplabv3": smp.DeepLabV3,
    "deeplabv3plus": smp.DeepLabV3Plus,
    "pan": smp.PAN,
    "upernet": smp.UPerNet,
}
DILATED = ("deeplabv3", "deeplabv3plus", "pan")  # they ask the encoder to keep a larger map by dilation
NORM_AFTER_GLOBAL_POOLING = ("deeplabv3", "deeplabv3plus", "pan", "upernet")  # batch norm of 1x1 maps needs two images
UNET_CHANNELS = (256, 128, 64, 32, 16)  # the library's default, which it has for depth 5 only


class Baseline(Segmenter):
    """An encoder-decoder of segmentation-models-pytorch, logits at full size."""

    def __init__(self, spec: SmpModel) -> None:
        network = _make_network(spec)
        make_upsampling_deterministic(network)
        config = network.encoder.model.pretrained_cfg
        super().__init__(mean=config["mean"], std=config["std"])
        self.network = network
        self.min_batch_size = 2 if spec.architecture in NORM_AFTER_GLOBAL_POOLING else 1
        start_at_prior(network.segmentation_head[0])

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]  # a plain attribute would register its weights twice
        """timm's feature extractor, as the library wraps it."""
        encoder: nn.Module = self.network.encoder
        return encoder

    def forward(self, image_B3HW: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
        logits_B1HW: Tensor = self.network(self.normalise(image_B3HW))
        return logits_B1HW

    def encoder_stages(self) -> list[list[nn.Parameter]]:
        features = self.network.encoder.model
        return stages_by_resolution(features, features.feature_info.module_name())

    def set_activation_checkpointing(self, enabled: bool) -> None:
        count_batch_statistics_once(self.network.encoder)
        self.network.encoder.model.set_grad_checkpointing(enabled)

    def built(self) -> dict[str, Fact]:
        architecture = next(name for name, kind in ARCHITECTURES.items() if type(self.network) is kind)
        facts: dict[str, Fact] = {
            "architecture": architecture,
            "encoder_cfg.model_name": self.network.encoder.name,
            "encoder_cfg.depth": len(self.network.encoder.out_channels) - 1,
            "encoder.channels": tuple(self.network.encoder.out_channels),
            "num_parameters": sum(parameter.numel() for parameter in self.parameters()),
        }
        if architecture in ("unet", "unetplusplus", "manet"):
            facts["decoder_cfg.channels"] = _decoder_channels(architecture, self.network.decoder.blocks)
        if architecture in ("deeplabv3", "deeplabv3plus"):
            facts["decoder_cfg.atrous_rates"] = _atrous_rates(self.network.decoder)
            facts["encoder.output_stride"] = self.network.encoder.output_stride
        return facts


def _make_network(spec: SmpModel) -> Any:
    cfg, architecture = spec.encoder_cfg, spec.architecture
    weights = find_weights(cfg.model_name, pretrained=cfg.pretrained, checkpoint_path=cfg.checkpoint_path)
    overlay = timm_weights(weights)
    try:
        return ARCHITECTURES[architecture](
            encoder_name=f"tu-{cfg.model_name}",
            encoder_weights=overlay.pop("pretrained") or None,
            encoder_depth=cfg.depth,
            **_decoder_settings(spec),
            **overlay,
        )
    except TypeError as error:
        if architecture not in DILATED or "output_stride" not in str(error):
            raise
        raise SpecError(
            f"`model.encoder_cfg.model_name` is {cfg.model_name}, which {architecture} cannot dilate",
            hint="convolutional encoders such as resnet50 can be dilated; unet takes any encoder",
        ) from error


def _decoder_settings(spec: SmpModel) -> dict[str, Any]:
    """What the spec sets, and what the library leaves wrong at depths other than its default."""
    depth, decoder = spec.encoder_cfg.depth, spec.decoder_cfg
    match spec.architecture:
        case "unet" | "unetplusplus" | "manet":
            return {"decoder_channels": decoder.channels or UNET_CHANNELS[-depth:]}
        case "fpn":  # its last map is at /4 of a depth of 5, at /2 of 4, at /1 of 3
            return {"upsampling": 2 ** (depth - 3)}
        case "pspnet":
            return {"upsampling": 2**depth}
        case "deeplabv3" | "deeplabv3plus" if decoder.atrous_rates is not None:
            if len(decoder.atrous_rates) != 3:
                raise SpecError(
                    f"`model.decoder_cfg.atrous_rates` is {list(decoder.atrous_rates)}, must be three rates "
                    f"for {spec.architecture}",
                    hint="the 1x1 branch and the pooling branch come on top of the three",
                )
            return {"decoder_atrous_rates": decoder.atrous_rates}
        case _:
            return {}


def _decoder_channels(architecture: str, blocks: Any) -> tuple[int, ...]:
    """Of each size, deep to shallow, from the last convolution of each block."""
    if architecture == "unetplusplus":  # a triangle of blocks; those of column 0 give the widths that were asked for
        blocks = [blocks[f"x_0_{row}"] for row in range(sum(name.startswith("x_0_") for name in blocks))]
    return tuple(block.conv2[0].out_channels for block in blocks)


def _atrous_rates(decoder: Any) -> tuple[int, ...]:
    """The dilations of the 3x3 branches; the 1x1 and the pooling branch have none."""
    aspp = next(module for module in decoder.modules() if type(module).__name__ == "ASPP")
    first_convs = [next(m for m in branch.modules() if isinstance(m, nn.Conv2d)) for branch in aspp.convs]
    return tuple(conv.dilation[0] for conv in first_convs if conv.kernel_size == (3, 3))
