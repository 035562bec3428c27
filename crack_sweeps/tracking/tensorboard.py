"""Write a run's curves for TensorBoard: a derived folder, made anew from the events whenever a mirror starts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from crack_sweeps.tracking.story import EventTail, Point, Story


class BoardWriter:
    """Appends points to `tensorboard/`; what an earlier writer left there is removed first."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = EventFileWriter(str(folder))

    def write(self, points: Iterable[Point]) -> None:
        """Add points and flush them to disk."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        written = False
        for point in points:
            value = Summary.Value(tag=point.key, simple_value=point.value)
            summary = Summary(value=[value])
            self._writer.add_event(Event(wall_time=point.time_ms / 1000, step=point.step, summary=summary))
            written = True
        if written:
            self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()

    def __enter__(self) -> BoardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_board(run_dir: Path) -> None:
    """Make `tensorboard/` from the events, for a run that trained without a mirror."""
    story = Story()
    with BoardWriter(run_dir / "tensorboard") as board:
        for event in EventTail(run_dir / "events.jsonl").read():
            board.write(story.tell(event).points)
