"""Suggestions: pure functions of the history, inside the space, away from what does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from crack_sweeps.errors import UserError
from crack_sweeps.specs.study import Choices, Objective, Parameter, Range, Sampler
from crack_sweeps.study.distributions import axis, encoded_suggestion
from crack_sweeps.study.history import Trial
from crack_sweeps.study.suggest import INVALID_EXCESS, suggest

REPO = Path(__file__).resolve().parents[2]
QUICK = ["tpe", "random", "cmaes"]
SAMPLERS = [*QUICK, pytest.param("gp", marks=pytest.mark.slow)]  # a second and more for each suggestion

SPACE: dict[str, Parameter] = {
    "model.variant": Choices(choices=("tiny", "small", "base")),
    "model.rates": Choices(choices=((1, 2, 3), (1, 3, 6, 9))),
    "model.stride": Choices(choices=(8, 16)),
    "loss.alpha": Choices(choices=(None, 0.25, 0.75)),
    "loss.gamma": Range(low=0.0, high=3.0, step=0.1),
    "training.lr": Range(low=1e-5, high=1e-2, log=True),
    "training.batch": Range(low=2, high=8, step=2),
    "model.cbam": Choices(choices=(True, False)),
    "model.cbam_reduction": Range(low=4, high=16, when={"model.cbam": True}),
    "model.cbam_kernel": Choices(choices=(3, 5, 7), when={"model.cbam": True}),
}


def asked(
    past: list[Trial], name: str = "tpe", *, space: Mapping[str, Parameter] = SPACE, **more: Any
) -> dict[str, Any]:
    settings: dict[str, Any] = {"number": len(past), "objective": Objective(), "seed": 7, "arm": "main", **more}
    return suggest(space, past, sampler=Sampler(name=name), **settings)


def value(suggestion: Mapping[str, Any]) -> float:
    return 0.7 - abs(suggestion["loss.gamma"] - 2.0) / 10 - (0.1 if suggestion["model.variant"] == "tiny" else 0.0)


def history(count: int, name: str = "tpe") -> list[Trial]:
    """Trials as a study would have them, one of each outcome in turn."""
    past: list[Trial] = []
    for number in range(count):
        got = asked(past[:8], "random", number=number)
        reached = {1: value(got) / 2, 2: value(got)}
        match number % 6:
            case 0 | 1:
                trial = Trial("main", number, got, "complete", value(got), reached, excess=-0.2)
            case 2:
                trial = Trial("main", number, got, "pruned", None, {1: value(got) / 2}, excess=-0.1)
            case 3:
                trial = Trial("main", number, got, "rejected", excess=0.3)
            case 4:
                trial = Trial("main", number, got, "out_of_memory", excess=None)
            case _:
                trial = Trial("main", number, got, "failed", None, {1: 0.1}, excess=-0.1)
        past.append(trial)
    past.append(Trial("main", count, asked(past, "random"), "running", None, {1: 0.2}, excess=-0.3))
    return past


def is_within(parameter: Parameter, setting: Any) -> bool:
    if isinstance(parameter, Choices):
        return json.dumps(setting) in [json.dumps(choice) for choice in parameter.choices]
    return type(setting) is (int if parameter.whole else float) and parameter.low <= setting <= parameter.high


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_answers_within_the_space_from_every_kind_of_history(name: str) -> None:
    for past in ([], history(3), history(24)):
        for number in (30, 31):
            got = asked(past, name, number=number)
            assert list(got) == [key for key in SPACE if key in got]
            assert all(is_within(SPACE[key], setting) for key, setting in got.items()), got
            assert got["training.batch"] in (2, 4, 6, 8)
            assert len(repr(got["loss.gamma"])) <= 3  # 0.3, not 0.30000000000000004
            assert json.loads(json.dumps(got)) == got  # the same after it was stored


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_parameter_is_absent_where_its_condition_is_not_met(name: str) -> None:
    for gate in (True, False):
        space = {**SPACE, "model.cbam": Choices(choices=(gate,))}
        got = asked(history(24), name, space=space, number=40)
        assert got["model.cbam"] is gate
        assert ("model.cbam_reduction" in got) == ("model.cbam_kernel" in got) == gate


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_order_in_which_the_history_is_told_changes_nothing(name: str) -> None:
    past = history(24)
    assert asked(past, name, number=40) == asked(past[::-1], name, number=40)


ASK = """
import json, sys
sys.path.insert(0, {folder!r})
from test_study_suggest import asked, history
past = history(24)
print(json.dumps([asked(past, name, number=40) for name in {samplers!r}]))
"""


@pytest.mark.parametrize("names", [["tpe", "random"], pytest.param(["gp", "cmaes"], marks=pytest.mark.slow)])
def test_two_processes_with_other_hash_seeds_give_the_same_answer(names: list[str]) -> None:
    code = ASK.format(folder=str(Path(__file__).parent), samplers=names)
    answers = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(REPO)},
            capture_output=True,
            text=True,
            check=True,
        )
        for hash_seed in ("1", "2")
    ]
    assert answers[0].stdout == answers[1].stdout
    assert answers[0].stderr == ""  # and nothing is said on the way
    here = [asked(history(24), name, number=40) for name in names]
    assert json.loads(answers[0].stdout) == here


def test_seed_arm_and_number_each_change_the_answer() -> None:
    past = history(24)
    other_arm = [Trial("unet", t.number, t.suggestion, t.outcome, t.value, t.intermediate, t.excess) for t in past]
    first = asked(past, number=40)
    assert asked(past, number=41) != first
    assert asked(past, number=40, seed=8) != first
    assert asked(other_arm, number=40, arm="unet") != first


def test_at_random_a_parameter_that_joins_the_space_moves_no_other() -> None:
    more: dict[str, Parameter] = {"first": Range(low=0.0, high=1.0), **SPACE}
    got = asked([], "random", space=more)
    got.pop("first")
    assert got == asked([], "random")


def test_the_trial_that_is_asked_for_and_other_arms_are_not_learned_from() -> None:
    past = history(24)
    itself = Trial("main", 40, past[0].suggestion, "running")
    elsewhere = Trial("unet", 3, past[0].suggestion, "complete", 0.99)
    assert asked([*past, itself, elsewhere], number=40) == asked(past, number=40)


def test_failed_trials_teach_nothing_and_do_not_end_the_random_start() -> None:
    past = history(24)
    without = [trial for trial in past if trial.outcome != "failed"]
    assert asked(past, number=40) == asked(without, number=40)
    failed = [Trial("main", n, past[n].suggestion, "failed", None, {1: 0.5}) for n in range(24)]
    assert asked(failed, number=40) == asked([], "random", number=40)


def test_settings_that_the_space_no_longer_has_are_passed_over() -> None:
    narrower = {**SPACE, "model.variant": Choices(choices=("tiny", "base"))}
    got = asked(history(24), space=narrower, number=40)
    assert got["model.variant"] in ("tiny", "base")


def test_true_one_and_lists_stay_apart_as_choices() -> None:
    along = axis(Choices(choices=(True, 1, "1", None, (1, 2), (1, 2, 3))))
    texts = [along.encoded(choice) for choice in (True, 1, "1", None, [1, 2], (1, 2, 3))]
    assert texts == ["true", "1", '"1"', "null", "[1, 2]", "[1, 2, 3]"]
    assert [along.decoded(text) for text in texts] == [True, 1, "1", None, [1, 2], [1, 2, 3]]
    assert along.encoded(2) is None


def test_a_number_is_short_and_still_fine_within_a_narrow_range() -> None:
    assert axis(Range(low=0.0, high=1.0)).decoded(0.123456789) == 0.1235
    assert axis(Range(low=1e-5, high=1e-2, log=True)).decoded(0.00123456) == 0.001235
    narrow = axis(Range(low=0.999, high=0.99995))
    assert [narrow.decoded(value) for value in (0.99985432, 0.99992432)] == [0.9998543, 0.9999243]


def test_what_optuna_stores_of_a_suggestion_leaves_out_what_the_space_does_not_have() -> None:
    got = {**asked([], number=3), "gone": 1, "model.variant": "huge"}
    params, distributions = encoded_suggestion(SPACE, got)
    assert set(params) == set(distributions) == set(got) - {"gone", "model.variant"}


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_tpe_and_cmaes_close_in_on_the_side_that_the_objective_calls_better(direction: str) -> None:
    space: dict[str, Parameter] = {"x": Range(low=0.0, high=1.0)}
    target = 0.9 if direction == "maximize" else 0.1
    for name in ("tpe", "cmaes"):
        past: list[Trial] = []
        for number in range(30):
            x = suggest(
                space,
                past,
                number=number,
                sampler=Sampler(name=name),
                objective=Objective(direction=direction),
                seed=1,
                arm="a",
            )["x"]
            past.append(Trial("a", number, {"x": x}, "complete", x))
        assert abs(median(trial.suggestion["x"] for trial in past[20:]) - target) < 0.12, name


def test_cmaes_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(UserError, match="cmaes") as error:
        asked(history(24), "cmaes", number=40)
    assert error.value.hint == "uv pip install cmaes"


# --- a memory budget that half of the space violates ----------------------------------------------


def need_gib(suggestion: Mapping[str, Any]) -> float:
    backbone = {"tiny": 3.0, "small": 5.0, "base": 7.0}[suggestion["model.variant"]]
    return backbone * {8: 1.8, 16: 1.2}[suggestion["model.stride"]]


BUDGET_GIB = 6.5  # the 6 shapes need 3.6, 5.4, 6.0 | 8.4, 9.0, 12.6


def rejections(name: str, seed: int, *, launched: int = 30) -> int:
    """How many are rejected until so many have trained; the objective pulls the wrong way, towards large."""
    past: list[Trial] = []
    known: dict[tuple[Any, Any], bool] = {}

    def shape(suggestion: Mapping[str, Any]) -> tuple[Any, Any]:
        return suggestion["model.variant"], suggestion["model.stride"]

    while sum(trial.outcome == "complete" for trial in past) < launched:
        got = asked(past, name, seed=seed, fits=lambda s: known.get(shape(s)))
        excess = need_gib(got) / BUDGET_GIB - 1
        known[shape(got)] = excess <= 0
        if excess > 0:
            past.append(Trial("main", len(past), got, "rejected", excess=excess))
        else:
            better = 0.5 + need_gib(got) / 50 - abs(got["loss.gamma"] - 2.0) / 20
            past.append(Trial("main", len(past), got, "complete", better, {1: better}, excess=excess))
    return sum(trial.outcome == "rejected" for trial in past)


def test_of_a_space_that_half_violates_the_budget_tpe_has_at_most_8_rejected_per_30_launched() -> None:
    counts = [rejections("tpe", seed) for seed in range(4)]
    assert max(counts) <= 8, counts
    assert max(counts) > 0  # or the budget would bind nobody


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes"])
def test_of_an_invalid_trial_a_sampler_is_told_what_it_is_told_of_a_rejected_one(name: str) -> None:
    past = history(12)
    rejected = [replace(trial, excess=INVALID_EXCESS) if trial.outcome == "rejected" else trial for trial in past]
    invalid = [
        replace(trial, outcome="invalid", excess=None) if trial.outcome == "rejected" else trial for trial in past
    ]
    assert any(trial.outcome == "invalid" for trial in invalid)
    assert asked(invalid, name, number=40) == asked(rejected, name, number=40)


def test_a_choice_that_nothing_can_be_built_of_is_hardly_suggested_again() -> None:
    bad, past = SPACE["model.variant"].choices[0], []  # type: ignore[union-attr]
    for number in range(40):
        got = asked(past, "tpe", number=number)
        if got["model.variant"] == bad:
            past.append(Trial("main", number, got, "invalid"))
        else:
            past.append(Trial("main", number, got, "complete", value(got), {1: value(got)}, excess=-0.2))
    assert 1 <= sum(trial.outcome == "invalid" for trial in past) <= 6


@pytest.mark.parametrize(
    "kind", ["mixed", pytest.param("free", marks=pytest.mark.slow), pytest.param("rejected", marks=pytest.mark.slow)]
)
def test_gp_answers_from_a_small_history_with_constraints_without_and_with_nothing_that_fits(kind: str) -> None:
    small: dict[str, Parameter] = {"model.variant": SPACE["model.variant"], "loss.gamma": SPACE["loss.gamma"]}
    past = history(12)
    if kind == "free":
        past = [replace(trial, excess=None) for trial in past if trial.outcome != "out_of_memory"]
    if kind == "rejected":
        past = [replace(trial, outcome="rejected", value=None, intermediate={}, excess=0.5) for trial in past]
    gp = Sampler(name="gp", startup_trials=5)
    got = suggest(small, past, number=40, sampler=gp, objective=Objective(), seed=7, arm="main")
    assert list(got) == list(small)
    assert all(is_within(small[key], setting) for key, setting in got.items())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_gp_has_at_most_8_rejected_per_30_launched() -> None:
    counts = [rejections("gp", seed) for seed in range(2)]
    assert max(counts) <= 8, counts


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_known_not_to_fit_is_not_suggested_unless_nothing_else_turns_up(name: str) -> None:
    past = history(24)
    for number in range(40, 43):
        got = asked(past, name, number=number, fits=lambda s: s["model.variant"] == "tiny" or None)
        assert got == asked(past, name, number=number)  # None: not known, so it may be tried
    assert asked(past, "random", number=40, fits=lambda s: s["model.variant"] == "tiny")["model.variant"] == "tiny"
    assert asked(past, name, number=40, fits=lambda s: False)  # an answer all the same
