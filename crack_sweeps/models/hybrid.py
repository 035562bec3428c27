"""The hybrid: SwinV2 sees the whole, ASPP the distances, the decoder and its stem bring back every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_sweeps.models.aspp import ASPP, dead_rates
from crack_sweeps.models.cbam import CBAM
from crack_sweeps.models.convolution import ConvNormAct, Norm, round_channels
from crack_sweeps.models.decoder import Decoder, DecoderStage
from crack_sweeps.models.encoder import SwinEncoder
from crack_sweeps.models.segmenter import Fact, Segmenter, count_batch_statistics_once, start_at_prior
from crack_sweeps.models.stem import Stem
from crack_sweeps.models.upsample import UPSAMPLES, UpsampleMode
from crack_sweeps.models.weights import find_weights
from crack_sweeps.specs.experiment import HybridModel


def decoder_widths(encoder_channels: Sequence[int], multiplier: float) -> tuple[int, ...]:
    """Decoder channels at /16, /8, /4, /2 and /1.

    The encoder's own pyramid, continued past /4 by its own rule (twice the size, half the channels), times the
    multiplier.
    """
    c4, c8, c16, _ = encoder_channels
    return tuple(round_channels(multiplier * channels) for channels in (c16, c8, c4, c4 / 2, c4 / 4))


class SwinHybrid(Segmenter):
    """SwinV2 encoder, ASPP, CNN decoder with skips at /16, /8, /4 and, from a stem of its own, /2 and /1."""

    def __init__(self, spec: HybridModel) -> None:
        cfg = spec.encoder_cfg
        encoder = SwinEncoder(
            cfg.model_name,
            weights=find_weights(cfg.model_name, pretrained=cfg.pretrained, checkpoint_path=cfg.checkpoint_path),
            img_size=cfg.img_size,
            drop_path_rate=cfg.drop_path_rate,
        )
        config = encoder.features.pretrained_cfg
        super().__init__(mean=config["mean"], std=config["std"])
        bottleneck, decoder, norm = spec.bottleneck_cfg, spec.decoder_cfg, spec.norm
        c4, c8, c16, c32 = encoder.channels
        w16, w8, w4, w2, w1 = decoder_widths(encoder.channels, decoder.width_multiplier)

        self.encoder: SwinEncoder = encoder
        self.stem = Stem(w1, w2, norm=norm) if decoder.full_resolution_skips else None
        skips, widths = [c16, c8, c4, *((w2, w1) if self.stem else (0, 0))], [w16, w8, w4, w2, w1]
        self.join = JoinSixteenth(c32, c16, mode=decoder.upsample_mode, norm=norm) if bottleneck.stride == 16 else None
        if self.join:  # the ASPP takes the /16 skip, so the decoder begins a stage later
            skips, widths = skips[1:], widths[1:]
        self.aspp = ASPP(
            c16 if self.join else c32,
            bottleneck.out_channels,
            bottleneck.atrous_rates,
            dropout=bottleneck.dropout,
            norm=norm,
        )
        self.decoder = Decoder(
            bottleneck.out_channels,
            skips,
            widths,
            use_cbam=decoder.use_cbam,
            upsample_mode=decoder.upsample_mode,
            norm=norm,
        )
        self.head = nn.Conv2d(w1, 1, 1)
        start_at_prior(self.head)

    def forward(self, image_B3HW: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
        image_B3HW = self.normalise(image_B3HW)
        full, half = self.stem(image_B3HW) if self.stem else (None, None)  # B w1 H W, B w2 H/2 W/2
        quarter, eighth, sixteenth, deep = self.encoder(image_B3HW)  # B c4 H/4 W/4 ... B c32 H/32 W/32
        skips = [sixteenth, eighth, quarter, half, full]
        if self.join:
            deep = self.join(deep, skips.pop(0))  # B c16 H/16 W/16
        x = self.aspp(deep)  # B out_channels H/32 W/32, or /16
        x = self.decoder(x, skips)  # B w1 H W
        logits: Tensor = self.head(x)
        return logits

    def encoder_stages(self) -> list[list[nn.Parameter]]:
        return self.encoder.parameter_stages()

    def set_activation_checkpointing(self, enabled: bool) -> None:
        count_batch_statistics_once(self.decoder)
        self.encoder.set_activation_checkpointing(enabled)
        self.decoder.checkpointing = enabled

    def built(self) -> dict[str, Fact]:
        stages = [stage for stage in self.decoder.stages if isinstance(stage, DecoderStage)]
        return {
            "architecture": "swinv2_hybrid",
            "encoder_cfg.model_name": self.encoder.features.pretrained_cfg["architecture"],
            "encoder_cfg.img_size": self.encoder.img_size,
            "encoder_cfg.drop_path_rate": self.encoder.drop_path_rate,
            "encoder.windows": self.encoder.windows,
            "encoder.channels": self.encoder.channels,
            "bottleneck_cfg.out_channels": self.aspp.project.conv.out_channels,
            "bottleneck_cfg.atrous_rates": self.aspp.atrous_rates,
            "bottleneck_cfg.stride": 32 if self.join is None else 16,
            "bottleneck_cfg.dropout": self.aspp.dropout.p,
            "decoder_cfg.use_cbam": any(isinstance(stage.attention, CBAM) for stage in stages),
            "decoder_cfg.upsample_mode": stages[0].upsample_mode,
            "decoder_cfg.full_resolution_skips": stages[-1].skip_channels > 0,
            "decoder.channels": tuple(stage.out_channels for stage in stages),
            "norm": "batch" if any(isinstance(module, nn.BatchNorm2d) for module in self.modules()) else "group",
            "num_parameters": sum(parameter.numel() for parameter in self.parameters()),
        }


class JoinSixteenth(nn.Module):
    """The /32 map brought up to /16 and joined with it, for an ASPP with four times the cells."""

    def __init__(self, deep_channels: int, channels: int, *, mode: UpsampleMode, norm: Norm) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(deep_channels, channels, 1)
        self.upsample = UPSAMPLES[mode](channels)
        self.fuse = ConvNormAct(2 * channels, channels, 1, norm=norm)

    def forward(
        self, deep_BDHW: Float[Tensor, "B d H W"], sixteenth_BCHW: Float[Tensor, "B c 2*H 2*W"]
    ) -> Float[Tensor, "B c 2*H 2*W"]:
        raised_BCHW = self.upsample(self.reduce(deep_BDHW))
        joined_BCHW: Tensor = self.fuse(torch.cat([raised_BCHW, sixteenth_BCHW], dim=1))
        return joined_BCHW


def dead_rate_warnings(spec: HybridModel) -> list[str]:
    """One line where an atrous rate does nothing on the map that it is applied to."""
    img_size, stride, rates = spec.encoder_cfg.img_size, spec.bottleneck_cfg.stride, spec.bottleneck_cfg.atrous_rates
    cells = img_size // stride
    dead = dead_rates(cells, rates)
    if not dead:
        return []
    return [
        f"`model.bottleneck_cfg.atrous_rates` is {list(rates)}, but the map at /{stride} of {img_size} px has "
        f"{cells}x{cells} cells: {', '.join(map(str, dead))} reach past it and are 1x1 convolutions; "
        f"rates below {cells} work{'; stride 16 doubles the cells' if stride == 32 else ''}"
    ]
