"""The toy study for all tests of the search."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from stand_in_study import TOY, Bench, draw_photos


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture(scope="session")
def toy() -> str:
    """The toy study's file."""
    return TOY


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with no store named by the environment, and the toy study in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("SWEEPS_STORE", raising=False)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "toy.yaml").write_text(TOY)
    return tmp_path


@pytest.fixture
def bench(here: Path, photos: Path) -> Bench:
    return Bench(here, photos)
