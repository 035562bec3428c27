"""`sweeps data` as a person types it: what is printed where, and each mistake in one line with exit 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from crack_sweeps.data.open import open_photos
from crack_sweeps.errors import DataError
from crack_sweeps.specs.loading import resolve

MISTAKES = {
    "no folder": (["data", "check", "zzzzz"], "zzzzz does not exist", "holds"),
    "a near miss": (["data", "check", "phots"], "phots does not exist", "did you mean"),
    "a file": (["data", "check", "photos/images/p0.png"], "is a file, not a folder", "the folder that holds"),
    "an empty folder": (["data", "check", "empty"], "has no photos with masks; it holds nothing", "looked for"),
    "no pairs": (["data", "check", "unpaired"], "none of 2 photos has a mask", "name each mask like its photo"),
    "photos alone": (["data", "check", "alone"], "has 1 photo without masks", "looked for"),
    "a folder too high": (["data", "check", "above"], "no photos with masks", "one folder further down"),
    "a setting that trains": (["data", "check", "photos", "training.epochs=3"], "training.epochs", "data.mask"),
    "a setting that is none": (["data", "check", "photos", "data.mask.treshold=3"], "treshold", "data.mask.threshold"),
    "a value that is none": (["data", "check", "photos", "data.mask.threshold=0"], "threshold", ""),
    "no KEY=VALUE": (["data", "check", "photos", "threshold"], "no KEY=VALUE", "training.epochs=10"),
    "two rules": (
        ["data", "check", "photos", "data.mask.threshold=9", "data.mask.crack_values=[1]"], "two rules for one mask", ""
    ),
    "preview in no folder": (["data", "check", "photos", "--preview", "no/p.png"], "there is no folder no", "make it"),
    "import without a name": (["data", "import", "photos"], "--as", ""),
    "import of no folder": (["data", "import", "zzzzz", "--as", "x"], "zzzzz does not exist", "holds"),
    "import of nothing": (["data", "import", "empty", "--as", "x"], "no photos with masks", "looked for"),
    "a name with a slash": (["data", "import", "photos", "--as", "a/b"], "cannot be the name of a set", "letters"),
    "a name of a folder": (["data", "import", "photos", "--as", "photos"], "a folder of that name here", "another"),
    "unknown preset": (["data", "import", "photos", "--as", "x", "--preset", "crak500"], "crak500", "crack500"),
    "no table": (["data", "import", "photos", "--as", "x", "--groups", "t.csv"], "--groups t.csv: no such file", "CSV"),
    "no such command": (["data", "chek", "photos"], "chek", "check"),
}  # fmt: skip


@pytest.fixture
def around(here: Path, photos: Path) -> Path:
    """A folder of sound photos among folders that are none."""
    (here / "empty").mkdir()
    for kind in ("images", "masks"):
        (here / "unpaired" / kind).mkdir(parents=True)
        for number in range(2):
            shutil.copy(photos / kind / f"p{number}.png", here / "unpaired" / kind / f"{kind[0]}{number}.png")
    (here / "alone" / "images").mkdir(parents=True)
    shutil.copy(photos / "images/p0.png", here / "alone/images")
    shutil.copytree(photos, here / "above" / "deeper")
    return here


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_a_hint(sweeps: Callable, around: Path, mistake: str) -> None:
    arguments, named, remedy = MISTAKES[mistake]
    before = sorted(around.rglob("*"))
    answer = sweeps(*arguments)
    assert answer.code == 2, answer.err
    assert answer.out == ""
    lines = answer.err.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[1:] == [] or (lines[1] == "" and len(lines) == 3 and lines[2].startswith("hint: ")), lines
    assert named in answer.err
    assert remedy in answer.err
    assert sorted(around.rglob("*")) == before, "a refused command wrote something"


def test_a_check_prints_figures_on_stdout_and_what_to_do_next_on_stderr(sweeps: Callable, photos: Path) -> None:
    answer = sweeps("data", "check", "photos", "--preview", "pairs.png")
    assert answer.code == 0
    rows = dict(line.split(maxsplit=1) for line in answer.out.splitlines() if line and not line.startswith(" "))
    assert rows["pairs"] == "10, no official split"
    assert "64x48 (10)" in answer.out
    assert "crack is               == 255" in answer.out
    assert "8 pairs are shown in pairs.png" in answer.err
    assert "train on it: sweeps run swinv2_hybrid --data photos" in answer.err
    sheet = cv2.imread("pairs.png")
    assert sheet.shape[1] > 1000
    painted = (np.abs(sheet.astype(int) - [0, 94, 213]).sum(axis=2) == 0).sum()  # vermilion, as BGR
    assert painted > 8 * 64


def test_json_is_all_that_stands_on_stdout(sweeps: Callable, photos: Path) -> None:
    found = json.loads(sweeps("data", "check", "photos", "--json").out)
    assert (found["num_pairs"], found["num_usable"], found["mask_rule"]) == (10, 10, "== 255")
    made = json.loads(sweeps("data", "import", "photos", "--as", "walls", "--json").out)
    assert (made["name"], made["num_photos"]) == ("walls", {"train": 6, "val": 2, "test": 2})


def test_an_imported_set_is_opened_by_its_name_until_a_file_changes(sweeps: Callable, photos: Path) -> None:
    made = sweeps("data", "import", "photos", "--as", "walls")
    assert made.code == 0
    assert "train on it: sweeps run swinv2_hybrid --data walls" in made.err
    data = resolve("unet_small", profile="none", data=Path("walls")).experiment.data
    assert len(open_photos(data).split("train")) == 6
    shutil.copy(photos / "images/p1.png", photos / "images/p0.png")
    with pytest.raises(DataError, match=r"photos/images/p0\.png: changed since it was imported as walls"):
        open_photos(data)


def test_errors_in_single_files_are_told_to_stop_a_training(sweeps: Callable, photos: Path) -> None:
    (photos / "images/p3.png").write_bytes(b"")
    answer = sweeps("data", "check", "photos")
    assert answer.code == 2
    assert "9 can be used" in answer.out
    assert "error    images/p3.png: an empty file (0 bytes)" in answer.out
    assert "train on it" not in answer.err
    assert "sweeps data import photos --as NAME --leave-out" in answer.err


def test_a_check_ends_as_a_training_would(sweeps: Callable, photos: Path) -> None:
    for path in (photos / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros((48, 64), np.uint8))
    answer = sweeps("data", "check", "photos")
    assert answer.code == 2
    assert "a training refuses it: " in answer.err
    assert "there is no crack" in answer.err
    assert "data.mask.KEY=VALUE" not in answer.err
    for path in [*(photos / "images").iterdir(), *(photos / "masks").iterdir()]:
        if path.stem != "p0":
            path.unlink()
    cv2.imwrite(str(photos / "masks/p0.png"), np.eye(48, 64, dtype=np.uint8) * 255)
    answer = sweeps("data", "check", "photos")
    assert answer.code == 2
    assert "a training refuses it: 1 photo of 1 group cannot be split further" in answer.err
    assert "train on it" not in answer.err
    assert sweeps("run", "unet_small", "--data", "photos", "--profile", "cpu").code == 2


def test_the_setting_that_reads_a_set_stands_in_the_line_to_type(sweeps: Callable, photos: Path) -> None:
    for path in (photos / "masks").iterdir():
        cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    answer = sweeps("data", "check", "photos")
    assert answer.code == 0
    assert "crack is               == 255, inverted   (type data.mask.invert=true)" in answer.out
    assert "train on it: sweeps run swinv2_hybrid --data photos data.mask.invert=true" in answer.err


def test_a_check_loads_no_torch(photos: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom crack_sweeps.cli.app import run_command_line\n"
        "assert run_command_line(['data', 'check', 'photos', '--preview', 'p.png']) == 0\n"
        "assert run_command_line(['data', 'import', 'photos', '--as', 'walls']) == 0\n"
        "assert not {'torch', 'albumentations', 'mlflow', 'optuna'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_help_names_every_preset(sweeps: Callable) -> None:
    from crack_sweeps.data.presets import PRESETS

    said = " ".join(sweeps("data", "import", "--help").out.split())
    assert all(preset in said for preset in PRESETS)
