"""Whether timm has the SwinV2 that a spec names, by a generated table: no timm, no torch, no GPU time."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.experiment import HybridModel
from crack_sweeps.specs.settings import nearest

TABLE = Path(__file__).with_name("tables") / "swinv2.json"


@cache
def encoders() -> dict[str, dict[str, Any]]:
    """timm's SwinV2 encoders: name to window, img_size, embed_dim, depths, pretrained."""
    table: dict[str, dict[str, dict[str, Any]]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table["encoders"]


def check_model(model: HybridModel) -> None:
    """Refuses an encoder that timm does not have, or pretrained weights that nobody has made.

    Sizes need no check here: the windows pad, so every multiple of 32 px works, which the field itself demands.
    """
    encoder = model.encoder_cfg
    known = encoders()
    if encoder.model_name not in known:
        close = nearest(encoder.model_name, known)
        hint = f"did you mean `{close}`?" if close else f"such as {', '.join(_with_weights()[:3])}"
        raise SpecError(f"timm has no SwinV2 called {encoder.model_name!r}", hint=hint)
    if encoder.pretrained and encoder.checkpoint_path is None and not known[encoder.model_name]["pretrained"]:
        raise SpecError(
            f"timm has no weights for {encoder.model_name!r}",
            hint=f"take {nearest(encoder.model_name, _with_weights()) or _with_weights()[0]}, "
            "or set model.encoder_cfg.pretrained=false",
        )


def _with_weights() -> list[str]:
    return [name for name, encoder in encoders().items() if encoder["pretrained"]]
