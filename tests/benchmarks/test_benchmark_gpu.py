"""On one large GPU: does it wait for data, what do several trials side by side gain, what does determinism cost.

Each is measured in a process of its own, by wall time, on DeepCrack where it is and on drawn photos elsewhere.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(420)]

REPO = Path(__file__).resolve().parents[2]
MOST_WAITING = 0.05  # share of the step
LEAST_GAIN = 3.0  # trials an hour, packed against one after another
NUM_EPOCHS = 4  # the first of which starts the loader processes and is left out
STUDY_S = 35.0  # of launching trials
NUM_PHOTOS = 24  # of a small study

# A small trial: the hybrid of a quick look, 60 steps of 8 crops. Nothing is pruned, so that all cost the same.
SMALL_STUDY = """\
name: small
base: swinv2_hybrid
settings:
  model.encoder_cfg.model_name: swinv2_tiny_window8_256
  model.encoder_cfg.pretrained: false
  model.encoder_cfg.img_size: 128
  model.bottleneck_cfg.atrous_rates: [1, 2, 3]
  training.batch_size: 8
  training.gradient_accumulation_steps: 1
  training.epochs: 3
  training.steps_per_epoch: 20
  evaluation.images_per_epoch: 2
  evaluation.num_overlays: 0
space:
  training.learning_rate: {low: 0.0001, high: 0.01, log: true}
  training.weight_decay: {low: 0.0001, high: 0.1, log: true}
