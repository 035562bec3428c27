"""HTML by function: whatever is plain text is escaped, so that no name and no reason can become markup."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

_VOID = frozenset({"br", "hr", "img", "meta"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | int | float | bool | None) -> Html:
    """An element. Children that are plain text are escaped, values of attributes always.

    Args:
        name: Of the element.
        children: What is in it; empty text is left out.
        attributes: `class_` is `class`, other underscores are hyphens; None and False leave one out, True has no value.
    """
    said = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in _VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{joined(children)}</{name}>")


def joined(children: Iterable[str]) -> Html:
    """One after the other; plain text is escaped."""
    return Html("".join(child if isinstance(child, Html) else html.escape(child) for child in children))


def script_json(value: Any) -> Html:
    """JSON that can stand in a script element: no `<` in it, so nothing ends the element or begins a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(text)


def _attribute(key: str, value: str | int | float | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(str(value), quote=True)}"'
