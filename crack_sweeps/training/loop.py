"""The training loop, to be read from top to bottom: it yields what happened, and the caller decides what follows."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crack_sweeps.errors import NotFiniteError, OutOfMemory
from crack_sweeps.models.segmenter import Segmenter
from crack_sweeps.specs.experiment import Training
from crack_sweeps.training.ema import WeightAverage
from crack_sweeps.training.losses import loss_terms
from crack_sweeps.training.optimiser import build_optimizer, learning_rate_factor

Batch = tuple[Tensor, Tensor]  # image_B3HW and mask_B1HW, uint8
Batches = Callable[[int, int, int], Iterator[Batch]]  # (epoch from 0, first step of it to give, micro-batch)
Validate = Callable[[nn.Module], Mapping[str, float]]
OBJECTIVE = "val/crack_iou"


@dataclass
class Progress:
    """How far a training is: plain values, stored in each checkpoint."""

    epoch: int = 0  # epochs that are complete
    step_in_epoch: int = 0  # optimizer steps done in the epoch under way
    sums: dict[str, float] = field(default_factory=dict)  # of losses and gradient norm over those steps
    epoch_seconds: float = 0.0  # spent on those steps
    best_score: float | None = None
    best_epoch: int = 0
    stale_epochs: int = 0  # epochs since the best one
    micro_batch: int = 1
    activation_checkpointing: bool = False
    skipped_steps: int = 0  # fp16 steps that the scaler left out
    seconds: float = 0.0  # spent training and validating the complete epochs, over all attempts
    last_report: dict[str, Any] | None = None  # of the last complete epoch, so that a crash cannot lose it


@dataclass(frozen=True)
class StepReport:
    """One optimizer step was taken."""

    epoch: int  # from 1
    step: int  # from 1, over the whole training
    loss: float


@dataclass(frozen=True)
class Notice:
    """Something that the person should know; the training goes on."""

    text: str


@dataclass(frozen=True)
class EpochReport:
    """One epoch is complete and validated. `metrics` are named as MLflow shows them."""

    epoch: int  # from 1
    step: int
    metrics: dict[str, float]
    is_best: bool


Report = StepReport | Notice | EpochReport


class TrainingState:
    """Everything that decides how a training goes on; what `state_dict` holds makes resuming bit-exact.

    Args:
        model: The network, on its device.
        training: The experiment's `training`.
        device: Where the model is.
        amp_dtype: Type of automatic mixed precision; None is float32.
        steps_per_epoch: Optimizer steps in an epoch.
    """

    def __init__(
        self,
        model: Segmenter,
        training: Training,
        *,
        device: torch.device,
        amp_dtype: torch.dtype | None,
        steps_per_epoch: int,
    ) -> None:
        self.model = model
        self.training = training
        self.device = device
        self.amp_dtype = amp_dtype
        self.steps_per_epoch = steps_per_epoch
        self.optimizer = build_optimizer(model, training)
        self.parameters = list(model.parameters())  # once: to find them takes a hundredth of a step on a fast GPU
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
        self.average = WeightAverage(model, training.ema_decay) if training.ema_decay is not None else None
        self.progress = Progress(
            micro_batch=training.batch_size, activation_checkpointing=training.activation_checkpointing
        )
        model.set_activation_checkpointing(training.activation_checkpointing)

    @property
    def step(self) -> int:
        """Optimizer steps taken so far."""
        return self.progress.epoch * self.steps_per_epoch + self.progress.step_in_epoch

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimizer step; with `micro_batch` it always makes the effective batch."""
        return self.training.effective_batch // self.progress.micro_batch

    @property
    def out_of_patience(self) -> bool:
        """Whether validation has not got better for as long as the experiment allows."""
        patience = self.training.early_stopping_patience
        return patience is not None and self.progress.stale_epochs >= patience

    @property
    def has_batch_norm(self) -> bool:
        """Whether the micro-batch changes what the model computes in training."""
        return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules())

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Inside, the model holds the weights that count: averaged where averaging is on."""
        if self.average is None:
            yield
        else:
            with self.average.swapped_in(self.model):
                yield

    def state_dict(self) -> dict[str, Any]:
        """All of it, as tensors and plain values (readable with `weights_only=True`)."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
            "random": _random_state(self.device),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a stored moment, bit for bit."""
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        self.model.set_activation_checkpointing(self.progress.activation_checkpointing)
        _restore_random_state(state["random"], self.device)


def train(state: TrainingState, batches: Batches, validate: Validate) -> Iterator[Report]:
    """Train until the last epoch or until validation stops getting better.

    At each yield the state is whole: the caller may store it, leave the loop, and go on from the stored one later.

    Args:
        state: Where to begin; a fresh one, or one that a checkpoint was loaded into.
        batches: Gives the micro-batches of an epoch from a step on.
        validate: Scores the model as it is; must hold `val/crack_iou`, and leaves random numbers alone.

    Raises:
        NotFiniteError: Loss or gradient is NaN or infinite; the step was not taken.
        OutOfMemory: Not even the smallest micro-batch with activation checkpointing fits.
    """
    training, progress = state.training, state.progress
    factor_at = learning_rate_factor(training, training.epochs * state.steps_per_epoch)
    forward: Callable[[Tensor], Tensor] = torch.compile(state.model) if training.compile else state.model

    upcoming: Iterator[Batch] | None = None  # asked for before validation, so that loader processes work meanwhile
    while progress.epoch < training.epochs and not state.out_of_patience:
        state.model.train()
        clock = time.perf_counter()
        stream = upcoming or batches(progress.epoch, progress.step_in_epoch, progress.micro_batch)
        while progress.step_in_epoch < state.steps_per_epoch:
            for group in state.optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor_at(state.step)
            random_before = _torch_random_state(state.device)
            try:
                figures = _accumulate_gradients(state, forward, stream)
            except torch.OutOfMemoryError:
                figures = None  # dealt with below, where the traceback no longer holds on to memory
            if figures is None:
                yield _shrink(state)
                _restore_torch_random_state(random_before, state.device)
                stream = batches(progress.epoch, progress.step_in_epoch, progress.micro_batch)
                continue
            values = _step_unless_not_finite(figures, state)

            progress.step_in_epoch += 1
            for name, value in values.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
            progress.epoch_seconds += time.perf_counter() - clock
            yield StepReport(epoch=progress.epoch + 1, step=state.step, loss=values["train/loss"])
            clock = time.perf_counter()
        is_last = progress.epoch + 1 == training.epochs
        upcoming = None if is_last else batches(progress.epoch + 1, 0, progress.micro_batch)
        yield _close_epoch(state, validate)


def _accumulate_gradients(
    state: TrainingState, forward: Callable[[Tensor], Tensor], stream: Iterator[Batch]
) -> dict[str, Tensor]:
    """One effective batch forward and backward; its mean losses and the gradient's norm, still on the device."""
    training, device = state.training, state.device
    state.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for _ in range(state.accumulation):
        image_B3HW, mask_B1HW = next(stream)
        x_B3HW = image_B3HW.to(device, non_blocking=True).float().div_(255)
        if training.channels_last:
            x_B3HW = x_B3HW.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=state.amp_dtype, enabled=state.amp_dtype is not None):
            logits_B1HW = forward(x_B3HW)
        terms = loss_terms(logits_B1HW, mask_B1HW.to(device, non_blocking=True).float(), training.loss)
        loss = torch.stack(list(terms.values())).sum()
        mean_loss = loss / state.accumulation if state.accumulation > 1 else loss  # each launch costs a thousandth
        torch.autograd.backward(state.scaler.scale(mean_loss))
        for name, value in (("loss", loss), *terms.items()):
            share = value.detach() / state.accumulation if state.accumulation > 1 else value.detach()
            sums[f"train/{name}"] = sums[f"train/{name}"] + share if f"train/{name}" in sums else share
    state.scaler.unscale_(state.optimizer)
    limit = training.gradient_clip_norm if training.gradient_clip_norm is not None else math.inf
    sums["train/gradient_norm"] = nn.utils.clip_grad_norm_(state.parameters, limit)
    return sums


