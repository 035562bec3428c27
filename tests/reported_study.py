"""A finished study of three arms, written as coordinator and trials write it, without training anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet
from hand_made_study import LIVING, append, write_environment

from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.evaluation.counts import PixelCounts, count_pixels, stack
from crack_sweeps.evaluation.curve_file import write_curve
from crack_sweeps.evaluation.overlays import write_shared_overlays
from crack_sweeps.evaluation.scores import Evaluation, choose_threshold, score, score_table
from crack_sweeps.runs.directory import OUTPUTS, RunDirectory
from crack_sweeps.specs.loading import dump, flat
from crack_sweeps.specs.study import Choices, Parameter, exists
from crack_sweeps.specs.study_arms import Arm
from crack_sweeps.specs.study_loading import ResolvedStudy, dump_study_snapshot, resolve_study, settle
from crack_sweeps.study.folder import FORMAT, STUDIES, StudyFolder
from crack_sweeps.study.history import Trial
from crack_sweeps.study.ledger import row_of, trial_name

SPEC = """\
name: made
base: unet_small
settings: {training.epochs: 9}
space:
  training.learning_rate: {low: 0.0003, high: 0.03, log: true}
  training.loss.focal_alpha: {choices: [null, 0.25, 0.75]}
  training.loss.focal_gamma: {low: 0.0, high: 3.0}
  training.loss.cldice_weight: {choices: [0.0, 0.3]}
  training.loss.cldice_iterations: {low: 1, high: 9, when: {training.loss.cldice_weight: 0.3}}
  model.decoder_cfg.channels: {choices: [[16, 8, 8, 8], [32, 16, 8, 8]]}
baselines:
  - base: unet_resnet50
    settings: {model.encoder_cfg.pretrained: false}
  - base: deeplabv3plus_resnet50
    settings: {model.encoder_cfg.pretrained: false}
