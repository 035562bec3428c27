"""Trainings whose scores are lost: who is ranked without them, what is said of them, and that no figure holds them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from three_arm_study import ThreeArms

from crack_sweeps.errors import UserError
from crack_sweeps.leaderboard.artifacts import write_artifacts
from crack_sweeps.leaderboard.board import Board, board
from crack_sweeps.leaderboard.images import read_scores
from crack_sweeps.leaderboard.rows import BoardRow
from crack_sweeps.leaderboard.statistics import compare, estimate
from crack_sweeps.leaderboard.wording import answer, caveats, csv_text, markdown
from crack_sweeps.search import record_of
from crack_sweeps.study.updates import StudyEnded

OUTPUTS = Path("artifacts/outputs")


def run_of(arm: str, seed: int) -> Path:
    return OUTPUTS / f"20260101-120000-trio-{arm}.final-{seed}"


def lose(arm: str, *seeds: int) -> None:
    for seed in seeds:
        shutil.rmtree(run_of(arm, seed))


def row_of(found: Board, arm: str) -> BoardRow:
    return next(row for row in found.rows if row.arm == arm)


@pytest.mark.parametrize("split", ["test", "val"])
def test_an_arm_is_ranked_by_the_seeds_that_are_left(finished: ThreeArms, split: str) -> None:
    before = board(finished.folder, split=split)
    lose("unet", 1)
    found = board(finished.folder, split=split, all_trials=True)
    assert [(row.rank, row.arm, row.num_seeds) for row in found.ranked] == [
        (1, "hybrid", 3),
        (1, "unet", 2),
        (3, "deeplab", 3),
    ]
    file = "scores_test.parquet" if split == "test" else "scores.parquet"
    left = [read_scores([run_of(arm, seed) / file for seed in seeds]).counts for arm, seeds in LEFT.items()]
    row = row_of(found, "unet")
    assert row.figure("crack_iou") == estimate(left[1], "crack_iou") != row_of(before, "unet").figure("crack_iou")
    ahead = compare(left[0], left[1], "crack_iou")
    assert (row.difference, row.difference_low, row.difference_high) == (ahead.difference, ahead.low, ahead.high)
    assert row.run_dirs == (str(run_of("unet", 0)), str(run_of("unet", 2)))
    assert row.thresholds == (0.4, 0.4)
    assert row_of(found, "hybrid").figure("crack_iou") == row_of(before, "hybrid").figure("crack_iou")


LEFT = {"hybrid": (0, 1, 2), "unet": (0, 2)}


def test_the_note_names_seed_run_and_file_and_nobody_elses_row_has_it(finished: ThreeArms) -> None:
    lose("unet", 1)
    found = board(finished.folder)
    path = run_of("unet", 1) / "scores_test.parquet"
    note = f"seed 1 of run {path.parent.name} is left out: {path}: no such file"
    assert [row.arm for row in found.rows if note in row.notes] == ["unet"]
    assert f"unet: {note}" in caveats(found)
    assert note in markdown(found)
    assert note in csv_text(found)


def test_one_seed_that_is_left_is_compared_as_one_seed(finished: ThreeArms) -> None:
    lose("unet", 0, 2)
    row = row_of(board(finished.folder), "unet")
    assert row.num_seeds == 1
    assert "one seed: its interval is over images alone" in row.notes
    assert any("scattered over seeds as the other does" in note for note in row.notes)


def test_scores_that_are_damaged_are_lost(finished: ThreeArms) -> None:
    (run_of("unet", 0) / "scores_test.parquet").write_bytes(b"no table")
    pyarrow.parquet.write_table(pa.table({"name": ["photo-000"]}), run_of("unet", 1) / "scores_test.parquet")
    row = row_of(board(finished.folder), "unet")
    assert row.num_seeds == 1
    assert "scores_test.parquet: not a table of scores that can be read" in row.notes[0]
    assert row.notes[1].endswith("scores_test.parquet: not a table of scores: it lacks the column `group`")


def test_an_arm_that_lost_all_its_scores_stands_below_without_one(finished: ThreeArms) -> None:
    finished.floors()
    lose("hybrid", 0, 1, 2)
    found = board(finished.folder)
    assert [row.arm for row in found.ranked] == ["unet", "deeplab"]
    assert [row.name for row in found.below] == ["trio/0", "Otsu", "black-hat"]
    row = row_of(found, "hybrid")
    assert (row.rank, row.kind, row.crack_iou, row.crack_iou_low, row.num_seeds) == (None, "finalist", None, None, None)
    assert (row.num_trials, row.num_params) == (4, 1_000_000), "what the ledger knows stays"
    assert row.notes[0] == "no score: all 3 trainings have lost it"
    assert [note[:6] for note in row.notes[1:]] == ["seed 0", "seed 1", "seed 2"]
    assert answer(found).startswith("unet wins")
    assert found.trials == ()


def test_before_there_are_finalists_a_best_trial_without_scores_is_no_trial_of_the_long_list(trio: ThreeArms) -> None:
    trio.trial("hybrid", 0.6)
    trio.trial("unet", 0.5)
    shutil.rmtree(OUTPUTS / "20260101-120000-trio-unet-0")
    found = board(trio.folder, all_trials=True)
    assert [row.name for row in found.ranked] == ["trio/0"]
    assert [(row.name, row.notes[0]) for row in found.below] == [("trio/unet/0", "no score: its training has lost it")]
    assert [row.name for row in found.trials] == ["trio/0", "trio/unet/0"]


def test_a_floor_and_an_outside_entry_that_cannot_be_read_stand_below_without_a_score(finished: ThreeArms) -> None:
    finished.floors()
    finished.outside("theirs", 0.5)
    lost = [finished.folder.path / "floors" / "otsu-test.parquet", finished.folder.path / "outside/theirs-test.parquet"]
    lost[0].write_bytes(b"no table")
    lost[1].unlink()
    found = board(finished.folder)
    assert [(row.name, row.crack_iou is None) for row in found.below] == [
        ("theirs", True),
        ("Otsu", True),
        ("black-hat", False),
    ]
    for row, path in zip(found.below, reversed(lost), strict=False):
        assert row.notes[0].startswith(f"no score: {path}: n")


def test_it_is_an_error_only_where_nothing_at_all_is_left(finished: ThreeArms) -> None:
    lose("hybrid", 0, 1, 2)
    lose("unet", 0, 1, 2)
    lose("deeplab", 0, 1)
    assert answer(board(finished.folder)).endswith("and nothing is ranked beside it.")
    (run_of("deeplab", 2) / "scores_test.parquet").unlink()
    with pytest.raises(UserError, match="study trio: the scores of all 9 trainings are lost") as error:
        board(finished.folder)
    assert str(error.value.hint).endswith("`sweeps leaderboard trio --split val` ranks on validation meanwhile")
    assert [row.arm for row in board(finished.folder, split="val").ranked] == ["deeplab"]
    lose("deeplab", 2)
    with pytest.raises(UserError, match="study trio: the scores of all 9 trainings are lost") as error:
        board(finished.folder)
    assert str(error.value.hint).startswith("bring the run's directory back")
    assert "--split val" not in str(error.value.hint)


def test_trainings_of_one_arm_that_saw_other_images_are_still_refused(finished: ThreeArms) -> None:
    lose("unet", 1)
    finished.write_scores(run_of("unet", 2) / "scores_test.parquet", 0.5, split="test", groups=["one"] * 12)
    with pytest.raises(UserError, match="disagree: their images are cut from other photographs"):
        board(finished.folder)


def test_a_study_ends_although_runs_were_deleted(finished: ThreeArms) -> None:
    ended = StudyEnded(finished.folder, None, num_trained=4, num_failed=0, best=None)
    lose("unet", 1)
    names = [path.name for path in write_artifacts(finished.folder)]
    assert names == ["leaderboard.json", "leaderboard.csv", "leaderboard.md", "report.html"]
    assert "seed 1 of run" in (finished.folder.path / "leaderboard.md").read_text()
    assert record_of(ended).answer == answer(board(finished.folder))
    shutil.rmtree(OUTPUTS)
    assert [path.name for path in write_artifacts(finished.folder)] == ["report.html"]
    assert "the scores of all 9 trainings are lost" in (finished.folder.path / "report.html").read_text()
    assert str(record_of(ended).answer).startswith("none: study trio: the scores of all 9 trainings are lost")
