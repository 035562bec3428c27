"""`sweeps score`, typed by hand: what it prints, what it puts on a leaderboard, and what a new user types wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet
import pytest

import crack_sweeps
from crack_sweeps.evaluation.prediction_files import open_folder, score_folder
from crack_sweeps.specs.experiment import MaskRule
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.ledger import read_outside


@pytest.fixture
def folders(photos: Path) -> tuple[str, str]:
    """Predictions of the ten photos, which are darker along their line, 1 px too low; and their masks."""
    (photos / "p").mkdir()
    for path in sorted((photos / "images").iterdir()):
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        sure = np.clip(255 - 1.6 * np.roll(grey, 1, axis=0).astype(float), 0, 255)
        cv2.imwrite(str(photos / "p" / f"{path.stem}_pred.png"), sure.astype(np.uint8))
    return str(photos / "p"), str(photos / "masks")


@pytest.fixture
def study(here: Path, folders: tuple[str, str]) -> StudyFolder:
    """A study that scored a floor on the ten photos, which it calls its test split."""
    folder = StudyFolder(here / "studies" / "toy")
    (folder.path / "floors").mkdir(parents=True)
    folder.facts_file.write_text("{}")
    opened = open_folder(Path(folders[0]), Path(folders[1]), MaskRule(), resize=False)
    scoring, _ = score_folder(
        opened,
        threshold=0.9,
        threshold_origin="given",
        protocol="ours",
        metrics="headline",
        jobs=1,
        progress=lambda *_: None,
    )
    pyarrow.parquet.write_table(scoring.table, folder.path / "floors" / "otsu-test.parquet")
    return folder


def test_the_table_shows_each_metric_pooled_and_as_the_mean_of_images(sweeps: Callable, folders: tuple) -> None:
    answer = sweeps("score", *folders, "--threshold", "0.5")
    assert answer.code == 0, answer.err
    head, _, table = answer.out.partition("\n\n")
    assert "ours: native resolution" in head
    assert re.search(r"threshold +0\.50, given\n", head)
    assert re.search(r"images +10; masks read as == 255\n", head)
    assert re.search(r"^crack_iou +0\.\d{4} +0\.\d{4} +10$", table, re.MULTILINE)
    assert re.search(r"^oracle/ods_f1 ", table, re.MULTILINE)
    assert re.search(r"^cldice ", table, re.MULTILINE)


def test_an_oracle_is_labelled_wherever_it_is_the_default(sweeps: Callable, folders: tuple) -> None:
    assert "ORACLE: the best one on these very images" in sweeps("score", *folders, "--metrics", "headline").out


def test_json_is_one_object_and_python_returns_it(sweeps: Callable, folders: tuple) -> None:
    answer = sweeps("score", *folders, "--json", "--metrics", "headline")
    assert answer.code == 0, answer.err
    printed = json.loads(answer.out)
    returned = crack_sweeps.score_predictions(*folders, metrics="headline").as_dict()
    assert printed == json.loads(json.dumps(returned))
    assert (printed["threshold_origin"], printed["protocol"], printed["num_images"]) == ("oracle", "ours", 10)
    assert printed["metrics"]["num_images"] == 10
    assert not any(name.startswith("oracle/") for name in printed["metrics"])


def test_a_threshold_from_validation_is_said_to_be_one(sweeps: Callable, folders: tuple) -> None:
    answer = sweeps("score", *folders, "--val", *folders, "--metrics", "headline", "--json")
    printed = json.loads(answer.out)
    assert printed["threshold_origin"] == "validation"
    assert printed["threshold"] == json.loads(sweeps("score", *folders, "--json").out)["threshold"]


def test_the_looser_protocol_is_named_and_gives_its_own_figures(sweeps: Callable, folders: tuple) -> None:
    answer = sweeps("score", *folders, "--protocol", "resize512-oracle")
    assert answer.code == 0, answer.err
    assert "resize512-oracle: resized to 512x512" in answer.out
    assert "oracle/ods_two_class_miou" in answer.out
    assert "cldice" not in answer.out


def test_an_entry_stands_in_the_studys_ledger_with_its_table_of_images(
    sweeps: Callable, folders: tuple, study: StudyFolder
) -> None:
    answer = sweeps("score", *folders, "--add", "theirs", "--study", "toy", "--threshold", "0.4", "--json")
    assert answer.code == 0, answer.err
    printed = json.loads(answer.out)
    (entry,) = read_outside(study)
    assert entry["metrics"] == printed["metrics"]
    assert (entry["name"], entry["split"], entry["protocol"]) == ("theirs", "test", "ours")
    assert (entry["threshold"], entry["threshold_origin"]) == (0.4, "given")
    table = pyarrow.parquet.read_table(study.path / entry["scores"])
    assert table.num_rows == 10
    assert printed["entry"]["scores"].endswith("outside/theirs-test.parquet")
    # The command is one that could be typed again.
    again = sweeps(*entry["command"].split()[1:], "--json")
    assert json.loads(again.out)["metrics"] == printed["metrics"]


def test_masks_are_read_by_the_projects_settings(sweeps: Callable, folders: tuple) -> None:
    for path in Path(folders[1]).iterdir():
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        mask[:4, :4] = 100
        cv2.imwrite(str(path), mask)
    refused = sweeps("score", *folders)
    assert refused.code == 2
    assert "data.mask.crack_values=[255]" in refused.err
    assert sweeps("score", *folders, "data.mask.crack_values=[255]", "--metrics", "headline").code == 0


def test_predictions_of_another_size_are_refused_or_resized(sweeps: Callable, folders: tuple) -> None:
    path = next(Path(folders[0]).iterdir())
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (32, 24)))
    refused = sweeps("score", *folders)
    assert_one_line(refused)
    assert f"1 of 10 predictions not of the mask's size: {path} is 32x24 px" in refused.err
    assert "--resize" in refused.err
    assert sweeps("score", *folders, "--resize", "--metrics", "headline").code == 0


def test_a_prediction_without_a_mask_is_left_out_aloud(sweeps: Callable, folders: tuple) -> None:
    cv2.imwrite(f"{folders[0]}/more.png", np.zeros((48, 64), np.uint8))
    answer = sweeps("score", *folders, "--metrics", "headline")
    assert answer.code == 0
    assert "warning: photos/p: no mask for more.png; left out" in answer.err.replace(f"{Path.cwd()}/", "")


def assert_one_line(answer: object) -> None:
    assert answer.code == 2, answer.err  # type: ignore[attr-defined]
    assert answer.out == ""  # type: ignore[attr-defined]
    lines = answer.err.splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("error: ")
    assert len(lines) == 3
    assert lines[1] == ""
    assert lines[2].startswith("hint: ")


P, M = "photos/p", "photos/masks"
MISTAKES = {
    "no such folder": (["photos/q", M], "photos/q does not exist", "photos"),
    "a file": (["photos/p/p0_pred.png", M], "is a file", "folder"),
    "folder of photos": (["photos/images", M], "a prediction in colour", "8-bit grey"),
    "masks forgotten": ([P], "MASK_DIR", "--help"),
    "threshold": ([P, M, "--threshold", "1.5"], "--threshold 1.5", "0.5"),
    "threshold of 0": ([P, M, "--threshold", "0"], "--threshold 0", "0.5"),
    "grey value as threshold": ([P, M, "--threshold", "128"], "--threshold 128", "0.5"),
    "threshold in words": ([P, M, "--threshold", "best"], "--threshold best", "0.5"),
    "threshold not counted": ([P, M, "--threshold", "0.555"], "0.555", "0.01"),
    "threshold given and chosen": ([P, M, "--threshold", "0.5", "--val", P, M], "--val", "leave one"),
    "protocol": ([P, M, "--protocol", "theirs"], "theirs", "resize512-oracle"),
    "threshold of a protocol that has its own": (
        [P, M, "--protocol", "resize512-oracle", "--threshold", "0.5"],
        "resize512-oracle",
        "ours",
    ),
    "metrics": ([P, M, "--metrics", "some"], "--metrics some", "headline"),
    "val with one folder": ([P, M, "--val", P], "--val", "--help"),
    "mask setting": ([P, M, "data.mask.chanel=red"], "chanel", "channel"),
    "another setting": ([P, M, "training.epochs=3"], "training.epochs=3", "data.mask.crack_values"),
    "mask values": ([P, M, "data.mask.crack_values=[7]"], "== 7", "crack_values=[255]"),
    "no names in common": ([P, "photos/other"], "none of 1 mask", "name each prediction like its mask"),
    "a mask too many": ([P, "photos/more"], "1 of 11 masks", "predict the rest"),
    "study without a name": ([P, M, "--study", "toy"], "--study toy", "--add"),
    "no study": ([P, M, "--add", "x"], "no study", "sweeps study"),
    "split": ([P, M, "--add", "x", "--split", "train"], "train", "val or test"),
    "name that leaves its folder": ([P, M, "--add", "../x"], "../x", "letters"),
    "protocol of an entry": ([P, M, "--add", "x", "--protocol", "resize512-oracle"], "--add x", "protocol"),
    "flag": ([P, M, "--treshold", "0.5"], "--treshold", "--threshold"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_a_hint(sweeps: Callable, folders: tuple, here: Path, mistake: str) -> None:
    mask = cv2.imread(f"{M}/p0.png", cv2.IMREAD_GRAYSCALE)
    (here / "photos" / "other").mkdir()
    cv2.imwrite("photos/other/elsewhere.png", mask)
    (here / "photos" / "more").mkdir()
    for path in (*Path(M).iterdir(), Path("photos/other/elsewhere.png")):
        (here / "photos" / "more" / path.name).write_bytes(path.read_bytes())
    arguments, named, remedy = MISTAKES[mistake]
    answer = sweeps("score", *arguments)
    assert_one_line(answer)
    assert named in answer.err
    assert remedy in answer.err
    assert {path.name for path in here.iterdir()} == {"photos"}, "a refused command wrote something"


@pytest.mark.parametrize(("depth", "named"), [(np.uint16, "16 or 32 bits"), (np.uint8, "in colour")])
def test_predictions_that_are_no_8_bit_grey_are_named(
    sweeps: Callable, folders: tuple, depth: type, named: str
) -> None:
    path = sorted(Path(folders[0]).iterdir())[3]
    colour = np.zeros((48, 64, 3), np.uint8)
    colour[..., 0] = 200
    cv2.imwrite(str(path), np.full((48, 64), 300, np.uint16) if depth is np.uint16 else colour)
    answer = sweeps("score", *folders)
    assert_one_line(answer)
    assert path.name in answer.err
    assert named in answer.err


def test_photos_of_another_set_never_reach_a_ledger(sweeps: Callable, folders: tuple, study: StudyFolder) -> None:
    (Path(folders[0]) / "p9_pred.png").unlink()
    (Path(folders[1]) / "p9.png").unlink()
    answer = sweeps("score", *folders, "--add", "theirs", "--study", "toy")
    assert_one_line(answer)
    assert "toy has 10 test photos: 1 missing here (p9)" in answer.err
    assert not list(read_outside(study))
