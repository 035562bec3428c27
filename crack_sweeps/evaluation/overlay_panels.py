"""Takes a picture of a photo apart again: which photo it is of, and its panels one by one. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

NAMES = ("photo", "truth", "probability", "errors")
KEY = "crack_sweeps.panels"  # of the PNG's own text: the photo's name, and the box of each panel


@dataclass(frozen=True)
class Overlay:
    """A picture that `overlays` wrote.

    Args:
        path: Its file.
        photo: The photo's name.
        boxes: Left, top, right and bottom px of each panel.
    """

    path: Path
    photo: str
    boxes: Mapping[str, tuple[int, int, int, int]]

    def panel(self, name: str) -> Image.Image:
        """One of the panels, by its name in NAMES."""
        with Image.open(self.path) as picture:
            return picture.crop(self.boxes[name])


def find_overlays(folder: Path) -> Iterator[Overlay]:
    """The pictures in a folder that can be taken apart, by file name; a folder that is missing has none."""
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            said = picture.info.get(KEY)
        if said is not None:
            content = json.loads(said)
            boxes = {name: tuple(box) for name, box in zip(NAMES, content["panels"], strict=True)}
            yield Overlay(path, content["photo"], boxes)