sampler: {name: random}
pruner: {name: none}
budget: {trials: 1000}
"""


@pytest.fixture
def photos(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """DeepCrack, or drawn photos of its size and number in its folders."""
    try:
        folder: Path = request.getfixturevalue("deepcrack")
    except pytest.skip.Exception:
        return drawn_photos(tmp_path / "drawn", num_train=300)
    return folder


@pytest.fixture
def few_photos(photos: Path, tmp_path: Path) -> Path:
    """Some of them, as images/ and masks/."""
    folder = tmp_path / "few"
    for kind, source in (("images", "train_img"), ("masks", "train_lab")):
        (folder / kind).mkdir(parents=True)
        for path in sorted((photos / source).iterdir())[:NUM_PHOTOS]:
            shutil.copy(path, folder / kind)
    return folder


def drawn_photos(folder: Path, *, num_train: int) -> Path:
    """Grey noise with one dark line each."""
    rng = np.random.default_rng(0)
    for split, num_photos in (("train", num_train), ("test", 2)):
        for kind in ("img", "lab"):
            (folder / f"{split}_{kind}").mkdir(parents=True)
        for number in range(num_photos):
            image_HW3 = rng.integers(100, 180, (384, 544, 3), dtype=np.uint8)
            mask_HW = np.zeros((384, 544), np.uint8)
            points = np.stack([np.linspace(0, 543, 9), rng.integers(40, 340, 9)], axis=1).astype(np.int32)
            cv2.polylines(mask_HW, [points.reshape(-1, 1, 2)], isClosed=False, color=255, thickness=4)
            image_HW3[mask_HW > 0] //= 2
            cv2.imwrite(str(folder / f"{split}_img" / f"{split}{number}.jpg"), image_HW3)
            cv2.imwrite(str(folder / f"{split}_lab" / f"{split}{number}.png"), mask_HW)
    return folder


def measured(here: Path, what: str, *arguments: str) -> dict[str, Any]:
    """What a process of its own measured, printed."""
    here.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, __file__, what, *arguments], cwd=here, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for key, value in found.items():
        print(f"{key:>28}: {value:.4g}" if isinstance(value, float) else f"{key:>28}: {value}")
    return found


@pytest.mark.parametrize("name", ["unet_resnet50", "swinv2_hybrid"])
def test_the_gpu_hardly_waits_for_data(name: str, gpu: str, photos: Path, tmp_path: Path) -> None:
    print(f"\n{gpu}")
    assert measured(tmp_path / "run", "waiting", name, str(photos))["waiting_share"] <= MOST_WAITING


def test_trials_side_by_side_are_three_times_as_many_an_hour(gpu: str, few_photos: Path, tmp_path: Path) -> None:
    print(f"\n{gpu}")
    rates = {}
    for jobs in ("1", "auto"):
        found = measured(tmp_path / f"jobs-{jobs}", "study", jobs, str(few_photos))
        assert found["num_failed"] == 0
        rates[jobs] = found["trials_per_hour"]
    print(f"{'gain':>28}: {rates['auto'] / rates['1']:.2f}")
    assert rates["auto"] >= LEAST_GAIN * rates["1"]


@pytest.mark.parametrize("name", ["unet_resnet50", "swinv2_hybrid", "deeplabv3plus_resnet50"])
def test_determinism_is_told_what_it_costs(name: str, gpu: str, tmp_path: Path) -> None:
    print(f"\n{gpu}")
    assert measured(tmp_path / "step", "determinism", name)["deterministic"] > 0


def test_loader_processes_add_up(photos: Path, tmp_path: Path) -> None:
    measured(tmp_path / "loader", "loader", str(photos))


# --- each in a process of its own, without the tests' run-time checks of shapes -------------------------


def waiting(name: str, photos: str) -> dict[str, Any]:
    """A run as `sweeps run` trains it on this machine, its loader watched."""
    from crack_sweeps.data.loader import Loader
    from crack_sweeps.data.open import open_photos
    from crack_sweeps.runs.preparation import Origin, prepare
    from crack_sweeps.runs.training_run import begin_run, proceed
    from crack_sweeps.specs.loading import resolve
    from crack_sweeps.training.device import choose_device
    from crack_sweeps.training.loop import EpochReport, StepReport
    from crack_sweeps.training.nvml import detect_machine

    overrides = ["model.encoder_cfg.pretrained=false", f"training.epochs={NUM_EPOCHS + 1}"]
    resolved = resolve(name, overrides=overrides, profile="auto", machine=detect_machine(), data=Path(photos))
    device = choose_device(resolved.profile)
    opened = open_photos(resolved.experiment.data, root=Path("artifacts"))
    origin = Origin(name, resolved.profile, resolved.quick_look, (), resolved.fingerprint)
    prepared = prepare(resolved.experiment, origin, opened, device=device)
    waits: list[list[float]] = []
    give = Loader.epoch

    def watched(loader: Loader, drawn: Any, batch_size: int) -> Iterator[Any]:
        stream = give(loader, drawn, batch_size)  # it starts filling here
        return clocked(stream)

    def clocked(stream: Iterator[Any]) -> Iterator[Any]:
        waits.append([])
        while True:
            began = time.perf_counter()
            try:
                batch = next(stream)
            except StopIteration:
                return
            waits[-1].append(time.perf_counter() - began)
            yield batch

    Loader.epoch = watched  # type: ignore[method-assign]
    epochs: list[dict[str, float]] = []
    marks = [time.perf_counter()]
    crops = prepared.steps_per_epoch * prepared.experiment.training.effective_batch
    with closing(proceed(prepared, begin_run(prepared), stop=lambda: None, log_model=False)) as updates:
        for update in updates:
            if isinstance(update, StepReport):
                continue
            if isinstance(update, EpochReport):
                marks.append(time.perf_counter())
                train_s = crops / update.metrics["images_per_s"]
                epochs.append({"train": train_s, "validate": update.metrics["epoch_s"] - train_s})
                if len(epochs) == NUM_EPOCHS:
                    break
    walls = np.diff(marks)[1:]
    train_s = [epoch["train"] for epoch in epochs[1:]]
    first_waits = [wait[0] for wait in waits[1:NUM_EPOCHS]]
    later_waits = [sum(wait[1:]) for wait in waits[1:NUM_EPOCHS]]
    return {
        "experiment": name,
        "micro_batch": prepared.experiment.training.batch_size,
        "loader_processes": prepared.experiment.data.num_workers,
        "steps_per_epoch": prepared.steps_per_epoch,
        "images_per_s": crops / statistics.median(train_s),
        "step_ms": 1e3 * statistics.median(train_s) / prepared.steps_per_epoch,
        "waiting_share": (sum(first_waits) + sum(later_waits)) / sum(train_s),
        "of_it_for_first_batches": sum(first_waits) / sum(train_s),
        "epoch_wall_s": float(np.median(walls)),
        "of_it_training": statistics.median(train_s) / float(np.median(walls)),
        "of_it_validation": statistics.median(e["validate"] for e in epochs[1:]) / float(np.median(walls)),
    }


def study(jobs: str, photos: str) -> dict[str, Any]:
    """Trials an hour from the first launch to the last end within the time, the trackers left out."""
    from crack_sweeps import search
    from crack_sweeps.study.updates import Launched, StudyBegan, TrialEnded

    Path("studies").mkdir()
    Path("studies/small.yaml").write_text(SMALL_STUDY)
    search.start_study_mirror = lambda _: None  # type: ignore[assignment]  # both would pay for it alike
    began: float | None = None
    ends: list[float] = []
    failed, at_once, places = 0, 0, set()
    running: set[str] = set()
    updates = search.searching(
        "small",
        data=Path(photos),
        jobs="auto" if jobs == "auto" else int(jobs),
        stop=lambda: "enough" if ends and began is not None and ends[-1] - began > STUDY_S else None,
        notify=lambda text: print(text, file=sys.stderr),
    )
    num_jobs = 0
    with closing(updates):
        for update in updates:
            now = time.perf_counter()
            if isinstance(update, StudyBegan):
                num_jobs = update.jobs
            if isinstance(update, Launched):
                began = began or now
                running.add(update.name)
                at_once = max(at_once, len(running))
                places.add(update.placement.memory_bytes)
            if isinstance(update, TrialEnded):
                running.discard(update.name)
                ends.append(now)
                if update.trial.outcome != "complete":
                    failed += 1
                    print(update.name, update.trial.facts.get("reason"), file=sys.stderr)
    assert began is not None
    return {
        "jobs": num_jobs,
        "at_once": at_once,
        "num_trials": len(ends),
        "num_failed": failed,
        "reserved_gib_each": max(places) / 2**30,
        "seconds": ends[-1] - began,
        "trials_per_hour": 3600 * len(ends) / (ends[-1] - began),
    }


def determinism(name: str) -> dict[str, Any]:
    """Milliseconds of a step of 16 crops of 256 px: as shipped, without determinism, with torch's own upsampling."""
    import torch

    from crack_sweeps.models import interpolation
    from crack_sweeps.models.build import build_model
    from crack_sweeps.runs.preparation import make_deterministic
    from crack_sweeps.specs.loading import resolve
    from crack_sweeps.training.losses import loss_terms
    from crack_sweeps.training.optimiser import build_optimizer

    device = torch.device("cuda", 0)
    experiment = resolve(name, profile="none", overrides=["model.encoder_cfg.pretrained=false"]).experiment

    def step_ms() -> float:
        torch.manual_seed(0)
        model = build_model(experiment.model).to(device, memory_format=torch.channels_last).train()
        optimizer = build_optimizer(model, experiment.training)
        image = torch.rand(16, 3, 256, 256, device=device).contiguous(memory_format=torch.channels_last)
        mask = (image[:, :1] < 0.03).float()

        def one() -> None:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                logits = model(image)
            sum(loss_terms(logits, mask, experiment.training.loss).values()).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return timed_ms(one, torch.cuda.synchronize)

    make_deterministic(True, device)
    found: dict[str, Any] = {"experiment": name, "deterministic": step_ms()}
    ours = interpolation.BilinearUpsample.forward
    interpolation.BilinearUpsample.forward = torch.nn.Upsample.forward  # type: ignore[method-assign, assignment]
    found["with_torchs_upsampling"] = step_ms()
    interpolation.BilinearUpsample.forward = ours  # type: ignore[method-assign]
    make_deterministic(False, device)
    found["not_deterministic"] = step_ms()
    return found


