"""Figures of small studies made by hand: what is drawn, what it says, and what is left out."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crack_sweeps.runs.events import EventLog
from crack_sweeps.specs.study_loading import ResolvedStudy, resolve_study
from crack_sweeps.study import figures
from crack_sweeps.study.calibration import DEFAULTS, held_bytes
from crack_sweeps.study.figures import PICTURES, draw_figures
from crack_sweeps.study.folder import FORMAT, StudyFolder
from crack_sweeps.study.history import Trial
from crack_sweeps.study.scales import choice_labels, short_names
from crack_sweeps.study.store import Store, sqlite_url

GIB = 1 << 30
SPEC = """\
name: drawn
base: unet_small
settings: {training.epochs: 9}
space:
  training.learning_rate: {low: 0.0003, high: 0.03, log: true}
  training.loss.focal_alpha: {choices: [null, 0.25, 0.75]}
  training.loss.cldice_weight: {choices: [0.0, 0.3]}
  training.loss.cldice_iterations: {low: 1, high: 9, when: {training.loss.cldice_weight: 0.3}}
  model.decoder_cfg.channels: {choices: [[16, 8, 8, 8], [32, 16, 8, 8]]}
  model.encoder_cfg.model_name: {choices: [resnet10t, resnet18]}
"""


class Drawn:
    """A study of one or two arms with a real store; `complete`, `pruned` and the like add trials."""

    def __init__(self, here: Path) -> None:
        (here / "studies" / "drawn.yaml").write_text(SPEC)
        study = resolve_study("drawn", profile="none")
        other = replace(study.arms[0], name="other")
        self.study: ResolvedStudy = replace(study, arms=(study.arms[0], other))
        self.folder = StudyFolder(here / "studies" / "drawn")
        self.folder.path.mkdir()
        self.folder.facts_file.write_text(json.dumps({"format": FORMAT, "memory_budget_bytes": 2 * GIB}))
        self.store = Store(sqlite_url(self.folder.database), "drawn", self.study.arms, self.study.spec.objective)
        self.ledger = EventLog(self.folder.ledger)
        self.counts: dict[str, int] = {}
        self.rng = random.Random(0)

    def add(self, outcome: Any, *values: float, arm: str | None = None, held: int | None = GIB) -> None:
        arm = arm or self.study.arms[0].name
        number = self.counts.get(arm, 0)
        self.counts[arm] = number + 1
        weight = self.rng.choice([0.0, 0.3])
        suggestion = {
            "training.learning_rate": 0.0003 * 10 ** (2 * self.rng.random()),
            "training.loss.focal_alpha": self.rng.choice([None, 0.25, 0.75]),
            "training.loss.cldice_weight": weight,
            **({"training.loss.cldice_iterations": self.rng.randint(1, 9)} if weight else {}),
            "model.decoder_cfg.channels": self.rng.choice([[16, 8, 8, 8], [32, 16, 8, 8]]),
            "model.encoder_cfg.model_name": self.rng.choice(["resnet10t", "resnet18"]),
        }
        value = values[-1] if outcome == "complete" else None
        facts = {"run": f"{arm}-{number}", "needed_bytes": GIB}
        course = dict(enumerate(values, 1))
        self.store.add(Trial(arm, number, suggestion, outcome, value, course, -0.5, facts))
        if outcome != "running":
            peaks = {} if held is None or not values else {"memory/peak_rss_bytes": held}
            row = {"arm": arm, "number": number, "duration_s": 10.0 * len(values), "needed_bytes": GIB, "peaks": peaks}
            self.ledger.append("trial", **row)

    def draw(self) -> dict[str, Path]:
        return {path.name: path for path in draw_figures(self.folder, self.store, self.study)}

    def search(self) -> figures._Search:
        arm = self.study.arms[0]
        rows = list(figures.read_rows(self.folder))
        return figures._Search(
            "drawn", self.store.trials(arm.name), rows, arm.space, self.study.spec.objective, 2 * GIB
        )

    def words(self, picture: str) -> str:
        """All that is written in a picture."""
        figure = PICTURES[picture](self.search())
        assert figure is not None
        return " | ".join(text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text")))

    def fill(self) -> None:
        """Twelve complete trials and some of every other kind."""
        for number in range(12):
            self.add("complete", *(0.01 * number + 0.1 * math.log1p(epoch) for epoch in range(1, 10)))
            if number % 3 == 0:
                self.add("pruned", 0.05, 0.08)
        self.add("rejected")
        self.add("invalid")
        self.add("failed", 0.02)
        self.add("failed")
        self.add("out_of_memory")
        self.add("running", 0.1)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drawn]:
    """A study with trials of every kind; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        here = tmp_path_factory.mktemp("filled")
        (here / "studies").mkdir()
        patch.chdir(here)
        study = Drawn(here)
    with closing(study.store), closing(study.ledger):
        study.fill()
        yield study


@pytest.fixture
def drawn(here: Path) -> Iterator[Drawn]:
    study = Drawn(here)
    with closing(study.store), closing(study.ledger):
        yield study


def test_a_study_with_trials_of_every_kind_is_drawn_whole(filled: Drawn) -> None:
    pictures = filled.draw()
    assert set(pictures) == {f"{name}.png" for name in PICTURES}
    for path in pictures.values():
        assert path.parent == filled.folder.figures
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000
    assert {path.name for path in filled.folder.figures.iterdir()} == set(pictures)  # and no half-written one


