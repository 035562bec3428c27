"""Shared by all tests: where real photos are, shape checks at run time, few threads."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from jaxtyping import install_import_hook  # after the line above, which albumentations reads when imported

SHAPE_CHECKED = ["crack_sweeps.models", "crack_sweeps.training.losses", "crack_sweeps.evaluation"]
install_import_hook(SHAPE_CHECKED, "beartype.beartype")

for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if (
        signal.getsignal(number) is signal.SIG_IGN
    ):  # `nohup pytest`, or `pytest &` in a script: children would ignore it
        signal.signal(number, handler)

REPO = Path(__file__).resolve().parent.parent


def real_photos(name: str) -> Path:
    """The folder of a real data set, or a skip that says where it was looked for."""
    root = Path(os.environ.get("CRACK_SWEEPS_DATA", REPO.parent / "shared" / "data"))
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"no real photos at {folder}; set CRACK_SWEEPS_DATA to the folder that holds {name}/")
    return folder


@pytest.fixture(scope="session")
def deepcrack() -> Path:
    return real_photos("deepcrack")


@pytest.fixture(scope="session")
def crackforest() -> Path:
    return real_photos("crackforest")
