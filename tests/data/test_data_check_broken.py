"""Fifty pairs that are broken each in its own way: all are named with their cause, and the rest is measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import broken_pairs

from crack_sweeps.cli.app import run_command_line
from crack_sweeps.data.check import DataCheck, check_data
from crack_sweeps.data.examination import Trouble
from crack_sweeps.data.examiners import examine_all
from crack_sweeps.data.pairing import survey
from crack_sweeps.data.photos import ResolvedMaskRule


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[str, str, str]]]:
    root = tmp_path_factory.mktemp("broken") / "set"
    return root, broken_pairs.build(root)


@pytest.fixture(scope="module")
def checked(broken: tuple[Path, object]) -> DataCheck:
    return check_data(broken[0])


@pytest.mark.parametrize("name", broken_pairs.BROKEN)
def test_each_broken_pair_is_named_with_its_cause(
    name: str, broken: tuple[Path, dict[str, tuple[str, str, str]]], checked: DataCheck
) -> None:
    severity, file, words = broken[1][name]
    said = {(f.severity, f.cause) for f in checked.findings if file in f.files}
    assert any(of == severity and words in cause for of, cause in said), said


def test_nothing_is_said_of_sound_pairs(checked: DataCheck) -> None:
    said = {(file, f.cause) for f in checked.findings for file in f.files if "/sound_" in file}
    assert said == set()


def test_errors_come_first_and_each_says_what_to_do(checked: DataCheck) -> None:
    severities = [finding.severity for finding in checked.findings]
    assert severities == sorted(severities, key=("error", "warning", "note").index)
    assert all(finding.remedy for finding in checked.findings if finding.severity != "note")
    assert not any("\n" in finding.cause + finding.remedy for finding in checked.findings)


def test_what_can_be_read_is_measured_all_the_same(checked: DataCheck) -> None:
    assert checked.mask_rule == "== 255"
    assert broken_pairs.NUM_SOUND < checked.num_usable < checked.num_pairs
    assert checked.crack_share is not None
    assert 0.02 < checked.crack_share.p50 < 0.1


def test_the_command_names_all_of_them_and_goes_on(
    broken: tuple[Path, dict[str, tuple[str, str, str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preview = tmp_path / "pairs.png"
    assert run_command_line(["data", "check", str(broken[0]), "--preview", str(preview)]) == 2
    said = capsys.readouterr()
    for _, file, words in broken[1].values():
        assert file in said.out
        assert words in said.out or "each in its own way" in said.out
    assert preview.stat().st_size > 0
    assert "Traceback" not in said.out + said.err


def test_json_holds_every_file(
    broken: tuple[Path, dict[str, tuple[str, str, str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["data", "check", str(broken[0]), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    named = {file for finding in found["findings"] for file in finding["files"]}
    assert {file for _, file, _ in broken[1].values()} <= named


@pytest.mark.slow
def test_processes_change_nothing_and_one_that_dies_is_told_of_its_pair(broken: tuple[Path, object]) -> None:
    pairs = survey(broken[0]).pairs
    rule = ResolvedMaskRule(crack_values=(255,), allowed=(0, 255))
    told: list[tuple[int, int]] = []
    alone = examine_all(pairs, rule, num_processes=1, progress=lambda done, total: None)
    together = examine_all(
        pairs,
        rule,
        num_processes=2,
        progress=lambda done, total: told.append((done, total)),
        look=broken_pairs.dies_of_sound_c,
    )
    differing = [pair.image.name for pair, a, b in zip(pairs, alone, together, strict=True) if a != b]
    assert differing == ["sound_c.png"]
    died = together[[pair.image.name for pair in pairs].index("sound_c.png")].image
    assert isinstance(died, Trouble)
    assert died.cause == "the process that decoded this pair died"
    assert told[-1] == (len(pairs), len(pairs))
