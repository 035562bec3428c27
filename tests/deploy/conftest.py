"""A tiny run that was really trained, as trial 0 of a study, with its photos; copied for each test that writes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hand_made_study import HandMadeStudy, append
from trained_run import TINY, Workshop, draw_set

from crack_sweeps.cli.app import run_command_line
from crack_sweeps.data.open import open_photos
from crack_sweeps.deploy import evaluate
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.preparation import Origin, prepare
from crack_sweeps.runs.training_run import Membership, begin_run, proceed
from crack_sweeps.specs.loading import resolve
from crack_sweeps.study.history import Trial
from crack_sweeps.study.ledger import row_of


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """On tiles of 32 px two threads wait for each other longer than they compute, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Workshop:
    """Trained once, in a folder that nobody writes to afterwards."""
    root = tmp_path_factory.mktemp("workshop")
    photos = draw_set(root / "set", seed=0, train=6, test=3)
    before = Path.cwd()
    os.chdir(root)
    try:
        study = HandMadeStudy()
        resolved = resolve("unet_small", overrides=TINY, profile="none", data=photos)
        origin = Origin(str(resolved.source), "cpu", True, resolved.overrides, resolved.fingerprint)
        data = open_photos(resolved.experiment.data)
        prepared = prepare(resolved.experiment, origin, data, device=torch.device("cpu"))
        membership = Membership(experiment="toy", study={"name": "toy", "arm": study.arm.name, "number": 0})
        run = begin_run(prepared, membership=membership)
        with closing(proceed(prepared, run, stop=lambda: None)) as updates:
            for _ in updates:
                pass
        trial = Trial(study.arm.name, 0, {}, "complete", 0.1, {1: 0.1}, -0.5, {"run": run.name, "seed": 0})
        append(study.folder.ledger, "trial", **row_of(trial, name="toy/0", outputs=run.path.parent))
    finally:
        os.chdir(before)
    return Workshop(RunDirectory(root / run.path), photos)


@pytest.fixture
def workshop(trained: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A copy of the trained run and its study, in the working directory; MLflow is not told of anything."""
    root = trained.run.path.parents[2]
    for folder in ("artifacts", "studies"):
        shutil.copytree(root / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "send", lambda *_: None)
    return Workshop(RunDirectory(trained.run.path.relative_to(root)), trained.photos)


@pytest.fixture
def sweeps(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run `sweeps ...` in this process, in the working directory."""

    def run(*arguments: Any) -> Answer:
        capsys.readouterr()
        code = run_command_line([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run
