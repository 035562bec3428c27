"""What a run ran on: machine, versions, commit. Facts for people who repeat it, and no secrets."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "crack_sweeps", "torch", "torchvision", "timm", "segmentation-models-pytorch", "albumentations", "numpy", "scipy",
    "scikit-image", "opencv-python-headless", "mlflow", "pydantic",
)  # fmt: skip


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Facts as plain values; what is not known is null."""
    import torch  # here, because a study's coordinator asks for the commit and has no torch

    commit, dirty = git_state(Path.cwd())
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "num_cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "commit": commit,
        "dirty_diff_sha256": dirty,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "command": redact_command(sys.argv),
    }


def git_state(folder: Path) -> tuple[str | None, str | None]:
    """The commit, and a digest of what differs from it (null if nothing does); both null outside git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    diff = _git(folder, "diff", "HEAD", "--no-ext-diff")
    return commit.strip(), hashlib.sha256(diff.encode()).hexdigest()[:12] if diff else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, errors="replace", timeout=20, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def redact_command(argv: list[str]) -> str:
    """The command as typed, without passwords in addresses."""
    return " ".join([Path(argv[0]).name, *(re.sub(r"(://[^:/@\s]+):[^@\s]+@", r"\1:***@", word) for word in argv[1:])])