def timed_ms(one: Callable[[], None], synchronise: Callable[[], None]) -> float:
    """Of one call, in the median of turns of four."""
    for _ in range(3):
        one()
    turns = []
    for _ in range(5):
        synchronise()
        began = time.perf_counter()
        for _ in range(4):
            one()
        synchronise()
        turns.append((time.perf_counter() - began) / 4)
    return 1e3 * statistics.median(turns)


def loader(photos: str) -> dict[str, Any]:
    """Crops a second with the whole list of augmentations, by number of loader processes."""
    from crack_sweeps.data.crops import CropDataset, draws
    from crack_sweeps.data.loader import Loader
    from crack_sweeps.data.photos import Photo, ResolvedMaskRule
    from crack_sweeps.specs.yaml import load_yaml
    from crack_sweeps.training.nvml import usable_cpus

    augmentations = load_yaml(REPO / "experiments" / "swinv2_hybrid.yaml")["data"]["transform"]["augmentations"]
    images = sorted((Path(photos) / "train_img").glob("*.jpg"))[:100]
    listed = [Photo(p.stem, p, Path(photos) / "train_lab" / f"{p.stem}.png", "train", p.stem) for p in images]
    found = {}
    for workers in sorted({1, *(n for n in (8, 16) if n <= usable_cpus())}):
        source = CropDataset(
            listed,
            ResolvedMaskRule(crack_values=(255,)),
            crop_px=256,
            crack_crop_fraction=0.7,
            augmentations=augmentations,
            seed=0,
            cache_bytes=1 << 30,
        )
        with Loader(source, num_workers=workers, timeout_s=60.0, pin_memory=False) as batches:
            for _ in batches.epoch(draws(0, 0, len(listed), 160 * workers), 16):  # reads the photos
                pass
            began = time.perf_counter()
            for _ in batches.epoch(draws(0, 1, len(listed), 400 * workers), 16):
                pass
            found[f"crops_per_s_by_{workers}"] = 400 * workers / (time.perf_counter() - began)
    return found


if __name__ == "__main__":
    what = {"waiting": waiting, "study": study, "determinism": determinism, "loader": loader}[sys.argv[1]]
    print(json.dumps(what(*sys.argv[2:])))
