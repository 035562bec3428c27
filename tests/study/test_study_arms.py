"""Arms train by turns and for as long; the best of each is trained anew, with fresh seeds, and scored on test."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crack_sweeps.errors import NotFiniteError
from crack_sweeps.evaluation.floors import FLOORS
from crack_sweeps.runs.events import read_events
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.study_loading import ResolvedStudy, resolve_study
from crack_sweeps.study import floor_scores
from crack_sweeps.study.data_facts import write_data_facts
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import Trial
from crack_sweeps.study.ledger import read_rows
from crack_sweeps.study.schedule import (
    FINAL_SEEDS_FROM,
    MAX_ATTEMPTS,
    Final,
    Search,
    best_settings,
    next_final,
    next_search,
    next_untuned,
    num_epochs,
)
from crack_sweeps.study.updates import Notice

if TYPE_CHECKING:
    from stand_in_study import Bench

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def trio(here: Path) -> None:
    """The toy study with two more arms, which share its space."""
    small = (REPO / "experiments" / "unet_small.yaml").read_text()
    for name in ("second", "third"):
        (here / "studies" / f"{name}.yaml").write_text(small)
    toy = here / "studies" / "toy.yaml"
    own = "model.encoder_cfg.depth: 3, model.decoder_cfg.channels: [16, 8, 8]"
    arms = "".join(f"  - {{base: ./{name}.yaml, settings: {{{own}}}}}\n" for name in ("second", "third"))
    toy.write_text(toy.read_text().replace("finalists: {seeds: 0}", f"finalists: {{seeds: 3}}\nbaselines:\n{arms}"))


def good_at(rate: float) -> Any:
    def objective(experiment: Experiment, epoch: int) -> float:
        off = abs(math.log10(experiment.training.learning_rate / rate))
        return max(0.0, 0.8 - 0.3 * off) * (1 - 0.5**epoch)

    return objective


def rows_by_arm(folder: StudyFolder) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(folder):
        found.setdefault(row["arm"], []).append(row)
    return found


# --- the schedule --------------------------------------------------------------------------------


def trial(arm: str, number: int, epochs: int = 3, value: float | None = 0.5, **facts: Any) -> Trial:
    outcome = "complete" if value is not None else "pruned"
    known = {"fingerprint": f"f{number}", "seed": 0, **facts}
    figures = dict.fromkeys(range(1, epochs + 1), 0.1)
    return Trial(arm, number, {}, outcome, value, figures, -0.5, known)


def past(study: ResolvedStudy, **trials: list[Trial]) -> dict[str, list[Trial]]:
    return {arm.name: trials.get(arm.name.replace(".", "_"), []) for arm in study.all_arms}


@pytest.fixture
def study(trio: None, photos: Path) -> ResolvedStudy:
    return resolve_study("toy", profile="none", data=photos, trials=4)


def test_arms_take_turns_by_the_share_of_their_trials_that_have_begun(study: ResolvedStudy) -> None:
    trials = past(study)
    turns = []
    for _ in range(12):
        turn = next_search(study, trials)
        assert turn is not None
        assert turn.epoch_cap is None
        turns.append(turn.arm.name)
        trials[turn.arm.name].append(trial(turn.arm.name, len(trials[turn.arm.name])))
    assert turns == ["unet_small", "second", "third"] * 4
    assert next_search(study, trials) is None, "all have trained as long"


def test_a_rejected_suggestion_is_no_turn(study: ResolvedStudy) -> None:
    rejected = Trial("unet_small", 0, {}, "rejected", excess=0.5)
    turn = next_search(study, past(study, unet_small=[rejected]))
    assert turn is not None
    assert turn.arm.name == "unet_small"


def test_an_arm_that_trained_less_gets_more_up_to_what_is_missing(study: ResolvedStudy) -> None:
    full = {arm: [trial(arm, n) for n in range(4)] for arm in ("unet_small", "third")}
    short = [trial("second", n, epochs=2, value=None) for n in range(4)]
    assert next_search(study, past(study, **full, second=short)) == Search(study.arms[1], epoch_cap=12 - 8)
    nearly = [trial("second", n) for n in range(3)] + [trial("second", 3, epochs=2)]
    assert next_search(study, past(study, **full, second=nearly)) is None, "11 of 12 epochs are within a tenth"


def test_while_a_trial_is_under_way_nobody_knows_who_is_short(study: ResolvedStudy) -> None:
    full = {arm: [trial(arm, n) for n in range(4)] for arm in ("unet_small", "third")}
    running = [*(trial("second", n, epochs=1, value=None) for n in range(3)), Trial("second", 3, {}, "running")]
    assert next_search(study, past(study, **full, second=running)) is None


def test_trials_that_never_train_an_epoch_do_not_go_on_for_ever(study: ResolvedStudy) -> None:
    full = {arm: [trial(arm, n) for n in range(4)] for arm in ("unet_small", "third")}
    failed = [Trial("second", n, {}, "failed", facts={"fingerprint": "f"}) for n in range(4)]
    trials = past(study, **full, second=failed)
    for number in range(4, 7):
        turn = next_search(study, trials)
        assert turn is not None
        assert turn.epoch_cap == 12
        trials["second"].append(Trial("second", number, {}, "failed", facts={"epoch_cap": 12}))
    assert next_search(study, trials) is None


def test_the_finalist_is_best_on_average_over_its_seeds_and_not_by_its_luckiest(study: ResolvedStudy) -> None:
    trials = [
        trial("a", 0, value=0.60, fingerprint="x"),
        trial("a", 1, value=0.70, fingerprint="y"),
        trial("a", 2, value=0.66, fingerprint="x", seed=1),
        trial("a", 3, value=0.50, fingerprint="y", seed=1),
        trial("a", 4, value=None, fingerprint="z"),
    ]
    winner = best_settings(trials, study.spec.objective)
    assert winner is not None
    assert winner.number == 0
    assert best_settings(trials[4:], study.spec.objective) is None


def test_a_baseline_that_is_not_searched_trains_early_as_shipped_and_that_is_its_first_seed(
    trio: None, photos: Path
) -> None:
    study = resolve_study("toy", profile="none", data=photos, trials=4, baseline_trials=0)
    assert next_untuned(study, past(study)) is None, "the main arm begins"
    trials = past(study, unet_small=[trial("unet_small", 0)])
    first = next_untuned(study, trials)
    assert first == Final(study.arms[1].final(), {}, seed=0, selected=None)
    trials["second.final"].append(trial("second.final", 0))
    second = next_untuned(study, trials)
    assert second is not None
    assert second.arm.name == "third.final"
    assert [turn.arm.name for turn in [next_search(study, trials)] if turn] == ["unet_small"]


# --- the coordinator -----------------------------------------------------------------------------


@pytest.mark.usefixtures("trio")
def test_all_arms_train_as_long_and_the_best_of_each_three_times_more(bench: Bench) -> None:
    study = bench.resolve(trials=6)
    updates, trials, folder = bench.run(study, good_at(0.003))
    assert updates[-1].reason is None
    rows = rows_by_arm(folder)
    epochs = {arm.name: sum(row["num_epochs"] for row in rows[arm.name]) for arm in study.arms}
    assert max(epochs.values()) * 0.9 <= min(epochs.values()) <= max(epochs.values()), epochs
    for arm in study.arms:
        assert len([row for row in rows[arm.name] if not row["top_up"]]) == 6
        finals = rows[f"{arm.name}.final"]
        assert [row["seed"] for row in finals] == [FINAL_SEEDS_FROM + n for n in range(3)]
        complete = [row for row in rows[arm.name] if row["value"] is not None]
        best = max(complete, key=lambda row: row["value"])
        for row in finals:
            assert (row["finalist_of"], row["selected_trial"]) == (arm.name, best["trial"])
            assert (row["suggestion"], row["fingerprint"]) == (best["suggestion"], best["fingerprint"])
            assert row["outcome"] == "complete", "nothing prunes a finalist"
    scored = {order.key[0] for order in trials.orders if order.score_test}
    assert scored == {f"{arm.name}.final" for arm in study.arms}, "test is for finalists alone"
    assert all(order.log_model == order.score_test for order in trials.orders)


@pytest.mark.usefixtures("trio")
def test_a_top_up_is_stopped_when_its_arm_has_trained_as_long_as_the_largest(bench: Bench) -> None:
    toy = Path("studies/toy.yaml")
    text = toy.read_text().replace("training.epochs: 3", "training.epochs: 20").replace("hyperband", "none")
    toy.write_text(text.replace("settings: {model", "settings: {training.weight_decay: 0.5, model", 1))

    def objective(experiment: Experiment, epoch: int) -> float:
        if experiment.training.weight_decay == 0.5 and experiment.training.loss.dice_weight == 1.0 and epoch == 3:
            raise NotFiniteError("loss is nan in epoch 3")
        return good_at(0.003)(experiment, epoch)

    study = bench.resolve(trials=3, seeds=0)
    _, _, folder = bench.run(study, objective)
    rows = rows_by_arm(folder)
    epochs = {arm.name: sum(row["num_epochs"] for row in rows[arm.name]) for arm in study.arms}
    most = max(epochs.values())
    assert most * 0.9 <= min(epochs.values()), epochs
    capped = [row for arm in study.arms for row in rows[arm.name] if row["top_up"]]
    assert capped, "arms whose trials were stopped earlier got more"
    stopped = [row["reason"] for row in capped if "as many as the largest" in (row["reason"] or "")]
    assert stopped, "and no more than what was missing"
    assert set(stopped) == {f"its arm has now trained {most} epochs, as many as the largest"}


@pytest.mark.usefixtures("trio")
def test_in_two_sittings_arms_and_finalists_are_the_same_as_in_one(bench: Bench, tmp_path: Path) -> None:
    study = bench.resolve(trials=4)
    for moment in (3, 17, 40):
        asked = iter([None] * moment + ["SIGTERM"] * 1000)
        bench.run(study, good_at(0.003), stop=lambda asked=asked: next(asked))
    _, _, folder = bench.run(study, good_at(0.003))
    told = [(r["arm"], r["number"], r["seed"], r["suggestion"], r["value"], r["outcome"]) for r in read_rows(folder)]
    folder.path.rename(tmp_path / "aside")
    _, _, anew = bench.run(study, good_at(0.003))
    again = [(r["arm"], r["number"], r["seed"], r["suggestion"], r["value"], r["outcome"]) for r in read_rows(anew)]
    assert told == again


@pytest.mark.usefixtures("trio")
def test_more_trials_bring_new_finalists_only_where_another_trial_wins(bench: Bench) -> None:
    bench.run(bench.resolve(trials=4), good_at(0.003))
    _, again, folder = bench.run(bench.resolve(trials=4), good_at(0.003))
    assert not again.orders, "all is done"
    _, _, folder = bench.run(bench.resolve(trials=10), good_at(0.003))
    for arm, rows in rows_by_arm(folder).items():
        if arm.endswith(".final"):
            by_settings = Counter(row["fingerprint"] for row in rows)
            assert set(by_settings.values()) == {3}
            assert (
                rows[-1]["selected_trial"]
                == max(
                    (row for row in rows_by_arm(folder)[rows[0]["finalist_of"]] if row["value"] is not None),
                    key=lambda row: row["value"],
                )["trial"]
            )


@pytest.mark.usefixtures("trio")
def test_finalists_are_nested_under_the_trial_that_won_and_baselines_have_names_of_their_own(bench: Bench) -> None:
    study = bench.resolve(trials=3)
    _, trials, folder = bench.run(study, good_at(0.003))
    runs = {row["trial"]: row["run"] for row in read_rows(folder)}
    for order in trials.orders:
        told = order.membership
        if order.score_test:
            won, arm = told["tags"]["crack_sweeps.finalist"], told["tags"]["crack_sweeps.arm"]
            assert told["parent"]["run"] == runs[won]
            assert told["shown_as"] == f"{arm} finalist (seed {order.experiment.training.seed})"
        elif told["study"]["facts"]["repeat_of"] is None:
            assert told["parent"]["run"] == "toy"
        prefix = "toy" if order.key[0] == "unet_small" else f"toy/{order.key[0]}"
        assert told["tags"]["crack_sweeps.trial"] == f"{prefix}/{order.key[1]}"


@pytest.mark.usefixtures("trio")
def test_baselines_as_shipped_train_once_and_then_as_often_as_the_others(bench: Bench) -> None:
    study = bench.resolve(trials=3, baseline_trials=0, seeds=1)
    _, _, folder = bench.run(study, good_at(0.003))
    rows = rows_by_arm(folder)
    assert {arm: len(found) for arm, found in rows.items()} == {
        "unet_small": 3, "unet_small.final": 1, "second.final": 1, "third.final": 1,
    }  # fmt: skip
    assert [row["seed"] for row in rows["second.final"]] == [study.arms[1].base.training.seed]
    assert rows["second.final"][0]["selected_trial"] is None
    _, _, folder = bench.run(bench.resolve(trials=3, baseline_trials=0, seeds=3), good_at(0.003))
    assert [row["seed"] for row in rows_by_arm(folder)["second.final"]] == [
        0,
        FINAL_SEEDS_FROM + 1,
        FINAL_SEEDS_FROM + 2,
    ]


@pytest.mark.usefixtures("trio")
def test_an_arm_none_of_whose_trials_is_complete_has_no_finalist_and_the_others_have(bench: Bench) -> None:
    study = bench.resolve(trials=3)

    def objective(experiment: Experiment, epoch: int) -> float:
        return math.nan if experiment.training.epochs == 2 else good_at(0.003)(experiment, epoch)

    toy = Path("studies/toy.yaml")
    toy.write_text(toy.read_text().replace("settings: {model", "settings: {training.epochs: 2, model", 1))
    study = bench.resolve(trials=3)
    updates, _, folder = bench.run(study, objective)
    assert updates[-1].reason is None
    finals = {arm for arm in rows_by_arm(folder) if arm.endswith(".final")}
    assert finals == {"unet_small.final", "third.final"}
    assert updates[-1].num_failed >= 3


@pytest.mark.usefixtures("trio")
def test_the_journal_has_a_figure_for_each_arm_and_every_step_once(bench: Bench) -> None:
    _, _, folder = bench.run(bench.resolve(trials=3), good_at(0.003))
    told = [event for event in read_events(folder.events) if event["kind"] == "metrics"]
    steps = [event["step"] for event in told]
    assert steps == sorted(set(steps))
    last = told[-1]["metrics"]
    assert last["num_trials"] >= 3
    assert last["second/num_trials"] >= 3
    assert last["num_ended"] == len(list(read_rows(folder)))
    assert "best/crack_iou" in last
    assert "third/best/crack_iou" in last


def test_epochs_count_whatever_became_of_a_trial() -> None:
    assert num_epochs([trial("a", 0), trial("a", 1, epochs=2, value=None), Trial("a", 2, {}, "rejected")]) == 5


def test_no_finalist_where_no_seeds_are_asked_for(study: ResolvedStudy) -> None:
    trials = past(study, unet_small=[trial("unet_small", 0)])
    assert next_final(study, trials) is not None
    none = resolve_study("toy", profile="none", data=Path("photos"), seeds=0)
    assert next_final(none, trials) is None


def unlucky(*seeds: int) -> Any:
    """Trainings with these seeds fail, all others go well."""

    def objective(experiment: Experiment, epoch: int) -> float:
        if experiment.training.seed in seeds:
            raise NotFiniteError("loss is nan")
        return good_at(0.003)(experiment, epoch)

    return objective


def finals_of(bench: Bench, study: ResolvedStudy, folder: StudyFolder) -> list[tuple[int, str]]:
    return [(t.facts["seed"], t.outcome) for t in bench.trials(study, folder, "unet_small.final")]


def notices(updates: Sequence[Any]) -> list[str]:
    return [update.text for update in updates if isinstance(update, Notice)]


def test_a_finalist_that_failed_is_tried_again_in_the_next_sitting_and_not_in_this_one(bench: Bench) -> None:
    study = bench.resolve(trials=3, seeds=2)
    updates, _, folder = bench.run(study, unlucky(FINAL_SEEDS_FROM))
    first = [(FINAL_SEEDS_FROM, "failed"), (FINAL_SEEDS_FROM + 1, "complete")]
    assert finals_of(bench, study, folder) == first
    assert updates[-1].reason is None
    assert updates[-1].num_failed == 1
    assert notices(updates) == [
        "the finalist of unet_small has no score with seed 1000: toy/unet_small.final/0: loss is nan; "
        "the same command tries again, 2 times at most"
    ]
    updates, again, _ = bench.run(study, good_at(0.003))
    assert len(again.orders) == 1
    assert finals_of(bench, study, folder) == [*first, (FINAL_SEEDS_FROM, "complete")]
    assert updates[-1].num_failed == 0, "it was made good"
    assert not notices(updates)


def test_a_finalist_that_fails_in_every_sitting_is_given_up(bench: Bench) -> None:
    study = bench.resolve(trials=3, seeds=1)
    for launched in (4, 1, 1, 0):
        updates, trials, folder = bench.run(study, unlucky(FINAL_SEEDS_FROM))
        assert len(trials.orders) == launched
        assert updates[-1].num_failed == 1
    assert finals_of(bench, study, folder) == [(FINAL_SEEDS_FROM, "failed")] * MAX_ATTEMPTS
    assert notices(updates)[0].endswith("loss is nan; 3 attempts failed, so it is given up")


def test_a_finalist_that_was_rejected_is_weighed_anew_where_the_budget_has_grown(bench: Bench) -> None:
    bench.run(bench.resolve(trials=3, seeds=0), good_at(0.003))
    study = bench.resolve(trials=3, seeds=1)
    for _ in range(2):
        updates, trials, folder = bench.run(study, good_at(0.003), budget_bytes=1000)
        assert not trials.orders
        assert updates[-1].num_failed == 1
        assert "a larger memory budget (--vram-budget) lets the same command train it" in notices(updates)[0]
        assert finals_of(bench, study, folder) == [(FINAL_SEEDS_FROM, "rejected")], "and no row for each sitting"
    updates, trials, _ = bench.run(study, good_at(0.003))
    assert len(trials.orders) == 1
    assert finals_of(bench, study, folder) == [(FINAL_SEEDS_FROM, "rejected"), (FINAL_SEEDS_FROM, "complete")]
    assert updates[-1].num_failed == 0


# --- what stands beside --------------------------------------------------------------------------


def test_test_photos_that_training_has_seen_are_written_down(deepcrack: Path, tmp_path: Path) -> None:
    from crack_sweeps.data.open import open_photos
    from crack_sweeps.specs.experiment import Data

    photos = open_photos(Data(path=deepcrack))
    write_data_facts(StudyFolder(tmp_path), photos)
    facts = json.loads((tmp_path / "data.json").read_text())
    assert (facts["num_test"], len(facts["leaked_test"])) == (237, 19)
    assert facts["leaked_groups"] == ["11142", "11289", "IMG_6536"]
    assert facts["digest"] == photos.digest


def test_floors_are_scored_on_validation_and_test_photo_by_photo(photos: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    from crack_sweeps.data.open import open_photos
    from crack_sweeps.specs.experiment import Data

    assert set(floor_scores.NAMES) == set(FLOORS)
    found = open_photos(Data(path=photos))
    floor_scores.write_floors(tmp_path, found)
    for name in floor_scores.NAMES:
        for split in floor_scores.SCORED:
            table = parquet.read_table(tmp_path / "floors" / f"{name}-{split}.parquet")
            assert table["name"].to_pylist() == [photo.name for photo in found.split(split)]
    before = (tmp_path / "floors" / "otsu-val.parquet").stat().st_mtime_ns
    floor_scores.floor_scores(tmp_path, found)
    assert (tmp_path / "floors" / "otsu-val.parquet").stat().st_mtime_ns == before, "what is there stays"
