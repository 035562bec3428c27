"""YAML as people mean it: 1e-3 is a number, `no` is text, and whatever could surprise is refused with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.words import printable

MAX_BYTES = 1 << 20  # a long experiment has 4 KiB
MAX_DEPTH = 50  # an experiment has 4 levels
TOO_DEEP_FOR_LIBYAML = "exceeded maximum nesting depth"  # from 0.2.6 on its scanner stops at 1,000 before we see it
MAX_ALIASES = 16  # 16 aliases, nested as cleverly as may be, make some hundred copies; an alias bomb needs 80

NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
TRUE = re.compile(r"^(?:true|True|TRUE)$")
FALSE = re.compile(r"^(?:false|False|FALSE)$")
# More digits than any setting has stay text: Python refuses to turn 5,000 digits into an integer.
INTEGER = re.compile(r"^[-+]?[0-9]{1,40}$")
BASED_INTEGER = re.compile(r"^0(?:x[0-9a-fA-F]{1,40}|o[0-7]{1,40})$")
FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
NOT_FINITE = re.compile(r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$")

# libyaml where PyYAML was built with it (ten times faster), else PyYAML's own parser; the events are the same.
PARSER: type[Any] = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a file holds; anything else is a SpecError that names the file and the line."""
    return parse_mapping(_read(path), source=str(path))


def parse_mapping(text: str, *, source: str) -> dict[str, Any]:
    """The mapping that a text holds; `source` names it in errors."""
    value = parse(text, source=source)
    if not isinstance(value, dict):
        held = "nothing" if value is None else "a list" if isinstance(value, list) else "a single value"
        raise SpecError(
            f"{source}: holds {held}, where settings are expected",
            hint="write `key: value` lines, such as `name: mine`",
        )
    return value


