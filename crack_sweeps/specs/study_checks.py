"""Checks a mapping against the study spec, and a space against the experiment that it is searched around."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from crack_sweeps.specs.experiment import Figure, Frozen
from crack_sweeps.specs.fingerprint import NO_MATHEMATICS
from crack_sweeps.specs.settings import (
    FAMILIES,
    alternatives,
    dotted,
    family_of,
    field_at,
    group_at,
    kind,
    leaves,
    meant,
)
from crack_sweeps.specs.study import (
    NO_PARAMETER,
    Choices,
    Parameter,
    Range,
    StudySpec,
    unfrozen,
)
from crack_sweeps.specs.validation import NO_TEXT, Complaint, problem_of
from crack_sweeps.specs.words import listed, nearest, shown

# What validation says of the weights after each epoch; a test compares it with what a run reports.
METRICS: tuple[str, ...] = get_args(Figure)
HOW_TO_WRITE = "write `{choices: [1, 2]}`, or `{low: 0.1, high: 1.0}` with `log: true` or a `step`"

# --- the study's own keys ------------------------------------------------------------------------


def check_study(data: Mapping[str, Any]) -> StudySpec | list[Complaint]:
    """The study that a mapping describes, or everything that is wrong with it; the base is not looked at."""
    hidden = list(_hidden(data, ()))
    if hidden:
        return hidden
    try:
        study = StudySpec.model_validate(data)
    except ValidationError as error:
        return list(_translated(error, data))
    return list(_meaning(study)) or study


def _hidden(value: Any, place: tuple[str | int, ...]) -> Iterator[Complaint]:
    """Text that no file can hold, as a key or as a value."""
    if isinstance(value, str) and NO_TEXT.search(value):
        yield Complaint(place, f"`{dotted(place)}` holds a NUL or half a character", "write plain text")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if NO_TEXT.search(key):
                yield Complaint(place, f"{shown(key)} holds a NUL or half a character", "write plain text")
            yield from _hidden(inner, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _hidden(item, (*place, index))


def _translated(error: ValidationError, data: Mapping[str, Any]) -> Iterator[Complaint]:
    """pydantic's errors in our words, one for each place: a union complains once for each of its members."""
    at: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        at.setdefault(_place(detail, data), []).append(detail)
    for place, details in at.items():
        yield _translate(place, details)


