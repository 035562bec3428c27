"""Images a second of our loader and loop, against a plain segmentation-models-pytorch + Lightning script.

The same network (the U-Nets of `unet_small` and `unet_resnet50`, read from their specs), batch 8, 128 px crops at
native resolution, the augmentations of the shipped hybrid, no loader processes, the precision that this machine
resolves to, AdamW, gradient clipping, the same photos (DeepCrack's first 40, or drawn noise of that size). The plain
script is what a person who knows both libraries writes: a Dataset that reads the whole photo and its mask with OpenCV
for each item, as everybody does, one albumentations pipeline from RandomCrop to ToTensorV2, a LightningModule with the
library's Focal and Dice losses. Whatever Lightning can do without is off - logger, checkpoints, progress bar, metrics -
while ours has its figures, its reports and the search for cracks on.

What differs is therefore: decoded photos are kept, the model runs channels-last, AdamW is fused, and the loop is bare.
With the small network most of the difference is reading photos, with the large one it is the convolutions. The first
segments, in which ours reads its photos for the first time, count as warm-up.

Lightning drives and ours takes its turn in a callback: a few steps each, many times, within one process, so that both
meet the same machine. The figure is the median over pairs of the ratio of CPU seconds on one thread; on a machine with
nothing else to do these are wall seconds.

On a GPU it is the experiment as it stands: 256 px crops, 16 at once, 8 loader processes each, bfloat16; ours with
deterministic algorithms, as `sweeps run` trains, and the script without, as Lightning does. Turns are wall seconds of
the steps that follow once the batches are used up which the loader processes made while the other had its turn.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[2]
BUDGET, GPU_BUDGET = 1.0, 1.3
NUM_PHOTOS = 40
FILES = list[tuple[Path, Path]]


@dataclass(frozen=True)
class Setup:
    """One comparison: what both train on, and how they take turns."""

    name: str
    device: str
    profile: str
    batch: int
    side_px: int
    num_workers: int
    untimed_steps: int  # at the beginning of each turn
    timed_steps: int
    num_warm_up: int  # pairs
    num_pairs: int

    @property
    def turn_steps(self) -> int:
        return self.untimed_steps + self.timed_steps

    @property
    def total_steps(self) -> int:
        return self.turn_steps * (self.num_warm_up + self.num_pairs)


ON_CPU = {
    "unet_small": Setup("unet_small", "cpu", "cpu", 8, 128, 0, 0, 6, 1, 12),
    "unet_resnet50": Setup("unet_resnet50", "cpu", "cpu", 8, 128, 0, 0, 2, 1, 8),
}
ON_GPU = Setup("unet_resnet50", "cuda", "none", 16, 256, 8, 24, 40, 1, 5)


@pytest.mark.benchmark
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ON_CPU)
def test_training_gives_at_least_the_images_a_second_of_a_plain_lightning_script(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    assert measured_apart(name, "cpu", request, tmp_path)["median_ratio"] >= BUDGET


@pytest.mark.benchmark
@pytest.mark.timeout(300)
def test_on_a_gpu_it_gives_a_third_more(gpu: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    print(f"\n{gpu}")
    assert measured_apart(ON_GPU.name, "cuda", request, tmp_path)["median_ratio"] >= GPU_BUDGET


def measured_apart(name: str, device: str, request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What a process of its own measures, printed."""
    pytest.importorskip("lightning", reason="uv sync --group bench")
    try:
        folder: Path = request.getfixturevalue("deepcrack")
    except pytest.skip.Exception:
        folder = made_photos(tmp_path)
    command = [sys.executable, __file__, name, str(folder), device]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for key, value in measured.items():
        print(f"{key:>24}: {value:.4g}" if isinstance(value, float) else f"{key:>24}: {value}")
    return measured


