"""`sweeps spec` knows studies: listed beside experiments, shown, checked, with a schema of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crack_sweeps.cli.app import run_command_line
from crack_sweeps.specs.study_loading import load_study_snapshot, resolve_study


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run_command_line(["spec", *arguments])
    return code, *capsys.readouterr()


def test_both_kinds_are_listed_under_names_that_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "list")
    names = [line.split()[0] for line in out.splitlines()]
    assert code == 0
    assert {"unet_small", "swinv2_hybrid", "studies/swinv2_hybrid", "studies/quick"} <= set(names)
    assert [said(capsys, "check", name)[0] for name in names] == [0] * len(names)
    listed = json.loads(said(capsys, "list", "--json")[1])
    assert {(row["kind"], row["name"]) for row in listed} >= {("experiment", "swinv2_hybrid"), ("study", "quick")}


def test_a_study_is_shown_as_the_file_that_stores_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = said(capsys, "show", "quick", "training.weight_decay=0.02", "--profile", "cpu")
    path = tmp_path / "shown.yaml"
    path.write_text(out)
    assert code == 0
    assert load_study_snapshot(path) == resolve_study("quick", profile="cpu", overrides=["training.weight_decay=0.02"])


def test_a_name_that_an_experiment_has_is_the_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert "fingerprint" in said(capsys, "check", "swinv2_hybrid")[1]
    assert "training.loss.focal_gamma" in said(capsys, "check", "studies/swinv2_hybrid")[1]


def test_a_bad_study_is_exit_2_with_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nbase: unet_small\nspace: {training.learning_rate: {low: 1, high: 2}}\n")
    code, out, err = said(capsys, "check", str(path))
    assert (code, out) == (2, "")
    assert f"error: {path}: space: `training.learning_rate` is 2, must be at most 1\n" in err
    assert said(capsys, "check", "studies/quik")[0] == 2


def test_each_kind_has_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert "space" in json.loads(said(capsys, "schema", "study")[1])["properties"]
    assert said(capsys, "schema", "experiment")[1] == said(capsys, "schema")[1]
    assert said(capsys, "schema", "nothing")[0] == 2