def parse(text: str, *, source: str) -> Any:
    """The value of one YAML document, by the rules of this module; None where the text is empty."""
    try:
        return _Document(source).build(yaml.parse(text, Loader=PARSER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if error.problem == TOO_DEEP_FOR_LIBYAML:
            _refuse_depth(source, mark)
        _refuse(
            source, mark, f"is not YAML: {error.problem or error.context}", "check indentation, quotes and brackets"
        )
    except yaml.YAMLError as error:  # the reader's errors (control characters) carry no mark
        problem = " ".join(str(error).split())
        raise SpecError(f"{source}: is not YAML: {problem}", hint="save the file as plain UTF-8 text") from error


def plain_scalar(text: str) -> Any:
    """What an unquoted word means."""
    if NULL.match(text):
        return None
    if TRUE.match(text):
        return True
    if FALSE.match(text):
        return False
    if INTEGER.match(text):
        return int(text)
    if BASED_INTEGER.match(text):
        return int(text[2:], 16 if text[1] == "x" else 8)
    if FLOAT.match(text):
        return float(text)
    if NOT_FINITE.match(text):
        return float(text.replace(".", "", 1))
    return text


def dump_yaml(data: dict[str, Any]) -> str:
    """A YAML text that `load_yaml` reads back as the same data."""
    # width: no folded lines, because an augmentation is one line to its reader.
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return text


# --- reading -------------------------------------------------------------------------------------


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise SpecError(printable(f"{path}: {what}"), hint="name a YAML file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror or error}", hint="name a YAML file") from error
    if len(raw) > MAX_BYTES:
        raise SpecError(f"{path}: is larger than {MAX_BYTES >> 20} MiB", hint="is this the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{path}:{line}: is not UTF-8 text", hint="save the file as UTF-8") from error


class _Document:
    """Builds one document from parser events, with a stack of its own: depth costs no recursion."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.anchors: dict[str, Any] = {}
        self.num_aliases = 0
        self.stack: list[_Node] = []
        self.root: Any = None

    def build(self, events: Iterator[yaml.Event]) -> Any:
        num_documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                num_documents += 1
                if num_documents > 1:
                    _refuse(self.source, event.start_mark, "holds a second document (`---`)", "keep one per file")
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                self._open(event)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                node = self.stack.pop()
                self._place(node.value, node.event)
                self._remember(node.event.anchor, node.value)
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
        return self.root

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        self._no_tag(event)
        if len(self.stack) >= MAX_DEPTH:
            _refuse_depth(self.source, event.start_mark)
        self.stack.append(_Node({} if isinstance(event, yaml.MappingStartEvent) else [], event))

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._no_tag(event)
        is_key = bool(self.stack) and self.stack[-1].expects_key
        # A key is always text: `on: 1` and `1: x` name settings called "on" and "1".
        value = event.value if is_key or not event.implicit[0] else plain_scalar(event.value)
        self._place(value, event)
        self._remember(event.anchor, value)

    def _alias(self, event: yaml.AliasEvent) -> None:
        self.num_aliases += 1
        if self.num_aliases > MAX_ALIASES:
            _refuse(
                self.source, event.start_mark, f"uses more than {MAX_ALIASES} aliases (`*name`)", "write values out"
            )
        if event.anchor not in self.anchors:
            _refuse(self.source, event.start_mark, f"`*{event.anchor}` has no `&{event.anchor}` before it", None)
        self._place(_copy(self.anchors[event.anchor]), event)

    def _remember(self, anchor: str | None, value: Any) -> None:
        if anchor is not None:
            self.anchors[anchor] = value

    def _place(self, value: Any, event: yaml.Event) -> None:
        if not self.stack:
            self.root = value
            return
        node = self.stack[-1]
        if isinstance(node.value, list):
            node.value.append(value)
        elif node.expects_key:
            if not isinstance(value, str):
                _refuse(self.source, event.start_mark, "has a key that is no word", "write `key: value`")
            if value in node.value:
                _refuse(self.source, event.start_mark, f"`{value}` stands there twice", "keep one of them")
            node.key, node.expects_key = value, False
        else:
            node.value[node.key] = value
            node.expects_key = True

    def _no_tag(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent | yaml.ScalarEvent) -> None:
        if event.tag is not None:
            _refuse(self.source, event.start_mark, f"has the tag `{event.tag}`", "write the value without a tag")


class _Node:
    """A mapping or list that is still open."""

    def __init__(self, value: dict[str, Any] | list[Any], event: Any) -> None:
        self.value = value
        self.event = event
        self.key = ""
        self.expects_key = isinstance(value, dict)


def _copy(value: Any) -> Any:
    """Nothing is shared between two places of a spec; depth is bounded by MAX_DEPTH."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _refuse(source: str, mark: Any, problem: str, hint: str | None) -> NoReturn:
    place = source if mark is None else f"{source}:{mark.line + 1}"
    raise SpecError(printable(f"{place}: {problem}"), hint=hint)


def _refuse_depth(source: str, mark: Any) -> NoReturn:
    _refuse(source, mark, f"is nested deeper than {MAX_DEPTH} levels", "settings have 4 levels")


# --- writing -------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Block mappings, lists of numbers on one line, and quotes round text that would be read as something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  (PyYAML's signature)
        return True

    def represent_numbers_flat(self, data: list[Any]) -> yaml.Node:
        numbers = all(isinstance(item, (int, float)) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=numbers)

    def represent_short(self, data: float) -> yaml.Node:
        # PyYAML writes 1e-05 as 1.0e-05 for YAML 1.1; here the short form is a number too.
        text = repr(data) if abs(data) != float("inf") and data == data else self.represent_float(data).value
        return self.represent_scalar("tag:yaml.org,2002:float", text)

    def represent_escaped(self, data: str) -> yaml.Node:
        # Double quotes write line breaks and control characters as escapes; single quotes fold some of them.
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_escaped)
_Dumper.add_representer(list, _Dumper.represent_numbers_flat)
_Dumper.add_representer(float, _Dumper.represent_short)
# Beside PyYAML's own rules (`no`, `12:30:45`: other readers would misread them unquoted) stand ours.
for _tag, _pattern in (("int", INTEGER), ("int", BASED_INTEGER), ("float", FLOAT), ("float", NOT_FINITE)):
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, list("-+.0123456789"))
