"""Reads augmentations written as text: parsed, never evaluated, and checked against albumentations' real signatures."""

from __future__ import annotations

import ast
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.words import listed, nearest, shown

TABLE = Path(__file__).with_name("tables") / "albumentations.json"
MAX_CHARACTERS = 4000
MAX_DEPTH = 20

# What albumentations 1 had and 2 has not (or only with a deprecation warning), and what does the job now.
REPLACED = {
    "Flip": "A.D4(p=0.5), or A.HorizontalFlip(p=0.5) and A.VerticalFlip(p=0.5)",
    "ShiftScaleRotate": "A.Affine(translate_percent=(-0.06, 0.06), scale=(0.9, 1.1), rotate=(-45, 45), p=0.5)",
    "RandomBrightness": "A.RandomBrightnessContrast(contrast_limit=0, p=0.5)",
    "RandomContrast": "A.RandomBrightnessContrast(brightness_limit=0, p=0.5)",
    "JpegCompression": "A.ImageCompression(quality_range=(60, 95), p=0.3)",
    "Cutout": "A.CoarseDropout(p=0.3)",
    "GridMask": "A.GridDropout(p=0.3)",
    "IAAAdditiveGaussianNoise": "A.GaussNoise(p=0.3)",
    "IAAAffine": "A.Affine(scale=(0.9, 1.1), p=0.5)",
    "IAACropAndPad": "A.CropAndPad(px=(-16, 16), p=0.5)",
    "IAAEmboss": "A.Emboss(p=0.3)",
    "IAAFliplr": "A.HorizontalFlip(p=0.5)",
    "IAAFlipud": "A.VerticalFlip(p=0.5)",
    "IAAPerspective": "A.Perspective(p=0.3)",
    "IAAPiecewiseAffine": "A.PiecewiseAffine(p=0.3)",
    "IAASharpen": "A.Sharpen(p=0.3)",
    "IAASuperpixels": "A.Superpixels(p=0.1)",
}

# Parameters of albumentations 1, which 2 drops with no more than a warning; those of "*" belong to many transforms.
RENAMED = {
    ("*", "always_apply"): "p=1.0",
    ("*", "fill_value"): "fill",
    ("*", "mask_fill_value"): "fill_mask",
    ("*", "value"): "fill",
    ("*", "mask_value"): "fill_mask",
    ("*", "pad_mode"): "border_mode",
    ("Affine", "mode"): "border_mode",
    ("Affine", "cval"): "fill",
    ("Affine", "cval_mask"): "fill_mask",
    ("CoarseDropout", "max_holes"): "num_holes_range",
    ("CoarseDropout", "min_holes"): "num_holes_range",
    ("CoarseDropout", "max_height"): "hole_height_range",
    ("CoarseDropout", "min_height"): "hole_height_range",
    ("CoarseDropout", "max_width"): "hole_width_range",
    ("CoarseDropout", "min_width"): "hole_width_range",
    ("Downscale", "scale_min"): "scale_range",
    ("Downscale", "scale_max"): "scale_range",
    ("ElasticTransform", "alpha_affine"): "a second call, A.Affine(...)",
    (
        "GaussNoise",
        "var_limit",
    ): "std_range, as a share of the brightest value: variance 10..50 of 255 is (0.012, 0.028)",
    ("GaussNoise", "mean"): "mean_range",
    ("ImageCompression", "quality_lower"): "quality_range",
    ("ImageCompression", "quality_upper"): "quality_range",
    ("RandomShadow", "num_shadows_lower"): "num_shadows_limit",
    ("RandomShadow", "num_shadows_upper"): "num_shadows_limit",
    ("RandomFog", "fog_coef_lower"): "fog_coef_range",
    ("RandomFog", "fog_coef_upper"): "fog_coef_range",
    ("Solarize", "threshold"): "threshold_range",
}

# Group parameters that hold calls instead of values.
CALLS = ("transforms", "first", "second")
EXAMPLE = "write a call such as A.HorizontalFlip(p=0.5)"


