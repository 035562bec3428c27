"""Whatever stands in a file, the answer is an experiment or one line that names the file; never a traceback."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.loading import dump, find_experiment, resolve
from crack_sweeps.specs.profiles import PROFILES
from crack_sweeps.specs.settings import Keys
from crack_sweeps.specs.yaml import dump_yaml, load_yaml

VALID = [load_yaml(find_experiment(name)) for name in ("swinv2_hybrid", "unet_small", "deeplabv3plus_resnet50")]
BYTES = [find_experiment(name).read_bytes() for name in ("swinv2_hybrid", "unet_small")]
ODD: list[Any] = [
    None, True, -1, 0, 10**400, 1e308, float("inf"), float("nan"), "", "no", "\0", "é\u2028", "x" * 500, [], [[]], {},
    {"a": 1},     [None], [True, 2], {"architecture": "unet"}, "A.Blur(", "swinv2_hybrid", "[", "${x}",
]  # fmt: skip


def answer(raw: bytes, profile: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.yaml"
        path.write_bytes(raw)
        refusal, resolved = None, None
        try:
            resolved = resolve(path, profile=profile)
        except SpecError as error:
            refusal = error.message
        if resolved is not None:
            path.write_text(dump(resolved.experiment), encoding="utf-8")
            assert resolve(path, profile="none").experiment == resolved.experiment
        else:
            assert refusal is not None
            assert refusal.startswith(str(path))
            assert refusal.isprintable()
            assert len(refusal) < 600 + len(str(path))


def mutate(spec: dict[str, Any], choice: random.Random) -> dict[str, Any]:
    """One to three keys of a valid spec get another value, another name, or go."""
    for _ in range(choice.randint(1, 3)):
        places: list[Keys] = list(_places(spec, ()))
        *groups, key = choice.choice(places)
        group = spec
        for name in groups:
            group = group[name]
        how = choice.randrange(4)
        if how == 0:
            del group[key]
        elif how == 1:
            group[key[:-1] + choice.choice("xé.-")] = group.pop(key)
        else:
            group[key] = _copy(choice.choice(ODD))
        if not spec:
            break
    return spec


def _places(spec: dict[str, Any], keys: Keys) -> list[Keys]:
    here = [(*keys, key) for key in spec]
    return here + [place for key in spec if isinstance(spec[key], dict) for place in _places(spec[key], (*keys, key))]


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, dict) else value


PROFILE = st.sampled_from(["none", *PROFILES])


def check_mutated(which: int, seed: int, profile: str) -> None:
    answer(dump_yaml(mutate(_copy(VALID[which]), random.Random(seed))).encode("utf-8"), profile)


def check_noisy(which: int, edits: list[tuple[int, bytes]], profile: str) -> None:
    raw = BYTES[which]
    for place, noise in edits:
        at = place % len(raw) if raw else 0
        raw = raw[:at] + noise + raw[at + len(noise) // 2 + 1 :]
    answer(raw, profile)


WHICH, SEED = st.integers(0, 2), st.integers(0, 2**32)
EDITS = st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=6)), min_size=1, max_size=6)

test_a_mutated_spec_is_read_or_refused_by_name = settings(max_examples=120, deadline=None)(
    given(WHICH, SEED, PROFILE)(check_mutated)
)
test_byte_noise_is_read_or_refused_by_name = settings(max_examples=80, deadline=None)(
    given(st.integers(0, 1), EDITS, PROFILE)(check_noisy)
)
test_1000_mutated_specs_are_read_or_refused_by_name = pytest.mark.slow(
    settings(max_examples=1000, deadline=None)(given(WHICH, SEED, PROFILE)(check_mutated))
)
test_1000_noisy_files_are_read_or_refused_by_name = pytest.mark.slow(
    settings(max_examples=1000, deadline=None)(given(st.integers(0, 1), EDITS, PROFILE)(check_noisy))
)


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=40), st.sampled_from(["training.epochs", "data.path", "data.transform.augmentations", "name", ""])
)
def test_whatever_is_typed_as_an_override_is_taken_or_refused(text: str, key: str) -> None:
    typed = f"{key}={text}" if key else text
    refusal = ""
    try:
        resolve("unet_small", profile="none", overrides=[typed])
    except SpecError as error:
        refusal = error.message
    assert refusal.isprintable()
