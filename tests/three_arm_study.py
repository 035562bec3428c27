"""A study of three arms, written as the coordinator writes it: trials, finalists, floors and scores of each image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from crack_sweeps.evaluation.counts import Confusion
from crack_sweeps.evaluation.scores import metrics
from crack_sweeps.runs.directory import OUTPUTS
from crack_sweeps.specs.study_loading import dump_study_snapshot, resolve_study
from crack_sweeps.study.folder import FORMAT, STUDIES, StudyFolder

SPEC = """\
name: trio
base: unet_small
space:
  training.learning_rate: {low: 0.0003, high: 0.03, log: true}
budget: {trials: 4}
"""
ARMS = ("hybrid", "unet", "deeplab")
DIGEST = "d1" * 32
FIGURES = ("crack_iou", "crack_f1", "precision", "recall")


class ThreeArms:
    """`studies/trio/` in the working directory, with a run directory for each training that has scores."""

    def __init__(self, *, num_images: int = 12) -> None:
        STUDIES.mkdir(exist_ok=True)
        (STUDIES / "trio.yaml").write_text(SPEC)
        self.folder = StudyFolder(STUDIES / "trio")
        self.folder.path.mkdir()
        self.folder.snapshot.write_text(_snapshot())
        facts = {"format": FORMAT, "space": "a", "rest": "b", "imports_from": None, "began": "2026-01-01T12:00:00+0000"}
        self.folder.facts_file.write_text(json.dumps(facts))
        self.names = tuple(f"photo-{number:03d}" for number in range(num_images))
        self.groups: tuple[str, ...] | None = None  # each image is a photograph of its own
        self.crack_I = np.linspace(400, 4000, num_images).astype(np.int64)
        self._counts: dict[str, int] = {}

    def trial(self, arm: str, value: float | None, **changes: Any) -> dict[str, Any]:
        """A trial of an arm's search; its validation images all score about its value."""
        number = self._next(arm)
        name = f"trio/{number}" if arm == ARMS[0] else f"trio/{arm}/{number}"
        row = self._row(arm, number, name, value, **changes)
        if value is not None:
            path = self._run(row) / "scores.parquet"
            row["metrics"] |= self.write_scores(path, value, split="val")
        self.append("trial", **row)
        return row

    def finals(self, arm: str, scores: Sequence[float], *, spread: float = 0.0, **changes: Any) -> list[dict[str, Any]]:
        """Trainings of an arm's finalist, one per seed; their images score about these values, on both splits.

        Args:
            spread: How far the images of this arm lie from that, to either side.
        """
        rows = []
        for value in scores:
            number = self._next(f"{arm}.final")
            selected = "trio/0" if arm == ARMS[0] else f"trio/{arm}/0"
            told = {"finalist_of": arm, "selected_trial": selected, "seed": number, "fingerprint": f"{arm}-best"}
            row = self._row(f"{arm}.final", number, f"trio/{arm}.final/{number}", value, **{**told, **changes})
            for split, file in (("val", "scores.parquet"), ("test", "scores_test.parquet")):
                row["metrics"] |= self.write_scores(self._run(row) / file, value, split=split, spread=spread, arm=arm)
            self.append("trial", **row)
            rows.append(row)
        return rows

    def write_scores(
        self,
        path: Path,
        value: float,
        *,
        split: str,
        spread: float = 0.0,
        arm: str = "",
        names: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """A table of images whose IoU is about the value; returns its pooled figures as a record has them."""
        rng = np.random.default_rng([len(arm), *arm.encode()])
        iou_I = np.clip(value + spread * rng.standard_normal(len(self.names)), 0.01, 0.99)
        f1_I = 2 * iou_I / (1 + iou_I)
        tp_I = np.round(f1_I * self.crack_I).astype(np.int64)
        wrong_I = self.crack_I - tp_I
        confusion = Confusion(tp_I, wrong_I, wrong_I, 200_000 - self.crack_I - wrong_I)
        names = self.names if names is None else names
        table = {
            "name": pa.array(names),
            "group": pa.array(groups or self.groups or names),
            **{count: getattr(confusion, count) for count in ("tp", "fp", "fn", "tn")},
            **metrics(confusion),
            "empty_mask": confusion.tp + confusion.fn == 0,
            "empty_prediction": confusion.tp + confusion.fp == 0,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pa.table(table).replace_schema_metadata({"threshold": "0.40"}), path)
        pooled = metrics(confusion.pooled())
        return {f"{split}/{figure}": float(pooled[figure][0]) for figure in FIGURES} | {
            f"{split}/{figure}_image": float(metrics(confusion)[figure].mean()) for figure in ("crack_iou", "crack_f1")
        }

    def outside(self, name: str, value: float, *, split: str = "test", **changes: Any) -> None:
        """Somebody else's predictions."""
        file = f"outside/{name}-{split}.parquet"
        figures = self.write_scores(self.folder.path / file, value, split=split, arm=name)
        entry = {
            "name": name,
            "split": split,
            "threshold": 0.5,
            "threshold_origin": "validation",
            "protocol": "masks as pictures",
            "metrics": {key.partition("/")[2]: figure for key, figure in figures.items()},
            "scores": file,
            "data_digest": DIGEST,
            "command": f"sweeps score predictions masks --add {name}",
        }
        self.append("outside", **{**entry, **changes})

    def floors(self, split: str = "test") -> None:
        """Otsu and black-hat over the same images."""
        for name, value in (("otsu", 0.08), ("black_hat", 0.3)):
            self.write_scores(self.folder.path / "floors" / f"{name}-{split}.parquet", value, split=split)

    def data(self, **facts: Any) -> None:
        """What is known of the photos."""
        known = {"name": "drawn", "digest": DIGEST, "num_train": 9, "num_val": 12, "num_test": 12, "warnings": []}
        (self.folder.path / "data.json").write_text(json.dumps({**known, "leaked_test": [], **facts}))

    def append(self, kind: str, **fields: Any) -> None:
        """One more event of the ledger."""
        ledger = self.folder.ledger
        seq = ledger.read_bytes().count(b"\n") if ledger.exists() else 0
        with ledger.open("a") as file:
            file.write(json.dumps({"seq": seq, "time_ms": 1_700_000_000_000, "kind": kind, **fields}) + "\n")

    def _next(self, arm: str) -> int:
        self._counts[arm] = self._counts.get(arm, -1) + 1
        return self._counts[arm]

    def _row(self, arm: str, number: int, name: str, value: float | None, **changes: Any) -> dict[str, Any]:
        run = f"20260101-120000-trio-{arm}-{number}"
        row = {
            "trial": name,
            "arm": arm,
            "number": number,
            "outcome": "complete" if value is not None else "pruned",
            "reason": None,
            "suggestion": {"training.learning_rate": 0.001 * (number + 1)},
            "value": value,
            "last_value": value,
            "num_epochs": 10,
            "best_epoch": 8,
            "seed": 0,
            "repeat_of": None,
            "imported_from": None,
            "finalist_of": None,
            "selected_trial": None,
            "run": run,
            "run_dir": str(OUTPUTS / run),
            "fingerprint": f"{arm}-{number}",
            "shape": "s",
            "forecast_bytes": 2**30,
            "needed_bytes": 2**30,
            "excess": -0.5,
            "peaks": {"vram/peak_process_bytes": 2**30 + number},
            "memory_source": "nvml",
            "duration_s": 360.0,
            "metrics": {},
            "threshold": 0.4,
            "images_per_s": 20.0 + number,
            "num_params": 1_000_000,
            "quick_look": False,
            "data_digest": DIGEST,
            "commit": "c0ffee",
        }
        return {**row, **changes}

    def _run(self, row: dict[str, Any]) -> Path:
        return Path(row["run_dir"])


@cache
def _snapshot() -> str:
    study = resolve_study(STUDIES / "trio.yaml", profile="none")
    arms = tuple(replace(study.arms[0], name=name) for name in ARMS)
    return dump_study_snapshot(replace(study, arms=arms))