@dataclass(frozen=True)
class AugmentationCall:
    """One albumentations call; values are literals, lists of them, or (in groups such as OneOf) further calls."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def canonical(self) -> str:
        """The call with every argument by name and in order, so that two ways of writing it are one."""
        named = dict(zip(table()["transforms"][self.name]["parameters"], self.args, strict=False)) | dict(self.kwargs)
        return f"A.{self.name}({', '.join(f'{key}={_canonical(named[key])}' for key in sorted(named))})"


def parse_augmentation(text: str) -> AugmentationCall:
    """The call that a text spells.

    Raises:
        SpecError: It is no call, or one that albumentations does not have, does not take, or that is no good for crops.
            The message names the call; the caller says in which file it stands.
    """
    if len(text) > MAX_CHARACTERS:
        raise SpecError(f"an augmentation of {len(text)} characters is too long to read", hint=EXAMPLE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's remarks on odd literals, which are refused below
            expression = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"{shown(text)} is no albumentations call", hint=f"{EXAMPLE}, in quotes") from error
    if not isinstance(expression, ast.Call):
        raise SpecError(f"{shown(text)} is no albumentations call", hint=EXAMPLE)
    return _call(expression, depth=0)


@cache
def table() -> dict[str, Any]:
    """What albumentations has: `transforms` by name, and cv2's `constants`."""
    read: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return read


def _call(node: ast.Call, depth: int) -> AugmentationCall:
    if depth > MAX_DEPTH:
        raise SpecError(f"calls are nested deeper than {MAX_DEPTH} levels", hint="one A.OneOf([...]) is usual")
    name = _name(node.func)
    entry = _usable(name)
    if any(isinstance(argument, ast.Starred) for argument in node.args) or any(
        key.arg is None for key in node.keywords
    ):
        raise SpecError(f"A.{name} has a `*`, and values must be written out", hint=EXAMPLE)
    parameters: dict[str, Any] = entry["parameters"]
    if len(node.args) > len(parameters):
        raise SpecError(f"A.{name} takes {len(parameters)} values, not {len(node.args)}", hint=_takes(name, parameters))
    named = [*zip(parameters, node.args, strict=False), *((str(key.arg), key.value) for key in node.keywords)]
    values: dict[str, Any] = {}
    for key, value_node in named:
        if key in values:
            raise SpecError(f"A.{name} gets `{key}` twice", hint="keep one of them")
        if key not in parameters:
            raise _unknown_parameter(name, key, parameters)
        holds_calls = bool(entry.get("group")) and key in CALLS
        values[key] = _value(value_node, f"A.{name}", depth + 1, calls=holds_calls)
        _check_value(name, key, values[key], parameters[key], holds_calls)
    missing = [key for key, parameter in parameters.items() if "default" not in parameter and key not in values]
    if missing:
        raise SpecError(
            f"A.{name} needs {listed([f'`{key}`' for key in missing], 'and')}", hint=_takes(name, parameters)
        )
    for key, resizing in entry.get("resized_by", {}).items():
        if values.get(key) == resizing:
            raise _resizes(f"A.{name}({key}={resizing})")
    num_args = len(node.args)
    return AugmentationCall(name, tuple(list(values.values())[:num_args]), dict(list(values.items())[num_args:]))


def _name(node: ast.expr) -> str:
    if (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("A", "albumentations")
    ):
        return node.attr
    written = ast.unparse(node)
    hint = f"did you mean `A.{written}`?" if written in table()["transforms"] or written in REPLACED else EXAMPLE
    raise SpecError(f"{shown(written)} is no transform of albumentations, which is written `A`", hint=hint)


def _usable(name: str) -> dict[str, Any]:
    """The table's entry for a transform that a crop and its mask can go through."""
    if name in REPLACED:
        raise SpecError(f"albumentations 2 has no A.{name}", hint=f"use {REPLACED[name]}")
    transforms = table()["transforms"]
    if name not in transforms:
        close = nearest(name, [known for known, entry in transforms.items() if "refused" not in entry])
        raise SpecError(f"albumentations has no A.{name}", hint=f"did you mean `A.{close}`?" if close else EXAMPLE)
    entry: dict[str, Any] = transforms[name]
    refused = entry.get("refused")
    if refused == "changes the size of the crop":
        raise _resizes(f"A.{name}")
    if refused is not None:
        hint = "leave it out: the model normalises inside" if name in ("Normalize", "ToFloat") else "leave it out"
        raise SpecError(f"A.{name} {refused}", hint=hint)
    return entry


