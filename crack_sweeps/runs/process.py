"""Which process this is: told apart from a later one of the same number, whatever is done to the clock."""

from __future__ import annotations

import os
import platform
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_START_TOLERANCE_S = 2.0  # process start times are in clock ticks since boot, and the boot time itself is rounded
_GONE = ("Z", "X")  # a zombie has ended, and waits for its parent to hear of it


@dataclass(frozen=True)
class Trainer:
    """A process that trains or coordinates.

    Linux keeps when a process started in ticks since boot, which no step of the clock moves; the date of that start is
    worked out from the clock as it stands, and jumps with it (a time server's correction, a laptop or a virtual machine
    that slept). So a process is known by boot and ticks where both are known, and by the date elsewhere.

    Args:
        pid: Its number.
        started: When it started, in s since the epoch, as the clock stood when that was written.
        host: Its machine.
        boot: Which boot of that machine, as Linux names it; None elsewhere, and of what earlier versions wrote.
        ticks: When it started, in clock ticks since that boot.
    """

    pid: int
    started: float
    host: str
    boot: str | None = field(default=None, compare=False)  # may be unknown of one of two that are the same
    ticks: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, attempt: dict[str, Any]) -> Trainer:
        """The process that an `attempt` event names."""
        return cls(
            pid=int(attempt["pid"]),
            started=float(attempt["process_started"]),
            host=str(attempt["host"]),
            boot=attempt.get("process_boot"),
            ticks=attempt.get("process_ticks"),
        )

    @classmethod
    def this_process(cls) -> Trainer:
        """The calling process."""
        import psutil

        pid = os.getpid()
        state = _state_and_ticks(pid) if sys.platform == "linux" else None
        return cls(
            pid=pid,
            started=psutil.Process().create_time(),
            host=platform.node(),
            boot=_boot() if state is not None else None,
            ticks=state[1] if state is not None else None,
        )

    def told(self) -> dict[str, Any]:
        """The fields of an `attempt` event, which `of` reads."""
        return {
            "pid": self.pid,
            "process_started": self.started,
            "process_boot": self.boot,
            "process_ticks": self.ticks,
            "host": self.host,
        }

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host in (platform.node(), socket.gethostname())

    def is_dead(self) -> bool:
        """Whether it certainly runs no more; a process of another machine is never certain."""
        if not self.is_here:
            return False
        if self.boot is not None and self.ticks is not None and (boot := _boot()) is not None:
            state = _state_and_ticks(self.pid)
            return boot != self.boot or state is None or state[0] in _GONE or state[1] != self.ticks
        return self._is_dead_by_date()

    def _is_dead_by_date(self) -> bool:
        import psutil

        try:
            process = psutil.Process(self.pid)
            return (
                abs(process.create_time() - self.started) > _START_TOLERANCE_S
                or process.status() == psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return True


def _boot() -> str | None:
    """The name that Linux gave this boot; None elsewhere."""
    path = _PROC / "sys/kernel/random/boot_id"
    return path.read_text().strip() if path.is_file() else None


def _state_and_ticks(pid: int) -> tuple[str, int] | None:
    """A process's state, and its start in ticks since boot: `man 5 proc_pid_stat`, fields 3 and 22; None: gone."""
    try:
        content = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = content.rpartition(b")")[2].split()  # the name before may hold anything, spaces and brackets too
    return fields[0].decode(), int(fields[19])
