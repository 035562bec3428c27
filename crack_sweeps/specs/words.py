"""Words for messages: lists, values and suggestions as a person would write them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def listed(names: Iterable[str], conjunction: str = "or") -> str:
    """`a, b or c`."""
    *most, last = names
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def shown(value: Any) -> str:
    """A value as its writer would know it again, cut to a length that fits a line."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return close[0]
    return next((longer for longer in names if len(name) >= 3 and longer.startswith(name)), None)


def printable(text: str) -> str:
    """The text on one line, with whatever a terminal would not show written as an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
