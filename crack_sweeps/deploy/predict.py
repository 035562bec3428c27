"""Find the cracks in photos of any size: probability, mask and overlay of each, and a table with length and width."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from crack_sweeps.data.images import read_image
from crack_sweeps.deploy.crack_table import CrackTable
from crack_sweeps.deploy.network import Network, load_network
from crack_sweeps.deploy.out_folder import OutFolder
from crack_sweeps.deploy.overlay import paint_cracks
from crack_sweeps.deploy.photo_files import find_photos, result_names
from crack_sweeps.deploy.trained import find_trained
from crack_sweeps.deploy.typed import check_profile, check_scale, check_threshold
from crack_sweeps.errors import DataError, NotFiniteError, UserError
from crack_sweeps.evaluation.geometry import length_px, widths_px
from crack_sweeps.evaluation.thresholds import crack_pixels
from crack_sweeps.evaluation.topology import skeleton

_JPEG_LONGEST_PX = 65_500  # of the format, as OpenCV's encoder enforces it
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class PhotoPrediction:
    """What was found in one photo. All figures are null where the photo could not be read; then `error` says why.

    Args:
        photo: Its path, as it was given.
        error: Why there is no prediction; null if there is one.
        photo_width_px: Of the photo as people see it: turned as its EXIF tag says.
        photo_height_px: Likewise.
        threshold: Probability from which a pixel counts as crack.
        crack_share: Of the photo's pixels.
        crack_length_px: Along the centre lines of all cracks together.
        crack_width_px: Mean over the centre lines; null where there is no crack.
        crack_max_width_px: Where it is widest; null where there is no crack.
        crack_length_mm: The same in mm, where somebody said how large a pixel is.
        crack_width_mm: Likewise.
        crack_max_width_mm: Likewise.
        probability: Grey PNG, 255 times the probability.
        mask: PNG, 255 on crack and 0 elsewhere.
        overlay: JPEG of the photo with its cracks outlined; PNG where the photo is too long for a JPEG.
    """

    photo: str
    error: str | None
    photo_width_px: int | None = None
    photo_height_px: int | None = None
    threshold: float | None = None
    crack_share: float | None = None
    crack_length_px: float | None = None
    crack_width_px: float | None = None
    crack_max_width_px: float | None = None
    crack_length_mm: float | None = None
    crack_width_mm: float | None = None
    crack_max_width_mm: float | None = None
    probability: str | None = None
    mask: str | None = None
    overlay: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


@dataclass(frozen=True)
class Began:
    """The photos are found and the network is loaded.

    Args:
        run: The run's name.
        num_photos: How many there are.
        threshold: Where probability becomes crack.
        device: Where the network computes.
    """

    run: str
    num_photos: int
    threshold: float
    device: str


def predict_photos(
    run: str,
    photos: str | Path,
    *,
    out: str | Path,
    threshold: float | None = None,
    mm_per_px: float | None = None,
    tta: bool = False,
    overwrite: bool = False,
    profile: str = "auto",
) -> list[PhotoPrediction]:
    """Predict a photo or a folder of photos, as `sweeps predict`; the list is what `--json` prints.

    Args:
        run: A finished run's name, a unique prefix, its MLflow id, or a trial such as `STUDY/21`.
        photos: A photo, or a folder of them; what lies in folders further down is left alone.
        out: Folder for the results: `probability/`, `mask/`, `overlay/` and `cracks.csv`.
        threshold: Where probability becomes crack; None is what the run chose on its validation photos.
        mm_per_px: Size of a pixel on the surface, for lengths and widths in mm.
        tta: See each tile in its eight flips and rotations.
        overwrite: Replace files that are there and differ.
        profile: Says on which device: auto, cpu, gpu-8gb, gpu-24gb or gpu-80gb.

    Raises:
        UserError: Something was named wrongly, or a file is there already and differs.
        DataError: No photo could be read.
    """
    updates = predicting(
        run,
        photos,
        out=out,
        threshold=threshold,
        mm_per_px=mm_per_px,
        tta=tta,
        overwrite=overwrite,
        profile=profile,
    )
    with closing(updates):
        predictions = [update for update in updates if isinstance(update, PhotoPrediction)]
    if all(prediction.error is not None for prediction in predictions):
        raise nothing_readable(predictions)
    return predictions


def predicting(
    run: str,
    photos: str | Path,
    *,
    out: str | Path,
    threshold: float | None = None,
    mm_per_px: float | None = None,
    tta: bool = False,
    overwrite: bool = False,
    profile: str = "auto",
    notify: Callable[[str], None] = lambda _: None,
) -> Generator[Began | PhotoPrediction, None, None]:
    """The same as `predict_photos`, photo by photo; the table is written when the loop ends, whatever ended it."""
    check_scale(mm_per_px)
    check_threshold(threshold)
    check_profile(profile)
    trained = find_trained(run)
    files = find_photos(Path(photos))
    folder = OutFolder(Path(out), overwrite=overwrite)
    folder.check()
    _refuse_own_results(files, folder)
    table = CrackTable(folder)
    network = load_network(trained, profile=profile, tta=tta, notify=notify)
    limit = trained.threshold if threshold is None else threshold
    yield Began(trained.name, len(files), limit, network.device)
    try:
        for path, name in zip(files, result_names(files), strict=True):
            try:
                yield _predict(path, name, network, limit, mm_per_px, folder, table, trained.name)
            except (DataError, NotFiniteError) as error:
                yield PhotoPrediction(photo=as_text(path), error=error.message)
    finally:
        table.write()


def nothing_readable(predictions: Sequence[PhotoPrediction]) -> DataError:
    """The error where not one photo gave a prediction."""
    first = predictions[0].error
    rest = f", and {len(predictions) - 1} more" if len(predictions) > 1 else ""
    return DataError(f"no photo could be predicted: {first}{rest}", hint="name photos that an image viewer opens")


def as_text(path: Path) -> str:
    """The path as text that every encoding takes: bytes that are no UTF-8 are written as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _refuse_own_results(files: Sequence[Path], out: OutFolder) -> None:
    """Results never take the place of the photos that they were made from, even with --overwrite."""
    folder = files[0].parent.resolve()
    for kind in ("probability", "mask", "overlay"):
        if (out.path / kind).resolve() == folder:
            raise UserError(f"--out {out.path}: its folder {kind}/ is where the photos lie", hint="name another folder")