def test_every_picture_says_what_it_shows_and_of_how_many_trials(filled: Drawn) -> None:
    counts = (
        "study drawn: 22 trials (1 running, 12 complete, 4 pruned, 1 rejected, 1 invalid, 2 failed, 1 out of memory)"
    )
    for name in PICTURES:
        assert counts in filled.words(name), name
    assert "0.340, by trial 15" in filled.words("history")  # .01 x 11 + .1 x log(10)
    assert "12 complete trials" in filled.words("importances")
    assert "50 complete trials would be enough" in filled.words("importances")


def test_lists_and_null_are_written_as_people_type_them(filled: Drawn) -> None:
    for name in ("slices", "parallel"):
        words = filled.words(name)
        assert "[32, 16, 8, 8]" in words
        assert "null" in words
    assert "absent" in filled.words("parallel")  # where a condition was not met


@pytest.mark.parametrize("outcome", ["complete", "pruned", "failed"])
def test_with_two_trials_or_less_nothing_is_drawn(drawn: Drawn, outcome: str) -> None:
    for _ in range(3):
        assert drawn.draw() == {}
        drawn.add("rejected")
        drawn.add("running")
        drawn.add(outcome, 0.1, 0.2)
    assert drawn.draw() != {}


def test_without_a_complete_trial_there_is_no_best_and_no_history(drawn: Drawn) -> None:
    for _ in range(4):
        drawn.add("pruned", 0.1, 0.2)
    assert set(drawn.draw()) == {"learning_curves.png", "memory.png"}


def test_importances_wait_for_enough_complete_trials(drawn: Drawn) -> None:
    for number in range(7):
        drawn.add("complete", 0.1 * number)
    assert PICTURES["importances"](drawn.search()) is None
    drawn.add("complete", 0.9)
    assert PICTURES["importances"](drawn.search()) is not None


def test_trials_that_are_all_alike_are_drawn_too(drawn: Drawn) -> None:
    drawn.rng.choice = lambda options: options[0]  # type: ignore[method-assign,assignment]
    drawn.rng.random = lambda: 0.5  # type: ignore[method-assign]
    for _ in range(9):
        drawn.add("complete", 0.3, 0.3)
    assert {"history.png", "slices.png", "learning_curves.png", "memory.png"} <= set(drawn.draw())


def test_another_arms_pictures_carry_its_name(drawn: Drawn) -> None:
    for number in range(3):
        drawn.add("complete", 0.1 * number, arm="other")
    names = set(drawn.draw())
    assert {"other-history.png", "other-slices.png"} <= names
    assert all(name.startswith("other-") for name in names)


def test_memory_says_how_far_the_forecast_was_off(drawn: Drawn) -> None:
    for held in (GIB, GIB * 100 // 104, GIB * 100 // 98):  # right, 4 % over, 2 % under
        drawn.add("complete", 0.1, held=held)
    drawn.add("complete", 0.1, held=None)
    words = drawn.words("memory")
    assert "2.0 % off (median of 3 trials)" in words
    assert "at most 4.0 % over, 2.0 % under" in words


def test_where_less_is_better_the_least_is_the_best(drawn: Drawn) -> None:
    for value in (0.5, 0.2, 0.9):
        drawn.add("complete", value)
    search = drawn.search()
    assert search.best.number == 2
    less = replace(search, objective=search.objective.model_copy(update={"direction": "minimize"}))
    assert less.best.number == 1
    assert less.score(Trial("x", 0, {}, "pruned", intermediate={1: 0.7, 2: 0.4, 3: 0.6})) == 0.4


def test_names_are_as_short_as_they_can_be() -> None:
    keys = ["training.loss.focal_weight", "model.encoder_cfg.depth", "model.decoder_cfg.depth", "seed"]
    assert list(short_names(keys).values()) == ["focal_weight", "encoder_cfg.depth", "decoder_cfg.depth", "seed"]


@pytest.mark.parametrize(
    ("choices", "labels", "common"),
    [
        (("swinv2_tiny_window8_256", "swinv2_base_window8_256"), ["tiny", "base"], "swinv2_*_window8_256"),
        (("resnet10t", "resnet18"), ["resnet10t", "resnet18"], ""),
        (("a_b", "a"), ["a_b", "a"], ""),
        ((None, 0.25), ["null", "0.25"], ""),
        (((1, 2), (3,)), ["[1, 2]", "[3]"], ""),
        ((True, "x"), ["true", "x"], ""),
    ],
)
def test_choices_are_labelled_by_what_tells_them_apart(choices: Any, labels: list[str], common: str) -> None:
    assert choice_labels(choices) == (labels, common)


def test_what_a_process_held_is_the_drivers_figure_or_the_allocators_with_a_context() -> None:
    both = {"vram/peak_process_bytes": 7.0, "vram/peak_reserved_bytes": 5.0}
    assert held_bytes({"peaks": both}) == 7.0
    assert held_bytes({"peaks": {"vram/peak_reserved_bytes": 5.0}}) == 5.0 + DEFAULTS["cuda"][1]
    assert held_bytes({"peaks": {"memory/peak_rss_bytes": 3.0}}) == 3.0
    assert held_bytes({"peaks": {}}) is None
