"""What is no longer there of a study: the files that it is read by, and the run directories of its trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crack_sweeps.errors import UserError
from crack_sweeps.specs.study_loading import ResolvedStudy
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.ledger import read_rows, undamaged

PUT_BACK = "put it back from a copy; without it nobody knows what was searched, though ledger and runs are whole"


def read_begun(folder: StudyFolder) -> ResolvedStudy:
    """The study as it began.

    Raises:
        UserError: One of the files that it is read by is gone, empty or damaged.
    """
    for path in (folder.facts_file, folder.snapshot):
        if not path.is_file():
            raise UserError(f"{path}: is gone", hint=PUT_BACK)
        if not path.read_bytes().strip():
            raise UserError(f"{path}: is empty", hint=PUT_BACK)
    try:
        folder.read_facts()
        return folder.read_study()
    except UserError as error:
        raise UserError(error.message, hint=error.hint or PUT_BACK) from error


@dataclass(frozen=True)
class TrialsWithoutRun:
    """Trials whose run directory is gone.

    Args:
        names: Theirs, in the order in which they ended.
        num_launched: All trials of the study that had one.
    """

    names: tuple[str, ...]
    num_launched: int


def trials_without_run(folder: StudyFolder) -> TrialsWithoutRun:
    """Trials of the ledger whose weights, scores and events nobody has any more.

    Raises:
        UserError: The ledger is damaged.
    """
    with undamaged(folder.ledger):
        launched = {row["trial"]: row["run_dir"] for row in read_rows(folder) if row["run_dir"] is not None}
    gone = tuple(name for name, run_dir in launched.items() if not Path(run_dir).is_dir())
    return TrialsWithoutRun(gone, len(launched))
