"""A row of the leaderboard: every key that `--json` prints, made of what was counted and what is on file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from crack_sweeps.leaderboard.budget import ArmBudget
from crack_sweeps.leaderboard.entries import FLOORS, Entry, Kind, Split
from crack_sweeps.leaderboard.images import Scored
from crack_sweeps.leaderboard.records import Records
from crack_sweeps.leaderboard.statistics import FIGURES, Estimate, Figure, estimate
from crack_sweeps.study.ledger import Row
from crack_sweeps.study.standing import peak_bytes


@dataclass(frozen=True)
class BoardRow:
    """A row of the leaderboard; what does not apply to it is None.

    Args:
        rank: 1 for the leader and for whoever cannot be told from it; of the others 1 and the number of ranked rows
            with a better figure. None below the line.
        name: The trial whose settings these are, a floor or an outside entry.
        arm: The experiment's file name, `floor` or `outside`.
        kind: finalist, trial, floor or outside.
        split: That the figures are of.
        crack_iou: Pooled over the images' pixels, mean over the seeds; so is crack_f1.
        crack_iou_low: Of its 95 % interval over images and seeds, as of the other figures.
        crack_iou_high: As crack_iou_low.
        crack_iou_image: Mean of the images' own IoU, mean over the seeds; so is crack_f1_image.
        thresholds: Of each seed.
        threshold_origin: validation, given or oracle.
        num_seeds: Trainings that the figures are means of.
        num_images: That were scored.
        num_photographs: That the images were cut from.
        num_trials: That the arm's search trained.
        num_epochs: Of the arm's search.
        budget_note: as much as the others, under-tuned (less than 90 % of the largest arm's epochs) or untuned.
        gpu_hours: Of training, the arm's search and finalists; on a CPU its hours.
        vram_peak_bytes: Highest memory of the trainings.
        memory_source: What measured it.
        images_per_s: Crops trained a second, median of the trainings.
        num_params: Weights that can be trained.
        fingerprint: Of the experiment.
        commit: Of the code; several are separated by commas.
        data_digest: Of photos, masks and splits.
        quick_look: The profile shrank the work.
        test_looks: How often a model of this arm was looked at on test; more than 1 flatters.
        tied_with_leader: It cannot be told from the leader; False for the leader itself.
        difference: Leader's figure that the table is sorted by, less this row's.
        difference_low: Of its 95 % interval, for this pair by itself.
        difference_high: As difference_low.
        p_value: That the two are equally good, corrected for the number of rows.
        notes: What a reader should know of the row, in words.
        run_dirs: Directories of the trainings.
    """

    rank: int | None
    name: str
    arm: str
    kind: Kind
    split: Split
    crack_iou: float | None = None
    crack_iou_low: float | None = None
    crack_iou_high: float | None = None
    crack_iou_image: float | None = None
    crack_iou_image_low: float | None = None
    crack_iou_image_high: float | None = None
    crack_f1: float | None = None
    crack_f1_low: float | None = None
    crack_f1_high: float | None = None
    crack_f1_image: float | None = None
    crack_f1_image_low: float | None = None
    crack_f1_image_high: float | None = None
    thresholds: tuple[float, ...] | None = None
    threshold_origin: str | None = None
    num_seeds: int | None = None
    num_images: int | None = None
    num_photographs: int | None = None
    num_trials: int | None = None
    num_epochs: int | None = None
    budget_note: str | None = None
    gpu_hours: float | None = None
    vram_peak_bytes: float | None = None
    memory_source: str | None = None
    images_per_s: float | None = None
    num_params: int | None = None
    fingerprint: str | None = None
    commit: str | None = None
    data_digest: str | None = None
    quick_look: bool | None = None
    test_looks: int | None = None
    tied_with_leader: bool | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    notes: tuple[str, ...] = ()
    run_dirs: tuple[str, ...] = ()

    def figure(self, name: Figure) -> Estimate | None:
        """One of the four figures with its interval."""
        value = getattr(self, name)
        return None if value is None else Estimate(value, getattr(self, f"{name}_low"), getattr(self, f"{name}_high"))

    def value(self, name: Figure) -> float:
        """One of the four figures, of a row that is known to have it."""
        value: float = getattr(self, name)
        return value

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


def entry_row(
    records: Records,
    entry: Entry,
    scored: Scored | None,
    split: Split,
    *,
    budget: ArmBudget | None = None,
    notes: tuple[str, ...] = (),
) -> BoardRow:
    """The row of an entry, not ranked yet; without scores it has no figures, and all else that is known."""
    rows = entry.rows
    figures: dict[str, float | None] = {}
    if scored is not None:
        for figure in FIGURES:
            found = estimate(scored.counts, figure)
            figures |= {figure: found.value, f"{figure}_low": found.low, f"{figure}_high": found.high}
    peaks = [peak for row in rows if (peak := peak_bytes(row["peaks"])) is not None]
    speeds = [speed for row in rows if (speed := row.get("images_per_s")) is not None]
    of_seeds = scored.thresholds if scored is not None else ()
    thresholds = tuple(threshold for threshold in of_seeds if threshold is not None)
    return BoardRow(
        rank=None,
        name=entry.name,
        arm=entry.arm,
        kind=entry.kind,
        split=split,
        **figures,  # type: ignore[arg-type]
        thresholds=thresholds if thresholds and entry.threshold_origin is not None else None,
        threshold_origin=entry.threshold_origin,
        num_seeds=scored.counts.num_seeds if scored is not None and entry.kind != "floor" else None,
        num_images=len(scored.counts.names) if scored is not None else None,
        num_photographs=scored.counts.num_units if scored is not None else None,
        num_trials=budget.num_trials if budget is not None else None,
        num_epochs=budget.num_epochs if budget is not None else None,
        budget_note=budget.note if budget is not None else None,
        gpu_hours=budget.gpu_hours if budget is not None else None,
        vram_peak_bytes=max(peaks, default=None),
        memory_source=rows[-1]["memory_source"] if rows else None,
        images_per_s=median(speeds) if speeds else None,
        num_params=rows[-1]["num_params"] if rows else None,
        fingerprint=rows[-1]["fingerprint"] if rows else None,
        commit=", ".join(dict.fromkeys(row["commit"] for row in rows if row["commit"])) or None,
        data_digest=rows[-1]["data_digest"] if rows else entry.data_digest,
        quick_look=rows[-1]["quick_look"] if rows else None,
        test_looks=num_test_looks(records, entry.arm) if rows else None,
        notes=(*entry.notes, *notes),
        run_dirs=tuple(row["run_dir"] for row in rows),
    )


def trial_row(row: Row) -> BoardRow:
    """A trial with the figures of its record: they are of validation, which it was selected on."""
    return BoardRow(
        rank=None,
        name=row["trial"],
        arm=row["arm"],
        kind="trial",
        split="val",
        **{figure: row["metrics"].get(f"val/{figure}") for figure in FIGURES},
        thresholds=(row["threshold"],) if row.get("threshold") is not None else None,
        threshold_origin="validation" if row["metrics"] else None,
        num_seeds=1 if row["metrics"] else None,
        num_epochs=row["num_epochs"],
        gpu_hours=row["duration_s"] / 3600,
        vram_peak_bytes=peak_bytes(row["peaks"]),
        memory_source=row["memory_source"],
        images_per_s=row.get("images_per_s"),
        num_params=row["num_params"],
        fingerprint=row["fingerprint"],
        commit=row["commit"],
        data_digest=row["data_digest"],
        quick_look=row["quick_look"],
        notes=(row["outcome"] if row["reason"] is None else f"{row['outcome']}: {row['reason']}",),
        run_dirs=(row["run_dir"],) if row["run_dir"] is not None else (),
    )


def recorded_floor_rows(entry: Entry) -> Iterator[BoardRow]:
    """Floors as the run of an arm's row has them on record, for a study that kept no scores of their images."""
    metrics = entry.rows[0]["metrics"]
    for key, name in FLOORS.items():
        if f"floor/{key}_crack_iou" in metrics:
            figures = {figure: metrics.get(f"floor/{key}_{figure}") for figure in FIGURES}
            yield BoardRow(rank=None, name=name, arm="floor", kind="floor", split="val", **figures)


def num_test_looks(records: Records, arm: str) -> int:
    """How many models of an arm were scored on test: its finalists, and what `sweeps evaluate` was asked for."""
    looked = {row["fingerprint"] for row in records.finalists(arm) if "test/crack_iou" in row["metrics"]}
    runs = {row["run"] for row in records.trials if arm in (row["arm"], row.get("finalist_of"))}
    return len(looked) + sum(look["run"] in runs for look in records.looks)
