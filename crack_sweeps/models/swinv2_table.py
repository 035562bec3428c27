"""Writes specs/tables/swinv2.json: timm's SwinV2 encoders, so that a spec is checked without importing timm.

Run `python -m crack_sweeps.models.swinv2_table` after a new release of timm; a test compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch

TABLE = Path(__file__).resolve().parent.parent / "specs" / "tables" / "swinv2.json"


def make_table() -> dict[str, Any]:
    """Every SwinV2 of the timm that is installed, read back from the built model."""
    return {"version": timm.__version__, "encoders": {name: describe(name) for name in names()}}


def names() -> list[str]:
    """What timm calls its SwinV2 encoders; swinv2_cr_* is another implementation, which the hybrid does not read."""
    found: list[str] = timm.list_models("swinv2_*", exclude_filters="swinv2_cr_*")
    return found


def write_table(path: Path = TABLE) -> None:
    """Writes the table, one encoder a line."""
    table = make_table()
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in table["encoders"].items())
    path.write_text(f'{{"version": {json.dumps(table["version"])},\n"encoders": {{\n{lines}\n}}}}\n', encoding="utf-8")


def describe(name: str) -> dict[str, Any]:
    """Window at the native size (cells of the /4 map), native size (px), widths, and whether timm has weights."""
    with torch.device("meta"):  # shapes alone: the giant one has 2.6 billion weights
        model = timm.create_model(name, pretrained=False)
    config = timm.get_pretrained_cfg(name)
    assert config is not None, f"{name} is listed by timm, so it has a configuration"
    return {
        "window": int(model.layers[0].blocks[0].window_size[0]),
        "img_size": int(config.input_size[-1]),
        "embed_dim": int(model.feature_info[0]["num_chs"]),
        "depths": [len(stage.blocks) for stage in model.layers],
        "pretrained": bool(config.has_weights),
    }


if __name__ == "__main__":
    write_table()