budget: {trials: 12}
memory_budget: 8 GiB
"""
SKILL = {"unet_small": 0.62, "unet_resnet50": 0.6, "deeplabv3plus_resnet50": 0.45}
DIGEST = "d1" * 32
COMMIT = "c0ffee" * 6 + "abcd"
GIB = 1 << 30
RULE = ResolvedMaskRule(crack_values=(255,))


def draw_photos(folder: Path, num_photos: int, size: tuple[int, int]) -> list[Path]:
    """Grey photos with a dark crack each, and beside each its mask."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, height, width = np.random.default_rng(1), *size
    photos = []
    for number in range(num_photos):
        image = rng.integers(120, 180, (height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        points = np.stack([np.linspace(0, width - 1, 6), rng.integers(8, height - 8, 6)], axis=1).astype(np.int32)
        cv2.polylines(mask, [points.reshape(-1, 1, 2)], isClosed=False, color=255, thickness=2)
        image[mask > 0] //= 3
        photos.append(folder / f"p{number:02d}.png")
        cv2.imwrite(str(photos[-1]), image)
        cv2.imwrite(str(folder / f"p{number:02d}_mask.png"), mask)
    return photos


@dataclass
class ReportedStudy:
    """`studies/NAME/` in the working directory.

    Args:
        folder: The study's.
        study: As it was resolved.
        photos: By split.
    """

    folder: StudyFolder
    study: ResolvedStudy
    photos: Mapping[str, Sequence[Photo]]
    rng: np.random.Generator

    @classmethod
    def begun(
        cls,
        *,
        arms: int = 3,
        num_val: int = 12,
        num_test: int = 10,
        size: tuple[int, int] = (64, 96),
        profile: str = "none",
    ) -> ReportedStudy:
        """A study in which nothing has been trained."""
        STUDIES.mkdir(exist_ok=True)
        (STUDIES / "made.yaml").write_text(SPEC)
        study = resolve_study(STUDIES / "made.yaml", profile=profile)
        study = replace(study, arms=study.arms[:arms])
        folder = StudyFolder(STUDIES / "made")
        folder.path.mkdir()
        folder.snapshot.write_text(dump_study_snapshot(study))
        facts = {"format": FORMAT, "space": "a", "rest": "b", "imports_from": None, "began": "2026-01-01T12:00:00+0000"}
        folder.facts_file.write_text(json.dumps({**facts, "memory_budget_bytes": 8 * GIB, "storage": None}))
        data = {"name": "photos", "digest": DIGEST, "num_train": 40, "num_val": num_val, "num_test": num_test}
        (folder.path / "data.json").write_text(json.dumps({**data, "warnings": [], "leaked_test": []}))
        append(folder.events, "created", run="made", experiment="made")
        append(folder.events, "attempt", attempt=1, trials=12, gpu_hours=None, **_told())
        paths = draw_photos(Path("photos"), num_val + num_test, size)
        split = ["val"] * num_val + ["test"] * num_test
        photos = [
            Photo(p.stem, p, p.with_name(f"{p.stem}_mask.png"), s, p.stem) for p, s in zip(paths, split, strict=True)
        ]
        by_split = {name: [photo for photo in photos if photo.split == name] for name in ("val", "test")}
        return cls(folder, study, by_split, np.random.default_rng(0))

    def end(self, status: str = "FINISHED", reason: str | None = None) -> None:
        """The coordinator leaves."""
        append(self.folder.events, "ended", status=status, reason=reason)

    # --- trials ---

    def search(self, num_trials: int = 12, *, scored: bool = True) -> None:
        """Trials of every arm, some of them stopped, rejected or failed."""
        for number in range(num_trials):
            for arm in self.study.arms:
                outcome = {3: "pruned", 5: "rejected", 6: "pruned", 8: "failed", 9: "out_of_memory"}.get(number % 12)
                self.trial(arm, number, outcome or "complete", scored=scored)

    def trial(self, arm: Arm, number: int, outcome: Any, *, scored: bool = True, **facts: Any) -> None:
        """One trial of the search."""
        suggestion = suggest(arm.space, self.rng)
        skill = SKILL[arm.name] - 0.08 * abs(np.log10(suggestion["training.learning_rate"] / 0.003))
        num_epochs = {"complete": 9, "pruned": 3, "failed": 1, "out_of_memory": 0, "rejected": 0}[outcome]
        told = {
            "rejected": {"reason": "needs 9.4 GiB, the budget is 8.0 GiB"},
            "failed": {"reason": "the loss is not finite (NaN) at step 7; <b>nothing</b> & no step was taken"},
            "out_of_memory": {"reason": "out of memory at batch 1, with activation checkpointing"},
            "pruned": {"reason": "0.210 is below the third best of 9"},
        }.get(outcome, {})
        self._run(arm, number, outcome, suggestion, float(skill), num_epochs, scored=scored, **{**told, **facts})

    def finalists(self, seeds: int = 3, *, arms: Sequence[str] | None = None, overlays: bool = True) -> None:
        """The best settings of each arm trained anew, scored on test where there is one; the first draws pictures."""
        for arm in self.study.arms:
            if arms is None or arm.name in arms:
                suggestion = suggest(arm.space, np.random.default_rng(7))
                for number in range(seeds):
                    skill = SKILL[arm.name] + 0.02 * float(self.rng.normal())
                    facts: dict[str, Any] = {"finalist_of": arm.name, "selected_trial": self._name(arm, 0)}
                    self._run(
                        arm.final(),
                        number,
                        "complete",
                        suggestion,
                        skill,
                        9,
                        overlays=overlays and number == 0,
                        **facts,
                    )

    def _name(self, arm: Arm, number: int) -> str:
        return trial_name(self.folder, self.study.arms[0].name, arm.name, number)

    def _run(
        self,
        arm: Arm,
        number: int,
        outcome: Any,
        suggestion: Mapping[str, Any],
        skill: float,
        num_epochs: int,
        *,
        scored: bool = True,
        overlays: bool = False,
        **facts: Any,
    ) -> None:
        run = None
        final = facts.get("finalist_of") is not None
        course = {
            e: round(skill * (1 - 0.6 / e) + 0.01 * float(self.rng.normal()), 4) for e in range(1, num_epochs + 1)
        }
        needed = int((2 + 3 * self.rng.random()) * GIB)
        known: dict[str, Any] = {"seed": number, "needed_bytes": needed, "forecast_bytes": needed - GIB, **facts}
        known["fingerprint"] = f"{arm.base.name}-{'final' if final else number}"
        value = None
        metrics: dict[str, float] = {}
        if outcome != "rejected":
            run = RunDirectory(OUTPUTS / f"20260101-1200{number:02d}-{arm.name}-{self.rng.integers(1 << 24):06x}")
            (run.path / "predictions").mkdir(parents=True)
            known["run"] = run.path.name
            append(
                self.folder.events, "trial", arm=arm.name, number=number, run=run.name, run_dir=str(run.path.absolute())
            )
            threshold = None
            if outcome == "complete":
                metrics, threshold = self._scores(run, skill, final=final, scored=scored, overlays=overlays)
                value = metrics["val/crack_iou"]
            self._write(run, arm, suggestion, known, course, outcome, metrics, threshold)
        trial = Trial(arm.name, number, suggestion, outcome, value, course, -0.5, known)
        append(self.folder.ledger, "trial", **row_of(trial, name=self._name(arm, number), outputs=OUTPUTS))

    def _write(
        self,
        run: RunDirectory,
        arm: Arm,
        suggestion: Mapping[str, Any],
        facts: Mapping[str, Any],
        course: Mapping[int, float],
        outcome: str,
        metrics: Mapping[str, float],
        threshold: float | None,
    ) -> None:
        experiment = settle(arm, {**suggestion, "training.seed": facts["seed"]})
        run.config.write_text(dump(experiment))
        facts_of_study = {"name": "made", "arm": arm.name, "number": facts["seed"], "suggestion": dict(suggestion)}
        write_environment(
            run,
            study={**facts_of_study, "facts": dict(facts)},
            data={"name": "photos", "digest": DIGEST, "warnings": []},
            python="3.11.9",
            platform="Linux-6.1",
            device="cuda",
            device_name="a card of 8 GB",
            cuda="13.0",
            precision="bfloat16",
            commit=COMMIT,
            dirty_diff_sha256=None,
        )
        append(run.events, "created", run=run.name, experiment="made", params=flat(experiment))
        append(run.events, "attempt", attempt=1, resumed_from_step=None, **_told())
        for epoch, value in course.items():
            append(run.events, "epoch", epoch=epoch, step=epoch, metrics={"val/crack_iou": value, "epoch_s": 60.0})
        peak = int(facts["needed_bytes"] * (0.93 + 0.09 * self.rng.random()))
        ended = {"complete": "FINISHED", "pruned": "PRUNED"}.get(outcome, "FAILED")
        append(run.events, "ended", status=ended, reason=facts.get("reason"))
        record = {
            "status": ended,
            "duration_s": 60.0 * len(course),
            "best_epoch": max(course, default=0),
            "num_epochs": len(course),
            "metrics": dict(metrics),
            "threshold": threshold,
            "vram": {"source": "nvml", "vram/peak_process_bytes": peak} if course else {"source": None},
            "images_per_s": 20 + 30 * float(self.rng.random()) if course else None,
            "num_params": 7_000_000,
            "quick_look": self.study.quick_look,
            "data_digest": DIGEST,
            "commit": COMMIT,
        }
        run.metrics.write_text(json.dumps(record))

    # --- scores ---

    def _scores(
        self, run: RunDirectory, skill: float, *, final: bool, scored: bool, overlays: bool
    ) -> tuple[dict[str, float], float]:
        if not scored:
            return {"val/crack_iou": skill, "val/crack_f1": 2 * skill / (1 + skill)}, 0.5
        predict = predictor(skill, self.rng)
        on = {split: _evaluated(self.photos[split], predict) for split in (("val", "test") if final else ("val",))}
        threshold = choose_threshold(on["val"].counts)
        metrics: dict[str, float] = {}
        for split, evaluation in on.items():
            if not len(evaluation.counts):
                continue
            metrics |= {f"{split}/{name}": value for name, value in score(evaluation, threshold).items()}
            table, curve = (run.scores, run.curve) if split == "val" else (run.test_scores, run.test_curve)
            pyarrow.parquet.write_table(score_table(evaluation, threshold), table)
            write_curve(evaluation.counts, threshold, curve)
        if overlays:
            write_shared_overlays(predict, self.photos["val"][:5], RULE, threshold, run.predictions)
        return metrics, threshold

    def floors(self) -> None:
        """What needs no learning."""
        (self.folder.path / "floors").mkdir()
        for name, skill in (("otsu", 0.0), ("black_hat", 0.15)):
            for split, photos in self.photos.items():
                if photos:
                    table = score_table(_evaluated(photos, predictor(skill, self.rng)), 0.5)
                    pyarrow.parquet.write_table(table, self.folder.path / "floors" / f"{name}-{split}.parquet")

    def data(self, **changes: Any) -> None:
        """More that is known of the photos."""
        path = self.folder.path / "data.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def suggest(space: Mapping[str, Parameter], rng: np.random.Generator) -> dict[str, Any]:
    """Values of a space, drawn."""
    drawn: dict[str, Any] = {}
    for key, parameter in space.items():
        if not exists(parameter, drawn):
            continue
        if isinstance(parameter, Choices):
            choice = parameter.choices[int(rng.integers(len(parameter.choices)))]
            drawn[key] = list(choice) if isinstance(choice, tuple) else choice
        elif parameter.log:
            drawn[key] = float(np.exp(rng.uniform(np.log(parameter.low), np.log(parameter.high))))
        else:
            value = rng.uniform(parameter.low, parameter.high)
            drawn[key] = int(value) if parameter.whole else round(float(value), 4)
    return drawn


def predictor(skill: float, rng: np.random.Generator) -> Any:
    """Something that finds cracks the better the more skilled it is, by looking for what is dark."""
    seed = int(rng.integers(1 << 31))

    def predict(image_HW3: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng([seed, int(image_HW3[:8, :8].sum())])
        dark = 1 - cv2.GaussianBlur(image_HW3[..., 0].astype(np.float32) / 255, (0, 0), 1.0)
        blotches = cv2.GaussianBlur(noise.normal(size=dark.shape).astype(np.float32), (0, 0), 2.5)
        wrong = blotches / (blotches.std() + 1e-9) * (0.34 - 0.4 * skill)
        return np.clip(1 / (1 + np.exp(-(dark - 0.55 + wrong) * 14)), 0, 1).astype(np.float32)

    return predict


def _evaluated(photos: Sequence[Photo], predict: Any) -> Evaluation:
    counts: list[PixelCounts] = []
    for photo in photos:
        image = cv2.imread(str(photo.image))
        mask = (cv2.imread(str(photo.mask), cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8)
        counts.append(count_pixels(predict(image[..., ::-1]), mask))
    return Evaluation(tuple(p.name for p in photos), tuple(p.group for p in photos), stack(counts))


def _told() -> dict[str, Any]:
    return {"pid": LIVING.pid, "process_started": LIVING.started, "host": LIVING.host}
