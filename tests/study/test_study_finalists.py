"""Finalists are counted over the settings that win now: in `sweeps status`, in a dry run, and in the live table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crack_sweeps.cli.study_board import StudyBoard
from crack_sweeps.cli.study_words import of_wanted, standing_rows
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.study.finalists import num_over
from crack_sweeps.study.plan import _num_finals_done
from crack_sweeps.study.schedule import nth_seed
from crack_sweeps.study.standing import StudyReader
from crack_sweeps.study.updates import StudyBegan, TrialEnded

if TYPE_CHECKING:
    from stand_in_study import Bench


@pytest.fixture
def toy_with_finals(here: Path, toy: str) -> None:
    """Two finalists of each winner, and no pruner."""
    toy = toy.replace("finalists: {seeds: 0}", "finalists: {seeds: 2}")
    toy = toy.replace("pruner: {name: hyperband, min_epochs: 1, reduction_factor: 2}", "pruner: {name: none}")
    (here / "studies" / "toy.yaml").write_text(toy)


def objective(experiment: Experiment, epoch: int) -> float:
    return min(1.0, 10 * experiment.training.learning_rate + 0.01 * epoch)


def test_finalists_of_an_earlier_winner_are_not_counted(bench: Bench, toy_with_finals: None) -> None:
    study = bench.resolve(trials=3)
    _, _, folder = bench.run(study, objective)
    reader = StudyReader(folder)
    [arm] = reader.read().arms
    assert (arm.num_finals, arm.num_trials_left, arm.num_finals_left) == (2, 0, 0)
    assert _num_finals_done(study, study.arms[0], folder) == 2

    more, seen, heads = bench.resolve(trials=7), [], []
    board = StudyBoard()

    def look(update: Any) -> None:
        if isinstance(update, StudyBegan):
            board.began(StudyReader(folder).read(), study.arms[0].space)
            return
        board.hear(update)
        if isinstance(update, TrialEnded) and update.trial.arm == study.finals[0].name:
            standing = reader.read().arms[0]
            seen.append((standing.num_finals, standing.num_finals_left, _num_finals_done(more, more.arms[0], folder)))
            heads.append(board.view().above[0])

    bench.run(more, objective, on_update=look)
    winners = {trial.facts["fingerprint"] for trial in bench.trials(more, folder, study.finals[0].name)}
    assert len(winners) == 2, "four more trials found a better one"
    assert seen == [(1, 1, 1), (2, 0, 2)], "two more of an earlier winner are history"
    assert ["finalists 1 of 2" in heads[0], "finalists 2 of 2" in heads[1]] == [True, True]
    assert reader.read().arms[0].num_finals == 2

    lowered = bench.resolve(trials=3)
    _, trials, _ = bench.run(lowered, objective)
    assert trials.orders == []
    rows = dict(standing_rows(reader.read()))
    assert rows["trials"].startswith("7 (3 wanted) trained")
    assert rows["finalists"] == "2 of 2 trained"


def test_a_finalists_seeds_are_seeds_whatever_the_base_has(bench: Bench, toy_with_finals: None) -> None:
    largest = 2**32 - 1
    study = bench.resolve(trials=2, overrides=[f"training.seed={largest}"])
    _, _, folder = bench.run(study, objective)
    finals = bench.trials(study, folder, study.finals[0].name)
    assert [trial.facts["seed"] for trial in finals] == [999, 1000]
    assert [nth_seed(largest, number) for number in (0, 1)] == [largest, 0]


def test_more_than_are_wanted_are_not_said_to_be_of_them() -> None:
    assert [of_wanted(3, 8), of_wanted(8, 8), of_wanted(9, 8)] == ["3 of 8", "8 of 8", "9 (8 wanted)"]


def test_a_training_is_over_when_it_is_complete_or_has_failed_three_times(bench: Bench) -> None:
    arm = bench.resolve().arms[0]

    def row(seed: int, value: float | None = None, **facts: Any) -> dict[str, Any]:
        outcome = "failed" if value is None else "complete"
        return {"seed": seed, "value": value, "outcome": outcome, "fingerprint": "best", **facts}

    chosen = [row(1000), row(1000, 0.5), row(1001), row(1001), row(1002, 0.5, fingerprint="an earlier winner's")]
    assert num_over(arm, "best", chosen, num_trials=8, most=3) == 1
    assert num_over(arm, "best", [*chosen, row(1001)], num_trials=8, most=3) == 2
    assert num_over(arm, "best", [*chosen, row(1001)], num_trials=8, most=1) == 1
    shipped = [row(0, 0.5), row(1001, 0.5, selected_trial="toy/3")]
    assert num_over(arm, None, shipped, num_trials=0, most=3) == 1
