"""The pooled counts of a run survive their file; a damaged one is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from crack_sweeps.errors import DataError
from crack_sweeps.evaluation.counts import count_pixels, stack
from crack_sweeps.evaluation.curve_file import read_curve, write_curve


def test_the_curve_of_a_file_is_the_curve_of_all_images_together(tmp_path: Path) -> None:
    one = count_pixels(np.array([[0.2, 0.9]], np.float32), np.array([[0, 1]], np.uint8))
    other = count_pixels(np.array([[0.4, 0.4]], np.float32), np.array([[1, 0]], np.uint8))
    both = stack([one, other])
    write_curve(both, 0.41, tmp_path / "curve.json")
    counts, threshold = read_curve(tmp_path / "curve.json")
    assert threshold == 0.41
    assert len(counts) == 1
    read, meant = counts.sweep(), both.sweep()
    for name in ("tp", "fp", "fn", "tn"):
        np.testing.assert_array_equal(getattr(read, name), getattr(meant, name))
    assert counts.at(0.41).tp.tolist() == [1]
    assert counts.at(0.4).tp.tolist() == [2]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", json.dumps({"threshold": 0.5, "crack": [1], "background": [2]}), '{"threshold": 2.0}'],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "curve.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"curve\.json: "):
        read_curve(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"curve\.json: cannot be read"):
        read_curve(tmp_path / "curve.json")
