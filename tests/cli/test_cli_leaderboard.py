"""`sweeps leaderboard` from the outside: what is data and what is talk, and how each mistake ends."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hand_made_study import append
from three_arm_study import ThreeArms


@pytest.fixture
def study(here: Path) -> ThreeArms:
    """Three arms with finalists, floors, an outside entry and a leak."""
    study = ThreeArms()
    for arm, value in (("hybrid", 0.6), ("unet", 0.59), ("deeplab", 0.4)):
        study.trial(arm, value)
        study.trial(arm, None, reason="worse than half")
        study.finals(arm, (value, value + 0.01, value - 0.01), spread=0.05)
    study.floors()
    study.outside("theirs", 0.9, threshold_origin="oracle")
    study.data(warnings=["2 of 12 test photos leak"], leaked_test=["photo-000", "photo-004"])
    append(study.folder.events, "ended", status="FINISHED", reason=None)
    return study


def test_the_table_is_data_and_the_warnings_are_talk(sweeps: Callable, study: ThreeArms) -> None:
    answer = sweeps("leaderboard")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0] == "study trio on test, 12 images of drawn"
    table = [line.split() for line in lines[2:9]]
    assert [row[0] for row in table] == ["rank", "1=", "1=", "3", "-", "-", "-"]
    assert [row[1] for row in table[1:]] == ["trio/0", "trio/unet/0", "trio/deeplab/0", "theirs", "Otsu", "black-hat"]
    assert "unet cannot be told from it; deeplab is 0.2" in answer.out
    assert "theirs: not ranked: its threshold was chosen on these very images" in answer.out
    assert answer.err.splitlines() == [
        "warning: 2 of 12 test photos leak",
        "warning: `--drop-leaked` ranks without the 2 leaked test images",
    ]


def test_an_arm_below_a_floor_is_named_beneath_the_table(sweeps: Callable, study: ThreeArms) -> None:
    study.write_scores(study.folder.path / "floors" / "otsu-test.parquet", 0.5, split="test")
    answer = sweeps("leaderboard")
    assert answer.code == 0
    assert " is below Otsu, which learns nothing and has 0.500." in answer.out
    assert "- deeplab: below the floor: crack IoU 0." in answer.out


def test_a_study_that_is_not_finished_says_how_far_it_is_and_how_to_go_on(sweeps: Callable, study: ThreeArms) -> None:
    append(study.folder.events, "ended", status="KILLED", reason="SIGTERM")
    told = "the study is not finished: 2 of 4 trials of hybrid have trained and 0 of 9 finalist trainings are there; "
    for flags in ([], ["--json"]):
        answer = sweeps("leaderboard", *flags)
        assert answer.code == 0
        assert answer.err.splitlines()[0].startswith(f"warning: {told}`sweeps study trio ")
    assert f"- warning: {told}" in sweeps("leaderboard", "--markdown").out


def test_leaked_images_are_left_out_on_request_and_counted(sweeps: Callable, study: ThreeArms) -> None:
    answer = sweeps("leaderboard", "trio", "--drop-leaked")
    assert answer.out.startswith("study trio on test, 10 images (2 leaked images left out) of drawn")
    assert "the 2 leaked test images are left out of this table" in answer.err


def test_json_csv_and_markdown_hold_the_same_rows(sweeps: Callable, study: ThreeArms) -> None:
    rows = json.loads(sweeps("leaderboard", "--json").out)
    table = list(csv.DictReader(io.StringIO(sweeps("leaderboard", "--csv").out)))
    page = sweeps("leaderboard", "--markdown").out
    assert [row["name"] for row in rows] == [row["name"] for row in table]
    assert all(f"| {row['name']} | {row['arm']} |" in page for row in rows)
    assert [row["rank"] for row in rows] == [1, 1, 3, None, None, None]


def test_a_person_chooses_split_figure_and_trials(sweeps: Callable, study: ThreeArms) -> None:
    answer = sweeps("leaderboard", "trio", "--split", "val", "--sort", "crack_f1_image", "--all")
    assert "on validation" in answer.out.splitlines()[0]
    assert "crack F1 per image (95 %)" in answer.out
    assert "selected on these images" in answer.out
    assert "trio/deeplab/1  -" in answer.out.replace("   ", "  ")
    assert "pruned: worse than half" in answer.out


MISTAKES = {
    "no such study": (["leaderboard", "tri"], "no study is named `tri`", "trio"),
    "no such split": (["leaderboard", "--split", "train"], "--split train: must be val or test", "finalists"),
    "no such figure": (["leaderboard", "--sort", "crack_f1_images"], "--sort crack_f1_images", "crack_f1_image"),
    "two formats": (["leaderboard", "--json", "--csv"], "--json --csv", "once for each"),
    "no such flag": (["leaderboard", "--drop"], "--drop", "--help"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_a_hint(sweeps: Callable, study: ThreeArms, mistake: str) -> None:
    arguments, named, remedy = MISTAKES[mistake]
    answer = sweeps(*arguments)
    assert (answer.code, answer.out) == (2, "")
    first, *rest = answer.err.splitlines()
    assert first.startswith("error: ")
    assert named in first
    assert remedy in rest[-1]


def test_where_nothing_was_searched_the_way_to_begin_is_told(sweeps: Callable) -> None:
    answer = sweeps("leaderboard")
    assert (answer.code, answer.out) == (2, "")
    assert "there is no study" in answer.err
    assert "sweeps study" in answer.err


def test_a_training_whose_directory_was_deleted_is_left_out_and_named_everywhere(
    sweeps: Callable, study: ThreeArms
) -> None:
    [lost] = Path("artifacts/outputs").glob("*-unet.final-1")
    shutil.rmtree(lost)
    note = f"unet: seed 1 of run {lost.name} is left out: {lost}/scores_test.parquet: no such file"
    for flags in ([], ["--all"], ["--markdown"]):
        answer = sweeps("leaderboard", *flags)
        assert answer.code == 0
        assert f"- {note}" in answer.out
    row = next(row for row in json.loads(sweeps("leaderboard", "--json").out) if row["arm"] == "unet")
    assert row["num_seeds"] == 2
    assert note.removeprefix("unet: ") in row["notes"][0]
    answer = sweeps("leaderboard", "--split", "val")
    assert answer.code == 0
    assert note.replace("_test", "") in answer.out


def test_a_damaged_ledger_and_scores_that_are_all_lost_are_one_line(sweeps: Callable, study: ThreeArms) -> None:
    shutil.rmtree("artifacts")
    answer = sweeps("leaderboard")
    assert (answer.code, answer.out) == (2, "")
    first = "artifacts/outputs/20260101-120000-trio-hybrid.final-0/scores_test.parquet: no such file"
    told = "error: study trio: the scores of all 9 trainings are lost, so there is nothing to rank"
    assert answer.err.startswith(f"{told} ({first}")
    assert "bring the run's directory back" in answer.err
    study.folder.ledger.write_text("nothing\n")
    answer = sweeps("leaderboard")
    assert answer.code == 2
    assert answer.err.startswith("error: studies/trio/ledger.jsonl: cannot be read")
    assert "sweeps doctor --fix" in answer.err


def test_a_leaderboard_needs_neither_torch_nor_mlflow_nor_optuna(study: ThreeArms) -> None:
    code = (
        "import sys\n"
        "from crack_sweeps.cli.app import run_command_line\n"
        "assert run_command_line(['leaderboard', 'trio']) == 0\n"
        "sys.stderr.write('LOADED ' + ' '.join({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.rpartition("LOADED ")[2].split())
    assert "pyarrow" in loaded, "the guard looks at nothing"
    assert loaded & {"torch", "mlflow", "optuna", "timm", "albumentations", "cv2", "pandas", "matplotlib"} == set()
