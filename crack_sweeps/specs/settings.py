"""Which settings an experiment has, by dotted name and type: for "did you mean" and for reading overrides."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from crack_sweeps.specs.experiment import Experiment, Frozen, HybridModel, SmpArchitecture, SmpModel
from crack_sweeps.specs.words import listed, nearest

Keys = tuple[str, ...]

FAMILIES: dict[str, type[HybridModel | SmpModel]] = {
    "swinv2_hybrid": HybridModel,
    **dict.fromkeys(get_args(SmpArchitecture), SmpModel),
}


def dotted(keys: Iterable[str | int]) -> str:
    """`a.b[2]` for ("a", "b", 2)."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def family_of(data: Mapping[str, Any]) -> type[HybridModel | SmpModel] | None:
    """The model family that a spec names, None where it names none that exists."""
    model = data.get("model")
    architecture = model.get("architecture") if isinstance(model, Mapping) else None
    return FAMILIES.get(architecture) if isinstance(architecture, str) else None


def group_at(keys: Keys, family: type[HybridModel | SmpModel] | None) -> type[Frozen] | None:
    """The group of settings under a name, None where the name is a single setting or nothing at all."""
    group: type[Frozen] = Experiment
    for depth, key in enumerate(keys):
        inner = (family or HybridModel) if keys[: depth + 1] == ("model",) else _group(group.model_fields.get(key))
        if inner is None:
            return None
        group = inner
    return group


def field_at(keys: Keys, family: type[HybridModel | SmpModel] | None) -> FieldInfo | None:
    """The field behind a name, group or single setting; None where there is none."""
    if not keys:
        return None
    group = group_at(keys[:-1], family) or _group_in_list(keys[:-1], family)
    return group.model_fields.get(keys[-1]) if group is not None else None


def _group_in_list(keys: Keys, family: type[HybridModel | SmpModel] | None) -> type[Frozen] | None:
    """The group that a list holds, such as `data.sets`; None where the name is no list of groups."""
    around = group_at(keys[:-1], family) if keys else None
    field = around.model_fields.get(keys[-1]) if around is not None else None
    item = item_of(field.annotation) if field is not None else None
    return item if isinstance(item, type) and issubclass(item, Frozen) else None


@cache
def leaves(family: type[HybridModel | SmpModel]) -> dict[Keys, FieldInfo]:
    """Every single setting of an experiment with that kind of model, in the order of the spec."""
    return dict(_leaves(Experiment, (), family))


def _leaves(group: type[Frozen], keys: Keys, family: type[HybridModel | SmpModel]) -> Iterator[tuple[Keys, FieldInfo]]:
    for key, field in group.model_fields.items():
        here = (*keys, key)
        inner = group_at(here, family)
        if inner is None:
            yield here, field
        else:
            yield from _leaves(inner, here, family)


def _group(field: FieldInfo | None) -> type[Frozen] | None:
    annotation = field.annotation if field is not None else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, Frozen) else None


# --- what a field may hold -----------------------------------------------------------------------


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, in order; the annotation itself where it is none. `Annotated` is unwrapped."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(inner for member in get_args(annotation) for inner in alternatives(member))
    return (annotation,)


def holds_text(annotation: Any) -> bool:
    """Whether the field is text, a path or one of some words, so that 123 typed there means "123"."""
    return any(
        member in (str, Path) or (get_origin(member) is Literal and isinstance(get_args(member)[0], str))
        for member in alternatives(annotation)
    )


def item_of(annotation: Any) -> Any:
    """The type of a list's items; None where the field is no list."""
    for member in alternatives(annotation):
        if get_origin(member) is tuple:
            return get_args(member)[0]
    return None


def allows_null(annotation: Any) -> bool:
    """Whether null is a value of the field."""
    return type(None) in alternatives(annotation)


def kind(annotation: Any) -> str:
    """What a value of the field must be, in words."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    said = [words.get(member, _kind_of_composite(member)) for member in alternatives(annotation)]
    return " or ".join(dict.fromkeys(said))


def _kind_of_composite(member: Any) -> str:
    if member is type(None):
        return "null"
    if get_origin(member) is tuple:
        plural = {int: "whole numbers", str: "texts"}
        return f"a list of {plural.get(alternatives(get_args(member)[0])[0], 'values')}"
    if get_origin(member) is Literal:
        return listed([str(choice) for choice in get_args(member)])
    return "a group of settings"


# --- suggestions ---------------------------------------------------------------------------------


def meant(keys: Keys, family: type[HybridModel | SmpModel] | None) -> str:
    """What to do about a name that is no setting: the nearest sibling, the same word elsewhere, or what there is."""
    group = group_at(keys[:-1], family) or _group_in_list(keys[:-1], family)
    siblings = list(group.model_fields) if group is not None else []
    if (close := nearest(keys[-1], siblings)) is not None:
        return f"did you mean `{dotted((*keys[:-1], close))}`?"
    everywhere = [*leaves(family or HybridModel)]
    elsewhere = [other for other in everywhere if other[-1] == keys[-1]]
    if elsewhere:
        return f"did you mean `{dotted(elsewhere[0])}`?"
    for other in (HybridModel, SmpModel):
        if family not in (None, other) and field_at(keys, other) is not None:
            owner = "swinv2_hybrid" if other is HybridModel else "the baselines"
            return f"it belongs to {owner}, not to this architecture"
    if (close := nearest(keys[-1], [other[-1] for other in everywhere])) is not None:
        return f"did you mean `{dotted(next(other for other in everywhere if other[-1] == close))}`?"
    if siblings:
        return f"{f'`{dotted(keys[:-1])}` has' if keys[:-1] else 'there are'} {listed(siblings, 'and')}"
    return "see `sweeps spec schema` for what there is"
