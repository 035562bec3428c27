"""What needs no learning, image by image, kept beside a study: two rows below every leaderboard."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from crack_sweeps import durable
from crack_sweeps.data.photos import PhotoSet, Split
from crack_sweeps.errors import StudyError
from crack_sweeps.study.warm import processes

NAMES = ("otsu", "black_hat")  # of evaluation.floors, which imports torch; a test compares the two
MAX_DEATHS = 3  # of the process that scores them, by a signal: then it is not by chance
SCORED: tuple[Split, ...] = ("val", "test")


def floor_scores(folder: Path, photos: PhotoSet) -> None:
    """Write `floors/NAME-SPLIT.parquet` for validation and test, in a process of its own: scoring imports torch.

    Args:
        folder: The study's; what is there already stays, since a study's photos never change.
        photos: What its models are scored on.
    """
    if all(_path(folder, name, split).is_file() for name in NAMES for split in SCORED):
        return
    for _ in range(MAX_DEATHS):
        process = processes().Process(target=write_floors, args=(folder, photos), name="floors")
        process.start()
        process.join()
        if process.exitcode == 0:
            return
        if process.exitcode is not None and process.exitcode > 0:
            raise StudyError("the floors could not be scored", hint="the traceback is above")
    raise StudyError(
        f"scoring the floors was killed {MAX_DEATHS} times (exit code {process.exitcode}); for want of memory?",
        hint="the same command scores them again; all trials are stored",
    )


def write_floors(folder: Path, photos: PhotoSet) -> None:
    """The work of that process."""
    from pyarrow import parquet

    from crack_sweeps.evaluation.evaluate import each_photo, gather
    from crack_sweeps.evaluation.floors import FLOORS
    from crack_sweeps.evaluation.scores import score_table

    (folder / "floors").mkdir(exist_ok=True)
    for name, predict in FLOORS.items():
        for split in SCORED:
            if _path(folder, name, split).is_file():  # of a process that was killed after it
                continue
            scored = gather(each_photo(predict, photos.split(split), photos.rule))
            table = BytesIO()
            parquet.write_table(score_table(scored, 0.5), table)
            durable.write_bytes(_path(folder, name, split), table.getvalue())


def _path(folder: Path, name: str, split: str) -> Path:
    return folder / "floors" / f"{name}-{split}.parquet"
