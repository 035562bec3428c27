"""KEY=VALUE on top of a spec: read as the type of its field, merged, and validated again by the caller."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.settings import (
    FAMILIES,
    Keys,
    allows_null,
    dotted,
    family_of,
    field_at,
    group_at,
    holds_text,
    item_of,
    kind,
    leaves,
    meant,
)
from crack_sweeps.specs.words import printable
from crack_sweeps.specs.yaml import NULL, parse

KEY = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")


@dataclass(frozen=True)
class Override:
    """One KEY=VALUE as it was typed: `text` for messages, `raw` still to be read as its field's type."""

    text: str
    keys: Keys
    raw: str

    @property
    def label(self) -> str:
        """The text as an error shows it."""
        return printable(self.text)


def parse_override(text: str) -> Override:
    """Splits `a.b.c=value`; which type the value has is decided by the field, in `apply_overrides`."""
    key, equals, raw = text.partition("=")
    key, raw = key.strip(), raw.strip()
    if not equals or not KEY.match(key):
        raise SpecError(f"`{printable(text)}` is no KEY=VALUE", hint="write it like training.epochs=10")
    return Override(text, tuple(key.split(".")), raw)


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """A copy of the spec with the overrides in it. Not validated.

    Raises:
        SpecError: A key is no setting, a value cannot be read, or a key is set twice.
    """
    _refuse_doubles(overrides)
    merged: dict[str, Any] = deepcopy(dict(data))
    # The architecture decides which settings there are, so it comes first.
    for override in sorted(overrides, key=lambda override: override.keys != ("model", "architecture")):
        _refuse_other_family(merged, override)
        put(merged, override.keys, read_value(override, merged), source=override.label)
    return merged


def put(data: dict[str, Any], keys: Keys, value: Any, *, source: str) -> None:
    """Sets one value in a nested mapping, making the groups on the way."""
    group = data
    for depth, key in enumerate(keys[:-1]):
        inner = group.setdefault(key, {})
        if inner is None:  # `training:` with nothing under it
            inner = group[key] = {}
        if not isinstance(inner, dict):
            raise SpecError(f"{source}: `{dotted(keys[: depth + 1])}` is no group of settings in the file")
        group = inner
    group[keys[-1]] = value


def read_value(override: Override, data: Mapping[str, Any]) -> Any:
    """The value as its field's type: text stays as typed, `1,2,3` is a list where a list belongs, the rest is YAML."""
    family = family_of(data)
    field = field_at(override.keys, family)
    if field is None:
        name = dotted(override.keys)
        raise SpecError(f"{override.label}: `{name}` is not a setting", hint=meant(override.keys, family))
    if group_at(override.keys, family) is not None:
        under = [
            keys for keys in leaves(family or FAMILIES["swinv2_hybrid"]) if keys[: len(override.keys)] == override.keys
        ]
        raise SpecError(
            f"{override.label}: `{dotted(override.keys)}` is a group of settings",
            hint=f"name one of them, such as {dotted(under[0])}=...",
        )
    raw, annotation = override.raw, field.annotation
    quoted = len(raw) >= 2 and raw[0] == raw[-1] and raw[0] in "'\""
    if raw == "":
        raise SpecError(
            f"{override.label}: `{dotted(override.keys)}` is empty, must be {kind(annotation)}", hint=field.description
        )
    item = item_of(annotation)
    if item is None:
        if holds_text(annotation) and not quoted:
            return None if NULL.match(raw) and allows_null(annotation) else raw
        return parse(raw, source=override.label)
    if raw.startswith("[") or (NULL.match(raw) and allows_null(annotation)):
        return parse(raw, source=override.label)
    if holds_text(item):  # one augmentation; its own commas are no list
        return [parse(raw, source=override.label) if quoted else raw]
    return parse(f"[{raw}]", source=override.label)


def _refuse_doubles(overrides: Sequence[Override]) -> None:
    seen: dict[Keys, Override] = {}
    for override in overrides:
        other = seen.setdefault(override.keys, override)
        if other is not override and other.raw != override.raw:
            raise SpecError(
                f"{override.label}: `{dotted(override.keys)}` is set twice, also by {other.label}",
                hint="keep one of them",
            )


def _refuse_other_family(data: Mapping[str, Any], override: Override) -> None:
    """Settings of one family mean nothing in the other, and dropping them would train something nobody wrote."""
    before = family_of(data)
    after = FAMILIES.get(override.raw)
    if override.keys != ("model", "architecture") or before is None or after is None or after is before:
        return
    now = data["model"]["architecture"]
    raise SpecError(
        f"{override.label}: the file's model settings belong to {now}",
        hint=f"start from an experiment of {override.raw}, such as "
        f"{'swinv2_hybrid' if override.raw == 'swinv2_hybrid' else 'unet_resnet50'}",
    )
