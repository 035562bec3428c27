"""What `sweeps run` goes on with, what it refuses to, and what it prints of a training that fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from crack_sweeps import api, doctor
from crack_sweeps.runs import preparation, training_run
from crack_sweeps.runs.directory import OUTPUTS, RunDirectory, all_runs
from crack_sweeps.runs.events import EventLog, read_events
from crack_sweeps.runs.record import read_record
from crack_sweeps.runs.slimming import is_slim
from crack_sweeps.runs.training_run import Ended, Halt, Locked
from crack_sweeps.training.checkpoints import CheckpointFolder
from crack_sweeps.training.loop import EpochReport

SETTINGS = [
    *("model.encoder_cfg.depth=3", "model.decoder_cfg.channels=[16,8,8]", "data.crop_px=32", "data.num_workers=0"),
    *("training.batch_size=2", "evaluation.num_overlays=1", "training.epochs=3", "training.steps_per_epoch=2"),
    "training.ema_decay=0.9",
]
TYPED = ["run", "unet_small", "--profile", "cpu", "--data", "photos"]


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs whose mirror was started; none is."""
    started: list[str] = []
    monkeypatch.setattr(api, "start_mirror", lambda path: started.append(path.name))
    monkeypatch.setattr(api, "write_board", lambda _: None)
    return started


def train(*, stop: Callable[[], Halt | None] = lambda: None, overrides: tuple[str, ...] = (), **named: Any) -> Any:
    """All updates of a training on the photos."""
    if "resume_from" in named:
        return api.training(None, stop=stop, **named)
    return api.training(
        "unet_small", overrides=[*SETTINGS, *overrides], data=Path("photos"), profile="cpu", stop=stop, **named
    )


def only_run() -> RunDirectory:
    (run,) = all_runs(outputs=OUTPUTS)
    return run


def stopped(status: Literal["KILLED", "PRUNED"], *, after: int = 1, overrides: tuple[str, ...] = ()) -> RunDirectory:
    """A run that was ended after so many epochs."""
    epochs: list[EpochReport] = []
    updates = train(stop=lambda: Halt(status, "asked") if len(epochs) >= after else None, overrides=overrides)
    for update in updates:
        if isinstance(update, EpochReport):
            epochs.append(update)
    return only_run()


def belongs_to(run: RunDirectory, study: str) -> None:
    facts = {**run.read_environment(), "study": {"name": study, "arm": "main", "number": 4}}
    run.environment.write_text(json.dumps(facts))


def assert_refused(answer: Any, *words: str) -> None:
    assert (answer.code, answer.out) == (2, "")
    assert "Traceback" not in answer.err
    for word in words:
        assert word in answer.err, answer.err


def test_a_pruned_run_and_a_study_s_trial_are_refused_and_left_as_they_are(
    sweeps: Callable, photos: Path, mirrors: list[str]
) -> None:
    run = stopped("PRUNED")
    before = (run.metrics.read_bytes(), run.events.read_bytes())
    assert_refused(sweeps("run", "--resume-from", run.name), "was pruned", "start a new run")
    assert_refused(sweeps(*TYPED, *SETTINGS, "--resume"), "was pruned")
    belongs_to(run, "toy")
    assert_refused(sweeps("run", "--resume-from", run.name), "was pruned", "`sweeps run --trial toy/main/4`")
    assert (run.metrics.read_bytes(), run.events.read_bytes()) == before
    shutil.rmtree(run.path)

    run = stopped("KILLED")
    belongs_to(run, "toy")
    before = (run.metrics.read_bytes(), run.events.read_bytes())
    answer = sweeps("run", "--resume-from", run.name)
    assert_refused(answer, "study toy", "`sweeps status toy`", "`sweeps run --trial toy/main/4`")
    assert (run.metrics.read_bytes(), run.events.read_bytes()) == before
    assert len(mirrors) == 2, "of the two trainings"


def test_the_mirror_is_started_once_the_run_is_locked(photos: Path, mirrors: list[str]) -> None:
    run = stopped("KILLED")
    mirrors.clear()
    with closing(train(resume_from=run.name)) as updates:
        assert isinstance(next(updates), Locked)
        assert mirrors == [run.name]
        assert run.is_running()
        with pytest.raises(api.UserError, match="is being trained by another process"):
            next(train(resume_from=run.name))


