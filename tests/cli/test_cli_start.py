"""The command line starts quickly because it loads little."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "mlflow",
    "optuna",
    "timm",
    "albumentations",
    "cv2",
    "numpy",
    "pydantic",
    "rich",
    "yaml",
    "matplotlib",
)


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after the code."""
    report = (
        f"import sys\n{code}\nsys.stderr.write('LOADED ' + ' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["spec", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    found = loaded_by(f"from crack_sweeps.cli.app import run_command_line\nassert run_command_line({arguments!r}) == 0")
    by_typer = set() if arguments == ["--help"] else {"pydantic"}  # it converts arguments with it
    assert found & set(HEAVY) <= by_typer


def test_checking_a_spec_loads_no_torch() -> None:
    check = "run_command_line(['spec', 'check', 'swinv2_hybrid'])"
    found = loaded_by(f"from crack_sweeps.cli.app import run_command_line\nassert {check} == 0")
    assert "pydantic" in found, "the guard looks at nothing"
    assert found & {"torch", "mlflow", "timm", "albumentations", "cv2", "numpy"} == set()


def test_importing_the_package_loads_nothing_and_its_functions_are_there() -> None:
    assert loaded_by("import crack_sweeps") & set(HEAVY) == set()
    assert "torch" in loaded_by("import crack_sweeps; crack_sweeps.run")
