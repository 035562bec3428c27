"""Checks a mapping against the spec: an Experiment, or one line that names file, key and value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annotated_types import Ge, Le
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.augmentations import parse_augmentation
from crack_sweeps.specs.experiment import Experiment, HybridModel, SmpModel
from crack_sweeps.specs.settings import (
    FAMILIES,
    Keys,
    alternatives,
    dotted,
    family_of,
    field_at,
    item_of,
    kind,
    leaves,
    meant,
)
from crack_sweeps.specs.swinv2 import check_model
from crack_sweeps.specs.words import listed, nearest, printable, shown

MOST_NAMED = 4  # places of further mistakes in one line

Family = type[HybridModel | SmpModel] | None


@dataclass(frozen=True)
class Complaint:
    """One thing that is wrong, at one place of the spec; the place is empty where several settings disagree."""

    keys: tuple[str | int, ...]
    text: str
    hint: str | None


def check(data: Mapping[str, Any]) -> Experiment | list[Complaint]:
    """The experiment that a mapping describes, or everything that is wrong with it."""
    misread = list(_misread(data))
    if misread:
        return misread
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        family = family_of(data)
        return [_translate(detail, family) for detail in error.errors(include_url=False)]
    return list(_meaning(experiment)) or experiment


def spec_error(complaints: Sequence[Complaint], *, source: str) -> SpecError:
    """The first complaint as an error, a mistyped name before what it left missing; and where the others are."""
    first, *others = sorted(complaints, key=lambda complaint: "is not a setting" not in complaint.text)
    places = [f"`{dotted(other.keys)}`" for other in others if other.keys]
    named = f": {', '.join(places[:MOST_NAMED])}" if places else ""
    more = f" (and {len(others)} more{named})" if others else ""
    return SpecError(printable(f"{source}: {first.text}{more}"), hint=first.hint)


# --- before pydantic: what its lax mode would let through ----------------------------------------


NO_TEXT = re.compile("[\0\ud800-\udfff]")  # no file name or file can hold these


def _misread(data: Mapping[str, Any]) -> Iterator[Complaint]:
    """Switches where numbers belong (pydantic reads true as 1), and text that no file name can hold."""
    for keys, field in leaves(family_of(data) or HybridModel).items():
        value: Any = data
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        annotation: Any = field.annotation
        items: list[tuple[tuple[str | int, ...], Any]] = [(keys, value)]
        if item_of(annotation) is not None and isinstance(value, (list, tuple)):
            items, annotation = [((*keys, index), item) for index, item in enumerate(value)], item_of(annotation)
        for place, item in items:
            if isinstance(item, bool) and bool not in alternatives(annotation):
                yield Complaint(
                    place, f"`{dotted(place)}` is {shown(item)}, must be {kind(annotation)}", field.description
                )
            elif isinstance(item, str) and NO_TEXT.search(item):
                yield Complaint(place, f"`{dotted(place)}` holds a NUL or half a character", "write plain text")


# --- pydantic's errors in our words --------------------------------------------------------------

TYPE_ERRORS = re.compile(r".*_(type|parsing|parsing_size|from_float|too_large)$")
BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def _translate(detail: ErrorDetails, family: Family) -> Complaint:
    keys = _place(detail)
    names = tuple(key for key in keys if isinstance(key, str))
    field = field_at(names, family)
    value, context, type_ = detail["input"], detail.get("ctx", {}), detail["type"]
    here, description = f"`{dotted(keys)}`", field.description if field is not None else None
    if type_ == "extra_forbidden":
        return Complaint(keys, f"{here} is not a setting", meant(names, family))
    if type_ == "missing":
        return Complaint(keys, f"{here} is missing", f"add it: {description}")
    if type_ in ("union_tag_not_found", "union_tag_invalid"):
        return _architecture(context.get("tag"))
    if type_ == "value_error":
        # Our own validators: they name their keys, relative to the group that they stand in.
        return Complaint(
            keys, f"{here}: {context['error']}" if keys else str(context["error"]), description or "make them agree"
        )
    if value is None and description is not None and field is not None:
        return Complaint(
            keys,
            f"{here} is empty, must be {kind(field.annotation)}",
            f"give it a value or leave the key out: {description}",
        )
    problem, hint = problem_of(detail, field)
    return Complaint(keys, f"{here} is {shown(value)}, {problem}", hint or description)


def problem_of(detail: ErrorDetails, field: FieldInfo | None) -> tuple[str, str | None]:
    """What is wrong with a value, and a hint that is better than the field's description."""
    type_, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if type_ in BOUNDS:
        words, key = BOUNDS[type_]
        return f"must be {words} {context[key]:g}", None
    if type_ == "multiple_of":
        return f"must be a multiple of {context['multiple_of']}", _nearest_multiples(
            value, context["multiple_of"], field
        )
    if type_ == "literal_error" and field is not None:
        choices = [word.strip("'") for word in re.split(r", | or ", str(context["expected"]))]
        close = nearest(str(value), choices)
        return f"must be {listed(choices)}", f"did you mean `{close}`?" if close else None
    if type_ in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        return f"must have {'at least' if type_ == 'too_short' else 'at most'} {bound} entries", None
    if type_ == "string_pattern_mismatch":
        return "must be letters, digits, '.', '_' or '-', beginning with a letter or digit, 80 at most", None
    if type_ == "string_too_long":
        return f"must have at most {context['max_length']} characters", None
    if type_ == "finite_number":
        return "must be a finite number", None
    if TYPE_ERRORS.match(type_) and field is not None:
        item = item_of(field.annotation) if any(isinstance(key, int) for key in detail["loc"]) else None
        return f"must be {kind(item or field.annotation)}", None
    return detail["msg"][:1].lower() + detail["msg"][1:], None


