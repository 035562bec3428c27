"""Checkpoints: whole or refused, at each moment of a crash and for each flipped byte."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from crack_sweeps import durable
from crack_sweeps.errors import CheckpointError, DiskFull
from crack_sweeps.training import checkpoints
from crack_sweeps.training.checkpoints import CheckpointFolder


def state(step: int) -> dict[str, object]:
    return {"step": step, "model": {"weight": torch.full((64,), float(step))}}


def test_what_was_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    vault = CheckpointFolder(tmp_path)
    vault.save_latest(state(3))
    loaded = vault.load_latest()
    assert loaded is not None
    found, complaints = loaded
    assert found["step"] == 3
    assert torch.equal(found["model"]["weight"], torch.full((64,), 3.0))
    assert complaints == []


def test_a_folder_without_checkpoints_has_nothing_to_resume(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path).load_latest() is None


def test_each_flipped_byte_is_found_and_the_older_checkpoint_is_used(tmp_path: Path) -> None:
    vault = CheckpointFolder(tmp_path)
    vault.save_latest(state(1))
    vault.save_latest(state(2))
    whole = vault.latest.read_bytes()
    positions = range(0, len(whole), max(1, len(whole) // 60))
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        vault.latest.write_bytes(bytes(damaged))
        loaded = vault.load_latest()
        assert loaded is not None
        found, complaints = loaded
        assert found["step"] == 1
        assert len(complaints) == 1
        assert str(vault.latest) in complaints[0]


def test_a_truncated_checkpoint_is_refused_at_each_length(tmp_path: Path) -> None:
    vault = CheckpointFolder(tmp_path)
    vault.save_best(state(1))
    whole = vault.best.read_bytes()
    for percent in range(0, 100, 5):
        vault.best.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(CheckpointError, match=r"best_model\.pth"):
            vault.load_best()


class Crash(BaseException):
    """The process is killed."""


@contextmanager
def crashing_at_rename(number: int) -> Iterator[None]:
    """Inside, the rename of that number (from 0) does not happen any more."""
    real, calls = os.replace, itertools.count()

    def replace(source: Path, target: Path) -> None:
        if next(calls) == number:
            raise Crash
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        yield


def test_a_crash_between_any_two_renames_leaves_a_state_to_resume_however_often_it_comes(tmp_path: Path) -> None:
    """Each rename is cut off, and again in the attempts that follow: all that is on disk must load."""
    for survive in range(6):
        vault = CheckpointFolder(tmp_path / str(survive))
        vault.save_best(state(0))
        vault.save_latest(state(0))
        newest = 1
        vault.save_latest(state(newest))
        crashes = 0
        for step in range(2, 7):
            vault.clear_unfinished()
            try:
                with crashing_at_rename(survive):
                    vault.save_latest(state(step))
                newest = step
            except Crash:
                crashes += 1
            loaded = vault.load_latest()
            assert loaded is not None
            assert (loaded[0]["step"], loaded[1]) == (newest, [])
            for path in vault.folder.glob("*.pth"):
                checkpoints.load(path, known=known(vault))
        if not crashes:
            assert survive == 3  # the manifest, the file that becomes the one before, the new one
            return
    pytest.fail("save_latest never got through, so nothing was tested")


@pytest.mark.parametrize("survive", [0, 1])
def test_the_best_weights_stay_known_however_often_a_save_of_better_ones_is_cut_off(
    survive: int, tmp_path: Path
) -> None:
    vault = CheckpointFolder(tmp_path)
    vault.save_best(state(1))
    for step in range(2, 7):
        with pytest.raises(Crash), crashing_at_rename(survive):
            vault.save_best(state(step))
        vault.clear_unfinished()
        assert vault.load_best()["step"] == 1


def test_the_manifest_forgets_files_that_are_gone_and_none_that_is_there(tmp_path: Path) -> None:
    vault = CheckpointFolder(tmp_path)
    vault.save_best(state(0))
    vault.save_latest(state(1))
    for step in range(2, 100):
        with pytest.raises(Crash), crashing_at_rename(1):
            vault.save_latest(state(step))
        assert len(known(vault)) <= 17
    loaded = vault.load_latest()
    assert loaded is not None
    assert loaded[0]["step"] == 1
    assert vault.load_best()["step"] == 0


def test_the_best_weights_can_be_put_back_from_a_copy_long_after_they_were_damaged(tmp_path: Path) -> None:
    vault = CheckpointFolder(tmp_path)
    vault.save_best(state(0))
    whole = vault.best.read_bytes()
    vault.best.write_bytes(whole[:-1])
    for step in range(40):
        vault.save_latest(state(step))
    with pytest.raises(CheckpointError, match="damaged"):
        vault.load_best()
    vault.best.write_bytes(whole)
    assert vault.load_best()["step"] == 0


def known(vault: CheckpointFolder) -> list[str]:
    """The digests that the manifest holds."""
    return [entry["sha256"] for entry in json.loads((vault.folder / "manifest.json").read_bytes())["files"]]


def test_best_stays_known_after_many_newer_states(tmp_path: Path) -> None:
    vault = CheckpointFolder(tmp_path)
    vault.save_best(state(1))
    for step in range(20):
        vault.save_latest(state(step))
    assert vault.load_best()["step"] == 1


def test_a_full_disk_is_named_and_the_old_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = CheckpointFolder(tmp_path)
    vault.save_latest(state(1))

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", no_room)
        with pytest.raises(DiskFull, match="disk is full"):
            vault.save_latest(state(2))
    loaded = vault.load_latest()
    assert loaded is not None
    assert loaded[0]["step"] == 1
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*.part"))


def test_torch_saves_own_words_for_a_full_disk_are_understood() -> None:
    assert durable.disk_is_full(RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0"))
    assert not durable.disk_is_full(RuntimeError("size mismatch"))


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.target),))


def test_a_checkpoint_that_carries_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    target = tmp_path / "was_executed"
    for name, content in (("plain.pth", pickle.dumps(Payload(target))), ("zip.pth", None)):
        path = tmp_path / name
        if content is None:
            torch.save({"format": checkpoints.FORMAT, "model": Payload(target)}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoints.load(path)
    assert not target.exists()


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    vault = CheckpointFolder(tmp_path)
    vault.save_latest(state(1))
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        vault.load_latest()


def test_after_the_end_only_weights_are_left(tmp_path: Path) -> None:
    vault = CheckpointFolder(tmp_path)
    vault.save_best(state(1))
    vault.save_latest(state(1))
    vault.save_latest(state(2))
    vault.finish({"model": {}, "epoch": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best_model.pth", "latest_model.pth", "manifest.json"]
    assert checkpoints.load(vault.latest)["epoch"] == 2


def test_leftovers_of_a_killed_write_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".latest_model.pth.77.part").write_bytes(b"half")
    CheckpointFolder(tmp_path).clear_unfinished()
    assert list(tmp_path.iterdir()) == []
