"""The training loop, to be read from top to bottom: it yields what happened, and the caller decides what follows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from crack_sweeps.errors import NotFiniteError, OutOfMemory
from crack_sweeps.models.segmenter import Segmenter
from crack_sweeps.specs.experiment import Training
from crack_sweeps.training.ema import WeightAverage
from crack_sweeps.training.losses import loss_terms
from crack_sweeps.training.optimiser import build_optimizer, learning_rate_factor
from crack_sweeps.training.random_numbers import (
    random_state,
    restore_random_state,
    restore_torch_random_state,
    torch_random_state,
)

Batch = tuple[Tensor, Tensor]  # image_B3HW and mask_B1HW, uint8
Batches = Callable[[int, int, int], Iterator[Batch]]  # (epoch from 0, first step of it to give, micro-batch)
Validate = Callable[[nn.Module], Mapping[str, float]]
_NORM = "train/gradient_norm"
# The loss scale begins at 2^16 and halves with each step that overflows. After this many in a row it is 2^-14, and
# below 1 even where training had raised it to 2^29: what overflows then is the gradient itself, at any scale.
MAX_SKIPPED_IN_A_ROW = 30


@dataclass
class Progress:
    """How far a training is: plain values, stored in each checkpoint."""

    epoch: int = 0  # epochs that are complete
    step_in_epoch: int = 0  # optimizer steps done in the epoch under way
    sums: dict[str, float] = field(default_factory=dict)  # of losses over those steps, of norms over the taken ones
    epoch_seconds: float = 0.0  # spent on those steps
    best_score: float | None = None
    best_epoch: int = 0
    stale_epochs: int = 0  # epochs since the best one
    micro_batch: int = 1
    activation_checkpointing: bool = False
    skipped_steps: int = 0  # fp16 steps left out, as their gradient overflowed at the scale of the loss
    skipped_in_epoch: int = 0  # of them, those in the epoch under way
    skipped_in_a_row: int = 0  # of them, the last ones, with no step taken since
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
        self.scaler = self._new_scaler()
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

    def _new_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self.amp_dtype is torch.float16)

    def forget_gradients(self) -> None:
        """Drop those of a step that was not finished, so that it can begin again."""
        self.optimizer.zero_grad(set_to_none=True)
        before, self.scaler = self.scaler.state_dict(), self._new_scaler()  # one that has unscaled will not do so again
        self.scaler.load_state_dict(before)

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
            "random": random_state(self.device),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a stored moment, bit for bit."""
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = _without_infinite_norms(Progress(**state["progress"]))
        self.model.set_activation_checkpointing(self.progress.activation_checkpointing)
        restore_random_state(state["random"], self.device)


def train(state: TrainingState, batches: Batches, validate: Validate) -> Iterator[Report]:
    """Train until the last epoch or until validation stops getting better.

    At each yield the state is whole: the caller may store it, leave the loop, and go on from the stored one later.

    Args:
        state: Where to begin; a fresh one, or one that a checkpoint was loaded into.
        batches: Gives the micro-batches of an epoch from a step on.
        validate: Scores the model as it is; must hold `training.monitor`, and leaves random numbers alone.

    Raises:
        NotFiniteError: Loss or gradient is NaN or infinite; the step was not taken. With loss scaling a gradient may
            overflow: only if it goes on to, however small the scale has become.
        OutOfMemory: Not even the smallest micro-batch with activation checkpointing fits, or not the optimizer's state.
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
            random_before = torch_random_state(state.device)
            try:
                figures = _accumulate_gradients(state, forward, stream)
            except torch.OutOfMemoryError:
                figures = None  # dealt with below, where the traceback no longer holds on to memory
            if figures is None:
                notice = _shrink(state)
                restore_torch_random_state(random_before, state.device)
                yield notice
                stream = batches(progress.epoch, progress.step_in_epoch, progress.micro_batch)
                continue
            try:
                values = _step_unless_not_finite(figures, state)
            except torch.OutOfMemoryError as error:
                raise _no_room_to_step(state) from error

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
    sums[_NORM] = nn.utils.clip_grad_norm_(state.parameters, limit)
    return sums


def _step_unless_not_finite(figures: Mapping[str, Tensor], state: TrainingState) -> dict[str, float]:
    """Read the figures and take the step, unless one of them is not finite.

    A GPU is given the step before the figures are read, with a flag that leaves it out if need be: reading waits for
    the backward pass, and until the next forward pass is queued there would be nothing for the GPU to do. For the same
    reason the average follows at once; should the step have been left out, it came nearer to weights that did not
    change, in a training that is over.
    """
    stacked = torch.stack(list(figures.values()))
    if state.scaler.is_enabled():
        return _take_scaled_step(dict(zip(figures, stacked.tolist(), strict=True)), state)
    if state.device.type != "cuda" or not state.optimizer.defaults["fused"]:
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


def _refuse_not_finite(values: Mapping[str, float], state: TrainingState, *, where: str = "") -> None:
    """Stop before the step."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise NotFiniteError(
                f"{name} is {value} in epoch {state.progress.epoch + 1}, step {state.step + 1}{where}; "
                "the step was not taken",
                hint="try a lower `training.learning_rate`, a longer `training.warmup_fraction`, "
                "or training.use_amp=false",
            )


