"""A table of a study that has not ended: what it says is missing, and when it says nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hand_made_study import LIVING, append
from three_arm_study import ARMS, ThreeArms

from crack_sweeps.leaderboard.artifacts import write_artifacts
from crack_sweeps.leaderboard.board import board
from crack_sweeps.leaderboard.report.answer import caveats
from crack_sweeps.leaderboard.report.findings import read_findings
from crack_sweeps.leaderboard.wording import markdown
from crack_sweeps.study.schedule import FINAL_SEEDS_FROM


def train(study: ThreeArms, *, trials: int, finals: Sequence[int]) -> None:
    """So many trials of every arm, and of its best settings so many seeds."""
    append(study.folder.events, "created", run="trio", experiment="trio")
    first = study.folder.read_study().arms[0].base.training.seed + FINAL_SEEDS_FROM
    for arm, num_seeds in zip(ARMS, finals, strict=True):
        for number in range(trials):
            study.trial(arm, 0.6 - 0.01 * number, fingerprint=f"{arm}-best" if number == 0 else f"{arm}-{number}")
        for seed in range(num_seeds):
            study.finals(arm, (0.6 + 0.01 * seed,), seed=first + seed)


def test_a_study_whose_finalists_are_missing_says_how_many_are_there_and_how_to_go_on(trio: ThreeArms) -> None:
    train(trio, trials=4, finals=(2, 3, 2))
    append(trio.folder.events, "ended", status="KILLED", reason="SIGTERM")
    found = board(trio.folder)
    assert [row.num_seeds for row in found.ranked] == [3, 2, 2]
    assert found.unfinished == (
        "the study is not finished: 7 of 9 finalist trainings are there; "
        "`sweeps study trio --profile none --trials 4 --seeds 3` goes on with it"
    )
    assert found.warnings == (found.unfinished,)
    assert f"- warning: {found.unfinished}" in markdown(found)


def test_while_it_is_searched_its_trials_are_told_too(trio: ThreeArms) -> None:
    train(trio, trials=2, finals=(0, 0, 0))
    (trio.folder.path / "coordinator.json").write_text(json.dumps(asdict(LIVING)))
    assert board(trio.folder).unfinished == (
        "the study is still running: 2 of 4 trials of hybrid have trained and 0 of 9 finalist trainings are there; "
        "ranks may change"
    )


def test_a_study_of_which_no_training_is_missing_says_nothing(trio: ThreeArms) -> None:
    train(trio, trials=4, finals=(3, 3, 3))
    assert board(trio.folder).unfinished is None, "it was interrupted when all was trained"


def test_a_study_that_ended_with_its_hours_says_nothing(trio: ThreeArms) -> None:
    train(trio, trials=2, finals=(3, 3, 3))
    append(trio.folder.events, "ended", status="FINISHED", reason=None)
    assert board(trio.folder).warnings == ()


def test_the_files_of_a_study_that_is_about_to_end_do_not_call_it_unfinished(trio: ThreeArms) -> None:
    train(trio, trials=2, finals=(3, 3, 3))
    (trio.folder.path / "coordinator.json").write_text(json.dumps(asdict(LIVING)))
    assert board(trio.folder).unfinished is not None
    write_artifacts(trio.folder)
    assert "running" not in (trio.folder.path / "leaderboard.md").read_text()


def test_the_report_says_it_once(trio: ThreeArms) -> None:
    train(trio, trials=4, finals=(2, 3, 2))
    append(trio.folder.events, "ended", status="KILLED", reason="SIGTERM")
    [said] = [line for line in caveats(read_findings(trio.folder)) if "finalist trainings" in line]
    assert said.startswith(
        "the study was stopped before its end (SIGTERM): 7 of 9 finalist trainings are there; `sweeps"
    )
