"""The import contracts hold, and would not if somebody broke them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command(['--no-cache']))"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(REPO / "crack_sweeps", tmp_path / "crack_sweeps", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    return tmp_path


def test_rooms_import_only_from_rooms_above_them(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("room", "line", "contract"),
    [
        ("specs/fingerprint.py", "import torch", "Light rooms stay light"),
        ("data/crops.py", "import crack_sweeps.runs.events", "A room imports only from rooms above it"),
        ("runs/book.py", "import mlflow", "MLflow and TensorBoard belong to tracking"),
        ("evaluation/tiles.py", "import timm", "timm and segmentation-models-pytorch belong to models"),
    ],
)
def test_a_broken_contract_is_found(copy: Path, room: str, line: str, contract: str) -> None:
    path = copy / "crack_sweeps" / room
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = lint_imports(copy)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in " ".join(done.stdout.split())


def test_each_file_opens_with_its_one_job() -> None:
    import ast

    for path in (REPO / "crack_sweeps").rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, f"{path} does not say what it is for"
        assert path.read_text(encoding="utf-8").startswith('"""'), path
