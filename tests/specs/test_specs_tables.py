"""The generated tables say what the installed libraries say."""

from __future__ import annotations

import json

import pytest

from crack_sweeps.data import augmentation_table
from crack_sweeps.models import swinv2_table
from crack_sweeps.specs import augmentations, swinv2


def test_the_albumentations_table_is_what_the_library_says() -> None:
    made = json.loads(json.dumps(augmentation_table.make_table()))
    assert made["transforms"] == augmentations.table()["transforms"]
    # A newer OpenCV may add constants; those that stand in the table must mean the same.
    assert augmentations.table()["constants"].items() <= made["constants"].items()


def test_the_swinv2_table_has_timms_names_and_the_shape_of_the_shipped_ones() -> None:
    assert list(swinv2.encoders()) == swinv2_table.names()
    for name in ("swinv2_tiny_window16_256", "swinv2_tiny_window8_256"):
        assert swinv2_table.describe(name) == swinv2.encoders()[name]


@pytest.mark.slow
def test_the_swinv2_table_is_what_timm_says() -> None:
    assert swinv2_table.make_table()["encoders"] == swinv2.encoders()


def test_every_replacement_that_a_hint_offers_is_a_call_that_works() -> None:
    for old, advice in augmentations.REPLACED.items():
        for call in advice.replace(" and ", ", or ").split(", or "):
            assert augmentations.parse_augmentation(call).name != old


def test_every_renamed_parameter_is_gone_and_its_successor_exists() -> None:
    transforms = augmentations.table()["transforms"]
    for (name, old), new in augmentations.RENAMED.items():
        if name != "*":
            assert old not in transforms[name]["parameters"]
            word = new.split(",")[0]
            assert word in transforms[name]["parameters"] or not word.isidentifier()
