"""Score folders of prediction images, many files at once in processes of their own; nothing is held but sums."""

from __future__ import annotations

import functools
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from crack_sweeps.data.masks import decide_rule
from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.data.predictions import check_sizes, pair_predictions, read_predicted_pair
from crack_sweeps.errors import SweepsError
from crack_sweeps.evaluation.counts import PixelCounts, count_pixels, stack
from crack_sweeps.evaluation.protocols import (
    PROTOCOLS,
    ImagePart,
    MetricSet,
    ProtocolName,
    Scoring,
    ThresholdOrigin,
    choose_here,
    conclude,
    is_binary,
    resized,
    shape_at,
)
from crack_sweeps.evaluation.scores import choose_threshold
from crack_sweeps.evaluation.shapes import ShapeRow
from crack_sweeps.specs.experiment import MaskRule

Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]
# What a prediction's grey value means, as float32 compares it with a threshold. 255 is divided by in float64: rounded
# once, so that 51 / 255 is the very float32 that .2 is.
_OF_255: Float32[np.ndarray, " 256"] = (np.arange(256) / 255).astype(np.float32)
_OF_1: Float32[np.ndarray, " 256"] = np.minimum(np.arange(256), 1).astype(np.float32)
# Below this many images, starting processes takes longer than they save.
_FEW = 32
_AT_ONCE = 4  # images that a process is handed at a time


@dataclass(frozen=True)
class PredictionFolder:
    """Predictions and masks, matched and ready to be read.

    Args:
        photos: Pairs; `image` is the prediction.
        rule: How the masks are read.
        resize: Predictions of another size are brought to the mask's.
        notes: What a person should know before trusting a score.
    """

    photos: tuple[Photo, ...]
    rule: ResolvedMaskRule
    resize: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Reading:
    """How each pair is read: what a process needs to know."""

    rule: ResolvedMaskRule
    resize: bool
    side_px: int | None

    def pair(
        self, photo: Photo, meaning: Float32[np.ndarray, " 256"]
    ) -> tuple[Float32[np.ndarray, "A B"], UInt8[np.ndarray, "A B"]]:
        """Probability and mask of one image."""
        values_HW, mask_HW = read_predicted_pair(photo, self.rule, resize=self.resize)
        probability_HW = meaning[values_HW]
        return (probability_HW, mask_HW) if self.side_px is None else resized(probability_HW, mask_HW, self.side_px)


@dataclass(frozen=True, eq=False)
class _Counted:
    """One image: its pixels if 255 is a probability of 1, and if 1 is (where the image holds no other value)."""

    of_255: PixelCounts
    of_1: PixelCounts | None


def open_folder(predictions: Path, masks: Path, given: MaskRule, *, resize: bool) -> PredictionFolder:
    """Match two folders, and find out how the masks are read.

    Raises:
        DataError: They do not fit together, or the masks need a rule.
    """
    paired = pair_predictions(predictions, masks)
    if not resize:
        check_sizes(paired.photos)
    rule, notes = decide_rule([photo.mask for photo in paired.photos], given)
    if paired.unused:
        more = f" and {len(paired.unused) - 1} more" if len(paired.unused) > 1 else ""
        notes += (f"{predictions}: no mask for {paired.unused[0].name}{more}; left out",)
    return PredictionFolder(paired.photos, rule, resize, notes)


def choose_on(folder: PredictionFolder, *, jobs: int, progress: Progress) -> float:
    """The threshold of the best pooled crack IoU on these predictions, which are of validation photos."""
    reading = _Reading(folder.rule, folder.resize, None)
    with _workers(jobs, len(folder.photos)) as workers:
        counts, _ = _count_all(reading, folder.photos, workers, progress, "counting validation pixels")
    return choose_threshold(stack(counts))


