"""The append-only log of one run: everything that any tracker shows is read from here."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crack_sweeps.durable import disk_is_full
from crack_sweeps.errors import DiskFull

Event = dict[str, Any]


def read_events(path: Path, from_seq: int = 0) -> Iterator[Event]:
    """Events in order, starting at `from_seq`. A last line without its newline is still being written: no event.

    Raises:
        ValueError: A line that is complete is not an event, or a number is missing: the file was edited.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for expected, line in enumerate(file):
            if not line.endswith(b"\n"):
                return
            if expected < from_seq:
                continue
            try:
                event = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}: line {expected + 1} is no event ({error})") from error
            if event.get("seq") != expected:
                raise ValueError(f"{path}: line {expected + 1} holds event {event.get('seq')}, expected {expected}")
            yield event


def first_event(path: Path) -> Event | None:
    """The first event, once it is written whole.

    Raises:
        ValueError: The first line is no event: the file was edited.
    """
    return next(read_events(path), None)


class EventLog:
    """Appends events with numbers without gaps; one writer at a time (the run's lock sees to that).

    Opening it cuts off a torn last line, which a crash in mid-write leaves and which was never an event.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab+", buffering=0)  # a buffer would keep what found no room, and write it later
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        self.next_seq = content.count(b"\n")

    def append(self, kind: str, **fields: Any) -> Event:
        """Write one event and force it to disk. Numbers that are not finite are refused: they are reasons, not figures.

        Raises:
            DiskFull: There was no room; the log holds the events before this one.
        """
        event: Event = {"seq": self.next_seq, "time_ms": time.time_ns() // 1_000_000, "kind": kind, **fields}
        line = json.dumps(event, allow_nan=False, ensure_ascii=False).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            os.fsync(self._file.fileno())
        except BaseException as error:  # half a line would hide every later one
            os.ftruncate(self._file.fileno(), end)
            if disk_is_full(error):
                raise DiskFull(f"{self.path}: the disk is full", hint="make room, then resume the run") from error
            raise
        self.next_seq += 1
        return event

    def close(self) -> None:
        """Close the file; the events are on disk already."""
        self._file.close()
