"""What a coordinator costs: a trial's overhead, and asking and telling with 10,000 trials in the store."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from stand_in_study import TOY, Bench, draw_photos

from crack_sweeps.data.open import open_photos
from crack_sweeps.specs.study_loading import ResolvedStudy, identity
from crack_sweeps.study.folder import StudyFolder, open_folder
from crack_sweeps.study.history import Trial
from crack_sweeps.study.standing import StudyReader
from crack_sweeps.study.store import Store, sqlite_url
from crack_sweeps.study.suggest import suggest
from crack_sweeps.study.updates import Launched, TrialEnded

pytestmark = pytest.mark.benchmark
NUM_STORED = 10_000


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPS_STORE", raising=False)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "toy.yaml").write_text(TOY)
    return Bench(tmp_path, draw_photos(tmp_path / "photos"))


def test_a_coordinator_costs_less_than_a_second_a_trial(bench: Bench) -> None:
    study = bench.resolve(trials=30)
    began = time.process_time()
    updates, _, _ = bench.run(study, lambda e, epoch: epoch * e.training.learning_rate)
    seconds = (time.process_time() - began) / sum(isinstance(update, TrialEnded) for update in updates)
    print(f"\ncoordinator: {seconds:.3f} CPU s a trial of 3 epochs, figures and start included")
    assert seconds <= 1.0


def fill(study: ResolvedStudy, folder: StudyFolder) -> None:
    """Put finished trials into the store; without waiting for the disk, which no figure here is about."""
    rng = np.random.default_rng(0)
    arm, spec = study.arms[0], study.spec
    with closing(Store(sqlite_url(folder.database), folder.name, study.arms, study.spec.objective)) as store:

        @sqlalchemy.event.listens_for(store._storage.engine, "connect")
        def _fast(connection: object, _record: object) -> None:
            connection.execute("PRAGMA synchronous=OFF")  # type: ignore[attr-defined]

        store._storage.engine.dispose()
        for number in range(NUM_STORED):
            suggestion = suggest(
                arm.space, [], number=number, sampler=spec.sampler, objective=spec.objective, seed=1, arm=""
            )
            value = float(rng.random())
            curve = {1: value / 2, 2: value / 1.5, 3: value}
            facts = {"run": f"r{number}", "seed": 0, "fingerprint": f"f{number}", "needed_bytes": 1}
            store.add(Trial(arm.name, number, suggestion, "complete", value, curve, -0.5, facts))


@pytest.mark.timeout(900)  # putting them there takes some four minutes
def test_with_ten_thousand_trials_asking_and_telling_take_a_tenth_of_a_second(bench: Bench) -> None:
    study = bench.resolve(trials=NUM_STORED + 10)
    photos = open_photos(study.arms[0].base.data, root=Path("artifacts"))
    folder = open_folder(study, identity(study, photos.digest), {}).folder
    fill(study, folder)
    stamps: list[float] = []

    def objective(experiment: object, epoch: int) -> float:
        return 0.1 * epoch

    updates, _, _ = bench.run(study, objective, on_update=lambda _: stamps.append(time.process_time()))
    marks = [(type(update), stamp) for update, stamp in zip(updates, stamps, strict=True)]
    ended = [stamp for kind, stamp in marks if kind is TrialEnded]
    launched = [stamp for kind, stamp in marks if kind is Launched]
    asks = [launch - end for end, launch in zip(ended, launched[1:], strict=False)]
    # The last verdict is the update before: from there, what is told at a trial's end.
    tells = [stamp - before for (_, before), (kind, stamp) in pairwise(marks) if kind is TrialEnded]
    both = np.median(asks) + np.median(tells)
    print(f"\nask: {np.median(asks) * 1e3:.0f} ms, tell: {np.median(tells) * 1e3:.0f} ms CPU;", end=" ")
    print(f"both, with three epochs between them: {np.median(np.diff(ended)) * 1e3:.0f} ms")
    assert both <= 0.1
    began = time.process_time()
    standing = StudyReader(folder).read()
    seconds = time.process_time() - began
    print(f"status of {standing.num_trained} trials: {seconds:.2f} CPU s")
    assert seconds <= 2.0