def _predict(
    path: Path,
    name: str,
    network: Network,
    threshold: float,
    mm_per_px: float | None,
    out: OutFolder,
    table: CrackTable,
    run: str,
) -> PhotoPrediction:
    """One photo. Of photo, map and mask each is let go as soon as it has been written: they may be of 48 MP."""
    image_HW3 = read_image(path)
    height, width = image_HW3.shape[:2]
    probability_HW = network.predict(image_HW3)
    if np.isnan(probability_HW).any():
        raise NotFiniteError(f"{path}: the network's prediction is not a number")
    crack_HW = crack_pixels(probability_HW, threshold)
    # Rounds half to even and clips, a pixel at a time: no second map in float32.
    grey = _encoded(".png", cv2.convertScaleAbs(probability_HW, alpha=255))
    del probability_HW
    paint_cracks(image_HW3, crack_HW)
    suffix = ".jpg" if max(height, width) <= _JPEG_LONGEST_PX else ".png"
    painted = _encoded(suffix, cv2.cvtColor(image_HW3, cv2.COLOR_RGB2BGR, dst=image_HW3))
    del image_HW3
    sizes = _sizes(crack_HW, mm_per_px)
    shown = as_text(path)
    facts = {"photo": shown, "photo_width_px": width, "photo_height_px": height, "threshold": threshold, **sizes}
    row = {**facts, "mm_per_px": mm_per_px, "run": run}
    table.check(row)
    mask = _encoded(".png", crack_HW.view(np.uint8) * np.uint8(255))
    probability_file, mask_file, overlay_file = out.write(
        {f"probability/{name}.png": grey, f"mask/{name}.png": mask, f"overlay/{name}{suffix}": painted}
    )
    table.add(row)
    return PhotoPrediction(
        error=None, probability=str(probability_file), mask=str(mask_file), overlay=str(overlay_file), **facts
    )


def _sizes(crack_HW: Bool[np.ndarray, "H W"], mm_per_px: float | None) -> dict[str, float | None]:
    """How much crack, how long, how wide; px as counted, mm where the scale is known."""
    line_HW = skeleton(crack_HW)
    widths = widths_px(crack_HW, line_HW)
    length = length_px(line_HW)
    mean, widest = (float(widths.mean(dtype=np.float64)), float(widths.max())) if len(widths) else (None, None)
    scaled = [None if value is None or mm_per_px is None else value * mm_per_px for value in (length, mean, widest)]
    return {
        "crack_share": int(np.count_nonzero(crack_HW)) / crack_HW.size,
        "crack_length_px": length,
        "crack_width_px": mean,
        "crack_max_width_px": widest,
        "crack_length_mm": scaled[0],
        "crack_width_mm": scaled[1],
        "crack_max_width_mm": scaled[2],
    }


def _encoded(suffix: str, pixels: UInt8[np.ndarray, ...]) -> bytes:
    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # thin lines stay pink
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY, *full_colour] if suffix == ".jpg" else []
    done, encoded = cv2.imencode(suffix, pixels, options)
    assert done, f"OpenCV writes every {suffix}"
    return encoded.tobytes()
