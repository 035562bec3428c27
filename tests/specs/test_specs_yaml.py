"""YAML is read as people mean it, refused with its line where it could surprise, and written so that it reads back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import given, settings
from hypothesis import strategies as st

from crack_sweeps.errors import SpecError
from crack_sweeps.specs import yaml as spec_yaml
from crack_sweeps.specs.yaml import MAX_ALIASES, dump_yaml, load_yaml, parse_mapping


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-1E5", -100000.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("007", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("1.2.3", "1.2.3"),
        ("'1e-3'", "1e-3"),
        ('"true"', "true"),
        ("~", None),
        ("", None),
        ("A.GaussNoise(std_range=[0.1, 0.2], p=0.3)", "A.GaussNoise(std_range=[0.1, 0.2], p=0.3)"),
    ],
)
def test_a_scalar_means_what_its_writer_meant(text: str, value: Any) -> None:
    read = parse_mapping(f"key: {text}", source="x.yaml")["key"]
    assert (read, type(read)) == (value, type(value))


def test_a_key_is_text_even_where_it_looks_like_a_number_or_a_switch() -> None:
    assert parse_mapping("on: 1\n1: 2\ntrue: 3", source="x.yaml") == {"on": 1, "1": 2, "true": 3}


REFUSED = {
    "duplicate key": ("a: 1\nb:\n  c: 1\n  c: 2", "x.yaml:4: `c` stands there twice"),
    "python tag": ("a: 1\nb: !!python/object/apply:os.system [x]", "x.yaml:2: has the tag"),
    "standard tag": ("a: !!int '3'", "x.yaml:1: has the tag"),
    "own tag": ("a: !x b", "x.yaml:1: has the tag"),
    "two documents": ("a: 1\n---\nb: 2", "x.yaml:2: holds a second document"),
    "list": ("- 1", "x.yaml: holds a list"),
    "word": ("word", "x.yaml: holds a single value"),
    "nothing": ("# only a comment", "x.yaml: holds nothing"),
    "key is a list": ("? [a]\n: b", "x.yaml:1: has a key that is no word"),
    "unknown alias": ("a: *x", "x.yaml:1: `*x` has no `&x`"),
    "alias of itself": ("a: &x [*x]", "x.yaml:1: `*x` has no `&x`"),
    "deep nesting": ("a: " + "[" * 2000 + "]" * 2000, "x.yaml:1: is nested deeper than 50"),
    "deep blocks": ("\n".join(" " * i + "a:" for i in range(2000)), "x.yaml:51: is nested deeper than 50"),
    "open bracket": ("a: 1\nb: [1, 2", "is not YAML"),
    "tab": ("a:\n\tb: 1", "x.yaml:2: is not YAML"),
    "NUL": ("a: \0", "x.yaml: is not YAML"),
}


@pytest.mark.parametrize("parser", [pyyaml.SafeLoader, *([pyyaml.CSafeLoader] if pyyaml.__with_libyaml__ else [])])
@pytest.mark.parametrize("case", REFUSED)
def test_what_could_surprise_is_refused_with_its_line(case: str, parser: type, monkeypatch: pytest.MonkeyPatch) -> None:
    text, start = REFUSED[case]
    monkeypatch.setattr(spec_yaml, "PARSER", parser)
    with pytest.raises(SpecError) as caught:
        parse_mapping(text, source="x.yaml")
    assert start in caught.value.message
    assert "\n" not in caught.value.message


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(SpecError, match=rf"^x\.yaml:3: uses more than {MAX_ALIASES} aliases"):
        parse_mapping("\n".join(lines), source="x.yaml")


def test_a_few_aliases_are_copies_that_share_nothing() -> None:
    read = parse_mapping("a: &x [1, 2]\nb: *x", source="x.yaml")
    assert read == {"a": [1, 2], "b": [1, 2]}
    assert read["a"] is not read["b"]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    large, binary = tmp_path / "large.yaml", tmp_path / "binary.yaml"
    large.write_text("a: 1\n" + "#" * (1 << 20))
    binary.write_bytes(b"a: 1\nb: \xff\xfe")
    for path, problem in [
        (large, "is larger than 1 MiB"),
        (binary, "is not UTF-8 text"),
        (tmp_path, "is a folder"),
        (tmp_path / "absent.yaml", "does not exist"),
        (tmp_path / ("x" * 300), "File name too long|does not exist"),
    ]:
        with pytest.raises(SpecError, match=problem) as caught:
            load_yaml(path)
        assert str(path) in caught.value.message
    with pytest.raises(SpecError, match=r"^a\\x00b: does not exist$"):
        load_yaml(Path("a\0b"))


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert load_yaml(path) == {"a": 1}


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.from_regex(r"[-+.0-9eExno~:_]{1,8}", fullmatch=True)
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
        st.recursive(
            SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner)
        ),
        max_size=4,
    )
)
def test_what_is_dumped_reads_back_the_same(data: dict[str, Any]) -> None:
    again = parse_mapping(dump_yaml(data), source="dump")
    assert again == data
    assert repr(again) == repr(data)  # 1, 1.0 and True are equal but not the same
