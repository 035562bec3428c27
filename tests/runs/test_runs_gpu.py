"""On a real GPU a run is measured by allocator and driver, survives its memory, and resumes bit for bit."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from crack_sweeps.data.open import open_photos
from crack_sweeps.runs.directory import RunDirectory
from crack_sweeps.runs.preparation import Origin, Prepared, prepare
from crack_sweeps.runs.record import RunRecord
from crack_sweeps.runs.training_run import Ended, Halt, Update, begin_run, proceed
from crack_sweeps.specs.loading import resolve
from crack_sweeps.training.checkpoints import load
from crack_sweeps.training.device import choose_device
from crack_sweeps.training.forecast import forecast
from crack_sweeps.training.loop import EpochReport, Notice, StepReport

pytestmark = pytest.mark.gpu

MIB = 1 << 20
HYBRID = [
    "model.encoder_cfg.model_name=swinv2_tiny_window8_256",
    "model.encoder_cfg.pretrained=false",
    "model.encoder_cfg.img_size=64",
    "model.encoder_cfg.drop_path_rate=0.1",
    "model.bottleneck_cfg.atrous_rates=[1]",
    "training.batch_size=4",
    "training.gradient_accumulation_steps=2",
    "training.epochs=2",
    "training.steps_per_epoch=3",
    "training.ema_decay=0.9",
    "evaluation.num_overlays=0",
    "data.num_workers=0",
]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a run asks of the whole process is taken back; other tests are not deterministic on purpose."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_per_process_memory_fraction(1.0)
    gc.collect()
    torch.cuda.empty_cache()


def prepared(photos: Path, settings: list[str], experiment: str = "swinv2_hybrid", **changes: object) -> Prepared:
    written = {text.partition("=")[0]: text for text in settings}
    written |= {key.replace("__", "."): f"{key.replace('__', '.')}={value}" for key, value in changes.items()}
    resolved = resolve(experiment, overrides=list(written.values()), profile="none", data=photos)
    device = choose_device("gpu-8gb")
    opened = open_photos(resolved.experiment.data, root=Path("artifacts"))
    return prepare(
        resolved.experiment, Origin(experiment, "gpu-8gb", False, (), resolved.fingerprint), opened, device=device
    )


def go_on(made: Prepared, run: RunDirectory, stop: Callable[[Update], bool] = lambda _: False) -> list[Update]:
    """All updates until the end, or until `stop` says of one that it is enough."""
    seen: list[Update] = []

    def halt() -> Halt | None:
        return Halt("KILLED", "enough") if seen and stop(seen[-1]) else None

    with closing(proceed(made, run, stop=halt, log_model=False)) as updates:
        for update in updates:
            seen.append(update)
    return seen


def record(updates: list[Update]) -> RunRecord:
    last = updates[-1]
    assert isinstance(last, Ended)
    return last.record


def test_a_run_on_a_gpu_is_finished_and_its_memory_is_told_by_allocator_and_driver(here: Path, photos: Path) -> None:
    made = prepared(photos, HYBRID)
    run = begin_run(made)
    ended = record(go_on(made, run))
    assert ended.status == "FINISHED"
    assert json.loads(run.environment.read_bytes())["device_name"] == torch.cuda.get_device_name(0)
    told = json.loads(run.vram.read_bytes())
    peaks = told["peaks"]
    assert 0 < peaks["vram/peak_allocated_bytes"] <= peaks["vram/peak_reserved_bytes"]
    if told["source"] == "torch+nvml":
        assert peaks["vram/peak_process_bytes"] > peaks["vram/peak_reserved_bytes"]
    assert told["forecast"]["total_bytes"] == made.forecast.total_bytes


def test_a_float16_run_is_finished_though_gradients_may_overflow_until_the_scale_suits_them(
    here: Path, photos: Path
) -> None:
    made = prepared(photos, HYBRID, training__amp_dtype="float16", training__epochs=6)
    assert made.amp_dtype is torch.float16
    updates = go_on(made, begin_run(made))
    assert record(updates).status == "FINISHED"
    told = [update.metrics for update in updates if isinstance(update, EpochReport)]
    assert all(math.isfinite(value) for metrics in told for value in metrics.values())
    assert told[-1]["amp/skipped_steps"] < 6 * 3
    assert told[-1]["train/gradient_norm"] > 0


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("experiment", ["swinv2_hybrid", "unet_small"])
def test_stopped_anywhere_and_resumed_the_weights_are_the_same_bit_for_bit(
    experiment: str, workers: int, here: Path, photos: Path, tiny: list[str]
) -> None:
    settings = HYBRID if experiment == "swinv2_hybrid" else [*tiny, "training.learning_rate=0.01"]
    written = [text for text in settings if not text.startswith("data.num_workers")]
    written.append(f"data.num_workers={workers}")
    whole = begin_run(prepared(photos, written, experiment))
    go_on(prepared(photos, written, experiment), whole)
    again = begin_run(prepared(photos, written, experiment))
    for at in (2, 4):  # in the middle of the first epoch, and of the second
        go_on(prepared(photos, written, experiment), again, lambda u, at=at: isinstance(u, StepReport) and u.step == at)
        assert again.status() == "KILLED"
    assert record(go_on(prepared(photos, written, experiment), again)).status == "FINISHED"
    one, other = (load(run.checkpoints / "latest_model.pth")["model"] for run in (whole, again))
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_out_of_memory_halves_the_batch_and_the_next_run_holds_what_it_would_have_held(
    here: Path, photos: Path
) -> None:
    def peak(made: Prepared) -> int:
        gc.collect()
        torch.cuda.empty_cache()
        epochs = [update for update in go_on(made, begin_run(made)) if isinstance(update, EpochReport)]
        return int(epochs[-1].metrics["vram/peak_allocated_bytes"])

    before = peak(prepared(photos, HYBRID))
    gc.collect()  # the last run's model, or what is reserved now would be free later
    torch.cuda.empty_cache()
    reserved_bytes = torch.cuda.memory_reserved()  # workspaces
    large = prepared(photos, HYBRID, training__batch_size=128, training__gradient_accumulation_steps=1)
    needed = {size: forecast(large.experiment, batch_size=size).total_bytes for size in (64, 96, 128)}
    assert needed[64] + 200 * MIB < needed[96] < needed[128] - 200 * MIB  # neither workspaces nor fragments decide
    room = reserved_bytes + needed[96]
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    run = begin_run(large)
    updates = go_on(large, run)
    notices = [update.text for update in updates if isinstance(update, Notice)]
    assert notices, record(updates)
    assert "micro-batch 128 -> 64, accumulation 2, effective batch still 128" in notices[0]
    assert record(updates).status == "FINISHED"
    torch.cuda.set_per_process_memory_fraction(1.0)
    del large, updates
    assert abs(peak(prepared(photos, HYBRID)) / before - 1) <= 0.01
