"""Type a command in an empty folder and see exit code, stdout and stderr."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from crack_sweeps.cli.app import run_command_line


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "SWEEPS_STORE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def sweeps(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run `sweeps ...` in this process, in an empty folder."""

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = run_command_line(list(arguments))
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run


@pytest.fixture
def photos(here: Path) -> Path:
    """Ten 64x48 px photos with one dark line each, as images/ and masks/."""
    rng = np.random.default_rng(0)
    folder = here / "photos"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(10):
        image = rng.integers(120, 180, (48, 64, 3), dtype=np.uint8)
        mask = np.zeros((48, 64), np.uint8)
        cv2.line(mask, (0, 4 + 4 * number), (63, 44 - 4 * number), 255, 2)
        image[mask > 0] //= 3
        cv2.imwrite(str(folder / "images" / f"p{number}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"p{number}.png"), mask)
    return folder
