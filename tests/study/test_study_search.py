"""A study from the outside, as `sweeps study` calls it: where its trials are kept, and what is refused."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crack_sweeps import search
from crack_sweeps.errors import StoreError, UserError
from crack_sweeps.specs.study_loading import Identity
from crack_sweeps.study.folder import find_study, open_folder
from crack_sweeps.study.ledger import read_rows
from crack_sweeps.study.store import Store

if TYPE_CHECKING:
    from stand_in_study import Bench


@pytest.fixture
def flags(here: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The toy study with two short trials, and no mirror."""
    monkeypatch.setattr(search, "_mirror", lambda *_: None)
    return {"data": photos, "profile": "none", "trials": 2, "jobs": 1, "overrides": ["training.epochs=1"]}


@pytest.mark.timeout(300)
def test_a_study_runs_in_processes_of_its_own_and_goes_on_only_where_its_trials_are(
    here: Path, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    record = search.run_study("toy", vram_budget="999GiB", notify=told.append, **flags)
    assert any("memory budget is 999.00 GiB, but one trial can have" in text for text in told)
    assert (record.study, record.status, record.num_trained, record.num_failed) == ("toy", "FINISHED", 2, 0)
    folder = find_study("toy")
    rows = list(read_rows(folder))
    assert record.best is not None
    assert record.best["value"] == max(row["value"] for row in rows)
    for row in rows:
        run = Path(row["run_dir"])
        assert (run / "checkpoints/best_model.pth").is_file()
        assert row["peaks"]["memory/peak_rss_bytes"] > 0
        assert not list(run.parent.glob("*.log")), "a trial that has nothing to complain of leaves no log"

    with pytest.raises(UserError, match=r"keeps its trials in studies/toy/optuna\.db, not in sqlite:///other\.db"):
        search.run_study("toy", storage="sqlite:///other.db", **flags)
    assert not Path("other.db").exists()
    folder.database.rename(here / "aside.db")
    with pytest.raises(UserError, match="is gone, and its ledger has trials"):
        search.run_study("toy", **flags)


def test_on_a_network_file_system_a_study_is_refused_with_the_way_out(
    flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crack_sweeps.study.store.network_file_system", lambda _: "nfs4")
    with pytest.raises(StoreError, match="network file system") as caught:
        search.run_study("toy", **flags)
    assert caught.value.exit_code == 2
    assert "SWEEPS_STORE" in (caught.value.hint or "")
    assert "--storage" in (caught.value.hint or "")
    assert not Path("studies/toy").exists(), "the way out must stay open"


def test_a_storage_that_cannot_be_used_is_named_without_its_password(flags: dict[str, Any]) -> None:
    with pytest.raises(StoreError) as caught:
        search.run_study("toy", storage="postgresql://me:hunter2secret@nowhere.invalid/db", **flags)
    assert "hunter2secret" not in str(caught.value)
    assert "--storage" in (caught.value.hint or "")
    assert not Path("studies/toy").exists(), "a mistyped address must not become the study's for good"


def test_a_study_whose_name_another_has_in_the_database_is_refused_before_anything_is_written(
    here: Path, bench: Bench, flags: dict[str, Any]
) -> None:
    study = bench.resolve(trials=2)
    folder = open_folder(study, Identity("a", "b", "main"), {}, root=here / "alice").folder
    with closing(Store("sqlite:///one.db", "toy", study.all_arms, study.spec.objective, owner=folder)):
        pass
    with pytest.raises(StoreError, match="another study named toy"):
        search.run_study("toy", storage="sqlite:///one.db", **flags)
    assert not Path("studies/toy").exists()
