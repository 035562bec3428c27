"""Training in float16: a gradient that overflows now and then is normal, and one that always does is an end."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Collection

import pytest
import torch
from tiny_training import CPU, STEPS, Overflows, Tiny, assert_same, constant_score, crops, fresh, settings, weights
from torch import Tensor

from crack_sweeps.errors import NotFiniteError
from crack_sweeps.training.loop import (
    MAX_SKIPPED_IN_A_ROW,
    EpochReport,
    Notice,
    StepReport,
    TrainingState,
    train,
)


class Steep(Tiny):
    """Its gradient is infinite in the steps that are named, counted from 1."""

    bad: Collection[int] = ()

    def __init__(self) -> None:
        super().__init__()
        self.state: TrainingState | None = None

    def forward(self, image_B3HW: Tensor) -> Tensor:
        logits_B1HW = super().forward(image_B3HW)
        if not self.training or self.state is None or self.state.step + 1 not in self.bad:
            return logits_B1HW
        return Overflows.apply(logits_B1HW)


def begin(bad: Collection[int], *, device: torch.device = CPU, **changes: object) -> TrainingState:
    state = fresh(settings(**changes), Steep, device=device, amp_dtype=torch.float16)
    assert isinstance(state.model, Steep)
    state.model.state, state.model.bad = state, bad
    return state


def epochs(state: TrainingState) -> list[EpochReport]:
    return [report for report in train(state, crops(), constant_score) if isinstance(report, EpochReport)]


def norms_of_the_steps(state: TrainingState) -> list[float]:
    """What each step of the first epoch added to the sum of norms."""
    sums = [0.0]
    for report in train(state, crops(), constant_score):
        if isinstance(report, EpochReport):
            break
        sums.append(state.progress.sums.get("train/gradient_norm", 0.0))
    return [after - before for before, after in itertools.pairwise(sums)]


def test_a_step_that_overflowed_changes_no_weight_and_lowers_the_scale() -> None:
    state = begin({2}, ema_decay=0.9)
    reports = train(state, crops(), constant_score)
    next(reports)
    before, updates = weights(state), state.average.num_updates
    scale, optimizer_before = state.scaler.get_scale(), copy.deepcopy(state.optimizer.state_dict()["state"])
    assert isinstance(next(reports), StepReport)
    assert_same(before, weights(state))
    after = state.optimizer.state_dict()["state"]
    assert all(torch.equal(after[n][key], kept[key]) for n, kept in optimizer_before.items() for key in kept)
    assert state.average.num_updates == updates
    assert state.scaler.get_scale() == scale / 2
    assert (state.progress.skipped_steps, state.progress.skipped_in_epoch, state.progress.skipped_in_a_row) == (1, 1, 1)
    next(reports)
    assert (state.progress.skipped_steps, state.progress.skipped_in_epoch, state.progress.skipped_in_a_row) == (1, 1, 0)
    assert not torch.equal(before["head.1.weight"], state.model.state_dict()["head.1.weight"])


def test_the_mean_of_the_gradients_norms_is_over_the_steps_that_were_taken() -> None:
    norms = norms_of_the_steps(begin({1}, epochs=1))
    assert norms[0] == 0.0
    assert min(norms[1:]) > 0
    (report,) = epochs(begin({1}, epochs=1))
    assert report.metrics["train/gradient_norm"] == pytest.approx(sum(norms) / (STEPS - 1))
    assert report.metrics["amp/skipped_steps"] == 1
    json.dumps(report.metrics, allow_nan=False)  # as the event log writes them


def test_an_epoch_without_any_step_taken_has_no_norm_and_the_next_one_counts_anew() -> None:
    first, second = epochs(begin(range(1, STEPS + 1)))
    assert "train/gradient_norm" not in first.metrics
    assert first.metrics["amp/skipped_steps"] == second.metrics["amp/skipped_steps"] == STEPS
    assert 0 < second.metrics["train/gradient_norm"] < math.inf
    json.dumps([first.metrics, second.metrics], allow_nan=False)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("bad", [{1}, {2, 3, 4}])
def test_stored_after_any_step_and_resumed_a_training_that_overflowed_is_the_same_bit_for_bit(
    bad: set[int], ema_decay: float | None
) -> None:
    assert_goes_on_bit_for_bit(bad, CPU, ema_decay)


def assert_goes_on_bit_for_bit(bad: Collection[int], device: torch.device, ema_decay: float | None) -> None:
    whole, moments, told = begin(bad, device=device, ema_decay=ema_decay), [], []
    for report in train(whole, crops(), constant_score):
        moments.append(copy.deepcopy(whole.state_dict()))
        told.append(report)
    assert len(moments) == 2 * (STEPS + 1)
    for number, moment in enumerate(moments):
        resumed = begin(bad, device=device, ema_decay=ema_decay)
        torch.rand(7, device=device)  # whatever the process did before it resumed
        resumed.load_state_dict(moment)
        again = list(train(resumed, crops(), constant_score))
        assert_same(weights(whole), weights(resumed))
        with whole.evaluated_weights(), resumed.evaluated_weights():
            assert_same(weights(whole), weights(resumed))
        assert whole.scaler.state_dict() == resumed.scaler.state_dict()
        for one, other in zip(told[number + 1 :], again, strict=True):
            assert untimed(one) == untimed(other)


def untimed(report: StepReport | Notice | EpochReport) -> object:
    if not isinstance(report, EpochReport):
        return report
    return {key: value for key, value in report.metrics.items() if key not in ("images_per_s", "epoch_s")}


def test_a_gradient_that_always_overflows_ends_the_training_with_its_weights_untouched() -> None:
    state = begin(range(1, 10**6), epochs=100)
    before, last = weights(state), MAX_SKIPPED_IN_A_ROW - 1
    said = (
        rf"^train/gradient_norm is (inf|nan) in epoch {last // STEPS + 1}, step {last + 1}, "
        rf"as in the {last} steps before it; the step was not taken$"
    )
    with pytest.raises(NotFiniteError, match=said) as caught:
        epochs(state)
    assert state.step == last
    assert "training.use_amp=false" in caught.value.hint
    assert_same(before, weights(state))


def test_the_count_of_overflows_in_a_row_goes_on_after_a_resume_and_ends_with_a_step_taken() -> None:
    state = begin(range(1, 10**6), epochs=100)
    reports = train(state, crops(), constant_score)
    while state.step < 20:
        next(reports)
    resumed = begin(range(1, 10**6), epochs=100)
    resumed.load_state_dict(copy.deepcopy(state.state_dict()))
    with pytest.raises(NotFiniteError, match=f"step {MAX_SKIPPED_IN_A_ROW}, as in the"):
        epochs(resumed)
    lucky = begin({step for step in range(1, 100) if step % MAX_SKIPPED_IN_A_ROW}, epochs=20)
    assert len(epochs(lucky)) == 20
    assert lucky.progress.skipped_steps == 20 * STEPS - 2


def test_a_short_training_that_never_took_a_step_is_not_finished() -> None:
    with pytest.raises(NotFiniteError, match=f"in epoch 2, step {2 * STEPS}, as in the {2 * STEPS - 1} steps before"):
        epochs(begin(range(1, 100)))


def test_a_norm_too_large_for_a_number_stops_the_training_though_each_gradient_is_finite() -> None:
    """A scale however small would not help, and a step with a gradient clipped to nothing would only decay weights."""
    state = begin(())
    reports = train(state, crops(), constant_score)
    next(reports)
    before = weights(state)
    state.model.get_parameter("head.1.weight").register_hook(lambda gradient: gradient.sign() * 1e38)
    with pytest.raises(NotFiniteError, match=r"train/gradient_norm is inf in epoch 1, step 2; the step was not taken"):
        next(reports)
    assert_same(before, weights(state))


def test_a_loss_that_is_not_finite_is_no_affair_of_the_scale() -> None:
    class Poisoned(Tiny):
        def forward(self, image_B3HW: Tensor) -> Tensor:
            return super().forward(image_B3HW) * math.inf

    state = fresh(settings(), Poisoned, amp_dtype=torch.float16)
    with pytest.raises(NotFiniteError, match=r"train/loss is nan in epoch 1, step 1; the step was not taken"):
        epochs(state)


def test_out_of_memory_after_the_gradients_were_unscaled_begins_the_step_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip, calls = torch.nn.utils.clip_grad_norm_, []

    def once(*given: object) -> Tensor:
        calls.append(given)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return clip(*given)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", once)
    state = begin(())
    reports = list(train(state, crops(), constant_score))
    assert sum(isinstance(report, Notice) for report in reports) == 1
    assert sum(isinstance(report, StepReport) for report in reports) == 2 * STEPS


def test_a_checkpoint_from_before_overflows_were_counted_is_gone_on_with_without_its_infinite_norms() -> None:
    state = begin(())
    reports = train(state, crops(), constant_score)
    for _ in range(STEPS + 1 + 1):  # the first epoch, and a step of the second
        next(reports)
    stored = copy.deepcopy(state.state_dict())
    for late in ("skipped_in_epoch", "skipped_in_a_row"):
        del stored["progress"][late]
    plain = begin(())
    plain.load_state_dict(copy.deepcopy(stored))
    assert epochs(plain)[-1].metrics["train/gradient_norm"] > 0

    stored["progress"]["sums"]["train/gradient_norm"] = math.inf
    stored["progress"]["last_report"] = {"epoch": 1, "step": 3, "metrics": {"lr": 1.0, "train/gradient_norm": math.nan}}
    resumed = begin(())
    resumed.load_state_dict(stored)
    assert resumed.progress.last_report == {"epoch": 1, "step": 3, "metrics": {"lr": 1.0}}
    later: list[float] = []
    for report in train(resumed, crops(), constant_score):
        if isinstance(report, StepReport):
            later.append(resumed.progress.sums["train/gradient_norm"])
    assert isinstance(report, EpochReport)
    assert report.metrics["train/gradient_norm"] == pytest.approx(later[-1] / (STEPS - 1))


@pytest.mark.gpu
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_on_a_gpu_a_float16_training_that_overflowed_goes_on_bit_for_bit(ema_decay: float | None) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert_goes_on_bit_for_bit({2, 3}, torch.device("cuda"), ema_decay)
    finally:
        torch.use_deterministic_algorithms(False)