def _place(detail: ErrorDetails) -> tuple[str | int, ...]:
    """Where an error is, without the architecture that pydantic puts into the place to say which model it tried."""
    loc = detail["loc"]
    keys = (*loc[:1], *loc[2:]) if loc[:1] == ("model",) and len(loc) > 1 and loc[1] in FAMILIES else loc
    return (*keys, "architecture") if detail["type"].startswith("union_tag") else keys


def _architecture(tag: object) -> Complaint:
    keys = ("model", "architecture")
    if tag is None:
        return Complaint(keys, "`model.architecture` is missing", f"add it: {listed(FAMILIES)}")
    close = nearest(str(tag), FAMILIES)
    hint = f"did you mean `{close}`?" if close else None
    return Complaint(keys, f"`model.architecture` is {shown(tag)}, must be {listed(FAMILIES)}", hint)


def _nearest_multiples(value: Any, step: int, field: FieldInfo | None) -> str | None:
    if not isinstance(value, int) or field is None:
        return None
    low = next((rule.ge for rule in field.metadata if isinstance(rule, Ge)), step)
    high = next((rule.le for rule in field.metadata if isinstance(rule, Le)), None)
    below, above = value // step * step, (value // step + 1) * step
    fitting = [size for size in (below, above) if size >= low and (high is None or size <= high)]  # type: ignore[operator]
    return f"the nearest that work: {listed(map(str, fitting), 'and')}" if fitting else None


# --- after pydantic: names and calls that are checked against tables -----------------------------

GROUP_HINT = "put the part that names the photo in brackets, as one group: `^(.+)_\\d+$`"


def _meaning(experiment: Experiment) -> Iterator[Complaint]:
    if isinstance(experiment.model, HybridModel):
        try:
            check_model(experiment.model)
        except SpecError as error:
            keys: Keys = ("model", "encoder_cfg", "model_name")
            yield Complaint(keys, f"`{dotted(keys)}`: {error.message}", error.hint)
    for index, text in enumerate(experiment.data.transform.augmentations):
        try:
            parse_augmentation(text)
        except SpecError as error:
            place = ("data", "transform", "augmentations", index)
            yield Complaint(place, f"`{dotted(place)}`: {error.message}", error.hint)
    pattern = experiment.data.group_pattern
    if pattern is not None:
        keys = ("data", "group_pattern")
        try:
            num_groups = re.compile(pattern).groups
        except re.error as error:
            yield Complaint(
                keys, f"`data.group_pattern` is {shown(pattern)}, no regular expression: {error}", GROUP_HINT
            )
        else:
            if num_groups == 0:
                yield Complaint(
                    keys,
                    f"`data.group_pattern` is {shown(pattern)}, which has no group",
                    GROUP_HINT,
                )