def made_photos(folder: Path) -> Path:
    """Noise of DeepCrack's size in its folders, which decodes and augments at the price of any photo."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("train_img", "train_lab"):
        (folder / name).mkdir()
    for number in range(NUM_PHOTOS):
        image_HW3 = rng.integers(0, 256, (384, 544, 3), dtype=np.uint8)
        Image.fromarray(image_HW3).save(folder / "train_img" / f"{number}.jpg")
        mask_HW = (rng.random((384, 544)) < 0.03).astype(np.uint8) * np.uint8(255)
        Image.fromarray(mask_HW).save(folder / "train_lab" / f"{number}.png")
    return folder


# --- in a process of its own, without the tests' run-time checks of shapes -------------------------


def measure(setup: Setup, folder: Path) -> dict[str, Any]:
    """Seconds of both, in pairs of turns: of the processor on a CPU, by the clock on a GPU."""
    import cv2
    import torch

    from crack_sweeps.specs.loading import resolve
    from crack_sweeps.specs.yaml import load_yaml
    from crack_sweeps.training.precision import resolve_amp

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    augmentations = load_yaml(REPO / "experiments" / "swinv2_hybrid.yaml")["data"]["transform"]["augmentations"]
    overrides = [f"data.crop_px={setup.side_px}", f"training.batch_size={setup.batch}"]
    overrides += ["training.gradient_accumulation_steps=1", "model.encoder_cfg.pretrained=false"]
    experiment = resolve(setup.name, profile=setup.profile, overrides=overrides).experiment
    amp_dtype = resolve_amp(experiment.training, torch.device(setup.device))
    images = sorted((folder / "train_img").glob("*.jpg"))[:NUM_PHOTOS]
    files = [(image, folder / "train_lab" / f"{image.stem}.png") for image in images]

    state, loader, reports = our_training(setup, experiment, files, augmentations, amp_dtype)
    plain, plain_loader = plain_script(setup, experiment, files, augmentations)
    assert num_parameters(plain) == num_parameters(state.model)

    def our_steps(num_steps: int) -> None:
        for _ in range(num_steps):
            next(reports)

    with loader:
        seconds = take_turns(setup, plain, plain_loader, experiment.training, amp_dtype, our_steps)
    assert len(seconds) == setup.num_warm_up + setup.num_pairs
    pairs, crops = seconds[setup.num_warm_up :], setup.timed_steps * setup.batch
    return {
        "experiment": setup.name,
        "precision": str(amp_dtype or torch.float32),
        "num_pairs": len(pairs),
        "our_images_per_s": crops / statistics.median(ours for ours, _ in pairs),
        "plain_images_per_s": crops / statistics.median(plain for _, plain in pairs),
        "median_ratio": statistics.median(plain / ours for ours, plain in pairs),
        "lowest_ratio": min(plain / ours for ours, plain in pairs),
        "highest_ratio": max(plain / ours for ours, plain in pairs),
    }


def num_parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def our_training(
    setup: Setup, experiment: Any, files: FILES, augmentations: list[str], amp_dtype: Any
) -> tuple[Any, Any, Iterator[Any]]:
    """State, loader and loop as `sweeps run` puts them together."""
    import torch

    from crack_sweeps.data.crops import CropDataset, draws
    from crack_sweeps.data.loader import Loader
    from crack_sweeps.data.photos import Photo, ResolvedMaskRule
    from crack_sweeps.models.build import build_model
    from crack_sweeps.training.loop import TrainingState, train

    training, device = experiment.training, torch.device(setup.device)
    dataset = CropDataset(
        [Photo(image.stem, image, mask, "train", image.stem) for image, mask in files],
        ResolvedMaskRule(crack_values=(255,)),
        crop_px=setup.side_px,
        crack_crop_fraction=experiment.data.crack_crop_fraction,
        augmentations=augmentations,
        seed=0,
        cache_bytes=int(experiment.data.cache_gib * 2**30),
    )
    loader = Loader(dataset, num_workers=setup.num_workers, timeout_s=60.0, pin_memory=device.type == "cuda")
    num_steps = setup.total_steps + 1  # so that the epoch is not validated
    torch.manual_seed(0)
    model = build_model(experiment.model).to(device)
    if training.channels_last:
        model.to(memory_format=torch.channels_last)
    state = TrainingState(model, training, device=device, amp_dtype=amp_dtype, steps_per_epoch=num_steps)

    def batches(epoch: int, first_step: int, micro_batch: int) -> Iterator[Any]:
        return loader.epoch(
            draws(0, epoch, len(files), num_steps * setup.batch)[first_step * setup.batch :], micro_batch
        )

    return state, loader, train(state, batches, lambda _: {"val/crack_iou": 0.0})


def plain_script(setup: Setup, experiment: Any, files: FILES, augmentations: list[str]) -> tuple[Any, Any]:
    """The script's module and loader, as its author would write them."""
    import albumentations as A
    import cv2
    import lightning as L
    import segmentation_models_pytorch as smp
    import torch
    from torch.utils.data import DataLoader, Dataset

    encoder, decoder, training = experiment.model.encoder_cfg, experiment.model.decoder_cfg, experiment.training

    class Cracks(Dataset[Any]):
        def __init__(self) -> None:
            listed = [eval(text, {"A": A, "cv2": cv2}) for text in augmentations]  # written in our own repository
            self.transform = A.Compose([A.RandomCrop(setup.side_px, setup.side_px), *listed, A.ToTensorV2()])

        def __len__(self) -> int:
            return setup.total_steps * setup.batch

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            image_file, mask_file = files[index % len(files)]
            image_HW3 = cv2.cvtColor(cv2.imread(str(image_file)), cv2.COLOR_BGR2RGB)
            mask_HW = (cv2.imread(str(mask_file), cv2.IMREAD_GRAYSCALE) > 127).astype(np.uint8)
            both = self.transform(image=image_HW3, mask=mask_HW)
            return both["image"], both["mask"][None]

    class Plain(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = smp.Unet(
                f"tu-{encoder.model_name}",
                encoder_weights=None,
                encoder_depth=encoder.depth,
                decoder_channels=decoder.channels or (256, 128, 64, 32, 16),
                classes=1,
            )
            self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
            self.focal, self.dice = smp.losses.FocalLoss("binary"), smp.losses.DiceLoss("binary")

        def training_step(self, batch: Any, _: int) -> Any:
            image_B3HW, mask_B1HW = batch
            logits_B1HW = self.model((image_B3HW / 255 - self.mean) / self.std)
            return 0.6 * self.focal(logits_B1HW, mask_B1HW) + 0.4 * self.dice(logits_B1HW, mask_B1HW.float())

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=training.learning_rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, setup.total_steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    on_gpu = setup.device == "cuda"
    return Plain(), DataLoader(
        Cracks(), batch_size=setup.batch, shuffle=True, num_workers=setup.num_workers, pin_memory=on_gpu
    )


def take_turns(
    setup: Setup, plain: Any, loader: Any, training: Any, amp_dtype: Any, our_steps: Callable[[int], None]
) -> list[tuple[float, float]]:
    """Runs the script; after each of its turns ours takes its own. Seconds of ours and of the script's."""
    import lightning as L
    import torch

    from crack_sweeps.runs.preparation import make_deterministic

    pairs: list[tuple[float, float]] = []
    on_gpu = setup.device == "cuda"

    def now() -> float:
        if not on_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def our_turn() -> float:
        if on_gpu:
            make_deterministic(True, torch.device(setup.device))
        our_steps(setup.untimed_steps)
        began = now()
        our_steps(setup.timed_steps)
        seconds = now() - began
        if on_gpu:
            torch.use_deterministic_algorithms(False)
        return seconds

    class Turns(L.Callback):
        def on_train_start(self, *_: Any) -> None:
            self.began = now()

        def on_train_batch_end(self, _trainer: Any, _module: Any, _outputs: Any, _batch: Any, index: int) -> None:
            done = (index + 1) % setup.turn_steps
            if done == 0:
                seconds = now() - self.began
                pairs.append((our_turn(), seconds))
            if done == setup.untimed_steps:
                self.began = now()

    trainer = L.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        precision="bf16-mixed" if amp_dtype is torch.bfloat16 else "32-true",
        max_epochs=1,
        gradient_clip_val=training.gradient_clip_norm,
        callbacks=[Turns()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(plain, loader)
    return pairs


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Lightning suggests loader processes
    asked = ON_GPU if sys.argv[3] == "cuda" else ON_CPU[sys.argv[1]]
    print(json.dumps(measure(asked, Path(sys.argv[2]))))
