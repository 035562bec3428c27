"""What is kept of a run when it ends: one flat record, which `--json` prints and every ledger can be rebuilt from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from crack_sweeps import durable
from crack_sweeps.errors import UserError
from crack_sweeps.runs.directory import RunDirectory, Status, mlflow_id


@dataclass(frozen=True)
class RunRecord:
    """One run, as a row.

    Args:
        run: The run's name, which is its directory's.
        run_id: MLflow's id; null until the mirror has sent it.
        run_dir: The run's directory, relative to the working directory.
        status: FINISHED, KILLED (interrupted, with a checkpoint), PRUNED (stopped by its study for good) or FAILED.
        reason: Why it did not finish; null if it did.
        error: The kind of error that ended it, such as OutOfMemory; null if none did.
        fingerprint: Of the experiment: what changes the mathematics, and not the seed.
        threshold: Probability from which a pixel counts as crack, chosen on validation; null if not finished.
        metrics: `val/...` of the best weights over all validation photos at that threshold; `floor/...` is what needs
            no learning; of a study's finalist `test/...` too, at the same threshold.
        vram: Highest memory of the run in bytes, and where the figures come from.
        duration_s: Seconds of training, validation and final evaluation, over all attempts.
        profile: The machine profile that was laid over the file.
        quick_look: The profile shrank the work: never to be ranked beside full runs.
        seed: Of weights, order, crops, augmentation.
        data_digest: SHA-256 of photos, masks, splits.
        best_epoch: The epoch whose weights are kept, from 1; 0 if none was complete.
        num_epochs: Epochs that were trained.
        num_params: Weights of the model that can be trained.
        images_per_s: Crops trained per second, median over the epochs; null if none was complete.
        commit: Of the working directory; null outside git.
    """

    run: str
    run_id: str | None
    run_dir: str
    status: Status
    reason: str | None
    fingerprint: str
    threshold: float | None
    metrics: dict[str, float]
    vram: dict[str, Any]
    duration_s: float
    profile: str
    quick_look: bool
    seed: int
    data_digest: str
    best_epoch: int
    num_epochs: int
    num_params: int
    images_per_s: float | None = field(default=None)
    commit: str | None = field(default=None)
    error: str | None = field(default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


def write_record(run: RunDirectory, record: RunRecord) -> None:
    """Store the record as metrics.json. Where the run lies and MLflow's id are left to the reader, who knows better."""
    content = {key: value for key, value in record.as_dict().items() if key not in ("run_id", "run_dir")}
    durable.write_text(run.metrics, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_record(run: RunDirectory) -> RunRecord:
    """The record of a run that has ended.

    Raises:
        UserError: There is none, or it is damaged.
    """
    try:
        content = json.loads(run.metrics.read_bytes())
        return RunRecord(run_id=mlflow_id(run), run_dir=str(run.path), **content)
    except FileNotFoundError:
        hint = "it has not ended; go on with `sweeps run EXPERIMENT --resume`"
        raise UserError(f"{run.metrics}: no record yet", hint=hint) from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{run.metrics}: cannot be read ({error})") from error


def with_mlflow_id(run: RunDirectory, record: RunRecord) -> RunRecord:
    """The record with the id that the mirror has written down by now."""
    return replace(record, run_id=mlflow_id(run))
