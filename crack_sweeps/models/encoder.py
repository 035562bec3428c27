"""A SwinV2 of timm as an encoder, at any image size: four maps, channels first."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_sweeps.errors import SpecError
from crack_sweeps.models.segmenter import stages_by_resolution
from crack_sweeps.models.weights import timm_weights

Maps = tuple[
    Float[Tensor, "B c2 H//4 W//4"],
    Float[Tensor, "B c3 H//8 W//8"],
    Float[Tensor, "B c4 H//16 W//16"],
    Float[Tensor, "B c5 H//32 W//32"],
]


class SwinEncoder(nn.Module):
    """SwinV2 without its classifier.

    Args:
        model_name: A SwinV2 of timm.
        weights: A checked file of weights in timm's or Microsoft's format; None starts from scratch.
        img_size: Side of the square images that attention masks and position tables are built for, px.
        drop_path_rate: Stochastic depth of the last block; earlier blocks less, down to 0.
    """

    def __init__(self, model_name: str, *, weights: Path | None, img_size: int, drop_path_rate: float) -> None:
        super().__init__()
        self.features = timm.create_model(
            model_name,
            features_only=True,
            img_size=img_size,
            drop_path_rate=drop_path_rate,
            pretrained_window_sizes=_windows_of_the_weights(model_name),
            **timm_weights(weights),
        )

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the maps at /4, /8, /16 and /32."""
        return tuple(self.features.feature_info.channels())

    @property
    def img_size(self) -> int:
        """Side of the images that it takes, px."""
        return int(self.features["patch_embed"].img_size[0])

    @property
    def windows(self) -> tuple[int, ...]:
        """Side of the attention windows of each stage, cells."""
        return tuple(stage.blocks[0].window_size[0] for stage in self._stages())

    @property
    def drop_path_rate(self) -> float:
        """Of the last block."""
        last = self._stages()[-1].blocks[-1].drop_path2
        return 0.0 if isinstance(last, nn.Identity) else round(float(last.drop_prob), 6)  # timm computes it in float32

    def parameter_stages(self) -> list[list[nn.Parameter]]:
        """From input to deep; the patch embedding is in the first."""
        return stages_by_resolution(self.features, self.features.feature_info.module_name())

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Block by block: timm's own switch on a feature extractor recomputes whole stages and spares the deepest."""
        for stage in self._stages():
            stage.grad_checkpointing = enabled

    def _stages(self) -> list[Any]:
        return [self.features[f"layers_{index}"] for index in range(4)]

    def forward(self, image_B3HW: Float[Tensor, "B 3 H W"]) -> Maps:
        side = self.img_size
        if image_B3HW.shape[2:] != (side, side):
            height, width = image_B3HW.shape[2:]
            raise ValueError(f"this encoder is built for {side}x{side} px and was given {height}x{width}")
        quarter, eighth, sixteenth, deep = self.features(image_B3HW)  # B h w c, as SwinV2 computes
        # Views: in memory the maps stay channels-last, which convolutions like.
        return _permuted(quarter), _permuted(eighth), _permuted(sixteenth), _permuted(deep)


def _permuted(x_BHWC: Tensor) -> Tensor:
    return x_BHWC.permute(0, 3, 1, 2)


@cache
def _windows_of_the_weights(model_name: str) -> tuple[int, ...]:
    """The window of each stage that timm's weights learned their position biases for.

    The bias is a function of offset / window. At another img_size the deepest stage's window changes (it is cut to
    the map), and without this every learned offset would be stretched with it. The same whether weights are loaded or
    not: the tables are no part of a checkpoint, so they must follow from the model's name and size alone.
    """
    with torch.device("meta"):
        native = timm.create_model(model_name, features_only=True)
    if "layers_3" not in native:
        raise SpecError(
            f"`model.encoder_cfg.model_name` is {model_name}, which is not SwinV2 as its authors released it",
            hint="swinv2_tiny_window8_256 is the smallest of those that work; timm's swinv2_cr_* is another network",
        )
    attentions = [native[f"layers_{index}"].blocks[0].attn for index in range(4)]
    return tuple(attn.pretrained_window_size[0] or attn.window_size[0] for attn in attentions)
