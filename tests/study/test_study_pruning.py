"""Verdicts: by hand on tiny curves, the same when asked twice, the direction that the study names."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from crack_sweeps.specs.study import Objective, Pruner
from crack_sweeps.study.history import Outcome, Trial
from crack_sweeps.study.pruning import Verdict, bracket, judge, rungs

SEED = 0


def curve(number: int, *figures: float, outcome: Outcome = "complete", arm: str = "main") -> Trial:
    ended = figures[-1] if outcome == "complete" else None
    return Trial(arm, number, {}, outcome, ended, dict(enumerate(figures, start=1)))


def in_bracket(wanted: int, *, num_brackets: int) -> int:
    """A number that is dealt to that bracket."""
    return next(n for n in range(100, 10_000) if bracket(n, num_brackets, seed=SEED, arm="main") == wanted)


def verdict(
    trial: Trial, others: Sequence[Trial], direction: str = "maximize", epochs: int = 9, **pruner: Any
) -> Verdict:
    objective = Objective.model_validate({"direction": direction})
    return judge(trial, others, pruner=Pruner(**pruner), objective=objective, num_epochs=epochs, seed=SEED)


@pytest.mark.parametrize(
    ("num_epochs", "min_epochs", "factor", "expected"),
    [
        (9, 1, 3, [1, 3]),
        (27, 1, 3, [1, 3, 9]),
        (100, 1, 3, [1, 4, 11, 33]),
        (100, 5, 3, [11, 33]),
        (8, 1, 2, [1, 2, 4]),
        (6, 1, 3, [1, 2]),
        (1, 1, 3, []),
        (2, 1, 3, [1]),
        (5, 5, 3, []),
    ],
)
def test_rungs_are_whole_trainings_divided_by_powers_of_the_factor(
    num_epochs: int, min_epochs: int, factor: int, expected: list[int]
) -> None:
    assert rungs(Pruner(min_epochs=min_epochs, reduction_factor=factor), num_epochs) == expected


EIGHT = [curve(n, figure) for n, figure in enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])]


def test_hyperband_stops_what_is_below_the_best_third_and_says_so() -> None:
    strict = in_bracket(0, num_brackets=3)
    # With it there are 9 at the rung of epoch 1; the best 3 go on.
    assert verdict(curve(strict, 0.65, outcome="running"), EIGHT) == Verdict(True)
    stopped = verdict(curve(strict, 0.55, outcome="running"), EIGHT)
    assert stopped == Verdict(False, "0.55 is below the best third (0.6) of 9 trials at this rung")


def test_the_direction_of_the_verdict_is_the_studys() -> None:
    strict = in_bracket(0, num_brackets=3)
    assert verdict(curve(strict, 0.25, outcome="running"), EIGHT, "minimize") == Verdict(True)
    stopped = verdict(curve(strict, 0.35, outcome="running"), EIGHT, "minimize")
    assert stopped == Verdict(False, "0.35 is above the best third (0.3) of 9 trials at this rung")


def test_equal_figures_go_on_so_that_a_first_epoch_without_a_crack_stops_nobody() -> None:
    strict = in_bracket(0, num_brackets=3)
    assert verdict(curve(strict, 0.0, outcome="running"), [curve(n, 0.0) for n in range(8)]).go_on


def test_between_rungs_and_at_the_end_nothing_is_stopped() -> None:
    strict = in_bracket(0, num_brackets=3)
    good = [curve(n, *[0.9] * 9) for n in range(8)]
    stopped_at = [epoch for epoch in range(1, 10) if not verdict(curve(strict, *[0.1] * epoch), good).go_on]
    assert stopped_at == [1, 3]


def test_each_bracket_first_looks_a_rung_later_and_the_last_never() -> None:
    good = [curve(n, *[0.9] * 9) for n in range(8)]
    first = []
    for wanted in range(3):
        number = in_bracket(wanted, num_brackets=3)
        first.append([epoch for epoch in range(1, 10) if not verdict(curve(number, *[0.1] * epoch), good).go_on])
    assert first == [[1, 3], [3], []]


def test_trials_are_dealt_to_brackets_evenly_and_by_the_seed() -> None:
    dealt = Counter(bracket(number, 3, seed=SEED, arm="main") for number in range(600))
    assert all(150 <= dealt[index] <= 250 for index in range(3)), dealt
    assert [bracket(n, 3, seed=1, arm="main") for n in range(30)] != [
        bracket(n, 3, seed=2, arm="main") for n in range(30)
    ]


def test_figures_that_come_every_second_epoch_are_judged_at_the_first_after_a_rung() -> None:
    strict = in_bracket(0, num_brackets=3)
    good = [Trial("main", n, {}, "complete", 0.9, {2: 0.8, 4: 0.9}) for n in range(8)]
    judged = {2: 0.1}, {2: 0.8, 4: 0.7}, {2: 0.8, 4: 0.9, 6: 0.9}
    goes_on = [verdict(Trial("main", strict, {}, "running", None, figures), good).go_on for figures in judged]
    assert goes_on == [False, False, True]


def test_a_lucky_first_trial_stops_nobody_until_five_have_come_to_a_rung() -> None:
    strict = in_bracket(0, num_brackets=3)
    lucky = curve(0, 0.9)
    worse = [curve(n, 0.1 + n / 100) for n in range(1, 4)]
    assert verdict(curve(strict, 0.1, outcome="running"), [lucky, *worse[:2]]).go_on
    assert not verdict(curve(strict, 0.1, outcome="running"), [lucky, *worse]).go_on


@pytest.mark.parametrize("name", ["hyperband", "median"])
def test_the_best_so_far_counts_not_the_last(name: str) -> None:
    strict = in_bracket(0, num_brackets=3)
    others = [curve(n, 0.3, 0.4, 0.5) for n in range(8)]
    assert verdict(curve(strict, 0.6, 0.2, 0.1, outcome="running"), others, name=name).go_on
    assert not verdict(curve(strict, 0.1, 0.2, 0.4, outcome="running"), others, name=name).go_on


@pytest.mark.parametrize("name", ["hyperband", "median"])
def test_other_arms_and_the_trial_itself_are_not_compared_with(name: str) -> None:
    strict = in_bracket(0, num_brackets=3)
    trial = curve(strict, 0.1, outcome="running")
    elsewhere = [curve(n, 0.9, arm="unet") for n in range(8)]
    itself = [curve(strict, 0.9) for _ in range(8)]
    assert verdict(trial, [*elsewhere, *itself], name=name) == Verdict(True)


def test_median_stops_below_the_median_once_enough_have_ended() -> None:
    trial = curve(9, 0.2, outcome="running")
    four = [curve(n, figure) for n, figure in enumerate([0.1, 0.3, 0.5, 0.7])]
    assert verdict(trial, four, name="median") == Verdict(True)
    fifth = curve(4, 0.4, outcome="pruned")
    assert verdict(trial, [*four, curve(4, 0.4, outcome="running")], name="median") == Verdict(True)
    stopped = verdict(trial, [*four, fifth], name="median")
    assert stopped == Verdict(False, "0.2 is below the median (0.4) of 5 trials at this epoch")
    assert verdict(trial, [*four, fifth], name="median", min_epochs=2) == Verdict(True)
    assert verdict(trial, [*four, fifth], "minimize", name="median") == Verdict(True)


def test_none_stops_nobody_and_nothing_is_judged_before_its_first_figure() -> None:
    strict = in_bracket(0, num_brackets=3)
    assert verdict(curve(strict, 0.0), EIGHT, name="none") == Verdict(True)
    assert verdict(Trial("main", strict, {}, "running"), EIGHT) == Verdict(True)


@pytest.mark.parametrize("name", ["hyperband", "median"])
def test_the_verdict_depends_on_figures_alone_not_on_order_or_on_being_asked_before(name: str) -> None:
    rng = random.Random(0)
    others = [curve(n, *[rng.random() for _ in range(rng.randint(1, 9))]) for n in range(30)]
    shuffled = rng.sample(others, len(others))
    verdicts = []
    for number in range(100, 160):
        for epoch in (1, 2, 3):
            trial = curve(number, *[rng.random() * 0.8 for _ in range(epoch)], outcome="running")
            verdicts.append(verdict(trial, others, name=name))
            assert verdict(trial, shuffled, name=name) == verdicts[-1]
    assert {found.go_on for found in verdicts} == {True, False}
    assert all((found.reason is None) == found.go_on for found in verdicts)


def test_what_others_reach_later_does_not_change_a_verdict_at_an_earlier_rung() -> None:
    strict = in_bracket(0, num_brackets=3)
    trial = curve(strict, 0.55, outcome="running")
    later = [curve(n, figure, 0.99, 0.99) for n, figure in enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])]
    assert verdict(trial, later) == verdict(trial, EIGHT)
