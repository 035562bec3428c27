"""Outside entries: only on a study's own photos and masks, by its names and groups, kept beside the trials."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from crack_sweeps.errors import StudyError, UserError
from crack_sweeps.evaluation.counts import count_pixels, stack
from crack_sweeps.evaluation.scores import Evaluation, score_table
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.ledger import read_outside
from crack_sweeps.study.outside import as_of, known_split, write_outside

ONE = (np.array([[0.9, 0.2, 0.7]], np.float32), np.array([[1, 1, 0]], np.uint8))
TWO = (np.array([[0.1, 0.2, 0.7]], np.float32), np.array([[0, 0, 1]], np.uint8))
CRACK_ELSEWHERE = (TWO[0], np.array([[0, 1, 1]], np.uint8))
SMALLER = (np.array([[0.1, 0.7]], np.float32), np.array([[0, 1]], np.uint8))


def table(*images: tuple[str, str, tuple[np.ndarray, np.ndarray]]) -> pa.Table:
    names, groups, maps = zip(*images, strict=True)
    return score_table(Evaluation(names, groups, stack([count_pixels(*each) for each in maps])), 0.5)


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """A study that has scored a floor on its two test photos, which were cut from one photograph."""
    folder = StudyFolder(tmp_path / "toy")
    (folder.path / "floors").mkdir(parents=True)
    (folder.path / "data.json").write_text(json.dumps({"digest": "d1"}))
    pyarrow.parquet.write_table(table(("a", "g", ONE), ("b", "g", TWO)), folder.path / "floors" / "otsu-test.parquet")
    return folder


def test_an_entry_has_the_studys_groups_and_order_and_is_read_back(study: StudyFolder) -> None:
    known = known_split(study, "test")
    own = as_of(known, table(("b", "b", TWO), ("a", "a", ONE)))
    path = write_outside(
        known,
        own,
        name="theirs",
        threshold=0.5,
        threshold_origin="given",
        protocol="ours",
        metrics={"crack_iou": 0.25, "width_error": None},
        command="sweeps score p m",
    )
    read = pyarrow.parquet.read_table(path)
    assert read.column("name").to_pylist() == ["a", "b"]
    assert read.column("group").to_pylist() == ["g", "g"]
    assert read.schema.metadata[b"threshold"] == b"0.50"
    (entry,) = read_outside(study)
    expected = {
        "name": "theirs",
        "split": "test",
        "threshold": 0.5,
        "threshold_origin": "given",
        "protocol": "ours",
        "metrics": {"crack_iou": 0.25, "width_error": None},
        "scores": "outside/theirs-test.parquet",
        "data_digest": "d1",
        "command": "sweeps score p m",
    }
    assert {key: entry[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([("a", "a", ONE)], r"toy has 2 test photos: 1 missing here \(b\)"),
        ([("a", "a", ONE), ("b", "b", TWO), ("c", "c", TWO)], r"1 of another name \(c\)"),
        ([("a", "a", ONE), ("b", "b", CRACK_ELSEWHERE)], "the mask of b has 2 crack pixels here and 1 in the study"),
        ([("a", "a", ONE), ("b", "b", SMALLER)], "b has 2 pixels here and 3 in the study"),
    ],
    ids=["missing", "too-many", "other-mask", "other-size"],
)
def test_other_photos_or_masks_are_refused(study: StudyFolder, images: list, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        as_of(known_split(study, "test"), table(*images))
    assert error.value.hint
    assert not list(read_outside(study))


def test_names_that_begin_with_the_split_in_the_study_need_not_do_so_in_a_folder(study: StudyFolder) -> None:
    prefixed = table(("test-001", "x", ONE), ("test-002", "y", TWO))
    pyarrow.parquet.write_table(prefixed, study.path / "floors" / "otsu-test.parquet")
    own = as_of(known_split(study, "test"), table(("001", "001", ONE), ("002", "002", TWO)))
    assert own.column("name").to_pylist() == ["test-001", "test-002"]


def test_photos_of_the_other_split_are_told_where_they_belong(study: StudyFolder) -> None:
    pyarrow.parquet.write_table(table(("c", "c", ONE)), study.path / "floors" / "otsu-val.parquet")
    with pytest.raises(UserError, match="these are the val photos of study toy, not those of test") as error:
        as_of(known_split(study, "test"), table(("c", "c", ONE)))
    assert "--split val" in (error.value.hint or "")


def test_a_trainings_scores_say_it_better_than_a_floors(study: StudyFolder, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    pyarrow.parquet.write_table(table(("only", "g", ONE)), run / "scores_test.parquet")
    row = {"seq": 0, "time_ms": 0, "kind": "trial", "arm": "toy.final", "number": 0, "run_dir": str(run)}
    study.ledger.write_text(json.dumps(row) + "\n")
    known = known_split(study, "test")
    assert (known.source.name, set(known.images)) == ("scores_test.parquet", {"only"})


def test_a_study_that_has_scored_nothing_of_a_split_knows_no_photos(study: StudyFolder) -> None:
    with pytest.raises(UserError, match="toy has scored no photo of val yet"):
        known_split(study, "val")


def test_nothing_is_added_while_the_study_is_searched_or_under_a_name_that_is_no_files(study: StudyFolder) -> None:
    known = known_split(study, "test")

    def add(name: str) -> None:
        write_outside(
            known,
            table(("a", "g", ONE), ("b", "g", TWO)),
            name=name,
            threshold=0.5,
            threshold_origin="given",
            protocol="ours",
            metrics={},
            command="",
        )

    with pytest.raises(UserError, match="not a name for an entry"):
        add("../theirs")
    with study.lock(), pytest.raises(StudyError, match="being searched"):
        add("theirs")
    assert not list(read_outside(study))
    assert not list((study.path / "outside").iterdir())
