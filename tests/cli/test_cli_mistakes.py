"""What a new user types wrong: one line that names it, a hint that helps, exit 2, no traceback, nothing written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

MISTAKES = {
    "no such experiment": (["run", "swinv2_hybird"], "swinv2_hybird", "swinv2_hybrid"),
    "key": (["run", "unet_small", "training.loss.focal_weigth=1"], "training.loss.focal_weigth", "focal_weight"),
    "value out of range": (["run", "unet_small", "training.epochs=-3"], "-3", "at least 1"),
    "value of another type": (["run", "unet_small", "training.learning_rate=fast"], "fast", "number"),
    "variant": (
        ["run", "swinv2_hybrid", "model.encoder_cfg.model_name=swinv2_tiny_window61_256"],
        "swinv2_tiny_window61_256",
        "swinv2_tiny_window16_256",
    ),
    "path": (["run", "unet_small", "--data", "no/such/folder"], "no/such/folder", ""),
    "augmentation": (
        ["run", "unet_small", "data.transform.augmentations=['A.Flip(p=0.5)']"],
        "A.Flip",
        "A.HorizontalFlip",
    ),
    "augmentation's setting": (
        ["run", "unet_small", "data.transform.augmentations=['A.HorizontalFlip(prob=0.5)']"],
        "prob",
        "p",
    ),
    "override without a value": (["run", "unet_small", "training.epochs"], "training.epochs", "training.epochs="),
    "profile": (["run", "unet_small", "--profile", "gpu-8g"], "gpu-8g", "gpu-8gb"),
    "profile for a GPU on a machine without one": (
        ["run", "unet_small", "--profile", "gpu-8gb"],
        "gpu-8gb",
        "--profile cpu",
    ),
    "run to resume from": (["run", "--resume-from", "nothing"], "nothing", "run"),
    "overrides beside resume-from": (["run", "--resume-from", "x", "--seed", "1"], "--resume-from", "new run"),
    "no experiment": (["run"], "which experiment", "spec list"),
    "name that leaves its folder": (["run", "unet_small", "name=../../etc"], "name", ""),
    "flag": (["run", "unet_small", "--sed", "1"], "--sed", "--seed"),
    "command": (["rnu", "unet_small"], "rnu", "run"),
    "seed": (["run", "unet_small", "--seed", "many"], "many", ""),
    "rule for masks": (
        ["run", "unet_small", "data.mask.crack_values=[2]", "data.mask.threshold=9"],
        "crack_values",
        "",
    ),
}


def assert_one_line(answer: Any) -> None:
    """One `error:` line, then at most an empty line and one `hint:`; lines of talk may stand before it."""
    assert answer.code == 2, answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    lines = answer.err.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("error: "))
    said, rest = lines[first], lines[first + 1 :]
    assert len(said) > len("error: ")
    assert rest == [] or (rest[0] == "" and len(rest) == 2 and rest[1].startswith("hint: ")), rest


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_a_hint(sweeps: Callable, here: Path, mistake: str) -> None:
    arguments, named, remedy = MISTAKES[mistake]
    answer = sweeps(*arguments)
    assert_one_line(answer)
    assert named in answer.err
    assert remedy in answer.err
    assert not list(here.iterdir()), "a refused command wrote something"


def test_missing_pretrained_weights_name_the_two_ways_out(
    sweeps: Callable, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answer = sweeps(
        "run", "unet_resnet50", "model.encoder_cfg.pretrained=true", "--data", str(photos), "--profile", "cpu"
    )
    assert_one_line(answer)
    assert "model.encoder_cfg.checkpoint_path" in answer.err
    assert "pretrained=false" in answer.err
    assert not Path("artifacts/outputs").exists()


def test_unexplained_mask_values_are_shown_with_the_setting_that_reads_them(sweeps: Callable, photos: Path) -> None:
    for path in (photos / "masks").iterdir():
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(
            str(path), np.where(mask > 0, 204, 0).astype(np.uint8) + np.uint8(51) * (np.indices(mask.shape)[1] > 60)
        )
    answer = sweeps("run", "unet_small", "--data", str(photos), "--profile", "cpu")
    assert_one_line(answer)
    assert "204" in answer.err
    assert "data.mask." in answer.err


def test_a_file_that_is_no_yaml_is_named(sweeps: Callable, here: Path) -> None:
    (here / "mine.yaml").write_text("name: [unclosed\n")
    answer = sweeps("run", "mine.yaml")
    assert_one_line(answer)
    assert "mine.yaml" in answer.err


def test_a_folder_that_may_not_be_written_to_is_one_line(
    sweeps: Callable, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    answer = sweeps("run", "unet_small", "--data", str(photos), "--profile", "cpu")
    assert_one_line(answer)
    assert "artifacts" in answer.err
    assert "permission denied" in answer.err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_before_a_command_has_begun_is_no_traceback() -> None:
    early = (
        "import signal, sys\nfrom crack_sweeps import __main__ as script\n"
        "import crack_sweeps.cli.app as app\n"
        "app.run_command_line = lambda: signal.raise_signal(signal.SIGINT)\nscript.main()"
    )
    done = subprocess.run([sys.executable, "-c", early], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
