"""Writes specs/tables/albumentations.json: what each transform is called, takes, and does to a crop.

Run `python -m crack_sweeps.data.augmentation_table` after a new release of albumentations; a test compares the two.
"""

from __future__ import annotations

import inspect
import json
import os
import typing
import warnings
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or the import asks the network for a newer version
import albumentations as A

TABLE = Path(__file__).resolve().parent.parent / "specs" / "tables" / "albumentations.json"
SIDE_PX = 64
NUM_TRIES = 5  # seeds; a transform that changes the size by chance does so within a few

# Arguments that show what a transform does; sizes differ from SIDE_PX, so that a change of size is seen.
REQUIRED = {
    "height": 32,
    "width": 32,
    "size": (32, 32),
    "min_max_height": (16, 32),
    "num_grid_xy": (4, 4),
    "magnitude": 5,
}
SHOWING: dict[str, dict[str, Any]] = {
    "Affine": {"rotate": 30, "scale": 1.25},
    "Crop": {"x_max": 32, "y_max": 32},
    "CropAndPad": {"px": -4},
    "LongestMaxSize": {"max_size": 32},
    "Pad": {"padding": 4},
    "SmallestMaxSize": {"max_size": 32},
}
ABSTRACT = {"BaseCompose", "BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"}
GROUPS = {"Compose", "OneOf", "OneOrOther", "RandomOrder", "Sequential", "SomeOf"}
FOR_CODE = {"Lambda", "ReplayCompose", "SelectiveChannelTransform", "ToTensor3D", "ToTensorV2"}

CHANGES_SIZE = "changes the size of the crop"
CHANGES_TYPE = "changes the type of the pixels, which is the model's job"
NEEDS_MORE = "needs more than a line of text can give it"


def make_table() -> dict[str, Any]:
    """The whole table, measured on the albumentations that is installed."""
    names = sorted(name for name in dir(A) if _is_transform(getattr(A, name)) and name not in ABSTRACT)
    return {
        "version": A.__version__,
        "constants": _constants(),
        "transforms": {name: _describe(name) for name in names},
    }


def write_table(path: Path = TABLE) -> None:
    """Writes the table, one transform a line, so that a new release shows as a short difference."""
    table = make_table()
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in table["transforms"].items())
    head = f'"version": {json.dumps(table["version"])},\n"constants": {json.dumps(table["constants"])}'
    path.write_text(f'{{{head},\n"transforms": {{\n{lines}\n}}}}\n', encoding="utf-8")


def _is_transform(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, (A.BasicTransform, A.BaseCompose))


def _constants() -> dict[str, int]:
    """The cv2 names that albumentations' parameters take as integers."""
    return {name: getattr(cv2, name) for name in sorted(dir(cv2)) if name.startswith(("BORDER_", "INTER_"))}


def _describe(name: str) -> dict[str, Any]:
    """Parameters in order with defaults and choices; whether a crop keeps its size; why it cannot be used, if so."""
    transform = getattr(A, name)
    parameters = {
        key: _parameter(parameter)
        for key, parameter in inspect.signature(transform.__init__).parameters.items()
        if key != "self" and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    entry: dict[str, Any] = {"parameters": parameters}
    if name in GROUPS:
        return {"group": True, **entry}
    if name in FOR_CODE:
        return {"refused": "is for code, not for a list of augmentations", **entry}
    if issubclass(transform, A.Transform3D):
        return {"refused": "is for volumes", **entry}
    showing: dict[str, Any] = {
        key: REQUIRED[key] for key, described in parameters.items() if "default" not in described and key in REQUIRED
    }
    showing |= SHOWING.get(name, {})
    refused = _try(name, showing)
    if refused is not None:
        return {"refused": refused, **entry}
    # Switches that make a transform change the size of its result, such as Rotate's crop_border.
    resizing = {
        key: not described["default"]
        for key, described in parameters.items()
        if isinstance(described.get("default"), bool)
        and _try(name, {**showing, key: not described["default"]}) == CHANGES_SIZE
    }
    return {"keeps_size": True, **({"resized_by": resizing} if resizing else {}), **entry}


def _parameter(parameter: inspect.Parameter) -> dict[str, Any]:
    described: dict[str, Any] = {}
    if parameter.default is not inspect.Parameter.empty:
        described["default"] = _plain(parameter.default)
    choices = _choices(parameter.annotation)
    if choices is not None:
        described["choices"] = choices
    return described


def _plain(value: Any) -> Any:
    """A default as JSON holds it; one that is code (a function that reads images) by its name."""
    return value.__name__ if callable(value) else value


def _choices(annotation: Any) -> list[str] | None:
    """The words that a parameter takes, where it takes words alone."""
    if isinstance(annotation, str):
        if not annotation.startswith("Literal["):
            return None
        annotation = eval(annotation, {"Literal": Literal, "cv2": cv2})  # the library's own text
    words = list(typing.get_args(annotation))
    return words if words and all(isinstance(word, str) for word in words) else None


def _try(name: str, arguments: dict[str, Any]) -> str | None:
    """Why a transform cannot be used on a crop and its mask, by running it; None where it can."""
    rng = np.random.default_rng(0)
    image_HW3 = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    mask_HW = (rng.random((SIDE_PX, SIDE_PX)) < 0.1).astype(np.uint8)
    for seed in range(NUM_TRIES):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecations, and what a transform makes of 64 px
                pipeline = A.Compose([getattr(A, name)(**arguments, p=1.0)], seed=seed)
                done = pipeline(image=image_HW3.copy(), mask=mask_HW.copy())
        except (TypeError, ValueError, KeyError, AttributeError, NotImplementedError, RuntimeError, ImportError):
            return NEEDS_MORE
        image, mask = done["image"], done["mask"]
        if image.shape[:2] != mask_HW.shape or mask.shape != mask_HW.shape:
            return CHANGES_SIZE
        if (image.dtype, image.shape, mask.dtype) != (np.uint8, image_HW3.shape, np.uint8) or mask.max() > 1:
            return CHANGES_TYPE
    return None


if __name__ == "__main__":
    write_table()
