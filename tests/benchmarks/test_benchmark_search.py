"""What the search finds for the epochs that it spends, and what a suggestion costs in a long study.

The objective is cheap and shaped like the shipped space: 12 parameters, among them a backbone that moves the best
learning rate, atrous rates that die where the map is small, two weights of which only the share matters. A learning
curve rises at a speed that learning rate, backbone and drop path set, so that curves cross: of the best twentieth of
trials about half are in the best third at a tenth of the epochs, nine tenths at a third of them.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import pytest

from crack_sweeps.specs.study import Choices, Objective, Parameter, Pruner, Range, Sampler
from crack_sweeps.study.history import Trial
from crack_sweeps.study.pruning import judge
from crack_sweeps.study.suggest import suggest

RATES = ((1, 2, 3), (1, 3, 6), (1, 3, 6, 9), (1, 6, 12, 18))
SPACE: dict[str, Parameter] = {
    "variant": Choices(choices=("tiny", "small", "base")),
    "rates": Choices(choices=RATES),
    "stride": Choices(choices=(16, 32)),
    "focal": Range(low=0.1, high=1.0),
    "dice": Range(low=0.1, high=1.0),
    "alpha": Choices(choices=(None, 0.25, 0.5, 0.75, 0.9)),
    "gamma": Range(low=0.0, high=3.0),
    "lr": Range(low=1e-5, high=1e-2, log=True),
    "encoder": Range(low=0.05, high=0.5, log=True),
    "decay": Range(low=1e-4, high=1e-1, log=True),
    "drop": Range(low=0.0, high=0.3),
    "cbam": Choices(choices=(True, False)),
}
NUM_EPOCHS, NUM_SEEDS, NUM_RANDOM = 30, 10, 60
OBJECTIVE = Objective()
MOST_SHARE_OF_RANDOM, MOST_S = 1 / 3, 0.100


def seed_of(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def final_quality(got: Mapping[str, Any]) -> float:
    """Crack IoU of an endless training without noise, about .53 to .76."""
    magnitude = math.log10(got["lr"])
    best_magnitude = {"tiny": -2.8, "small": -3.0, "base": -3.3}[got["variant"]]
    dead = -0.01 if got["stride"] == 16 else -0.03
    share = got["focal"] / (got["focal"] + got["dice"])
    quality = 0.72 + {"tiny": 0.0, "small": 0.012, "base": 0.02}[got["variant"]]
    quality += (0.0, 0.01, 0.015, dead)[RATES.index(tuple(got["rates"]))]
    quality -= 0.045 * (magnitude - best_magnitude) ** 2 + 0.015 * (math.log10(got["encoder"]) + 0.8) ** 2
    quality -= 0.006 * (math.log10(got["decay"]) + 2) ** 2 + 0.16 * (share - 0.55) ** 2
    quality -= 0.006 * (got["gamma"] - 1.8) ** 2 + 0.3 * (got["drop"] - 0.1) ** 2
    quality -= {None: 0.0, 0.25: 0.03, 0.5: 0.005, 0.75: 0.0, 0.9: 0.012}[got["alpha"]]
    return max(quality - (0.0 if got["cbam"] else 0.006), 0.02)


def learning_curve(got: Mapping[str, Any], seed: int) -> list[float]:
    """The objective after each epoch: a seed's offset of .004, an epoch's noise of .014 that fades to .002."""
    backbone = {"tiny": 1.0, "small": 1.08, "base": 1.18}[got["variant"]]
    half = 0.06 * backbone * 10 ** (-0.11 * (math.log10(got["lr"]) + 3)) * (1 + 2 * got["drop"])
    share = np.arange(1, NUM_EPOCHS + 1) / NUM_EPOCHS
    rise = share**1.3 / (share**1.3 + half**1.3) * (1 + half**1.3)
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.004) + rng.normal(0, 0.012, NUM_EPOCHS) * (1.2 - share)
    return [float(figure) for figure in final_quality(got) * rise + noise]


def best_of_random(seed: int) -> float:
    """The best of 60 full trainings of random settings."""
    best = 0.0
    for number in range(NUM_RANDOM):
        got = ask([], number, seed, "random", arm="random")
        best = max(best, *learning_curve(got, seed_of("random", seed, number)))
    return best


def ask(past: Sequence[Trial], number: int, seed: int, name: str = "tpe", arm: str = "main") -> dict[str, Any]:
    return suggest(SPACE, past, number=number, sampler=Sampler(name=name), objective=OBJECTIVE, seed=seed, arm=arm)


def study(seed: int, pruner: Pruner, num_trials: int) -> list[Trial]:
    """A study at one job: each trial trains until it is stopped or done."""
    past: list[Trial] = []
    for number in range(num_trials):
        got = ask(past, number, seed)
        figures: dict[int, float] = {}
        goes_on = True
        for epoch, figure in enumerate(learning_curve(got, seed_of("study", seed, number)), start=1):
            figures[epoch] = figure
            so_far = Trial("main", number, got, "running", None, figures)
            goes_on = judge(so_far, past, pruner=pruner, objective=OBJECTIVE, num_epochs=NUM_EPOCHS, seed=seed).go_on
            if not goes_on:
                break
        value = max(figures.values()) if goes_on else None
        past.append(Trial("main", number, got, "complete" if goes_on else "pruned", value, figures))
    return past


def epochs_until(trials: Sequence[Trial], target: float) -> float:
    """Epochs spent, those of stopped trials too, when a trial that ran to its end reached the target."""
    spent = 0
    for trial in trials:
        spent += len(trial.intermediate)
        if trial.value is not None and trial.value >= target:
            return spent
    return math.inf


@pytest.mark.benchmark
@pytest.mark.timeout(1800)
def test_the_best_of_60_random_trainings_is_reached_in_a_third_of_their_epochs() -> None:
    targets = [best_of_random(seed) for seed in range(NUM_SEEDS)]
    shares: dict[str, list[float]] = {}
    for label, pruner in {
        "tpe + hyperband (default)": Pruner(),
        "tpe + median": Pruner(name="median"),
        "tpe, none stopped": Pruner(name="none"),
    }.items():
        studies = [study(seed, pruner, 80) for seed in range(NUM_SEEDS)]
        reached = [epochs_until(trials, target) for trials, target in zip(studies, targets, strict=True)]
        shares[label] = [epochs / (NUM_RANDOM * NUM_EPOCHS) for epochs in reached]
        thirty = [trials[:30] for trials in studies]
        best = median(max(trial.value or 0.0 for trial in trials) for trials in thirty)
        cost = median(sum(len(trial.intermediate) for trial in trials) / NUM_EPOCHS for trials in thirty)
        print(
            f"{label:>26}: reached after {median(shares[label]):.2f} of random search's epochs (median; all:"
            f" {' '.join(f'{share:.2f}' for share in sorted(shares[label]))}); 30 trials: best {best:.4f},"
            f" cost {cost:.1f} whole trainings"
        )
    print(f"{'random search':>26}: best of {NUM_RANDOM} {median(targets):.4f}")
    assert median(shares["tpe + hyperband (default)"]) <= MOST_SHARE_OF_RANDOM


@pytest.mark.benchmark
def test_a_suggestion_and_its_verdict_take_a_tenth_of_a_second_with_10_000_stored_trials() -> None:
    stored: list[Trial] = []
    for number in range(10_000):
        got = ask([], number % 500, number // 500, "random")
        figures = dict(enumerate(learning_curve(got, number), start=1))
        match number % 4:
            case 0:
                trial = Trial("main", number, got, "complete", max(figures.values()), figures, excess=-0.1)
            case 1 | 2:
                trial = Trial("main", number, got, "pruned", None, {1: figures[1], 2: figures[2]}, excess=-0.1)
            case _:
                trial = Trial("main", number, got, "rejected", excess=0.2)
        stored.append(trial)
    taken: dict[str, float] = {}
    for name in ("tpe", "random", "cmaes"):
        ask(stored, len(stored), 0, name)  # imports apart
        spent = []
        for number in range(len(stored), len(stored) + 9):
            start = time.process_time()
            got = ask(stored, number, 0, name)
            asked = time.process_time()
            now = Trial("main", number, got, "running", None, {1: 0.1, 2: 0.2, 3: 0.3})
            judge(now, stored, pruner=Pruner(), objective=OBJECTIVE, num_epochs=NUM_EPOCHS, seed=0)
            spent.append((asked - start, time.process_time() - asked))
        taken[name] = median(suggesting for suggesting, _ in spent)
        print(
            f"{name:>8}: {taken[name] * 1e3:5.1f} ms a suggestion,"
            f" {median(judging for _, judging in spent) * 1e3:5.1f} ms a verdict"
        )
        assert median(sum(both) for both in spent) <= MOST_S, name
