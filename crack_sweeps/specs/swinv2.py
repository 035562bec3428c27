"""Whether timm has the SwinV2 that a spec names, by a generated table: no timm, no torch, no GPU time."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.experiment import HybridModel
from crack_sweeps.specs.words import listed, nearest, shown

TABLE = Path(__file__).with_name("tables") / "swinv2.json"


@cache
def encoders() -> dict[str, dict[str, Any]]:
    """timm's SwinV2 encoders: name to window, img_size, embed_dim, depths, pretrained."""
    table: dict[str, dict[str, dict[str, Any]]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table["encoders"]


def check_model(model: HybridModel) -> None:
    """Refuses an encoder that timm does not have.

    Sizes need no check here: timm pads maps to whole windows, so that every multiple of 32 px works, which the field
    itself demands (measured with every window, 64..768 px).
    """
    name = model.encoder_cfg.model_name
    known = encoders()
    if name in known:
        return
    if name.startswith("swinv2_cr_"):
        raise SpecError(
            f"{name!r} is timm's other SwinV2, whose maps the hybrid does not read",
            hint="take one without `cr`, such as swinv2_tiny_window16_256",
        )
    close = nearest(name, known)
    hint = f"did you mean `{close}`?" if close else f"there are {listed(known, 'and')}"
    raise SpecError(f"timm has no SwinV2 called {shown(name)}", hint=hint)