def _step_unless_not_finite(figures: Mapping[str, Tensor], state: TrainingState) -> dict[str, float]:
    """Read the figures and take the step, unless one of them is not finite.

    A GPU is given the step before the figures are read, with a flag that leaves it out if need be: reading waits for
    the backward pass, and until the next forward pass is queued there would be nothing for the GPU to do. For the same
    reason the average follows at once; should the step have been left out, it came nearer to weights that did not
    change, in a training that is over.
    """
    stacked = torch.stack(list(figures.values()))
    if state.device.type != "cuda" or state.scaler.is_enabled() or not state.optimizer.defaults["fused"]:
        values = dict(zip(figures, stacked.tolist(), strict=True))
        _refuse_not_finite(values, state)
        _take_step(state)
        return values
    copied = stacked.to("cpu", non_blocking=True)
    has_arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    has_arrived.record()
    _queue_step_if_finite(state.optimizer, stacked)
    if state.average is not None:
        state.average.update(state.model)
    has_arrived.synchronize()
    values = dict(zip(figures, copied.tolist(), strict=True))
    _refuse_not_finite(values, state)
    return values


def _queue_step_if_finite(optimizer: torch.optim.AdamW, figures: Tensor) -> None:
    """A step that takes itself back on the device, by the flag that fused optimizers have for loss scaling."""
    # 1 if a figure is not finite, as infinity times 0 is NaN, else 0; in three launches where isfinite() takes seven.
    optimizer.found_inf = (figures * 0).sum().nan_to_num(nan=1.0)  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


