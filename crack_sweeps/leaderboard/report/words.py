"""How the report says figures, settings and counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crack_sweeps.console import human_bytes
from crack_sweeps.leaderboard.wording import TINY
from crack_sweeps.specs.study import unfrozen
from crack_sweeps.specs.words import shown
from crack_sweeps.study.scales import short_names

MOST_SETTINGS = 14  # lines of a box beside the pointer
LONGEST = 44


def figure(value: float | None) -> str:
    """A score: three decimals, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference: three decimals, with a minus that is as wide as a plus."""
    return f"{value:.3f}".replace("-", "−")


def likelihood(p_value: float) -> str:
    """A p-value as the leaderboard's sentence has it."""
    return f"p < {TINY}" if p_value < TINY else f"p {p_value:.3f}"


def hours(seconds: float) -> str:
    """7260 -> `2.0 h`; less than an hour in minutes."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def memory(count: float | None) -> str:
    """Bytes as people say them, or a dash."""
    return "–" if count is None else human_bytes(count)


def number(value: float | None, form: str = ".0f") -> str:
    """A number, or a dash."""
    return "–" if value is None else format(value, form)


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def setting(value: Any) -> str:
    """A setting's value as people type it; fractions in four digits."""
    plain = unfrozen(value)
    if isinstance(plain, float):
        return f"{plain:.4g}"
    if isinstance(plain, list):
        return "[" + ", ".join(setting(item) for item in plain) + "]"
    return plain if isinstance(plain, str) else shown(plain)


def settings_lines(suggestion: Mapping[str, Any]) -> list[str]:
    """A trial's settings, one a line."""
    names = short_names(suggestion)
    lines = [f"{names[key]} = {setting(value)}" for key, value in suggestion.items()]
    lines = [line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…" for line in lines]
    left = len(lines) - MOST_SETTINGS
    return lines if left <= 0 else [*lines[:MOST_SETTINGS], f"and {left} more"]