def test_the_one_that_comes_too_late_touches_nothing(
    photos: Path, mirrors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped("KILLED")
    mirrors.clear()
    monkeypatch.setattr(training_run, "LOCK_PATIENCE_S", 0.05)
    prepare_again = api._prepare_again

    def meanwhile(found: RunDirectory, notify: Any) -> Any:
        prepared = prepare_again(found, notify)
        lock.acquire()
        return prepared

    lock = run.lock()
    monkeypatch.setattr(api, "_prepare_again", meanwhile)
    before = (run.metrics.read_bytes(), run.events.read_bytes())
    with pytest.raises(api.UserError, match="is being trained by another process"):
        list(train(resume_from=run.name))
    lock.release()
    assert mirrors == []
    assert (run.metrics.read_bytes(), run.events.read_bytes()) == before

    def finish_meanwhile(found: RunDirectory, notify: Any) -> Any:
        prepared = prepare_again(found, notify)
        with closing(EventLog(found.events)) as log:
            log.append("ended", status="FINISHED", reason=None)
        return prepared

    monkeypatch.setattr(api, "_prepare_again", finish_meanwhile)
    with pytest.raises(api.UserError, match="is finished"):
        list(train(resume_from=run.name))
    assert run.metrics.read_bytes() == before[0]


def test_an_address_that_nothing_can_be_sent_to_is_told_before_anything_is_written(
    sweeps: Callable, here: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///tmp/mlruns")
    assert_refused(sweeps(*TYPED, *SETTINGS), "MLFLOW_TRACKING_URI", "sqlite:///")
    assert [path.name for path in here.iterdir()] == ["photos"]


@pytest.mark.parametrize("status", ["FINISHED", "PRUNED"])
def test_a_run_that_died_at_its_very_end_gives_back_its_optimizer_s_state_later(
    photos: Path, mirrors: list[str], monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    finish = CheckpointFolder.finish
    given: list[dict[str, Any]] = []

    def die(self: CheckpointFolder, weights: dict[str, Any]) -> None:
        copy = {name: tensor.clone() for name, tensor in weights["model"].items()}
        given.append({**weights, "model": copy})
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointFolder, "finish", die)
    with pytest.raises(KeyboardInterrupt):
        stopped(status, after=2 if status == "PRUNED" else 9)
    monkeypatch.setattr(CheckpointFolder, "finish", finish)
    run = only_run()
    assert run.status() == status
    assert not is_slim(run)
    assert (run.checkpoints / "previous_model.pth").exists()
    (told,) = (f for f in doctor._run(run) if "optimizer" in f.text)
    assert (told.verdict, told.remedy) == ("warning", "sweeps doctor --fix")
    if status == "FINISHED":
        (end,) = train(resume_from=run.name)
        assert isinstance(end, Ended)
        assert end.record == read_record(run)
    else:
        (fixed,) = doctor._slim(OUTPUTS)
        assert (fixed.subject, fixed.verdict) == (run.name, "ok")
    assert is_slim(run)
    assert not (run.checkpoints / "previous_model.pth").exists()
    stored = torch.load(run.checkpoints / "latest_model.pth", weights_only=True)
    assert stored["epoch"] == given[0]["epoch"]
    assert stored.keys() == {"format", "model", "epoch"}
    assert stored["model"].keys() == given[0]["model"].keys()
    assert all(torch.equal(stored["model"][name], tensor) for name, tensor in given[0]["model"].items())
    assert list(doctor._slim(OUTPUTS)) == []


def test_a_run_goes_on_without_the_file_that_its_encoder_began_with(photos: Path, mirrors: list[str]) -> None:
    from safetensors.torch import save_file
    from timm import create_model

    encoder = api.resolve("unet_small", profile="none").experiment.model.encoder_cfg.model_name
    weights = Path("encoder.safetensors")
    save_file(create_model(encoder, pretrained=False).state_dict(), weights)
    run = stopped("KILLED", overrides=(f"model.encoder_cfg.checkpoint_path={weights}",))
    began_with = run.read_environment()["weights_sha256"]
    assert began_with == preparation.sha256(weights)
    config = run.config.read_bytes()
    weights.unlink()
    *_, end = train(resume_from=run.name)
    assert isinstance(end, Ended)
    assert (end.record.status, end.record.num_epochs) == ("FINISHED", 3)
    assert run.config.read_bytes() == config
    assert run.read_environment()["weights_sha256"] == began_with


def test_a_run_goes_on_in_the_precision_it_began_in_or_not_at_all(
    sweeps: Callable, photos: Path, mirrors: list[str]
) -> None:
    run = stopped("KILLED")
    facts = run.read_environment()
    other = "bfloat16" if facts["precision"] == "float32" else "float32"
    run.environment.write_text(json.dumps({**facts, "precision": other, "device_name": "Old Card"}))
    before = run.events.read_bytes()
    assert_refused(sweeps("run", "--resume-from", run.name), f"began in {other}", "Old Card", "start a new run")
    assert run.events.read_bytes() == before


def test_json_of_a_training_that_fails_is_its_record(
    sweeps: Callable, photos: Path, mirrors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any, **__: Any) -> Iterator[Any]:
        raise training_run.SweepsError("loss is nan", hint="a lower rate")
        yield

    monkeypatch.setattr(training_run, "train", explode)
    answer = sweeps(*TYPED, *SETTINGS, "--json")
    assert answer.code == 1
    assert "error: loss is nan" in answer.err
    record = json.loads(answer.out)
    assert (record["status"], record["reason"], record["run"]) == ("FAILED", "loss is nan", only_run().name)
    assert [event["status"] for event in read_events(only_run().events) if event["kind"] == "ended"] == ["FAILED"]