def score_folder(
    folder: PredictionFolder,
    *,
    threshold: float | None,
    threshold_origin: ThresholdOrigin,
    protocol: ProtocolName,
    metrics: MetricSet,
    jobs: int,
    progress: Progress,
) -> tuple[Scoring, tuple[str, ...]]:
    """The scores of a folder, and what is odd about its predictions.

    Args:
        folder: From `open_folder`.
        threshold: One of .01 .. .99; None chooses it on these predictions (oracle).
        threshold_origin: Where a threshold that is given comes from.
        protocol: The rule.
        metrics: Which of its figures.
        jobs: Processes; 1 works in this one. What comes out does not depend on it.
        progress: Told what is being done, how many images are through, and of how many.

    Raises:
        DataError: A file cannot be read.
        ValueError: The threshold is none of the 99.
    """
    rule = PROTOCOLS[protocol]
    reading = _Reading(folder.rule, folder.resize, rule.side_px)
    with _workers(jobs, len(folder.photos)) as workers:
        counts, is_0_1 = _count_all(reading, folder.photos, workers, progress, "counting pixels")
        if threshold is None:
            threshold, threshold_origin = choose_here(stack(counts), protocol)
        shapes: Sequence[ShapeRow | None] = [None] * len(counts)
        if metrics in rule.has_shapes:
            compare = functools.partial(_compare, reading, is_0_1, threshold)
            shapes = list(_each(compare, folder.photos, workers, progress, "comparing shapes"))
    parts = [
        ImagePart(photo.name, photo.group, count, shape)
        for photo, count, shape in zip(folder.photos, counts, shapes, strict=True)
    ]
    scoring = conclude(
        parts, threshold=threshold, threshold_origin=threshold_origin, protocol=protocol, metrics=metrics
    )
    return scoring, tuple(_odd(scoring, is_0_1))


def _odd(scoring: Scoring, is_0_1: bool) -> Iterator[str]:
    whole = scoring.evaluation.counts.at(scoring.threshold).pooled()
    tp, fp, fn, tn = (int(count[0]) for count in (whole.tp, whole.fp, whole.fn, whole.tn))
    if is_0_1:
        yield "no prediction holds a value above 1: read as 0 and 1"
    if is_binary(scoring.evaluation.counts):
        yield "the predictions are binary: their threshold was chosen by whoever made them, and nothing tells on what"
    if tp + fp == 0:
        yield "no pixel of any prediction is called crack"
    elif tp + fp > fn + tn:
        yield f"{(tp + fp) / (tp + fp + fn + tn):.0%} of all pixels are called crack: are the predictions inverted?"


def _count_all(
    reading: _Reading,
    photos: Sequence[Photo],
    workers: ProcessPoolExecutor | None,
    progress: Progress,
    label: str,
) -> tuple[list[PixelCounts], bool]:
    """The pixels of every image, and whether the predictions are written as 0 and 1."""
    counted = list(_each(functools.partial(_count, reading), photos, workers, progress, label))
    of_1 = [image.of_1 for image in counted if image.of_1 is not None]
    if len(of_1) == len(counted) and any(image.at(0.5).pooled().tp + image.at(0.5).pooled().fp > 0 for image in of_1):
        return of_1, True
    return [image.of_255 for image in counted], False


def _count(reading: _Reading, photo: Photo) -> _Counted:
    probability_HW, mask_HW = reading.pair(photo, _OF_255)
    holds_0_1 = probability_HW.max() <= _OF_255[1]
    return _Counted(
        of_255=count_pixels(probability_HW, mask_HW),
        of_1=count_pixels(*reading.pair(photo, _OF_1)) if holds_0_1 else None,
    )


def _compare(reading: _Reading, is_0_1: bool, threshold: float, photo: Photo) -> ShapeRow:
    return shape_at(threshold, *reading.pair(photo, _OF_1 if is_0_1 else _OF_255))


# --- processes -----------------------------------------------------------------------------------


def _each(
    work: Callable[[Photo], Result],
    photos: Sequence[Photo],
    workers: ProcessPoolExecutor | None,
    progress: Progress,
    label: str,
) -> Iterator[Result]:
    """What comes of each photo, in their order; the first that fails is told, whoever was faster."""
    done = map(work, photos) if workers is None else workers.map(work, photos, chunksize=_AT_ONCE)
    for number, result in enumerate(done, start=1):
        progress(label, number, len(photos))
        yield result


@contextmanager
def _workers(jobs: int, num_images: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes for as long as the block runs; none where they are not worth starting."""
    if jobs == 1 or num_images < _FEW:
        yield None
        return
    # A process that is forked from one with threads (OpenCV's, OpenBLAS's) may hang on a lock that a thread held.
    context = multiprocessing.get_context("spawn")
    workers = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_worker)
    try:
        yield workers
    except BrokenProcessPool as error:
        raise SweepsError("a process that scores was killed", hint="is there too little memory? try fewer") from error
    finally:
        workers.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends its processes
    cv2.setNumThreads(0)  # as many processes as cores are at work already
