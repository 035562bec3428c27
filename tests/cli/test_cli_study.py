"""`sweeps study` and its views from the outside, with a search that is a list of what happens in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from hand_made_study import DEAD, HandMadeStudy, append
from three_arm_study import ThreeArms

from crack_sweeps import search
from crack_sweeps.cli import trials
from crack_sweeps.cli.study_words import figure, said, short_names
from crack_sweeps.errors import NothingFits
from crack_sweeps.study.history import Trial
from crack_sweeps.study.packing import Placement
from crack_sweeps.study.updates import EpochDone, Launched, Notice, Rejected, StudyBegan, StudyEnded, TrialEnded

MISTAKES = {
    "trials in words": (["study", "--trials", "many"], "--trials many", "--trials 4"),
    "no trials": (["study", "--trials", "0"], "--trials 0", "whole number from 1"),
    "jobs": (["study", "--jobs", "-1"], "--jobs -1", "--jobs auto"),
    "hours": (["study", "quick", "--gpu-hours", "0"], "--gpu-hours 0", "above 0"),
    "hours without end": (["study", "quick", "--gpu-hours", "nan"], "--gpu-hours nan", "above 0"),
    "budget without unit": (["study", "quick", "--vram-budget", "8"], "--vram-budget 8", "8GiB"),
    "no such study": (["study", "quik"], "quik", "quick"),
    "a setting without a study": (["study", "training.epoch=3", "--profile", "cpu"], "training.epoch", "epochs"),
    "override": (["study", "quick", "--config-override", "training.epochs=x"], "training.epochs", "whole number"),
    "profile": (["study", "quick", "--profile", "gpu-8g"], "gpu-8g", "gpu-8gb"),
    "flag": (["study", "quick", "--trails", "3"], "--trails", "--trials"),
    "status of nothing": (["status"], "no study", "sweeps study"),
    "status of no such study": (["status", "quik"], "no study is named `quik`", "none yet"),
    "watch": (["watch", "toy"], "toy", "none yet"),
    "stop": (["stop", "toy"], "toy", "none yet"),
    "explain nothing": (["explain"], "trial", "--help"),
    "explain what is not there": (["explain", "toy/3"], "toy", "none yet"),
    "explain a run that is not there": (["explain", "nothing/here"], "nothing/here", "sweeps study"),
    "diff of one": (["diff", "toy/1"], "argument 'b'", "--help"),
    "diff of nothing": (["diff", "a", "b"], "no run is named `a`", "STUDY/21"),
    "a trial that is not there": (["run", "--trial", "toy/3"], "toy", "none yet"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_a_hint_before_anything_large_is_loaded(
    sweeps: Callable, here: Path, mistake: str
) -> None:
    arguments, named, remedy = MISTAKES[mistake]
    answer = sweeps(*arguments)
    assert (answer.code, answer.out) == (2, "")
    lines = answer.err.splitlines()
    assert lines[0].startswith("error: "), "told before `loading ...`"
    assert lines[1:] == [] or (lines[1] == "" and len(lines) == 3 and lines[2].startswith("hint: ")), lines
    assert named in answer.err
    assert remedy in answer.err
    assert not list(here.iterdir()), "a refused command wrote something"


# --- the search ----------------------------------------------------------------------------------

PLACE = Placement.__new__(Placement)  # where it runs is not shown
SUGGESTED = {"training.learning_rate": 0.00123456, "training.loss.dice_weight": 0.4}


@pytest.fixture
def toy(here: Path) -> HandMadeStudy:
    return HandMadeStudy()


def row(number: int, outcome: str, **known: Any) -> dict[str, Any]:
    empty = {"value": None, "reason": None, "num_epochs": 0, "duration_s": 0.0, "peaks": {}, "quick_look": False}
    of_trial = {"trial": f"toy/{number}", "arm": "unet_small", "number": number, "outcome": outcome}
    return {**empty, **of_trial, "suggestion": SUGGESTED, "run_dir": f"artifacts/outputs/r{number}", **known}


def story(toy: HandMadeStudy, *, reason: str | None = None, num_failed: int = 0) -> list[Any]:
    """One trial that is complete, one pruned, one rejected."""
    facts = {"needed_bytes": 2**30, "run": "r0", "seed": 0, "repeat_of": None}
    first = Trial("unet_small", 0, SUGGESTED, "running", facts=facts)
    second = replace(first, number=1, facts={**facts, "repeat_of": 0})
    refused = replace(first, number=2, outcome="rejected", facts={"reason": "needs 9.00 GiB by forecast"})
    metrics = {"val/crack_iou": 0.25, "epoch_s": 2.0, "memory/peak_rss_bytes": 3 * 2**20}
    best = row(0, "complete", value=0.25, duration_s=4.0, num_epochs=2, peaks={"memory/peak_rss_bytes": 3 * 2**20})
    pruned = row(1, "pruned", reason="place 2 of 2", num_epochs=1, duration_s=2.0)
    return [
        StudyBegan(toy.folder, 0, 2, 0, 2),
        Launched(first, "toy/0", 2, PLACE, adopted=False),
        EpochDone(first, "toy/0", 1, 2, 0.2, {**metrics, "val/crack_iou": 0.2}),
        Notice("toy/1 waits for memory"),
        Launched(second, "toy/1", 2, PLACE, adopted=True),
        EpochDone(first, "toy/0", 2, 2, 0.25, metrics),
        TrialEnded(replace(first, outcome="complete", value=0.25), "toy/0", best, is_best=True),
        Rejected(refused, "toy/2"),
        TrialEnded(replace(second, outcome="pruned"), "toy/1", pruned, is_best=False),
        StudyEnded(toy.folder, reason, 2, num_failed, best),
    ]


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Any]], list[Any]]:
    """Let `sweeps study` hear this; returns what the search was called with."""

    def prepare(updates: list[Any]) -> list[Any]:
        calls: list[Any] = []

        def searching(*arguments: Any, **flags: Any) -> Iterator[Any]:
            calls.append((arguments, flags))
            for update in updates:
                if isinstance(update, BaseException):
                    raise update
                yield update

        monkeypatch.setattr(search, "searching", searching)
        return calls

    return prepare


def test_elsewhere_than_on_a_terminal_each_thing_that_happens_is_a_line(
    sweeps: Callable, toy: HandMadeStudy, tell: Callable
) -> None:
    tell(story(toy))
    answer = sweeps("study", "toy", "--profile", "none")
    assert answer.code == 0, answer.err
    lines = answer.err.splitlines()
    assert lines[1:10] == [
        "0 of 2 trials trained so far; at most 2 at once",
        "toy/0 begins: learning_rate=0.00123 dice_weight=0.4; ~1.0 GiB forecast",
        "toy/0 epoch 1/2  val/crack_iou 0.200  2 s",
        "warning: toy/1 waits for memory",
        "toy/1 goes on after epoch 0, another seed of trial 0: learning_rate=0.00123 dice_weight=0.4; "
        "~1.0 GiB forecast",
        "toy/0 epoch 2/2  val/crack_iou 0.250  2 s",
        "toy/0 complete 0.250  best so far  4 s  3.0 MiB",
        "toy/2 rejected: needs 9.00 GiB by forecast",
        "toy/1 pruned after epoch 1: place 2 of 2  2 s",
    ]


def test_the_end_shows_the_best_trial_and_commands_that_exist(
    sweeps: Callable, toy: HandMadeStudy, tell: Callable
) -> None:
    import typer

    from crack_sweeps.cli.app import app

    tell(story(toy))
    answer = sweeps("study", "toy", "--profile", "none")
    rows = dict(line.split(None, 1) for line in answer.out.splitlines() if len(line.split(None, 1)) == 2)
    assert rows["val/crack_iou"] == "0.250"
    assert rows["training.learning_rate"] == "0.00123456"
    assert rows["run"] == "artifacts/outputs/r0"
    commands = [line.split()[1] for line in answer.err.splitlines() if line.startswith("  sweeps ")]
    assert commands == ["leaderboard", "explain", "run", "ui"]
    assert "  studies/toy/report.html" in answer.err
    assert set(commands) <= set(vars(typer.main.get_command(app))["commands"])


def test_json_is_the_record(sweeps: Callable, toy: HandMadeStudy, tell: Callable) -> None:
    tell(story(toy))
    record = json.loads(sweeps("study", "toy", "--profile", "none", "--json").out)
    assert (record["study"], record["status"], record["num_trained"]) == ("toy", "FINISHED", 2)
    assert record["best"]["trial"] == "toy/0"
    assert record["answer"] is None, "its ledger has no trial that is complete"


def test_flags_reach_the_search_and_a_setting_may_stand_without_a_study(
    sweeps: Callable, toy: HandMadeStudy, tell: Callable
) -> None:
    calls = tell(story(toy))
    flags = [
        "--trials",
        "3",
        "--jobs",
        "2",
        "--gpu-hours",
        "1.5",
        "--vram-budget",
        "8GiB",
        "--storage",
        "sqlite:///x.db",
        "--baseline-trials",
        "0",
        "--seeds",
        "5",
    ]
    answer = sweeps("study", "training.epochs=3", "--profile", "cpu", "--data", "photos", *flags)
    assert answer.code == 0, answer.err
    ((arguments, said_flags),) = calls
    assert arguments == (None,)
    assert {key: said_flags[key] for key in said_flags if key not in ("stop", "notify")} == {
        "overrides": ["training.epochs=3"],
        "data": Path("photos"),
        "profile": "cpu",
        "trials": 3,
        "baseline_trials": 0,
        "seeds": 5,
        "jobs": 2,
        "gpu_hours": 1.5,
        "vram_budget": "8GiB",
        "storage": "sqlite:///x.db",
    }


def test_jobs_may_be_auto(sweeps: Callable, toy: HandMadeStudy, tell: Callable) -> None:
    calls = tell(story(toy))
    assert sweeps("study", "toy", "--profile", "none", "--jobs", "auto").code == 0
    assert calls[0][1]["jobs"] == "auto"


def test_failed_trials_are_exit_code_3(sweeps: Callable, toy: HandMadeStudy, tell: Callable) -> None:
    tell(story(toy, num_failed=1))
    answer = sweeps("study", "toy", "--profile", "none")
    assert answer.code == 3
    assert "1 of them failed" in answer.out


def test_nothing_that_fits_is_exit_code_4(sweeps: Callable, toy: HandMadeStudy, tell: Callable) -> None:
    tell([NothingFits("200 suggestions in a row need more", hint="raise --vram-budget")])
    answer = sweeps("study", "toy", "--profile", "none")
    assert answer.code == 4
    assert "error: 200 suggestions" in answer.err


def test_a_stop_that_was_asked_for_says_how_to_go_on_without_a_password(
    sweeps: Callable, toy: HandMadeStudy, tell: Callable
) -> None:
    tell(story(toy, reason="asked to stop"))
    url = "postgresql://me:secret@server/db"
    answer = sweeps("study", "toy", "training.epochs=3", "--profile", "none", "--trials", "9", "--storage", url)
    assert answer.code == 143
    assert "KILLED (asked to stop)" in answer.out
    assert "go on with: sweeps study toy training.epochs=3 --profile none --trials 9 --storage" in answer.err
    assert "secret" not in answer.err + answer.out


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_first_signal_asks_for_checkpoints(
    sweeps: Callable, toy: HandMadeStudy, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    import signal

    def searching(*_: Any, stop: Callable[[], str | None], **__: Any) -> Iterator[Any]:
        yield story(toy)[0]
        assert stop() is None
        signal.raise_signal(getattr(signal, name))
        yield StudyEnded(toy.folder, stop(), 0, 0, None)

    monkeypatch.setattr(search, "searching", searching)
    answer = sweeps("study", "toy", "--profile", "none")
    assert answer.code == code
    assert f"KILLED ({name})" in answer.out
    assert "once more kills" in answer.err


def test_what_ended_before_the_coordinator_is_at_work_is_told(
    sweeps: Callable, toy: HandMadeStudy, tell: Callable
) -> None:
    updates = story(toy)
    tell([updates[6], updates[0], updates[-1]])
    answer = sweeps("study", "toy", "--profile", "none")
    assert answer.code == 0, answer.err
    assert "toy/0 complete 0.250" in answer.err


def test_a_dry_run_prints_the_plan(sweeps: Callable, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plan:
        def as_dict(self) -> dict[str, Any]:
            return {"trainings": 6}

        def rows(self) -> list[tuple[str, str]]:
            return [("trainings", "6")]

    monkeypatch.setattr(search, "plan_study", lambda *_, **__: Plan(), raising=False)
    assert sweeps("study", "quick", "--dry-run", "--profile", "cpu").out == "trainings  6\n"
    assert json.loads(sweeps("study", "quick", "--dry-run", "--profile", "cpu", "--json").out) == {"trainings": 6}


LIVE = """
import os, sys, time
os.chdir(sys.argv[1]); sys.path[:0] = sys.argv[2:]
import test_cli_study as t
from hand_made_study import HandMadeStudy
from crack_sweeps import search
from crack_sweeps.cli.app import run_command_line
toy = HandMadeStudy()
toy.attempt(trials=2)
def searching(*_, **__):
    for update in t.story(toy):
        yield update
        time.sleep(0.7)