def _resizes(what: str) -> SpecError:
    return SpecError(
        f"{what} changes the size of the crop",
        hint="data.crop_px sets that size; for jitter of scale use A.Affine(scale=(0.75, 1.25), p=0.5)",
    )


def _unknown_parameter(name: str, key: str, parameters: Mapping[str, Any]) -> SpecError:
    now = RENAMED.get((name, key)) or RENAMED.get(("*", key))
    if now is not None and (now in parameters or not now.isidentifier()):
        return SpecError(f"A.{name} has no `{key}` in albumentations 2", hint=f"use {now}")
    close = nearest(key, parameters)
    hint = f"did you mean `{close}`?" if close else _takes(name, parameters)
    return SpecError(f"A.{name} has no `{key}`", hint=hint)


def _takes(name: str, parameters: Mapping[str, Any]) -> str:
    return f"A.{name} takes {listed(parameters, 'and')}"


def _check_value(name: str, key: str, value: Any, parameter: Mapping[str, Any], holds_calls: bool) -> None:
    """What can be told from the signature alone; the rest shows when the pipeline is built."""
    if key == "p" and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1):
        raise SpecError(f"A.{name} has p={value!r}, must be a probability, 0..1", hint=EXAMPLE)
    choices = parameter.get("choices")
    if choices is not None and value not in choices:
        close = nearest(str(value), choices)
        hint = f"did you mean {close!r}?" if close else None
        raise SpecError(f"A.{name} has {key}={shown(value)}, must be {listed(choices)}", hint=hint)
    if holds_calls and key == "transforms":
        if not isinstance(value, list) or not value or not all(isinstance(item, AugmentationCall) for item in value):
            raise SpecError(f"A.{name} needs a list of calls", hint=f"such as A.{name}([A.Blur(), A.MotionBlur()])")
    elif holds_calls and not isinstance(value, AugmentationCall):
        raise SpecError(f"A.{name} needs a call as `{key}`", hint=EXAMPLE)


def _value(node: ast.expr, where: str, depth: int, *, calls: bool) -> Any:
    """A literal, a constant of cv2, or (where `calls`) a further call."""
    if depth > MAX_DEPTH:
        raise SpecError(f"{where}: values are nested deeper than {MAX_DEPTH} levels", hint=EXAMPLE)
    if calls and isinstance(node, ast.Call):
        return _call(node, depth)
    if isinstance(node, ast.List):
        return [_value(item, where, depth + 1, calls=calls) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item, where, depth + 1, calls=calls) for item in node.elts)
    if isinstance(node, ast.Dict) and None not in node.keys:
        pairs = zip(node.keys, node.values, strict=True)
        return {
            _key(key, where): _value(value, where, depth + 1, calls=False) for key, value in pairs if key is not None
        }
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand, where, depth + 1, calls=False)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, (bool, int, str))):
        return node.value
    if isinstance(node, ast.Constant) and isinstance(node.value, float) and math.isfinite(node.value):
        return node.value
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cv2":
        constants = table()["constants"]
        if node.attr in constants:
            return constants[node.attr]
    raise SpecError(
        f"{where} has {_source(node)}, which is no plain value",
        hint="numbers, texts, true/false as True/False, lists and tuples of them are read; nothing is computed",
    )


def _key(node: ast.expr, where: str) -> str | int:
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int)):
        return node.value
    raise SpecError(f"{where} has {_source(node)} as a key, which is no plain value", hint="use a text")


def _source(node: ast.expr) -> str:
    try:
        return shown(ast.unparse(node))
    except RecursionError:
        return "an expression"


def _canonical(value: Any) -> str:
    if isinstance(value, AugmentationCall):
        return value.canonical()
    if isinstance(value, (list, tuple)):  # albumentations takes either for a range
        return f"[{', '.join(_canonical(item) for item in value)}]"
    return repr(value)
