"""The report of studies made by hand: what it says, what it says is missing, and that it asks for nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects
import pytest

from crack_sweeps.cli.app import run_command_line
from crack_sweeps.errors import UserError
from crack_sweeps.leaderboard.artifacts import write_artifacts
from crack_sweeps.leaderboard.report.findings import read_findings
from crack_sweeps.leaderboard.report.write import page, write_report
from crack_sweeps.study.folder import StudyFolder

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reported_study import COMMIT, DIGEST, ReportedStudy

Begin = Callable[..., ReportedStudy]


class Read(HTMLParser):
    """What a person and a script find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.words = ""
        self.plots: list[str] = []
        self.pictures: list[str] = []
        self._table: list[list[str]] = []
        self._script: dict[str, str] | None = None
        self._quiet = False
        self.figures: dict[str, Any] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {key: value or "" for key, value in attrs}
        self.addresses += [said[key] for key in ("href", "src", "action", "data") if key in said]
        self.ids += [said["id"]] if "id" in said else []
        if tag == "table":
            self._table = self.tables.setdefault(said.get("id", ""), [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")
        elif tag == "img":
            self.pictures.append(said["alt"])
        elif tag == "div" and said.get("class") == "plot":
            self.plots.append(said["id"])
        self._script = said if tag == "script" else None
        self._quiet = tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if self._script is not None and self._script.get("type") == "application/json":
            self.figures = json.loads(data)
        if not self._quiet:
            self.words += data + " "
            if self._table and self._table[-1]:
                self._table[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._quiet = False
        if tag == "table":
            self._table = []


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    monkeypatch.chdir(tmp_path)
    return ReportedStudy.begun


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """The report of a study of three arms with finalists and floors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("finished"))
        study = ReportedStudy.begun()
        study.search(24)
        study.finalists()
        study.floors()
        study.data(warnings=["18 photos of test share a photograph with train"], leaked_test=["p13", "p14"])
        study.end()
        return Read(write_report(study.folder).read_text(encoding="utf-8"))


def words(study: ReportedStudy) -> str:
    """All that is written on the page, with single spaces."""
    return " ".join(Read(page(read_findings(study.folder))).words.split())


# --- a finished study ---


def test_the_answer_comes_first_in_the_words_of_the_leaderboard(finished: Read) -> None:
    said = " ".join(finished.words.split())
    answer = (
        said.index("unet_small has crack IoU ")
        if "unet_small has crack IoU " in said
        else said.index("unet_small wins")
    )
    assert answer < said.index("Leaderboard")
    assert "study made on test, 10 images of photos; 3 arms, 81 trainings" in said


def test_every_part_that_was_promised_is_on_the_page(finished: Read) -> None:
    headings = (
        *("Leaderboard", "How the search went", "Budget of each arm", "Training curves"),
        *("The same photos under every arm", "Precision and recall", "Memory and speed"),
        *("Forecast against measured memory", "What mattered", "Failures and rejections"),
        *("Settings to reproduce", "Environment", "All trials"),
    )
    for heading in headings:
        assert heading in finished.words, heading


def test_a_link_leads_to_one_place(finished: Read) -> None:
    assert len(set(finished.ids)) == len(finished.ids)
    assert {address[1:] for address in finished.addresses if address.startswith("#")} <= set(finished.ids)


def test_each_figure_is_drawn_from_valid_plotly(finished: Read) -> None:
    arms = ("unet_small", "unet_resnet50", "deeplabv3plus_resnet50")
    expected = {"best-so-far", "learning-curves", "precision-recall", "trade-offs", "forecasts"}
    expected |= {f"{kind}-{arm}" for kind in ("importances", "parallel", "slices") for arm in arms}
    assert set(finished.plots) == set(finished.figures) == expected
    for name, figure in finished.figures.items():
        drawn = plotly.graph_objects.Figure(data=figure["data"], layout=figure["layout"])  # raises for what is unknown
        assert len(drawn.data) > 0, name


def test_an_arm_has_one_colour_throughout(finished: Read) -> None:
    colours: dict[str, set[str]] = {}
    for figure in finished.figures.values():
        for trace in figure["data"]:
            if trace.get("name", "").startswith(("unet", "deeplab")):
                colour = trace.get("line", {}).get("color") or trace["marker"]["color"]
                colours.setdefault(trace["name"], set()).add(colour)
    assert colours == {
        "unet_small": {"#0072B2"},
        "unet_resnet50": {"#D55E00"},
        "deeplabv3plus_resnet50": {"#009E73"},
    }


def test_the_leaderboard_stands_with_intervals_ties_and_floors(finished: Read) -> None:
    head, *rows = finished.tables["ranking"]
    assert head[:5] == ["rank", "arm", "crack IoU", "95 % interval", "against the leader"]
    assert [row[0] for row in rows] == ["1=", "1=", "3", "–", "–"]
    assert rows[0][4] == "leads"
    assert rows[1][4].startswith("cannot be told from it: ")
    assert rows[2][4].startswith("behind: ")
    assert {"Otsu", "black-hat"} <= {row[1].removesuffix("learns nothing") for row in rows[3:]}
    assert re.fullmatch(r"0\.\d{3}0\.\d{3}–0\.\d{3}", rows[0][2])


def test_failures_and_rejections_are_told_with_their_reasons(finished: Read) -> None:
    _, *rows = finished.tables["lost"]
    assert len(rows) == 3 * 6
    reasons = {row[2]: row[5] for row in rows}
    assert reasons["rejected"] == "needs 9.4 GiB, the budget is 8.0 GiB"
    assert reasons["out of memory"] == "out of memory at batch 1, with activation checkpointing"
    assert "6 failed, 6 out of memory, 6 rejected." in finished.words
    assert "12 more trials were stopped early" in finished.words


def test_each_arms_budget_is_told(finished: Read) -> None:
    _, *rows = finished.tables["budgets"]
    assert rows[0] == [
        "unet_small",
        "22",
        "14",
        "4",
        "2",
        "0",
        "4",
        "140",
        "2.3 h",
        "3",
        "27.0 min",
        "as much as the others",
    ]
    assert len(rows) == 3


def test_the_same_photos_are_shown_under_every_arm(finished: Read) -> None:
    assert len(finished.pictures) == 3 * (2 + 3)
    for photo in range(3):
        of_photo = finished.pictures[5 * photo : 5 * photo + 5]
        assert len({alt.rpartition(", ")[2] for alt in of_photo}) == 1
        assert [alt.rpartition(", ")[0] for alt in of_photo] == [
            *("photo", "truth", "errors of unet_small", "errors of unet_resnet50"),
            "errors of deeplabv3plus_resnet50",
        ]


def test_leaks_are_told_and_what_the_order_is_without_them(finished: Read) -> None:
    said = " ".join(finished.words.split())
    assert "18 photos of test share a photograph with train" in said
    assert "without the 2 leaked images: " in said


def test_it_can_be_repeated_from_what_the_page_says(finished: Read) -> None:
    for command in (
        "sweeps study made --profile none --trials 12",
        "sweeps run --trial made/unet_resnet50/0 --seed 0",
        "sweeps leaderboard made",
        "sweeps report made",
    ):
        assert command in finished.words
    for fact in (DIGEST, COMMIT, "a card of 8 GB", "torch 2.15.0", "bfloat16", "training.learning_rate"):
        assert fact in finished.words


def test_the_page_asks_no_network_for_anything(finished: Read) -> None:
    assert finished.addresses
    assert all(address.startswith(("#", "data:image/")) for address in finished.addresses)


def test_the_file_is_small_and_holds_plotly_once(begin: Begin) -> None:
    study = begin(arms=1)
    study.trial(study.study.arms[0], 0, "complete")
    text = write_report(study.folder).read_text(encoding="utf-8")
    assert text.count("plotly.js v") == 1
    assert len(text.encode()) < 6e6


# --- names that look like markup ---


def test_names_and_reasons_cannot_become_markup(begin: Begin) -> None:
    study = begin(arms=1)
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    arm = study.study.arms[0]
    for number in range(3):
        study.trial(arm, number, "complete")
    study.trial(arm, 3, "failed", reason=evil)
    study.data(name=evil, warnings=[evil])
    ledger = study.folder.ledger.read_text().replace('"made/0"', json.dumps(f"made/{evil}"))
    study.folder.ledger.write_text(ledger)
    text = page(read_findings(study.folder))
    found = Read(text)
    assert evil not in text
    assert text.count("</script>") == 3  # figures, plotly, the page's own
    assert not found.pictures
    assert found.tables["lost"][1][5] == evil
    labels = [label for figure in found.figures.values() for trace in figure["data"] for label in trace.get("text", [])]
    assert any("&lt;/script&gt;" in label for label in labels)  # plotly would take < for markup


# --- studies that are not finished ---


def test_a_study_without_any_trial_has_a_report(begin: Begin) -> None:
    said = words(begin())
    assert "There is no answer yet. study made: no trial has ended yet" in said
    assert "No trial is complete yet" in said
    assert "No trial has ended yet." in said


def test_a_study_of_failures_alone_has_a_report(begin: Begin) -> None:
    study = begin()
    for number, outcome in enumerate(("failed", "rejected", "out_of_memory", "pruned")):
        study.trial(study.study.arms[0], number, outcome)
    said = words(study)
    assert "There is no answer yet. study made: no trial is complete (1 failed" in said
    assert "needs 9.4 GiB, the budget is 8.0 GiB" in said
    assert "too few to show what mattered" in said


def test_one_arm_without_finalists_is_judged_on_validation_and_it_says_so(begin: Begin) -> None:
    study = begin(arms=1)
    study.search(9)
    study.end()
    said = words(study)
    assert "study made on validation, 12 images of photos; 1 arm, 9 trainings" in said
    assert "selected on these images" in said
    assert "nothing is ranked beside it" in said
    assert "No run that stands for an arm kept pictures" in said
    assert "the only arm" in said


def test_arms_that_drew_no_photo_in_common_are_shown_by_what_the_leader_drew(begin: Begin) -> None:
    study = begin(arms=2)
    study.search(1)
    for arm in study.study.arms:
        study.finalists(1, arms=[arm.name])
    for run in Path("artifacts/outputs").glob("*resnet50.final*"):
        for picture in (run / "predictions").glob("shared-0[1-4]*"):
            picture.unlink()
    for run in Path("artifacts/outputs").glob("*small.final*"):
        (run / "predictions" / "shared-05-p04.png").unlink()
    said = words(study)
    assert "No photo was drawn for every arm; these are the best" in said
    assert "not drawn" in said


def test_an_arm_that_lacks_its_finalist_is_named(begin: Begin) -> None:
    study = begin()
    study.search(4)
    study.finalists(arms=["unet_small", "unet_resnet50"], overlays=False)
    assert "deeplabv3plus_resnet50" in words(study)


def test_a_study_without_test_photos_compares_its_finalists_on_validation(begin: Begin) -> None:
    study = begin(num_test=0)
    study.search(3)
    study.finalists()
    study.end()
    found = Read(page(read_findings(study.folder)))
    assert "on validation, 12 images" in found.words
    assert len(found.tables["ranking"]) == 1 + 3
    assert len(found.pictures) == 15


def test_a_study_that_still_runs_says_so(begin: Begin) -> None:
    study = begin()
    (study.folder.path / "coordinator.json").write_text(json.dumps(_lease()))
    study.search(2)
    told = "2 of 12 trials of unet_small have trained and 0 of 9 finalist trainings are there, 0 trainings under way"
    assert f"the study is still running: {told}" in words(study)


def test_a_report_that_is_written_as_a_study_ends_does_not_call_it_running(begin: Begin) -> None:
    study = begin()
    (study.folder.path / "coordinator.json").write_text(json.dumps(_lease()))
    study.search(2)
    study.finalists(overlays=False)
    assert "still running" not in words(study)


def test_a_study_that_was_interrupted_says_how_it_goes_on(begin: Begin) -> None:
    study = begin(arms=1)
    study.trial(study.study.arms[0], 0, "complete")
    study.end("KILLED", "SIGTERM")
    said = words(study)
    told = "1 of 12 trials of unet_small have trained and 0 of 3 finalist trainings are there"
    assert f"the study was stopped before its end (SIGTERM): {told}" in said
    assert "sweeps study made --profile none --trials 12 --seeds 3 goes on with it" in said


def test_runs_whose_directories_are_gone_cost_their_figures_and_nothing_else(begin: Begin) -> None:
    import shutil

    study = begin()
    study.search(9)
    study.finalists(overlays=False)
    study.end()
    shutil.rmtree("artifacts")
    said = words(study)
    assert "There is no answer yet. study made: the scores of all 9 trainings are lost" in said
    assert "no such file" in said
    assert "No complete training has its log in place" in said
    assert "The directories of the runs are not here" in said
    assert "A step is the best value so far" in said


def test_a_training_whose_scores_are_lost_and_an_arm_that_lost_all_are_told(begin: Begin) -> None:
    import shutil

    study = begin()
    study.search(2)
    study.finalists(overlays=False)
    study.end()
    outputs = Path("artifacts/outputs")
    one, *_ = sorted(outputs.glob("*unet_resnet50.final*"))
    shutil.rmtree(one)
    for run in outputs.glob("*deeplabv3plus_resnet50.final*"):
        (run / "scores_test.parquet").write_bytes(b"no table")
    found = Read(page(read_findings(study.folder)))
    said = " ".join(found.words.split())
    assert f"of run {one.name} is left out: {one}/scores_test.parquet: no such file" in said
    assert "deeplabv3plus_resnet50: no score: all 3 trainings have lost it" in said
    _, *rows = found.tables["ranking"]
    assert [row[8] for row in rows] == ["3", "2", "–"]
    assert rows[2][:3] == ["–", "deeplabv3plus_resnet50made/deeplabv3plus_resnet50/0", "–"]
    assert rows[2][4].startswith("no score: all 3 trainings have lost it")


@pytest.mark.parametrize("file", ["events.jsonl", "curve.json", "scores.parquet", "environment.json"])
def test_a_damaged_file_of_a_run_costs_its_part_and_is_named_there(begin: Begin, file: str) -> None:
    study = begin(arms=1)
    for number in range(3):
        study.trial(study.study.arms[0], number, "complete")
    for run in Path("artifacts/outputs").iterdir():
        (run / file).write_bytes(b"no JSON\n")
    said = words(study)
    assert f"{file}: " in said
    assert "All trials" in said


def test_a_quick_look_is_called_one(begin: Begin) -> None:
    study = begin(arms=1, profile="cpu")
    study.trial(study.study.arms[0], 0, "complete")
    assert "a quick look: small models from scratch" in words(study)


def test_a_floor_that_beats_every_arm_is_named(begin: Begin) -> None:
    study = begin(arms=1)
    study.trial(study.study.arms[0], 0, "complete")
    floors = study.folder.path / "floors"
    floors.mkdir()
    (run,) = Path("artifacts/outputs").iterdir()
    (floors / "otsu-val.parquet").write_bytes((run / "scores.parquet").read_bytes())
    assert "Otsu, which learns nothing, reaches " in words(study)


def test_settings_that_were_never_searched_stand_as_shipped(begin: Begin) -> None:
    study = begin(arms=2)
    study.trial(study.study.arms[0], 0, "complete")
    arm = study.study.arms[1]
    study._run(arm.final(), 0, "complete", {}, 0.5, 9, finalist_of=arm.name, selected_trial=None)
    found = Read(page(read_findings(study.folder)))
    assert "as shipped" in found.words
    assert found.tables["settings"][0] == ["setting", "unet_small", "unet_resnet50"]


# --- where it is written ---


def test_it_is_an_artifact_of_the_study_beside_the_leaderboard(begin: Begin) -> None:
    study = begin(arms=1)
    assert [path.name for path in write_artifacts(study.folder)] == ["report.html"]
    study.trial(study.study.arms[0], 0, "complete")
    written = write_artifacts(study.folder)
    assert [path.name for path in written] == ["leaderboard.json", "leaderboard.csv", "leaderboard.md", "report.html"]
    assert all(path.parent == study.folder.path and path.stat().st_size > 0 for path in written)


@pytest.mark.parametrize("where", [Path("."), Path("no") / "report.html"])
def test_a_place_that_cannot_be_written_is_an_error_that_names_it(begin: Begin, where: Path) -> None:
    study = begin(arms=1)
    with pytest.raises(UserError, match=re.escape(str(where))):
        write_report(study.folder, where)


def test_the_command_prints_the_path_and_nothing_else_on_stdout(begin: Begin, capsys: Any) -> None:
    begin(arms=1)
    assert run_command_line(["report"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{Path('studies/made/report.html')}\n"
    assert re.fullmatch(r"study made, \d\.\d MiB: open it in any browser\n", said.err)
    assert run_command_line(["report", "made", "--out", "elsewhere.html"]) == 0
    assert capsys.readouterr().out == "elsewhere.html\n"
    assert Path("elsewhere.html").is_file()


def test_a_study_that_does_not_exist_is_the_users_mistake(begin: Begin, capsys: Any) -> None:
    begin(arms=1)
    assert run_command_line(["report", "mad"]) == 2
    assert capsys.readouterr().err == "error: no study is named `mad`\n\nhint: did you mean made?\n"


def test_a_report_is_written_from_python_by_a_studys_name(begin: Begin) -> None:
    import crack_sweeps

    begin(arms=1)
    assert crack_sweeps.write_report("made").is_file()


def test_a_damaged_ledger_is_named(begin: Begin) -> None:
    study = begin(arms=1)
    study.folder.ledger.write_text("{}\n")
    with pytest.raises(UserError, match=r"ledger\.jsonl"):
        write_report(StudyFolder(study.folder.path))


def test_writing_a_report_loads_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, crack_sweeps.leaderboard.report.write\n"
        "sys.exit(', '.join(sorted({'torch', 'matplotlib', 'mlflow', 'cv2'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _lease() -> dict[str, Any]:
    from dataclasses import asdict

    from hand_made_study import LIVING

    return asdict(LIVING)