def _take_step(state: TrainingState) -> None:
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average is not None:
        state.average.update(state.model)


def _take_scaled_step(values: dict[str, float], state: TrainingState) -> dict[str, float]:
    """A step with loss scaling. A gradient that overflowed lowers the scale, and its step is left out.

    Returns:
        The figures, without the norm of a gradient that was not used.
    """
    progress, scale = state.progress, state.scaler.get_scale()
    losses = {name: value for name, value in values.items() if name != _NORM}
    _refuse_not_finite(losses, state)
    if math.isfinite(values[_NORM]):
        _take_step(state)
        progress.skipped_in_a_row = 0
        return values
    state.scaler.update()
    if state.scaler.get_scale() >= scale:  # each gradient is finite: their norm is too large for any number
        _refuse_not_finite(values, state)
    most = min(MAX_SKIPPED_IN_A_ROW, state.training.epochs * state.steps_per_epoch)  # or all of a short training
    if progress.skipped_in_a_row + 1 >= most:
        _refuse_not_finite(values, state, where=f", as in the {progress.skipped_in_a_row} steps before it")
    progress.skipped_steps += 1
    progress.skipped_in_epoch += 1
    progress.skipped_in_a_row += 1
    return losses


def _without_infinite_norms(progress: Progress) -> Progress:
    """Repair what was stored after an overflow while the norms of steps that were left out still counted."""
    if not math.isfinite(progress.sums.get(_NORM, 0.0)):
        del progress.sums[_NORM]
        progress.skipped_in_epoch = progress.step_in_epoch  # no norm of them is known any more
    if progress.last_report is not None and not math.isfinite(progress.last_report["metrics"].get(_NORM, 0.0)):
        del progress.last_report["metrics"][_NORM]
    return progress


def _shrink(state: TrainingState) -> Notice:
    """Out of memory: halve the micro-batch at constant effective batch; at the smallest, recompute activations."""
    progress, effective = state.progress, state.training.effective_batch
    state.forget_gradients()
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


def _no_room_to_step(state: TrainingState) -> OutOfMemory:
    """Nothing to try again: activations are freed by then, and a part of the weights may have changed."""
    return OutOfMemory(
        f"out of memory in epoch {state.progress.epoch + 1}, step {state.step + 1}, "
        "in the optimizer's own step (its state takes twice the memory of the weights)",
        hint="end what else runs on the device, or choose a smaller encoder or `model.decoder_cfg.width_multiplier`",
    )


def _close_epoch(state: TrainingState, validate: Validate) -> EpochReport:
    """Validate the weights that count, compare with the best, and begin the next epoch's books."""
    progress, training = state.progress, state.training
    began = time.perf_counter()
    with state.evaluated_weights():
        scores = dict(validate(state.model))
    score = scores[training.monitor]
    if not math.isfinite(score):
        raise NotFiniteError(
            f"{training.monitor} is {score} after epoch {progress.epoch + 1}", hint="look at logs/ of the run"
        )
    crops = training.effective_batch * state.steps_per_epoch
    is_best = progress.best_score is None or score > progress.best_score
    num_taken = state.steps_per_epoch - progress.skipped_in_epoch
    metrics = {
        name: total / (num_taken if name == _NORM else state.steps_per_epoch) for name, total in progress.sums.items()
    }
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
    progress.skipped_in_epoch = 0
    if is_best:
        progress.best_score, progress.best_epoch, progress.stale_epochs = score, progress.epoch, 0
    else:
        progress.stale_epochs += 1
    return EpochReport(epoch=progress.epoch, step=state.step, metrics=metrics, is_best=is_best)
