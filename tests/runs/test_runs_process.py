"""A process is alive until it ends, whatever the clock does; a later one of its number is another."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from crack_sweeps.runs import process
from crack_sweeps.runs.process import Trainer


def test_a_process_with_a_recycled_number_is_not_the_training() -> None:
    this = Trainer.this_process()
    assert not this.is_dead()
    assert not replace(this, host="another-host", started=1.0).is_dead()
    if this.ticks is not None:
        assert replace(this, ticks=this.ticks - 1).is_dead()
        assert replace(this, boot="of last week").is_dead()


def test_what_an_earlier_version_wrote_is_known_by_its_date() -> None:
    this = Trainer.this_process()
    told = {"pid": this.pid, "process_started": this.started, "host": this.host}
    assert Trainer.of(told) == this
    assert not Trainer.of(told).is_dead()
    assert Trainer.of({**told, "process_started": this.started - 100}).is_dead()


def test_an_event_brings_back_all_that_is_known() -> None:
    this = Trainer.this_process()
    again = Trainer.of({"seq": 1, **this.told()})
    assert (again, again.boot, again.ticks) == (this, this.boot, this.ticks)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a start is known by its date alone")
def test_a_step_of_the_clock_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    this = Trainer.this_process()
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600)  # as the clock is set on
    assert Trainer.of({"pid": this.pid, "process_started": this.started, "host": this.host}).is_dead()
    assert not this.is_dead()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_name_with_spaces_and_brackets_does_not_shift_the_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = ["S", *(str(number) for number in range(4, 53))]
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(f"7 (a) Z (b) {' '.join(fields)}\n")
    monkeypatch.setattr(process, "_PROC", tmp_path)
    assert process._state_and_ticks(7) == ("S", 22)
    assert process._state_and_ticks(8) is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no zombies")
def test_a_process_that_ended_is_dead_also_while_its_parent_has_not_heard_of_it() -> None:
    code = (
        "import json; from crack_sweeps.runs.process import Trainer; print(json.dumps(Trainer.this_process().told()))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = Trainer.of(json.loads(child.stdout.read()))
        assert told.pid == child.pid
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert told.is_dead()
    assert told.is_dead()
