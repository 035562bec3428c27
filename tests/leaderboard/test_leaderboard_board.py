"""Which rows stand on a leaderboard, in which order, with what beside them, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from three_arm_study import ThreeArms

from crack_sweeps.errors import UserError
from crack_sweeps.leaderboard.artifacts import write_artifacts
from crack_sweeps.leaderboard.board import Board, board, read_leaderboard
from crack_sweeps.leaderboard.rows import BoardRow
from crack_sweeps.leaderboard.statistics import FIGURES, estimate
from crack_sweeps.leaderboard.wording import answer, caveats, csv_text, heading, markdown
from crack_sweeps.search import record_of
from crack_sweeps.study.updates import StudyEnded

ASKED = {
    *("rank", "name", "arm", "crack_iou", "crack_iou_low", "crack_iou_high", "crack_iou_image", "crack_f1"),
    *("num_seeds", "num_trials", "gpu_hours", "vram_peak_bytes", "images_per_s", "num_params", "fingerprint"),
    *("commit", "data_digest", "tied_with_leader"),
}


def by_label(found: Board) -> dict[str, BoardRow]:
    return {row.name if row.arm in ("floor", "outside") else row.arm: row for row in found.rows}


# --- rows and ranks ------------------------------------------------------------------------------


def test_one_finalist_for_each_arm_and_those_that_cannot_be_told_apart_share_a_rank(finished: ThreeArms) -> None:
    found = board(finished.folder)
    assert [(row.rank, row.arm, row.kind, row.num_seeds) for row in found.rows] == [
        (1, "hybrid", "finalist", 3),
        (1, "unet", "finalist", 3),
        (3, "deeplab", "finalist", 3),
    ]
    assert [row.tied_with_leader for row in found.rows] == [False, True, False]
    assert [row.name for row in found.rows] == ["trio/0", "trio/unet/0", "trio/deeplab/0"]
    assert found.split == "test"
    leader, tied, beaten = found.rows
    assert leader.p_value is leader.difference is None
    assert tied.p_value is not None
    assert beaten.p_value is not None
    assert tied.p_value >= 0.05 > beaten.p_value
    assert answer(found).count("cannot be told from it") == 1


def test_every_row_has_every_key(finished: ThreeArms) -> None:
    finished.floors()
    finished.outside("theirs", 0.5)
    rows = json.loads(json.dumps(board(finished.folder, all_trials=True).as_list(), allow_nan=False))
    assert {row["kind"] for row in rows} == {"finalist", "trial", "floor", "outside"}
    keys = list(rows[0])
    assert set(keys) >= ASKED
    for row in rows:
        assert list(row) == keys
        assert isinstance(row["arm"], str)


def test_the_figures_are_those_of_the_records(finished: ThreeArms) -> None:
    finals = [json.loads(line) for line in finished.folder.ledger.read_text().splitlines()]
    for row in board(finished.folder).rows:
        recorded = [event["metrics"] for event in finals if event["finalist_of"] == row.arm]
        for figure in FIGURES:
            mean = sum(metrics[f"test/{figure}"] for metrics in recorded) / 3
            assert getattr(row, figure) == pytest.approx(mean)


def test_another_figure_may_rank(finished: ThreeArms) -> None:
    for sort in FIGURES:
        found = board(finished.folder, sort=sort)
        values = [getattr(row, sort) for row in found.ranked]
        assert values == sorted(values, reverse=True)
    with pytest.raises(UserError, match="--sort crack_iuo: must be") as error:
        board(finished.folder, sort="crack_iuo")
    assert error.value.hint == "did you mean crack_iou?"


def test_what_an_arm_cost_stands_in_its_row(finished: ThreeArms) -> None:
    row = by_label(board(finished.folder))["unet"]
    assert (row.num_trials, row.num_epochs, row.budget_note) == (4, 40, "as much as the others")
    assert row.gpu_hours == pytest.approx(7 * 360 / 3600), "four trials and three finalists"
    assert row.vram_peak_bytes == 2**30 + 2, "the highest of the three"
    assert row.images_per_s == 21.0, "the middle one"
    assert (row.num_params, row.commit, row.memory_source) == (1_000_000, "c0ffee", "nvml")
    assert (row.thresholds, row.threshold_origin) == ((0.4, 0.4, 0.4), "validation")


def test_rejections_are_no_trials_and_several_commits_are_named(trio: ThreeArms) -> None:
    trio.trial("hybrid", 0.5)
    trio.trial("hybrid", None, outcome="rejected", num_epochs=0, duration_s=0.0, run=None, run_dir=None)
    trio.trial("hybrid", 0.6, fingerprint="f", commit="one")
    trio.trial("hybrid", 0.6, fingerprint="f", commit="two")
    row = board(trio.folder).rows[0]
    assert (row.num_trials, row.commit) == (3, "one, two")


# --- which split, which row of an arm ------------------------------------------------------------


def test_before_there_are_finalists_an_arm_stands_with_its_best_trial_on_validation(trio: ThreeArms) -> None:
    trio.trial("hybrid", 0.5)
    trio.trial("hybrid", 0.6)
    trio.trial("unet", 0.7)
    found = board(trio.folder)
    assert [(row.name, row.kind, row.split) for row in found.rows] == [
        ("trio/unet/0", "trial", "val"),
        ("trio/1", "trial", "val"),
    ]
    assert "on validation" in heading(found)
    assert any("selected on these images" in line for line in caveats(found))
    assert found.warnings == ("deeplab has no complete trial: it is not on the table",)


def test_one_seed_each_tells_no_winner_however_far_apart(trio: ThreeArms) -> None:
    trio.trial("hybrid", 0.8)
    trio.trial("unet", 0.3)
    found = board(trio.folder)
    assert [(row.rank, row.tied_with_leader, row.p_value) for row in found.rows] == [(1, False, None), (1, True, None)]
    assert answer(found).startswith("No winner: hybrid has crack IoU 0.8")
    assert "one seed: its interval is over images alone" in found.rows[0].notes
    assert any("tells nothing of other seeds" in note for note in found.rows[1].notes)


def test_the_best_trial_is_best_on_average_over_the_seeds_of_its_settings(trio: ThreeArms) -> None:
    trio.trial("hybrid", 0.62, fingerprint="lucky")
    trio.trial("hybrid", 0.61, fingerprint="steady")
    trio.trial("hybrid", 0.50, fingerprint="lucky")
    trio.trial("hybrid", 0.60, fingerprint="steady")
    row = board(trio.folder).rows[0]
    assert (row.name, row.fingerprint, row.num_seeds) == ("trio/1", "steady", 2)


def test_test_is_shown_once_no_arm_waits_for_its_finalist(trio: ThreeArms) -> None:
    for arm in ("hybrid", "unet"):
        trio.trial(arm, 0.6)
    trio.finals("hybrid", (0.6, 0.61))
    assert board(trio.folder).split == "val"
    assert [row.kind for row in board(trio.folder).rows] == ["finalist", "trial"]
    trio.finals("unet", (0.55,), outcome="failed", metrics={})
    found = board(trio.folder)
    assert (found.split, [row.arm for row in found.rows]) == ("test", ["hybrid"])
    assert "unet has no finalist with a test score: it is not on the table" in found.warnings


def test_a_baseline_as_shipped_has_a_finalist_without_a_trial(trio: ThreeArms) -> None:
    trio.trial("hybrid", 0.6)
    trio.trial("hybrid", 0.61)
    trio.finals("unet", (0.5,), selected_trial=None)
    assert board(trio.folder).split == "val", "the hybrid's finalist is waited for"
    trio.finals("hybrid", (0.6, 0.61, 0.62))
    trio.finals("unet", (0.5, 0.51), selected_trial=None)
    found = board(trio.folder)
    row = by_label(found)["unet"]
    assert (row.name, row.num_trials, row.num_epochs, row.budget_note) == ("trio/unet.final/0", 0, 0, "untuned")
    assert "unet is untuned: its settings are as shipped" in caveats(found)


def test_after_more_trials_the_finalist_is_that_of_the_search_as_it_stands(trio: ThreeArms) -> None:
    trio.trial("hybrid", 0.60, fingerprint="first")
    trio.finals("hybrid", (0.6, 0.61), fingerprint="first")
    trio.trial("hybrid", 0.65, fingerprint="second")
    assert board(trio.folder).rows[0].fingerprint == "first", "the second has not been trained anew yet"
    trio.finals("hybrid", (0.64, 0.65, 0.66), fingerprint="second")
    row = board(trio.folder).rows[0]
    assert (row.fingerprint, row.num_seeds, row.test_looks) == ("second", 3, 2)
    trio.trial("hybrid", 0.70, fingerprint="first")  # a repeat: on average the first is best again
    trio.trial("hybrid", 0.70, fingerprint="first")
    assert board(trio.folder).rows[0].fingerprint == "first"


def test_other_looks_at_test_are_counted_for_the_arm_that_was_looked_at(finished: ThreeArms) -> None:
    looks = finished.folder.path / "test_looks.jsonl"
    run = board(finished.folder).rows[0].run_dirs[0].rpartition("/")[2]
    looks.write_text(json.dumps({"time": "2026", "run": run, "command": "sweeps evaluate"}) + "\n")
    found = board(finished.folder)
    assert [row.test_looks for row in found.rows] == [2, 1, 1]
    assert any("hybrid was looked at on test 2 times" in warning for warning in found.warnings)
    looks.write_text("{")
    with pytest.raises(UserError, match=r"test_looks.jsonl: line 1 cannot be read"):
        board(finished.folder)


def test_an_arm_with_fewer_epochs_is_marked(trio: ThreeArms) -> None:
    for arm, num_epochs in (("hybrid", 50), ("unet", 45), ("deeplab", 44)):
        for _ in range(2):
            trio.trial(arm, 0.5, num_epochs=num_epochs)
    found = board(trio.folder)
    notes = {budget.arm: budget.note for budget in found.arms}
    assert notes == {"hybrid": "as much as the others", "unet": "as much as the others", "deeplab": "under-tuned"}
    assert "deeplab is under-tuned: its search had 88 epochs, the longest 100" in caveats(found)
    assert "2 under-tuned" in markdown(found)


def test_all_trials_are_listed_unranked_on_validation(finished: ThreeArms) -> None:
    found = board(finished.folder, all_trials=True)
    assert len(found.trials) == 12
    assert {(row.rank, row.split, row.num_seeds or 1) for row in found.trials} == {(None, "val", 1)}
    assert found.trials[3].notes == ("pruned: worse than half",)
    assert found.trials[3].crack_iou is None
    assert board(finished.folder).trials == ()


def test_a_ledger_from_before_arms_is_a_search(trio: ThreeArms) -> None:
    for value in (0.5, 0.6):
        trio.trial("hybrid", value)
    new = ("finalist_of", "selected_trial", "threshold", "images_per_s")
    events = [json.loads(line) for line in trio.folder.ledger.read_text().splitlines()]
    old = [{key: value for key, value in event.items() if key not in new} for event in events]
    trio.folder.ledger.write_text("".join(json.dumps(event) + "\n" for event in old))
    found = board(trio.folder, all_trials=True)
    assert (found.rows[0].name, found.rows[0].images_per_s, found.rows[0].thresholds) == ("trio/1", None, (0.4,))


# --- below the line ------------------------------------------------------------------------------


def test_floors_stand_below_the_line(finished: ThreeArms) -> None:
    finished.floors()
    found = board(finished.folder)
    assert [(row.name, row.arm, row.rank, row.num_seeds) for row in found.below] == [
        ("Otsu", "floor", None, None),
        ("black-hat", "floor", None, None),
    ]
    assert found.below[0].crack_iou == pytest.approx(0.08, abs=0.001)
    assert found.below[0].tied_with_leader is found.below[0].thresholds is found.below[0].gpu_hours is None


def test_a_study_without_scores_of_floors_shows_those_of_its_runs_on_validation(trio: ThreeArms) -> None:
    recorded = {"floor/otsu_crack_iou": 0.05, "floor/otsu_crack_f1": 0.1, "floor/black_hat_crack_iou": 0.2}
    trio.trial("hybrid", 0.5, metrics=recorded)
    found = board(trio.folder)
    assert [(row.name, row.crack_iou, row.crack_f1, row.crack_iou_low) for row in found.below] == [
        ("Otsu", 0.05, 0.1, None),
        ("black-hat", 0.2, None, None),
    ]


def test_an_outside_entry_is_ranked_if_its_threshold_was_chosen_on_validation(finished: ThreeArms) -> None:
    finished.outside("theirs", 0.5)
    finished.outside("oracle", 0.9, threshold_origin="oracle")
    finished.outside("given", 0.9, threshold_origin="given")
    finished.outside("elsewhere", 0.9, split="val")
    found = board(finished.folder)
    rows = by_label(found)
    assert (rows["theirs"].rank, rows["theirs"].num_seeds, rows["theirs"].arm) == (3, 1, "outside")
    assert any("scattered over seeds as the other does" in note for note in rows["theirs"].notes)
    assert rows["deeplab"].rank == 4
    assert [(row.name, row.rank) for row in found.below] == [("oracle", None), ("given", None)]
    assert rows["oracle"].notes == ("not ranked: its threshold was chosen on these very images",)
    assert "elsewhere" not in rows, "it was scored on validation"


def test_the_newest_outside_entry_of_a_name_counts(finished: ThreeArms) -> None:
    finished.outside("theirs", 0.5)
    finished.outside("theirs", 0.2)
    assert by_label(board(finished.folder))["theirs"].crack_iou == pytest.approx(0.2, abs=0.001)


def test_an_outside_entry_of_other_photos_stands_below_with_the_reason(finished: ThreeArms) -> None:
    finished.outside("other-data", 0.9, data_digest="e2" * 32)
    finished.outside("other-masks", 0.9)
    finished.outside("other-names", 0.9)
    crack, names = finished.crack_I, finished.names
    finished.crack_I = crack + 1
    finished.write_scores(finished.folder.path / "outside" / "other-masks-test.parquet", 0.9, split="test")
    finished.crack_I = crack
    swapped = ("another", *names[1:])
    finished.write_scores(
        finished.folder.path / "outside" / "other-names-test.parquet", 0.9, split="test", names=swapped
    )
    notes = {row.name: row.notes[0] for row in board(finished.folder).below}
    assert "data digest is e2e2e2e2e2e2, the study's d1d1d1d1d1d1" in notes["other-data"]
    assert "the mask of photo-000 has 400 crack pixels and 401" in notes["other-masks"]
    assert "photo-000 stands where the other has another" in notes["other-names"]


# --- leaks ---------------------------------------------------------------------------------------


def test_leaked_test_images_are_told_and_left_out_on_request(finished: ThreeArms) -> None:
    leaked = ["photo-001", "photo-003", "photo-010"]
    finished.data(warnings=["3 of 12 test photos were cut from photos that are in train too"], leaked_test=leaked)
    finished.floors()
    with_them = board(finished.folder)
    assert with_them.warnings[0].startswith("3 of 12 test photos")
    assert any("--drop-leaked" in warning for warning in with_them.warnings)
    without = board(finished.folder, drop_leaked=True)
    assert (without.num_images, without.num_dropped) == (9, 3)
    assert "9 images (3 leaked images left out) of drawn" in heading(without)
    assert "the 3 leaked test images are left out of this table" in without.warnings
    table = pyarrow.parquet.read_table(Path(without.rows[0].run_dirs[0]) / "scores_test.parquet").to_pylist()
    kept = [row for row in table if row["name"] not in leaked]
    one_seed = sum(row["tp"] for row in kept) / sum(row["tp"] + row["fp"] + row["fn"] for row in kept)
    assert by_label(without)["hybrid"].crack_iou == pytest.approx(one_seed, abs=0.01)
    assert by_label(without)["Otsu"].num_images == 9


def test_the_leak_of_deepcrack_is_told_and_its_19_images_can_be_left_out(here: Path, deepcrack: Path) -> None:
    from crack_sweeps.data.open import open_photos
    from crack_sweeps.specs.experiment import Data
    from crack_sweeps.study.data_facts import write_data_facts

    photos = open_photos(Data(path=deepcrack))
    tested = photos.split("test")
    study = ThreeArms(num_images=len(tested))
    study.names = tuple(photo.name for photo in tested)
    study.groups = tuple(photo.group for photo in tested)
    write_data_facts(study.folder, photos)
    study.finals("hybrid", (0.7, 0.71, 0.72), spread=0.1)
    found = board(study.folder)
    assert found.num_images == 237
    assert found.num_photographs < 237
    assert any("19 of 237 test photos" in warning and "IMG_6536" in warning for warning in found.warnings)
    without = board(study.folder, drop_leaked=True)
    assert (without.num_images, without.num_dropped) == (218, 19)
    assert without.rows[0].crack_iou != found.rows[0].crack_iou


def test_one_photograph_has_no_interval_and_no_winner(here: Path) -> None:
    study = ThreeArms(num_images=2)
    study.groups = ("one", "one")
    study.finals("hybrid", (0.7, 0.71, 0.72))
    study.finals("unet", (0.3, 0.31, 0.32))
    found = board(study.folder)
    assert [(row.rank, row.crack_iou_low, row.p_value) for row in found.rows] == [(1, None, None)] * 2
    assert caveats(found)[0].startswith("one photograph: no interval")
    assert "unet: one photograph tells nothing of others: not told from the leader" in caveats(found)


def test_validation_has_no_leak_and_a_study_that_does_not_know_says_so(finished: ThreeArms) -> None:
    with pytest.raises(UserError, match=r"data.json: does not say which test images leaked"):
        board(finished.folder, drop_leaked=True)
    found = board(finished.folder, split="val", drop_leaked=True)
    assert (found.num_images, found.num_dropped) == (12, 0)


# --- refusals ------------------------------------------------------------------------------------


def test_rows_of_different_data_are_not_ranked_together(trio: ThreeArms) -> None:
    trio.trial("hybrid", 0.5)
    trio.trial("unet", 0.6, data_digest="e2" * 32)
    with pytest.raises(UserError) as error:
        board(trio.folder)
    assert error.value.message == (
        "rows of different photos are not ranked together: data digest d1d1d1d1d1d1: trio/0; "
        "data digest e2e2e2e2e2e2: trio/unet/0"
    )


def test_quick_looks_are_not_ranked_beside_full_runs(trio: ThreeArms) -> None:
    trio.trial("hybrid", 0.5)
    trio.trial("unet", 0.6, quick_look=True)
    with pytest.raises(UserError, match=r"a full run: trio/0; a quick look: trio/unet/0"):
        board(trio.folder)


def test_a_table_of_quick_looks_says_so(trio: ThreeArms) -> None:
    trio.trial("hybrid", 0.5, quick_look=True)
    assert heading(board(trio.folder)).startswith("quick looks, no results: study trio on validation")


def test_rows_of_different_images_are_not_ranked_together(finished: ThreeArms) -> None:
    run = Path(by_label(board(finished.folder))["unet"].run_dirs[0])
    finished.write_scores(run / "scores_test.parquet", 0.5, split="test", groups=["one"] * 12)
    with pytest.raises(UserError, match="disagree: their images are cut from other photographs"):
        board(finished.folder)
    for number in range(3):
        path = run.with_name(f"{run.name[:-1]}{number}") / "scores_test.parquet"
        finished.write_scores(path, 0.5, split="test", groups=["one"] * 12)
    with pytest.raises(UserError, match="trio/0 and trio/unet/0 were not scored on the same images"):
        board(finished.folder)


def test_a_damaged_ledger_is_named_with_the_command_that_writes_it_anew(finished: ThreeArms) -> None:
    finished.folder.ledger.write_text(finished.folder.ledger.read_text() + "{ broken\n")
    with pytest.raises(UserError, match=r"studies/trio/ledger.jsonl: cannot be read") as error:
        board(finished.folder)
    assert "sweeps doctor --fix" in str(error.value.hint)


def test_nothing_to_rank_is_told_with_what_there_is(trio: ThreeArms) -> None:
    with pytest.raises(UserError, match="no trial has ended yet"):
        board(trio.folder)
    trio.trial("hybrid", None)
    trio.trial("hybrid", None, outcome="failed", reason="no memory")
    with pytest.raises(UserError, match=r"no trial is complete \(1 pruned and 1 failed\)") as error:
        board(trio.folder)
    assert error.value.hint == "`sweeps explain trio/1` says why the last one is not"
    trio.trial("hybrid", 0.5)
    with pytest.raises(UserError, match="no finalist has been scored on test") as error:
        board(trio.folder, split="test")
    assert "--split val" in str(error.value.hint)
    with pytest.raises(UserError, match="--split tset: must be val or test"):
        board(trio.folder, split="tset")


# --- words and files -----------------------------------------------------------------------------


def test_the_answer_names_a_winner_only_where_all_others_are_beaten(trio: ThreeArms) -> None:
    trio.finals("hybrid", (0.7, 0.702, 0.701), spread=0.01)
    alone = board(trio.folder)
    assert answer(alone).endswith("and nothing is ranked beside it.")
    trio.finals("unet", (0.5, 0.502, 0.501), spread=0.01)
    found = board(trio.folder)
    assert answer(found).startswith("hybrid wins: crack IoU 0.70")
    assert "unet is 0.2" in answer(found)
    assert "p < 0.001" in answer(found)
    assert not any("1=" in line for line in caveats(found))


def test_csv_has_every_key_and_markdown_one_table_of_whole_lines(finished: ThreeArms) -> None:
    finished.floors()
    found = board(finished.folder)
    rows = list(csv.DictReader(io.StringIO(csv_text(found))))
    assert set(rows[0]) == set(found.as_list()[0])
    assert [row["rank"] for row in rows] == ["1", "1", "3", "", ""]
    assert rows[0]["thresholds"] == "0.4; 0.4; 0.4"
    lines = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 5
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| 1= | trio/0 | hybrid | 0.6")


def test_a_study_gets_its_leaderboard_as_files_and_one_without_a_result_gets_none(
    trio: ThreeArms,
) -> None:
    trio.trial("hybrid", None)
    assert not [path for path in write_artifacts(trio.folder) if path.name.startswith("leaderboard.")]
    trio.trial("hybrid", 0.5)
    names = {path.name for path in write_artifacts(trio.folder)}
    assert {"leaderboard.json", "leaderboard.csv", "leaderboard.md"} <= names
    written = json.loads((trio.folder.path / "leaderboard.json").read_text())
    assert written == json.loads(json.dumps(read_leaderboard("trio")))


def test_python_gets_what_json_prints(finished: ThreeArms) -> None:
    import crack_sweeps

    rows: list[dict[str, Any]] = crack_sweeps.read_leaderboard("trio", split="val", sort="crack_f1")
    assert [row["arm"] for row in rows] == ["hybrid", "unet", "deeplab"]
    assert crack_sweeps.read_leaderboard()[0]["split"] == "test"


def test_an_interval_on_the_board_is_that_of_the_statistics(finished: ThreeArms) -> None:
    from crack_sweeps.leaderboard.images import read_scores

    row = board(finished.folder).rows[0]
    scored = read_scores([Path(run) / "scores_test.parquet" for run in row.run_dirs])
    for figure in FIGURES:
        assert row.figure(figure) == estimate(scored.counts, figure)


def test_a_study_that_ends_says_who_wins(finished: ThreeArms, trio: ThreeArms) -> None:
    ended = StudyEnded(finished.folder, None, num_trained=4, num_failed=0, best=None)
    assert record_of(ended).answer == answer(board(finished.folder))
    stopped = StudyEnded(finished.folder, "SIGTERM", num_trained=4, num_failed=0, best=None)
    assert record_of(stopped).answer is None, "more is to come"


def test_a_study_none_of_whose_trials_is_complete_has_no_answer(trio: ThreeArms) -> None:
    trio.trial("hybrid", None, outcome="failed", reason="loss is nan")
    assert record_of(StudyEnded(trio.folder, None, num_trained=1, num_failed=1, best=None)).answer is None
