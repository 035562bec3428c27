"""Augmentations are parsed and never run; whatever albumentations would not take is refused by name."""

from __future__ import annotations

import pytest

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.augmentations import AugmentationCall, parse_augmentation


def test_a_call_becomes_its_name_and_values() -> None:
    call = parse_augmentation("A.Affine((0.75, 1.25), rotate=[-10, 10], border_mode=cv2.BORDER_REFLECT_101, p=0.5)")
    assert call == AugmentationCall("Affine", ((0.75, 1.25),), {"rotate": [-10, 10], "border_mode": 4, "p": 0.5})


def test_groups_hold_further_calls() -> None:
    call = parse_augmentation("A.OneOf([A.Blur(p=1.0), A.Sequential([A.HorizontalFlip()])], p=0.3)")
    blur, sequence = call.args[0]
    assert (blur.name, sequence.args[0][0].name, call.kwargs) == ("Blur", "HorizontalFlip", {"p": 0.3})


def test_two_ways_of_writing_a_call_have_one_canonical_form() -> None:
    one = parse_augmentation("A.Rotate((-10,10), p=0.5)").canonical()
    other = parse_augmentation("albumentations.Rotate( p = 0.5, limit=[-10, 10] )").canonical()
    assert one == other == "A.Rotate(limit=[-10, 10], p=0.5)"


REFUSED = {
    "A.Flip(p=0.5)": ("has no A.Flip", "A.D4"),
    "A.ShiftScaleRotate()": ("has no A.ShiftScaleRotate", "A.Affine"),
    "A.IAASharpen()": ("has no A.IAASharpen", "A.Sharpen"),
    "A.HorizontlFlip()": ("has no A.HorizontlFlip", "`A.HorizontalFlip`"),
    "HorizontalFlip()": ("no transform", "`A.HorizontalFlip`"),
    "os.system('ls')": ("no transform", "A.HorizontalFlip"),
    "__import__('os').system('ls')": ("no transform", "A.HorizontalFlip"),
    "A.HorizontalFlip": ("no albumentations call", "A.HorizontalFlip(p=0.5)"),
    "A.Affine(scale=(0.8": ("no albumentations call", "in quotes"),
    "": ("no albumentations call", "in quotes"),
    "A.Blur(p=open('x'))": ("no plain value", "nothing is computed"),
    "A.Blur(p=1-0.5)": ("no plain value", "nothing is computed"),
    "A.Blur(p=1e999)": ("no plain value", "nothing is computed"),
    "A.Blur(**{'p': 1})": ("`*`", "A.HorizontalFlip"),
    "A.Blur(p=1.5)": ("must be a probability", "A.HorizontalFlip"),
    "A.Blur(p=True)": ("must be a probability", "A.HorizontalFlip"),
    "A.Blur(blur_limt=3)": ("has no `blur_limt`", "`blur_limit`"),
    "A.Blur(3, blur_limit=3)": ("gets `blur_limit` twice", "keep one"),
    "A.HorizontalFlip(0.5, 1)": ("takes 1 values, not 2", "takes p"),
    "A.GaussNoise(var_limit=(10, 50))": ("has no `var_limit` in albumentations 2", "std_range"),
    "A.HorizontalFlip(always_apply=True)": ("has no `always_apply`", "p=1.0"),
    "A.GridElasticDeform()": ("needs `num_grid_xy` and `magnitude`", "takes"),
    "A.Sharpen(method='kernal')": ("must be kernel or gaussian", "'kernel'"),
    "A.RandomCrop(256, 256)": ("changes the size", "data.crop_px"),
    "A.RandomScale()": ("changes the size", "A.Affine"),
    "A.Rotate(crop_border=True)": ("changes the size", "A.Affine"),
    "A.Normalize()": ("type of the pixels", "normalises inside"),
    "A.Lambda()": ("is for code", "leave it out"),
    "A.FDA()": ("needs more than a line", "leave it out"),
    "A.OneOf([])": ("needs a list of calls", "A.Blur()"),
    "A.OneOf(A.Blur())": ("needs a list of calls", "A.Blur()"),
    "A.OneOf([A.Flip()])": ("has no A.Flip", "A.D4"),
    "A.Blur(p=" + "-" * 100 + "1)": ("nested deeper", "A.HorizontalFlip"),
    "A.Blur(p=" + "(" * 1500 + ")" * 1500 + ")": ("no albumentations call", "in quotes"),
    "x" * 5000: ("too long to read", "A.HorizontalFlip"),
    "A.Blur(\0)": ("no albumentations call", "in quotes"),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:40]))
def test_what_cannot_be_used_is_refused_with_what_to_do(text: str) -> None:
    problem, hint = REFUSED[text]
    with pytest.raises(SpecError) as caught:
        parse_augmentation(text)
    assert problem in caught.value.message
    assert caught.value.hint is not None
    assert hint in caught.value.hint
    assert len(caught.value.message) < 200
