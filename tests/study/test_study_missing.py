"""What is gone of a study is told with what to do about it, and the rest of the machine is looked at all the same."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from hand_made_study import HandMadeStudy

from crack_sweeps import doctor
from crack_sweeps.cli.app import run_command_line
from crack_sweeps.errors import UserError
from crack_sweeps.runs.directory import OUTPUTS
from crack_sweeps.study.folder import STUDIES
from crack_sweeps.study.missing import read_begun, trials_without_run


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMadeStudy:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "SWEEPS_STORE"):
        monkeypatch.delenv(name, raising=False)
    toy = HandMadeStudy()
    toy.attempt()
    for number in range(7):
        toy.trial(number, 0.2, 0.3, outcome="complete", value=0.3, ended="FINISHED")
    toy.trial(7, outcome="rejected", run=False, excess=0.25, reason="needs 1.00 GiB by forecast")
    toy.end()
    return toy


def findings(storage: str | None = None) -> list[doctor.Finding]:
    return list(doctor.examine(storage=storage))


def test_trials_whose_run_directory_is_gone_are_counted_and_the_first_named(toy: HandMadeStudy) -> None:
    assert trials_without_run(toy.folder).names == ()
    shutil.rmtree(OUTPUTS)
    gone = trials_without_run(toy.folder)
    assert (len(gone.names), gone.num_launched) == (7, 7), "one that was rejected never had any"
    (finding,) = (f for f in findings() if "run directory" in f.text)
    assert (finding.subject, finding.verdict) == ("study toy", "warning")
    assert finding.text == ("7 of its 7 trials have no run directory any more: toy/0, toy/1, toy/2, toy/3, toy/4, ...")
    assert finding.remedy == "put them back; or train again: sweeps run --trial toy/0"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("study.yaml", None, "is gone"),
        ("study.yaml", "", "is empty"),
        ("identity.json", "", "is empty"),
        ("identity.json", "{half", "cannot be read"),
        ("identity.json", None, "is gone"),
    ],
)
def test_a_study_that_lacks_a_file_is_told_and_python_disk_and_runs_too(
    toy: HandMadeStudy, capsys: pytest.CaptureFixture[str], name: str, content: str | None, said: str
) -> None:
    path = toy.folder.path / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    told = findings()
    (finding,) = (f for f in told if f.verdict == "error" and f.subject == "study toy")
    assert finding.text.startswith(f"{STUDIES / 'toy' / name}: {said}")
    assert "put it back from a copy" in str(finding.remedy)
    assert {"python", "disk", "store", "runs"} <= {f.subject for f in told}
    assert next(f for f in told if f.subject == "runs").text.startswith("7 under")
    with pytest.raises(UserError, match=said):
        read_begun(toy.folder)
    if (name, content) == ("identity.json", None):
        return  # a folder without it is no study
    for command in ("status", "explain"):
        assert run_command_line([command, "toy" if command == "status" else "toy/0"]) == 2
        first, _, hint = capsys.readouterr().err.splitlines()
        assert first.startswith(f"error: {STUDIES / 'toy' / name}: {said}")
        assert hint.startswith("hint: put it back from a copy")


def test_an_address_where_no_study_keeps_its_trials_is_told(toy: HandMadeStudy) -> None:
    facts = json.loads(toy.folder.facts_file.read_text())
    kept = "postgresql://***@nowhere.invalid/db"
    toy.folder.facts_file.write_text(json.dumps({**facts, "storage": kept}))

    def said(storage: str) -> list[tuple[str, str, str | None]]:
        return [(f.verdict, f.text, f.remedy) for f in doctor._storage(STUDIES, storage)]

    assert said("postgresql://me:hunter2secret@nowhere.invalid/db") == []
    other = "no study keeps its trials in postgresql://***@elsewhere.invalid/db"
    assert said("postgresql://me:hunter2secret@elsewhere.invalid/db") == [
        ("warning", other, f"studies keep them in {kept}")
    ]
    assert said("nonsense") == [("warning", "nonsense is no address", "such as postgresql://me@server/db")]
    toy.folder.facts_file.write_text(json.dumps(facts))
    assert said("sqlite:///other.db")[0][2] == "leave --storage out"