def _refuse_not_finite(values: Mapping[str, float], state: TrainingState) -> None:
    """Stop before the step. With loss scaling an infinite gradient is the scaler's affair: it leaves the step out."""
    for name, value in values.items():
        if math.isfinite(value) or (name == "train/gradient_norm" and state.scaler.is_enabled()):
            continue
        raise NotFiniteError(
            f"{name} is {value} in epoch {state.progress.epoch + 1}, step {state.step + 1}; the step was not taken",
            hint="try a lower `training.learning_rate`, a longer `training.warmup_fraction`, or training.use_amp=false",
        )


def _take_step(state: TrainingState) -> None:
    scale = state.scaler.get_scale()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.scaler.is_enabled() and state.scaler.get_scale() < scale:
        state.progress.skipped_steps += 1  # its gradient overflowed, so the weights did not change
    elif state.average is not None:
        state.average.update(state.model)


def _shrink(state: TrainingState) -> Notice:
    """Out of memory: halve the micro-batch at constant effective batch; at the smallest, recompute activations."""
    progress, effective = state.progress, state.training.effective_batch
    state.optimizer.zero_grad(set_to_none=True)
    if state.device.type == "cuda":
        torch.cuda.empty_cache()
    halved = range(state.model.min_batch_size, progress.micro_batch // 2 + 1)
    smaller = [size for size in halved if effective % size == 0]
    where = f"out of memory in epoch {progress.epoch + 1}, step {state.step + 1}"
    if smaller:
        before, progress.micro_batch = progress.micro_batch, smaller[-1]
        note = " (its BatchNorm statistics now come from fewer crops)" if state.has_batch_norm else ""
        return Notice(
            f"{where}: micro-batch {before} -> {progress.micro_batch}, accumulation {state.accumulation}, "
            f"effective batch still {effective}{note}"
        )
    if not progress.activation_checkpointing:
        progress.activation_checkpointing = True
        state.model.set_activation_checkpointing(True)
        return Notice(
            f"{where}: micro-batch is {progress.micro_batch} already, so activations are recomputed from now on"
        )
    raise OutOfMemory(
        f"{where}, with micro-batch {progress.micro_batch} and activation checkpointing",
        hint="choose a smaller `data.crop_px`, encoder or `model.decoder_cfg.width_multiplier`",
    )


def _close_epoch(state: TrainingState, validate: Validate) -> EpochReport:
    """Validate the weights that count, compare with the best, and begin the next epoch's books."""
    progress, training = state.progress, state.training
    began = time.perf_counter()
    with state.evaluated_weights():
        scores = dict(validate(state.model))
    score = scores[OBJECTIVE]
    if not math.isfinite(score):
        raise NotFiniteError(
            f"{OBJECTIVE} is {score} after epoch {progress.epoch + 1}", hint="look at logs/ of the run"
        )
    crops = training.effective_batch * state.steps_per_epoch
    is_best = progress.best_score is None or score > progress.best_score
    metrics = {name: total / state.steps_per_epoch for name, total in progress.sums.items()}
    metrics |= scores
    metrics |= {
        "lr": state.optimizer.param_groups[-1]["lr"],
        "images_per_s": crops / progress.epoch_seconds,
        "epoch_s": progress.epoch_seconds + time.perf_counter() - began,
    }
    if state.scaler.is_enabled():
        metrics |= {"amp/scale": state.scaler.get_scale(), "amp/skipped_steps": float(progress.skipped_steps)}
    progress.epoch += 1
    progress.seconds += metrics["epoch_s"]
    progress.step_in_epoch, progress.epoch_seconds, progress.sums = 0, 0.0, {}
    if is_best:
        progress.best_score, progress.best_epoch, progress.stale_epochs = score, progress.epoch, 0
    else:
        progress.stale_epochs += 1
    return EpochReport(epoch=progress.epoch, step=state.step, metrics=metrics, is_best=is_best)


def _torch_random_state(device: torch.device) -> dict[str, Any]:
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _restore_torch_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state_all(state["cuda"])


def _random_state(device: torch.device) -> dict[str, Any]:
    """All generators, as tensors and plain values."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        **_torch_random_state(device),
        "python": [version, list(words), gauss],
        "numpy": [kind, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
    }


def _restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    _restore_torch_random_state(state, device)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
