"""If a sentence of the README can be wrong, a test reads it."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import typer

sys.path.insert(0, str(Path(__file__).parent))
import readme_pages

TEXT = readme_pages.README.read_text(encoding="utf-8")
CONSOLE = [
    line.removeprefix("$ ").partition(" #")[0].strip()
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]
QUICK = ("spec list", "spec show", "spec check", "spec schema")  # these are run, the others parsed


def sweeps_commands() -> list[str]:
    return [line.partition("uv run sweeps ")[2] for line in CONSOLE if "uv run sweeps " in line]


def test_the_generated_parts_are_what_the_code_says() -> None:
    assert readme_pages.with_pages(TEXT) == TEXT, "run `python tests/readme_pages.py`"


def test_a_stale_generated_part_would_be_found() -> None:
    assert readme_pages.with_pages(TEXT.replace("Train one model,", "Train many models,")) != TEXT.replace(
        "Train one model,", "Train many models,"
    )


def test_the_readme_holds_commands_to_check() -> None:
    assert len(sweeps_commands()) >= 10


@pytest.mark.parametrize("line", sweeps_commands())
def test_each_command_of_the_readme_can_be_typed(line: str) -> None:
    from crack_sweeps.cli.app import app

    command, words = typer.main.get_command(app), shlex.split(line)
    while "commands" in vars(command):
        assert words[0] in command.commands, f"no command {words[0]}"
        command = command.commands[words.pop(0)]
    command.make_context("sweeps", words)  # raises on an unknown flag or a missing argument


@pytest.mark.parametrize("line", [line for line in sweeps_commands() if line.startswith(QUICK)])
def test_the_quick_ones_run(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from crack_sweeps.cli.app import run_command_line

    monkeypatch.chdir(readme_pages.REPO)
    assert run_command_line(shlex.split(line)) == 0
    assert capsys.readouterr().out


def test_every_setting_that_the_readme_overrides_exists() -> None:
    from crack_sweeps.specs.loading import resolve

    settings = [word for line in sweeps_commands() for word in shlex.split(line) if re.fullmatch(r"[a-z_.]+=.*", word)]
    assert settings
    resolve("swinv2_hybrid", overrides=settings, profile="none")


def test_each_experiment_is_named_and_opens_with_question_cost_expectation_and_command() -> None:
    from crack_sweeps.specs.loading import resolve

    files = sorted((readme_pages.REPO / "experiments").glob("*.yaml"))
    assert {"swinv2_hybrid", "unet_resnet50", "deeplabv3plus_resnet50", "unet_small"} <= {file.stem for file in files}
    for file in files:
        head = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        for word in ("Question:", "Cost:", "Expected:", "Command:"):
            assert any(word in line for line in head), f"{file}: no {word}"
        resolve(file, profile="none")
