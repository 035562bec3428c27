"""Arms below a floor: what the table, the answer and the report say of an arm that has learned nothing."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from three_arm_study import ThreeArms

from crack_sweeps.leaderboard.board import Board, board
from crack_sweeps.leaderboard.report import answer as report_answer
from crack_sweeps.leaderboard.report.findings import read_findings
from crack_sweeps.leaderboard.wording import answer, caveats


def floors(study: ThreeArms, *, otsu: float, black_hat: float, split: str = "test") -> None:
    for name, value in (("otsu", otsu), ("black_hat", black_hat)):
        study.write_scores(study.folder.path / "floors" / f"{name}-{split}.parquet", value, split=split)


def noted(found: Board) -> list[str]:
    return [row.arm for row in found.rows if any("below the floor" in note for note in row.notes)]


def test_arms_above_the_floors_have_no_note(finished: ThreeArms) -> None:
    floors(finished, otsu=0.2, black_hat=0.3)
    found = board(finished.folder)
    assert noted(found) == []
    assert "learns nothing" not in answer(found)


def test_an_arm_below_the_best_floor_has_a_note_that_names_it_with_both_figures(finished: ThreeArms) -> None:
    floors(finished, otsu=0.45, black_hat=0.3)
    found = board(finished.folder)
    assert noted(found) == ["deeplab"]
    arm, floor = found.ranked[-1], found.below[0]
    note = f"below the floor: crack IoU {arm.crack_iou:.3f}; Otsu, which learns nothing, has {floor.crack_iou:.3f}"
    assert arm.notes == (note,)
    assert f"deeplab: {note}" in caveats(found)
    said = f" deeplab ({arm.crack_iou:.3f}) is below Otsu, which learns nothing and has {floor.crack_iou:.3f}."
    assert answer(found).endswith(said)


def test_the_reports_answer_and_its_caveats_say_it_too(finished: ThreeArms) -> None:
    floors(finished, otsu=0.3, black_hat=0.9)
    findings = read_findings(finished.folder)
    assert report_answer.answer(findings).count(" are below black-hat, which learns nothing and has 0.900.") == 1
    told = [line for line in report_answer.caveats(findings) if "black-hat, which learns nothing" in line]
    assert [line.partition(":")[0] for line in told[-3:]] == ["hybrid", "unet", "deeplab"]


def test_the_floor_is_that_of_the_figure_that_ranks(finished: ThreeArms) -> None:
    floors(finished, otsu=0.45, black_hat=0.3)
    found = board(finished.folder, sort="crack_f1")
    assert noted(found) == ["deeplab"]
    arm, floor = found.ranked[-1], found.below[0]
    assert arm.notes[0].startswith(f"below the floor: crack F1 {arm.crack_f1:.3f}; Otsu")
    assert f"has {floor.crack_f1:.3f}" in arm.notes[0]


def test_a_floor_without_the_figure_or_without_scores_is_no_measure(trio: ThreeArms) -> None:
    trio.trial("hybrid", 0.1, metrics={"floor/otsu_crack_iou": 0.5})
    assert noted(board(trio.folder)) == ["hybrid"]
    assert noted(board(trio.folder, sort="crack_f1_image")) == []
    floors(trio, otsu=0.5, black_hat=0.05, split="val")
    (trio.folder.path / "floors" / "otsu-val.parquet").write_bytes(b"no table")
    assert noted(board(trio.folder)) == []
