"""A run is scored as it was trained, at its own threshold; the scores stay with it, and looks at test are counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from trained_run import Workshop, draw_set

import crack_sweeps
from crack_sweeps.errors import UserError
from crack_sweeps.runs.events import read_events


def events(workshop: Workshop, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(workshop.run.events) if event["kind"] == kind]


def kept(workshop: Workshop) -> list[str]:
    return sorted(path.name for path in (workshop.run.path / "evaluations").iterdir())


def test_the_validation_photos_score_what_they_scored_when_the_training_ended(workshop: Workshop) -> None:
    record = crack_sweeps.evaluate_run("toy/0", split="val")
    trained = {name: value for name, value in workshop.record.metrics.items() if name.startswith("val/")}
    assert len(trained) > 10
    assert {f"val/{name}": record.metrics[name] for name in (key.removeprefix("val/") for key in trained)} == trained
    assert (record.threshold, record.threshold_origin) == (workshop.record.threshold, "validation")
    assert record.test_looks is None
    assert not workshop.looks.exists()


def test_scores_are_kept_with_the_run_as_files_and_as_an_event_for_the_mirror(workshop: Workshop) -> None:
    record = crack_sweeps.evaluate_run(workshop.run.name[:12], split="test")
    assert kept(workshop) == ["set-test.json", "set-test.parquet"]
    stored = json.loads((workshop.run.path / record.files[0]).read_bytes())
    assert stored == record.as_dict()
    table = pyarrow.parquet.read_table(workshop.run.path / record.files[1])
    assert table["name"].to_pylist() == ["test0", "test1", "test2"]
    assert sum(table["tp"].to_pylist()) / sum(
        sum(table[name].to_pylist()) for name in ("tp", "fp", "fn")
    ) == pytest.approx(record.metrics["crack_iou"])
    (event,) = events(workshop, "evaluation")
    assert event["metrics"]["test/crack_iou"] == record.metrics["crack_iou"]
    assert event["metrics"]["test/cldice"] == record.metrics["cldice"]
    assert event["step"] == workshop.record.num_epochs
    assert [artifact["path"] for artifact in events(workshop, "artifact")][-2:] == record.files
    assert workshop.run.status() == "FINISHED"


def test_the_same_evaluation_again_takes_the_place_of_the_first_and_is_another_look_at_test(
    workshop: Workshop,
) -> None:
    first = crack_sweeps.evaluate_run("toy/0", split="test")
    second = crack_sweeps.evaluate_run("toy/0", split="test")
    assert kept(workshop) == ["set-test.json", "set-test.parquet"]
    assert second.metrics == first.metrics
    assert (first.test_looks, second.test_looks) == (1, 2)
    looks = [json.loads(line) for line in workshop.looks.read_text().splitlines()]
    assert [set(look) for look in looks] == [{"time", "run", "command"}] * 2
    assert looks[0]["run"] == workshop.run.name


def test_another_threshold_or_flips_are_another_evaluation_beside_the_first(workshop: Workshop) -> None:
    plain = crack_sweeps.evaluate_run("toy/0", split="test")
    given = crack_sweeps.evaluate_run("toy/0", split="test", threshold=0.9)
    turned = crack_sweeps.evaluate_run("toy/0", split="test", tta=True)
    assert [record.evaluation for record in (plain, given, turned)] == ["test", "test-t0.90", "test-tta"]
    assert (given.threshold, given.threshold_origin) == (0.9, "given")
    assert given.metrics["recall"] < plain.metrics["recall"]
    assert turned.metrics != plain.metrics
    assert turned.threshold == plain.threshold
    assert [name for name in kept(workshop) if name.endswith(".json")] == [
        *("set-test-t0.90.json", "set-test-tta.json", "set-test.json"),
    ]


def test_another_set_is_scored_whole_whatever_its_splits(workshop: Workshop) -> None:
    one_photo = draw_set(Path("elsewhere"), seed=5, photos=1)  # too small to be split
    record = crack_sweeps.evaluate_run("toy/0", data=one_photo)
    assert record.evaluation == "eval/elsewhere"
    assert record.data["num_photos"] == 1
    assert record.data["seen"] == {"train": 0, "val": 0, "test": 0}
    assert record.warnings == []
    assert record.test_looks is None
    only_test = draw_set(Path("theirs"), seed=6, test=2)
    assert crack_sweeps.evaluate_run("toy/0", data=only_test).data["num_photos"] == 2


def test_the_runs_own_photos_are_known_again_at_another_place(workshop: Workshop) -> None:
    moved = Path(shutil.copytree(workshop.photos, "moved"))
    record = crack_sweeps.evaluate_run("toy/0", data=moved, split="test")
    assert (record.evaluation, record.data["is_own"], record.test_looks) == ("test", True, 1)
    everything = crack_sweeps.evaluate_run("toy/0", data=moved)
    assert everything.evaluation == "eval/moved"
    assert everything.test_looks == 2
    assert len(everything.warnings) == 3, "some were trained on, some chose the threshold, some are test"


def test_what_the_splits_of_another_set_share_is_not_the_runs_concern(workshop: Workshop) -> None:
    leaky = draw_set(Path("leaky"), seed=9, train=4, test=2)
    for kind in ("img", "lab"):
        shutil.copy(leaky / f"train_{kind}" / "train0.png", leaky / f"test_{kind}" / "test0.png")
    record = crack_sweeps.evaluate_run("toy/0", data=leaky, split="test")
    assert record.evaluation == "eval/leaky-test"
    assert record.data["num_photos"] == 2
    assert record.warnings == []
    drawn = draw_set(Path("drawn"), seed=10, photos=6)
    record = crack_sweeps.evaluate_run("toy/0", data=drawn, split="test")
    assert "held out as test" in record.warnings[0]


def test_a_set_that_was_imported_is_scored_by_its_name(workshop: Workshop, sweeps: Callable) -> None:
    crack_sweeps.import_data(draw_set(Path("theirs"), seed=11, photos=8), name="bridge")
    record = crack_sweeps.evaluate_run("toy/0", data="bridge")
    assert (record.evaluation, record.data["num_photos"]) == ("eval/bridge", 8)
    assert crack_sweeps.evaluate_run("toy/0", data="bridge", split="test").evaluation == "eval/bridge-test"
    answer = sweeps("evaluate", "toy/0", "--data", "bridg")
    assert answer.code == 2
    assert "bridge" in answer.err


def test_two_sets_of_one_name_are_kept_apart_and_each_replaces_itself(workshop: Workshop) -> None:
    for place in ("here", "there", "here"):
        folder = Path(place, "photos")
        if not folder.exists():
            draw_set(folder, seed=len(place), photos=1)
        crack_sweeps.evaluate_run("toy/0", data=folder)
    names = [name for name in kept(workshop) if name.endswith(".json")]
    assert len(names) == 2
    assert "photos-all.json" in names


def test_photos_that_the_run_has_seen_are_named_by_their_bytes_whatever_they_are_called(
    workshop: Workshop, sweeps: Callable
) -> None:
    mixed = draw_set(Path("mixed"), seed=7, photos=2)
    for split, number in (("train", 6), ("test", 3)):
        for index in range(number):
            for kind, into in (("img", "images"), ("lab", "masks")):
                source = workshop.photos / f"{split}_{kind}" / f"{split}{index}.png"
                shutil.copy(source, mixed / into / f"renamed-{split}{index}.png")
    answer = sweeps("evaluate", "toy/0", "--data", mixed, "--json")
    assert answer.code == 0, answer.err
    record = json.loads(answer.out)
    seen = record["data"]["seen"]
    assert seen["train"] + seen["val"] == 6
    assert seen["test"] == 3
    assert f"{seen['train']} of 11 photos were trained on (renamed-train" in answer.err
    assert f"{seen['val']} of 11 photos chose the weights and the threshold" in answer.err
    assert record["test_looks"] == 1, "the test photos were looked at under another name"
    assert "test has now been looked at once in this study" in answer.err


def test_the_masks_of_another_set_are_read_as_somebody_says(workshop: Workshop) -> None:
    other = draw_set(Path("other"), seed=8, photos=2)
    plain = crack_sweeps.evaluate_run("toy/0", data=other)
    inverted = crack_sweeps.evaluate_run(
        "toy/0", data=other, settings=["data.mask.crack_values=[0]", "data.mask.invert=true"]
    )
    assert inverted.data["mask_rule"] == "== 0, inverted"
    assert inverted.metrics["crack_iou"] == plain.metrics["crack_iou"]


def test_photos_that_changed_since_the_training_are_no_longer_its_test(workshop: Workshop, trained: Workshop) -> None:
    changed = Path("changed")
    shutil.copytree(workshop.photos, changed)
    config = workshop.run.config
    config.write_text(config.read_text().replace(str(workshop.photos), str(changed.absolute())))
    assert crack_sweeps.evaluate_run("toy/0", split="test").evaluation == "test", "the same photos at another place"
    (changed / "test_img" / "test0.png").write_bytes((changed / "test_img" / "test1.png").read_bytes())
    with pytest.raises(UserError, match="photos or masks changed") as caught:
        crack_sweeps.evaluate_run("toy/0", split="test")
    assert "--data" in str(caught.value.hint)
    shutil.rmtree(changed)
    other = draw_set(Path("other"), seed=8, photos=1)
    assert "nobody can tell" in crack_sweeps.evaluate_run("toy/0", data=other).warnings[-1]


def test_the_table_says_what_was_scored_how_and_where_it_is_kept(workshop: Workshop, sweeps: Callable) -> None:
    answer = sweeps("evaluate", "toy/0", "--split", "test", "--tta")
    assert answer.code == 0, answer.err
    for said in (
        "set (test split): 3 photos, whole",
        f"{workshop.record.threshold:.2f}, chosen on the run's validation photos; eight flips",
        f"{workshop.run.path}/evaluations/set-test-tta.json",
        "figures test-tta/...",
        "a quick look",
        "metric",
        "cldice",
        "oracle/ods_f1",
    ):
        assert said in answer.out, said
    assert "test has now been looked at once in this study, beside its finalists' own scoring" in answer.err


def test_an_evaluation_that_is_left_leaves_nothing(workshop: Workshop) -> None:
    from crack_sweeps.deploy.evaluate import evaluating

    before = workshop.run.events.read_bytes()
    updates = evaluating("toy/0", split="test")
    next(updates)
    updates.close()
    assert workshop.run.events.read_bytes() == before
    assert not (workshop.run.path / "evaluations").exists()
    assert not workshop.looks.exists()
