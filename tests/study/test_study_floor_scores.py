"""The process that scores the floors may be killed: it is begun again, a few times; its own errors are not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crack_sweeps.data.photos import PhotoSet, ResolvedMaskRule
from crack_sweeps.errors import StudyError
from crack_sweeps.study import floor_scores


@pytest.fixture
def photos() -> PhotoSet:
    rule = ResolvedMaskRule(crack_values=(255,))
    return PhotoSet(name="none", root=Path("none"), digest="d", photos=(), rule=rule, warnings=())


def processes_that_end(monkeypatch: pytest.MonkeyPatch, *codes: int) -> list[int]:
    left = list(codes)

    class Ended:
        def __init__(self, **_: Any) -> None:
            self.exitcode = left.pop(0)

        def start(self) -> None:
            """It has ended."""

        join = start

    monkeypatch.setattr(floor_scores, "processes", lambda: SimpleNamespace(Process=Ended))
    return left


def test_killed_once_or_twice_it_is_begun_again(
    tmp_path: Path, photos: PhotoSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = processes_that_end(monkeypatch, -9, -9, 0)
    floor_scores.floor_scores(tmp_path, photos)
    assert left == []


def test_killed_each_time_it_says_so(tmp_path: Path, photos: PhotoSet, monkeypatch: pytest.MonkeyPatch) -> None:
    left = processes_that_end(monkeypatch, -9, -9, -9, 0)
    with pytest.raises(StudyError, match=r"killed 3 times \(exit code -9\)"):
        floor_scores.floor_scores(tmp_path, photos)
    assert left == [0]


def test_an_error_of_its_own_is_not_repeated(tmp_path: Path, photos: PhotoSet, monkeypatch: pytest.MonkeyPatch) -> None:
    left = processes_that_end(monkeypatch, 1, 0)
    with pytest.raises(StudyError, match="could not be scored"):
        floor_scores.floor_scores(tmp_path, photos)
    assert left == [0]