search.searching = searching
sys.exit(run_command_line(["study", "toy", "--profile", "none"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals of POSIX")
def test_on_a_terminal_a_table_shows_what_runs(here: Path) -> None:
    ours, theirs = os.openpty()
    tests = Path(__file__).parent
    command = [sys.executable, "-c", LIVE, str(here), str(tests), str(tests.parent)]
    environment = {**os.environ, "COLUMNS": "150", "LINES": "40", "TERM": "xterm", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
        os.close(ours)
        out = process.communicate(timeout=60)[0].decode()
    text = shown.decode()
    assert process.returncode == 0, text
    for expected in ("study toy: 0 of 2 trials trained", "settings", "1/2", "0.200", "3.0 MiB", "best so far", "━"):
        assert expected in text, f"{expected} not in {text}"
    assert "1 of 2 trials trained, best val/crack_iou 0.250 (toy/0)" in text
    assert "toy/0 epoch 1/2" not in text, "what the table shows is not said again"
    assert "best trial" in out


# --- the views -----------------------------------------------------------------------------------


@pytest.fixture
def begun(toy: HandMadeStudy) -> HandMadeStudy:
    toy.attempt()
    toy.trial(0, 0.2, 0.3, outcome="complete", value=0.3, ended="FINISHED")
    toy.trial(1, outcome="rejected", run=False, excess=0.25, reason="needs 1.00 GiB by forecast")
    toy.trial(2, 0.1, 0.15)
    return toy


def test_status_shows_counts_the_best_and_what_runs(sweeps: Callable, begun: HandMadeStudy) -> None:
    answer = sweeps("status")
    assert answer.code == 0, answer.err
    for expected in (
        f"process {os.getpid()} on",
        "1 of 8 trained: 1 complete, 1 rejected",
        "0.300 (toy/0)",
        "toy/2",
        "2/5",
    ):
        assert expected in answer.out, expected
    standing = json.loads(sweeps("status", "toy", "--json").out)
    assert standing["counts"]["rejected"] == 1
    assert standing["running"][0]["epoch"] == 2


def test_status_of_a_study_whose_coordinator_died_says_how_to_go_on(sweeps: Callable, begun: HandMadeStudy) -> None:
    begun.attempt(DEAD)
    out = sweeps("status").out
    assert "interrupted" in out
    assert "sweeps study toy --profile none" in out


def test_watch_tells_what_changes_until_the_study_ends(
    sweeps: Callable, begun: HandMadeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_on(_: float) -> None:
        if not (begun.folder.path.parent / "once").exists():
            (begun.folder.path.parent / "once").touch()
            begun.trial(3, 0.4, outcome="complete", value=0.4, ended="FINISHED")
            begun.trial(4)
        else:
            begun.end()

    monkeypatch.setattr(trials.time, "sleep", go_on)
    answer = sweeps("watch")
    assert answer.code == 0, answer.err
    assert "toy/3 complete 0.400  best so far" in answer.out
    assert "toy/4 begins" in answer.out
    assert answer.out.rstrip().splitlines()[-1].startswith("toy/4")


def test_watch_of_a_study_at_rest_prints_it_once(sweeps: Callable, begun: HandMadeStudy) -> None:
    begun.end()
    assert sweeps("watch").out == sweeps("status").out


def test_the_best_of_several_arms_is_told_with_the_arm_that_it_is_of(
    sweeps: Callable, here: Path, toy: HandMadeStudy
) -> None:
    trio = ThreeArms()
    trio.trial("hybrid", 0.2)
    trio.trial("unet", 0.4)
    out = sweeps("status", "trio").out
    assert "1 of 4 trained in arm hybrid: 1 complete" in out
    assert "val/crack_iou 0.200 (trio/0) in arm hybrid" in out
    assert "1 of 4 trained, best 0.400" in out
    toy.trial(0, 0.2, 0.3, outcome="complete", value=0.3, ended="FINISHED")
    assert "in arm" not in sweeps("status", "toy").out, "there is but one"


def test_ctrl_c_ends_the_watching_alone(
    sweeps: Callable, begun: HandMadeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trials.time, "sleep", interrupt)
    assert sweeps("watch", "toy").code == 0
    assert not begun.folder.stop_request.exists()


def test_stop_asks_and_waits_until_the_coordinator_has_left(
    sweeps: Callable, begun: HandMadeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials.time, "sleep", lambda _: begun.end("KILLED", "asked to stop"))
    answer = sweeps("stop")
    assert answer.code == 0, answer.err
    assert begun.folder.stop_request.exists()
    assert "stopped (asked to stop)" in answer.out


def test_stop_of_a_study_that_does_not_stop_is_a_failure(
    sweeps: Callable, begun: HandMadeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "STOP_PATIENCE_S", 0.3)
    assert sweeps("stop").code == 1
    assert sweeps("stop", "--no-wait").code == 0


def test_stop_names_the_version_that_runs_where_the_newest_does_not(sweeps: Callable, begun: HandMadeStudy) -> None:
    newer = begun.folder.path.with_name("toy@2")
    shutil.copytree(begun.folder.path, newer)
    with begun.folder.lock():
        (newer / "coordinator.json").write_text(json.dumps(asdict(DEAD)))
        answer = sweeps("stop", "toy", "--no-wait")
        assert answer.code == 0, answer.err
        assert "study toy@2 is not running" in answer.err
        assert "`sweeps stop toy@1` stops it" in answer.err
        assert sweeps("stop", "toy@1", "--no-wait").code == 0
    assert begun.folder.stop_request.exists()
    assert not (newer / "stop").exists()
    rows = json.loads(sweeps("status", "toy@1", "--json").out)
    assert rows["study"] == "toy@1"


def test_stop_where_nothing_runs_says_so(sweeps: Callable, begun: HandMadeStudy) -> None:
    begun.end()
    answer = sweeps("stop", "toy")
    assert answer.code == 0
    assert "not running" in answer.err
    assert not begun.folder.stop_request.exists()


def test_explain_and_diff_print_rows_and_objects(sweeps: Callable, begun: HandMadeStudy) -> None:
    assert "place 1 of 1" in sweeps("explain", "toy/0").out
    assert "cost no training: needs 1.00 GiB" in sweeps("explain", "toy/1").out
    assert json.loads(sweeps("explain", "toy/2", "--json").out)["epochs"] == {"1": 0.1, "2": 0.15}
    out = sweeps("diff", "toy/0", "toy/2").out
    assert "training.learning_rate  0.001  0.003" in out
    assert "dice_weight" not in out, "what is alike is left out"
    assert json.loads(sweeps("diff", "toy/0", "toy/2", "--json").out)["figures"]["epochs"] == [2, 2]


def test_what_needs_a_run_directory_that_is_gone_says_so(sweeps: Callable, begun: HandMadeStudy) -> None:
    run = Path(json.loads(sweeps("explain", "toy/0", "--json").out)["run_dir"])
    environment = json.loads((run / "environment.json").read_text())
    for name in ("0", "2"):  # a setting's name is that of a figure, too
        path = next(run.parent.glob(f"*-toy-00{name}-*")) / "environment.json"
        path.write_text(json.dumps({**environment, "precision": f"float{name}"}))
    assert "precision    float0  float2" in sweeps("diff", "toy/0", "toy/2").out
    shutil.rmtree(run)
    out = sweeps("explain", "toy/0").out
    assert f"its run directory is gone ({run.as_posix()})" in out
    assert "not sent yet" not in out
    answer = sweeps("diff", "toy/0", "toy/2")
    assert answer.code == 0, answer.err
    assert "its run directory is gone" in answer.err
    answer = sweeps("evaluate", "toy/0", "--split", "val")
    assert answer.code == 2
    assert "error: trial toy/0: its run directory is gone" in answer.err
    assert "sweeps run --trial toy/0" in answer.err


def test_explain_says_that_epochs_are_scored_on_few_photos_and_the_outcome_on_all(
    sweeps: Callable, begun: HandMadeStudy
) -> None:
    events = Path(json.loads(sweeps("explain", "toy/0", "--json").out)["run_dir"]) / "events.jsonl"
    first, *rest = events.read_text().splitlines()
    created = json.loads(first)
    created["params"]["evaluation.images_per_epoch"] = 6
    events.write_text("\n".join([json.dumps({**created, "dataset": {"num_val": 19}}), *rest, ""]))
    assert "each epoch on 6 validation photos, the outcome on all 19" in sweeps("explain", "toy/0").out


def test_a_trials_settings_can_be_planned_alone_with_another_seed(
    sweeps: Callable, begun: HandMadeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crack_sweeps import api

    class Plan:
        data: dict[str, Any] = {}  # noqa: RUF012  # read once

        def __init__(self, resolved: Any, **_: Any) -> None:
            training = resolved.experiment.training
            self.planned = [training.learning_rate, training.seed, resolved.profile, resolved.source.name]

        def as_dict(self) -> dict[str, Any]:
            return {"planned": self.planned}

    monkeypatch.setattr(api, "make_plan", Plan)
    monkeypatch.setattr(api, "replace", lambda plan, **_: plan)  # its memory is no matter here
    monkeypatch.setattr(api, "with_process", lambda *_: None)
    monkeypatch.setattr(Plan, "cost", None, raising=False)
    answer = sweeps("run", "--trial", "toy/0", "--seed", "3", "--dry-run", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out) == {"planned": [0.001, 3, "none", "config.yaml"]}


BESIDE = ["unet_small", "training.epochs=1", "--profile cpu", "--data x", "--resume", "--resume-from x"]


@pytest.mark.parametrize("beside", BESIDE)
def test_nothing_but_a_seed_can_stand_beside_a_trial(sweeps: Callable, begun: HandMadeStudy, beside: str) -> None:
    answer = sweeps("run", "--trial", "toy/0", *beside.split())
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: --trial toy/0 trains that trial's settings as they are")
    assert "config.yaml KEY=VALUE --profile none" in answer.err


# --- words ---------------------------------------------------------------------------------------


def test_a_key_is_shown_by_as_few_of_its_last_parts_as_tell_it_apart() -> None:
    assert short_names(["training.loss.gamma", "model.decoder.width", "model.encoder.width"]) == {
        "training.loss.gamma": "gamma",
        "model.decoder.width": "decoder.width",
        "model.encoder.width": "encoder.width",
    }


def test_values_are_short_in_tables_and_whole_where_they_are_copied() -> None:
    assert [said(value) for value in (None, True, 0.00123456, 3, [1, 2.0], "a" * 30)] == [
        *("null", "true", "0.00123", "3", "[1,2]", "a" * 21 + "...")
    ]
    assert said(0.00123456, exact=True) == "0.00123456"
    assert [figure(value) for value in (None, 0.1234, 123.4)] == ["-", "0.123", "123"]


def test_a_pipe_gets_no_table_of_a_terminal(sweeps: Callable, begun: HandMadeStudy) -> None:
    append(begun.folder.events, "attempt", attempt=2, pid=1, process_started=1.0, host="x")
    assert "\x1b" not in sweeps("status").out
