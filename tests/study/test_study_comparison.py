"""Every trial can say why it went as it did, and two of them in what they differ."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from hand_made_study import DEAD, HandMadeStudy, append, write_environment
from three_arm_study import ThreeArms

from crack_sweeps.errors import RunNotFound, SpecError, StudyNotFound, UserError
from crack_sweeps.runs.directory import OUTPUTS, RunDirectory
from crack_sweeps.study.comparison import diff, explain
from crack_sweeps.study.naming import find_trial, names_trial, trial_settings

GREEDY = {"training.learning_rate": 0.02, "training.loss.dice_weight": 1.0}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMadeStudy:
    monkeypatch.chdir(tmp_path)
    toy = HandMadeStudy()
    toy.attempt()
    toy.trial(0, 0.2, 0.3, outcome="complete", value=0.3, ended="FINISHED")
    toy.trial(1, 0.5, 0.4, outcome="complete", value=0.5, ended="FINISHED", seed=1, repeat_of=0)
    toy.trial(2, 0.1, outcome="pruned", ended="PRUNED", reason="place 3 of 3 at its rung")
    toy.trial(3, outcome="rejected", run=False, excess=0.25, suggestion=GREEDY, reason="needs 1.00 GiB by forecast")
    toy.trial(4, 0.1, 0.9, trainer=DEAD)
    return toy


def test_a_complete_trial_is_placed_among_the_complete_ones(toy: HandMadeStudy) -> None:
    why = explain("toy/0")
    assert (why.outcome, why.value, why.place, why.num_complete) == ("complete", 0.3, 2, 2)
    assert why.said == "complete: val/crack_iou 0.300, place 2 of 2"
    assert (dict(why.epochs), why.total_epochs, why.duration_s) == ({1: 0.2, 2: 0.3}, 5, 20.0)
    json.dumps(why.as_dict(), allow_nan=False)


def test_a_repeat_names_its_seed_and_the_trial_that_it_repeats(toy: HandMadeStudy) -> None:
    why = explain("toy/1")
    assert (why.seed, why.repeat_of, why.place) == (1, "toy/0", 1)


def test_a_pruned_trial_says_when_and_why(toy: HandMadeStudy) -> None:
    why = explain("toy/2")
    assert why.said == "stopped by the pruner after epoch 1 of 5: place 3 of 3 at its rung"
    assert [attempt.status for attempt in why.attempts] == ["PRUNED"]


def test_a_rejected_trial_says_what_it_needed_and_what_there_was(toy: HandMadeStudy) -> None:
    why = explain("toy/3")
    assert why.said == "rejected before launch, it cost no training: needs 1.00 GiB by forecast"
    assert (why.needed_bytes, why.budget_bytes) == (2**30, round(2**30 / 1.25))
    assert (why.suggestion, why.run, why.attempts, why.seed) == (GREEDY, None, (), None)


def test_a_trial_that_has_not_ended_says_how_far_it_is_and_how_to_go_on(toy: HandMadeStudy) -> None:
    why = explain("toy/4")
    assert (why.outcome, why.said) == ("running", "has not ended: epoch 2 of 5")
    assert why.suggestion is not None
    assert (why.peaks, why.seed) == ({"memory/peak_rss_bytes": 2 * 2**20}, 0)
    assert why.go_on == "sweeps study toy --profile none"
    assert why.attempts[0].status is None


def test_the_reason_of_a_failure_is_told(toy: HandMadeStudy) -> None:
    toy.trial(5, outcome="failed", ended="FAILED", reason="the loss is NaN at step 3")
    toy.trial(6, 0.1, outcome="out_of_memory", ended="FAILED", reason="not even one crop fits")
    assert explain("toy/5").said == "failed before its first epoch was complete: the loss is NaN at step 3"
    assert explain("toy/6").said == "out of memory after epoch 1 of 5: not even one crop fits"


def test_each_attempt_is_told_with_its_end(toy: HandMadeStudy) -> None:
    log = RunDirectory(OUTPUTS / str(find_trial("toy/4").facts["run"])).events
    append(log, "ended", status="KILLED", reason="SIGTERM")
    append(log, "attempt", attempt=2, pid=7, process_started=1.0, host="vm", resumed_from_step=12)
    append(log, "note", level="warning", text="the micro-batch was halved")
    why = explain("toy/4")
    assert [(a.resumed_from_step, a.status, a.reason) for a in why.attempts] == [
        (None, "KILLED", "SIGTERM"),
        (12, None, None),
    ]
    assert why.notes == ("the micro-batch was halved",)


def test_a_trial_answers_to_its_arm_to_its_folder_and_to_the_name_of_its_run(toy: HandMadeStudy) -> None:
    run = str(explain("toy/2").run)
    for name in ("toy/2", "toy/unet_small/2", "studies/toy/2", run, run[:16], f"{OUTPUTS}/{run}"):
        assert explain(name).trial == "toy/2", name


@pytest.mark.parametrize(
    ("wanted", "message", "hint"),
    [
        ("toy/9", "study toy has no trial 9", "toy/0 to toy/4"),
        ("toy/unet/1", "no arm `unet`", "unet_small"),
        ("tyo/1", "no study is named `tyo`", "toy"),
        ("7", "no trial or run is named `7`", "toy/7"),
        ("toy", "no trial or run is named `toy`", "toy/0"),
    ],
)
def test_a_name_that_means_no_trial_gets_a_hint(toy: HandMadeStudy, wanted: str, message: str, hint: str) -> None:
    with pytest.raises(StudyNotFound) as error:
        explain(wanted)
    assert message in error.value.message
    assert hint in str(error.value.hint)


def test_a_single_run_is_no_trial(toy: HandMadeStudy) -> None:
    run = RunDirectory(OUTPUTS / "20260102-120000-unet_small-abcdef")
    run.path.mkdir()
    append(run.events, "created", run=run.name)
    write_environment(run, study=None)
    with pytest.raises(UserError, match="no trial of a study"):
        explain(run.name)


def test_names_of_trials_are_told_from_those_of_runs() -> None:
    assert all(names_trial(name) for name in ("toy/1", "toy@2/arm/1", "studies/toy/1"))
    assert not any(names_trial(name) for name in ("toy", "1", "a/b/c/1", "toy/", "/1", "artifacts/x", "toy//1"))


def test_two_trials_differ_in_what_was_suggested_and_in_nothing_else(toy: HandMadeStudy) -> None:
    found = diff("toy/0", "toy/2")
    assert found.settings == {"training.learning_rate": (0.001, 0.003)}
    assert found.environment == {}
    assert found.figures["crack_iou"] == (0.3, 0.1)
    assert found.figures["outcome"] == ("complete", "pruned")
    assert found.figures["epochs"] == (2, 1)
    assert found.figures["seconds"] == (20.0, 10.0)
    assert found.figures["peak_bytes"] == (2 * 2**20, 2**20)
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_trial_that_was_never_launched_is_compared_by_its_settings(toy: HandMadeStudy) -> None:
    found = diff("toy/0", "toy/3")
    assert found.settings == {"training.learning_rate": (0.001, 0.02), "training.loss.dice_weight": (0.4, 1.0)}
    assert found.figures["outcome"] == ("complete", "rejected")


def test_what_differs_between_machines_is_told(toy: HandMadeStudy) -> None:
    one, other = (RunDirectory(OUTPUTS / str(explain(name).run)) for name in ("toy/0", "toy/1"))
    study = json.loads(other.environment.read_text())["study"]
    packages = {"torch": "2.16.0", "timm": "1.0.31"}
    write_environment(other, study=study, commit="decaf", packages=packages, command="sweeps run x")
    found = diff(one.name, other.name)
    assert found.environment == {"commit": ("c0ffee", "decaf"), "packages.torch": ("2.15.0", "2.16.0")}
    assert found.settings == {"training.learning_rate": (0.001, 0.002), "training.seed": (0, 1)}


def test_an_unknown_run_in_a_comparison_says_how_trials_are_typed(toy: HandMadeStudy) -> None:
    with pytest.raises(RunNotFound) as error:
        diff("toy/0", "nothing")
    assert "STUDY/21" in str(error.value.hint)


def test_a_trials_settings_are_those_of_its_run(toy: HandMadeStudy) -> None:
    run = RunDirectory(OUTPUTS / str(explain("toy/1").run))
    study = json.loads(run.environment.read_text())["study"]
    write_environment(run, study=study, profile="cpu", quick_look=True, overrides=["data.path=photos"])
    found = trial_settings("toy/1")
    assert found.experiment.training.learning_rate == 0.002
    assert found.experiment.training.epochs == 5
    assert found.experiment.training.seed == 1
    assert (found.profile, found.quick_look, found.source) == ("cpu", True, run.config)
    assert found.overrides == ("data.path=photos",)
    another = trial_settings("toy/1", seed=7)
    assert another.experiment.training.seed == 7
    assert another.fingerprint == found.fingerprint, "a seed is no mathematics"


def test_a_rejected_trials_settings_come_from_the_study(toy: HandMadeStudy) -> None:
    found = trial_settings("toy/3", seed=2)
    assert found.experiment.training.learning_rate == 0.02
    assert (found.experiment.training.seed, found.profile, found.quick_look) == (2, "none", False)
    assert found.source == toy.folder.snapshot


def test_a_seed_out_of_range_is_refused(toy: HandMadeStudy) -> None:
    for trial in ("toy/1", "toy/3"):
        with pytest.raises(SpecError, match="seed"):
            trial_settings(trial, seed=2**40)


def test_a_trial_without_a_word_from_its_run_has_no_settings_yet(toy: HandMadeStudy) -> None:
    append(toy.folder.events, "trial", arm=toy.arm.name, number=5, run="r", run_dir=str(OUTPUTS / "r"))
    with pytest.raises(UserError, match="has not begun"):
        trial_settings("toy/5")
    assert explain("toy/5").suggestion is None


def test_a_trial_whose_run_directory_is_gone_is_explained_and_compared_by_its_row(toy: HandMadeStudy) -> None:
    path = RunDirectory(OUTPUTS / str(explain("toy/0").run)).path
    shutil.rmtree(path)
    why = explain("toy/0")
    assert why.lost == f"its run directory is gone ({path.as_posix()})"
    assert (why.value, why.num_epochs, dict(why.epochs), why.mlflow_run_id) == (0.3, 2, {}, None)
    found = diff("toy/0", "toy/2")
    assert found.notes == (f"toy/0: {why.lost}",)
    assert found.settings == {"training.learning_rate": (0.001, 0.003)}
    assert (found.figures["crack_iou"], found.figures["epochs"]) == ((0.3, 0.1), (2, 1))
    assert found.environment == {}, "what is known of one alone is no difference"


def test_a_run_directory_that_lost_one_file_is_told_so(toy: HandMadeStudy) -> None:
    run = RunDirectory(OUTPUTS / str(explain("toy/0").run))
    run.events.unlink()
    assert explain("toy/0").lost == f"its run directory lacks events.jsonl ({run.path.as_posix()})"


def test_the_trials_of_all_arms_are_named_where_a_number_is_wrong(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    trio = ThreeArms()
    for arm in ("hybrid", "hybrid", "unet"):
        trio.trial(arm, 0.2)
    trio.finals("unet", [0.2, 0.3])
    for wanted, arm, there_are in (
        ("trio/21", "hybrid", "trio/0 to trio/1 and trio/unet/0"),
        ("trio/unet.final/21", "unet.final", "trio/unet.final/0 to trio/unet.final/1"),
    ):
        with pytest.raises(StudyNotFound, match=f"study trio has no trial 21 in arm {arm}") as error:
            explain(wanted)
        assert error.value.hint == f"there are {there_are}"


def test_an_edited_ledger_is_told_with_what_writes_it_anew(toy: HandMadeStudy) -> None:
    toy.folder.ledger.write_text("nonsense\n")
    with pytest.raises(UserError, match=r"ledger\.jsonl: is damaged \(line 1 is no event") as error:
        explain("toy/0")
    assert "sweeps doctor --fix" in str(error.value.hint)


def test_photos_that_score_an_epoch_are_told_where_they_are_a_part_of_all(toy: HandMadeStudy) -> None:
    run = RunDirectory(OUTPUTS / str(explain("toy/0").run))
    assert explain("toy/0").images_per_epoch is None
    first, *rest = run.events.read_text().splitlines(keepends=True)
    created = json.loads(first)
    created["params"]["evaluation.images_per_epoch"] = 6
    for num_val, told in ((19, (6, 19)), (5, (None, None))):
        created["dataset"] = {"num_val": num_val}
        run.events.write_text("".join([json.dumps(created) + "\n", *rest]))
        why = explain("toy/0")
        assert (why.images_per_epoch, why.num_images) == told