def _place(detail: ErrorDetails, data: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Where in the file an error is: pydantic's place, without the members of unions that it tried."""
    loc = detail["loc"]
    if "space" in loc and "settings" not in loc[: loc.index("space")]:
        depth = loc.index("space") + 2  # beyond the parameter's own key stands which kind of parameter it was taken for
        loc = (*loc[:depth], *loc[depth + 1 :])
    place: list[str | int] = []
    value: Any = data
    for part in loc:
        within = _has(value, part)
        if within or (isinstance(value, Mapping) and detail["type"] == "missing"):
            place.append(part)
        value = value[part] if within else value
    return tuple(place)


def _has(value: Any, part: str | int) -> bool:
    if isinstance(value, Mapping):
        return part in value
    return isinstance(value, (list, tuple)) and isinstance(part, int) and part < len(value)


def _translate(place: tuple[str | int, ...], details: list[ErrorDetails]) -> Complaint:
    detail = _telling(details)
    here, type_, value = f"`{dotted(place)}`", detail["type"], detail["input"]
    field, siblings = _field(place)
    description = field.description if field is not None else None
    if type_ == "extra_forbidden":
        close = nearest(str(place[-1]), siblings)
        there_are = f"{f'`{dotted(place[:-1])}` has' if place[:-1] else 'there are'} {listed(siblings, 'and')}"
        return Complaint(
            place, f"{here} is not a setting of a study", f"did you mean `{close}`?" if close else there_are
        )
    if type_ == "missing":
        return Complaint(place, f"{here} is missing", f"add it: {description}")
    if type_ == "parameter":
        return Complaint(place, f"{here} {NO_PARAMETER}", HOW_TO_WRITE)
    if type_ == "value_error":
        said = str(detail.get("ctx", {})["error"])
        if not place:  # conditions, which name their place themselves
            return Complaint(place, said, "a condition names an earlier parameter of the space and some of its choices")
        verb = f"{here} is {shown(unfrozen(value))}, {said}" if said.startswith("must ") else f"{here}: {said}"
        return Complaint(place, verb, description or HOW_TO_WRITE)
    if type_ == "string_too_long" and detail["loc"][-1:] == ("[key]",):
        return Complaint(place, f"{here} is not a setting", "no setting has so long a name")
    if value is None and field is not None:
        return Complaint(place, f"{here} is empty, must be {_kind(place, field)}", description)
    if type_ == "too_short":
        return Complaint(place, f"{here} is empty", description)
    if type_.endswith("_type") or len(details) > 1:
        remedy = _as_a_group(place, value, field) or description
        return Complaint(place, f"{here} is {shown(value)}, must be {_kind(place, field)}", remedy)
    problem, hint = problem_of(detail, field)
    return Complaint(place, f"{here} is {shown(value)}, {problem}", hint or description)


def _telling(details: list[ErrorDetails]) -> ErrorDetails:
    """The one of several errors at a place that says most: a bound that is broken, not a type that does not fit."""
    bounds = [detail for detail in details if not detail["type"].endswith(("_type", "literal_error"))]
    return (bounds or details)[0]


def _field(place: tuple[str | int, ...]) -> tuple[FieldInfo | None, list[str]]:
    """The field at a place of a study, None within a value; and the names that stand beside it."""
    names = [part for part in place if isinstance(part, str)]
    group: type[Frozen] | None = StudySpec
    field: FieldInfo | None = None
    siblings: list[str] = list(StudySpec.model_fields)
    while names and group is not None:
        name = names.pop(0)
        siblings, field = list(group.model_fields), group.model_fields.get(name)
        if name == "space" and names:
            names.pop(0)
            siblings, field = list(Choices.model_fields | Range.model_fields), None
            if names:
                field = (Choices.model_fields | Range.model_fields).get(names[0])
            return field, siblings
        members = alternatives(field.annotation) if field is not None else ()
        members = tuple(inner for member in members for inner in (get_args(member) or (member,)))  # of a list its items
        group = next((inner for inner in members if isinstance(inner, type) and issubclass(inner, Frozen)), None)
    return field, siblings


def _as_a_group(place: tuple[str | int, ...], value: Any, field: FieldInfo | None) -> str | None:
    """How one value is written where a group belongs: as the first of its settings."""
    members = alternatives(field.annotation) if field is not None else ()
    group = next((one for one in members if isinstance(one, type) and issubclass(one, Frozen)), None)
    if group is None or not isinstance(value, (str, int, float)):
        return None
    return f"write `{place[-1]}: {{{next(iter(group.model_fields))}: {value}}}`"


WORDS = {
    "settings": "a mapping of KEY: VALUE",
    "space": "a mapping of KEY: PARAMETER",
    "when": "a mapping of KEY: VALUE",
    "choices": "a list of values",
    "low": "a number",
    "high": "a number",
    "step": "a number",
    "baselines": "a list of arms, such as `- base: unet_resnet50`",
    "jobs": "auto or a whole number from 1",
    "memory_budget": "auto or a size with its unit, such as 8GiB",
}


def _kind(place: tuple[str | int, ...], field: FieldInfo | None) -> str:
    last = place[-1] if place else ""
    if last in WORDS and field is not None:
        return WORDS[str(last)]
    if field is None or isinstance(last, int) or place[-2:-1] in (("settings",), ("when",)):
        return "a number, text, true, false, null or a list of them"
    return kind(field.annotation)


def _meaning(study: StudySpec) -> Iterator[Complaint]:
    place = ("objective", "metric")
    metric = study.objective.metric
    if metric not in METRICS:
        close = nearest(metric, METRICS)
        yield Complaint(
            place,
            f"`{dotted(place)}` is {shown(metric)}, must be {listed(METRICS)}",
            f"did you mean `{close}`?" if close else "the loss is no objective: its weights are part of many spaces",
        )
    elif study.objective.direction == "minimize":
        yield Complaint(
            ("objective", "direction"),
            f"`objective.direction` is minimize, but {metric} is better when it is higher",
            "write `maximize`, or leave the key out",
        )


# --- keys and parameters against the base --------------------------------------------------------

# A trial's figures can be compared with another's only where both are measured alike.
MEASURING = (
    "data.mask", "data.split_seed", "data.val_fraction", "data.group_pattern", "evaluation", "training.monitor",
)  # fmt: skip


def check_key(key: str, base: Mapping[str, Any], *, where: str) -> Complaint | None:
    """What is wrong with a dotted key on that base: no setting, or a group of them."""
    keys, family = tuple(key.split(".")), family_of(base)
    place = (where, key)
    if field_at(keys, family) is None:
        return Complaint(place, f"`{where}.{key}` is not a setting", meant(keys, family))
    if group_at(keys, family) is not None:
        under = next(leaf for leaf in leaves(family or FAMILIES["swinv2_hybrid"]) if leaf[: len(keys)] == keys)
        return Complaint(
            place, f"`{where}.{key}` is a group of settings", f"name one of them, such as `{dotted(under)}`"
        )
    return None


def check_parameter(key: str, parameter: Parameter, base: Mapping[str, Any], *, where: str) -> Complaint | None:
    """What is wrong with a parameter before any of its values is tried: its key, or its kind for that field."""
    complaint = check_key(key, base, where=where) or _not_searched(key, where)
    if complaint is not None:
        return complaint
    place, here = (where, key), f"`{where}.{key}`"
    field = _field_of(key, base)
    members = alternatives(field.annotation)
    if isinstance(parameter, Choices):
        family = family_of(base)
        other = [c for c in parameter.choices if isinstance(c, str) and FAMILIES.get(c, family) is not family]
        if key == "model.architecture" and other:
            return Complaint(
                place,
                f"{here} is {shown(other[0])}, which has other settings than {base['model']['architecture']}",
                "search one family of models in one study",
            )
        return None
    if not any(member in (int, float) for member in members):
        listing = [member for member in members if get_origin(member) is Literal]
        words = listed([shown(choice) for choice in get_args(listing[0])]) if listing else kind(field.annotation)
        return Complaint(
            place, f"{here} is a range, but the setting must be {words}", "write its values out: `{choices: [...]}`"
        )
    if float not in members and not parameter.whole:
        return Complaint(place, f"{here} has fractions, but the setting must be a whole number", field.description)
    return None


def _not_searched(key: str, where: str) -> Complaint | None:
    if key in NO_MATHEMATICS:
        hint = "a repeated suggestion becomes another seed by itself" if key == "training.seed" else "take it out"
        return Complaint((where, key), f"`{where}.{key}` changes nothing that a search could find", hint)
    if any(key == measured or key.startswith(f"{measured}.") for measured in MEASURING):
        return Complaint(
            (where, key),
            f"`{where}.{key}` changes how trials are measured, so they could not be compared",
            f"fix it for all: `settings: {{{key}: ...}}`",
        )
    return None


def fitted(key: str, parameter: Parameter, base: Mapping[str, Any]) -> Parameter:
    """The parameter in its field's own type: where fractions are possible, 0 and 3 are 0.0 and 3.0."""
    members = alternatives(_field_of(key, base).annotation)
    if float not in members:
        return parameter
    if isinstance(parameter, Choices):
        return Choices(choices=tuple(_fraction(choice) for choice in parameter.choices), when=parameter.when)
    low, high, step = (_fraction(number) for number in (parameter.low, parameter.high, parameter.step))
    return Range(low=low, high=high, log=parameter.log, step=step, when=parameter.when)


def probes(parameter: Parameter) -> list[Any]:
    """Values that stand for all of a parameter: every choice; of a range its ends, its middle and one step."""
    if isinstance(parameter, Choices):
        return list(parameter.choices)
    low, high, step = parameter.low, parameter.high, parameter.step
    if parameter.whole:
        stride = int(step or 1)
        inner = [low + stride, low + (high - low) // stride // 2 * stride]
    else:
        inner = [low + step if step is not None else (low + high) / 2]
    return list(dict.fromkeys([low, high, *inner]))


def _field_of(key: str, base: Mapping[str, Any]) -> FieldInfo:
    field = field_at(tuple(key.split(".")), family_of(base))
    assert field is not None, key
    return field


def _fraction(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
