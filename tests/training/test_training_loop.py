"""The loop: exact accumulation, whole state at each step, and the three ways in which a step can go wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping

import pytest
import torch
from tiny_training import SIDE, STEPS, Overflows, Tiny, assert_same, constant_score, crops, fresh, settings, weights
from torch import Tensor, nn

from crack_sweeps.errors import NotFiniteError, OutOfMemory
from crack_sweeps.training.loop import EpochReport, Notice, StepReport, TrainingState, _queue_step_if_finite, train


def test_reports_come_step_by_step_and_epoch_by_epoch() -> None:
    reports = list(train(fresh(settings()), crops(), constant_score))
    assert [type(report) for report in reports] == ([StepReport] * STEPS + [EpochReport]) * 2
    last = reports[-1]
    assert isinstance(last, EpochReport)
    assert (last.epoch, last.step, last.is_best) == (2, 2 * STEPS, False)
    assert {
        "train/loss",
        "train/focal",
        "train/dice",
        "train/gradient_norm",
        "val/crack_iou",
        "lr",
        "images_per_s",
    } <= last.metrics.keys()
    assert math.isclose(
        last.metrics["train/loss"], last.metrics["train/focal"] + last.metrics["train/dice"], rel_tol=1e-5
    )


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_accumulated_micro_batches_give_the_gradient_of_the_large_batch(micro_batch: int) -> None:
    """SGD-like check in the first step's gradient: AdamW would hide a wrong scale."""
    gradients = []
    for batch_size in (8, micro_batch):
        state = fresh(
            settings(batch_size=batch_size, gradient_accumulation_steps=8 // batch_size, gradient_clip_norm=None),
            lambda: Tiny(dropout=0.0),
        )
        next(iter(train(state, crops(), constant_score)))
        gradients.append({name: p.grad.clone() for name, p in state.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() != set()
    for name, large in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], large, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_stored_after_any_step_and_resumed_the_weights_are_the_same_bit_for_bit(ema_decay: float | None) -> None:
    training = settings(ema_decay=ema_decay)
    whole = fresh(training)
    moments = []
    for _ in train(whole, crops(), constant_score):
        moments.append(copy.deepcopy(whole.state_dict()))
    assert len(moments) == 2 * (STEPS + 1)
    for moment in moments:
        resumed = fresh(training)
        torch.rand(7)  # whatever the process did before it resumed
        resumed.load_state_dict(moment)
        for _ in train(resumed, crops(), constant_score):
            pass
        assert_same(weights(whole), weights(resumed))
        if whole.average is not None and resumed.average is not None:
            with whole.evaluated_weights(), resumed.evaluated_weights():
                assert_same(weights(whole), weights(resumed))


@pytest.mark.parametrize("left_out", ["optimizer", "random"])
def test_without_each_part_of_the_state_the_weights_would_differ(left_out: str) -> None:
    """The test above can fail: leave a part out and it does."""
    training = settings()
    whole = fresh(training)
    middle = None
    for number, _ in enumerate(train(whole, crops(), constant_score)):
        if number == 1:
            middle = copy.deepcopy(whole.state_dict())
    assert middle is not None
    resumed = fresh(training)
    torch.rand(7)
    middle[left_out] = resumed.state_dict()[left_out]
    resumed.load_state_dict(middle)
    for _ in train(resumed, crops(), constant_score):
        pass
    assert not torch.equal(whole.model.head[1].weight, resumed.model.head[1].weight)


def test_out_of_memory_halves_the_micro_batch_then_recomputes_then_gives_up() -> None:
    class Greedy(Tiny):
        room = 0

        def forward(self, image_B3HW: Tensor) -> Tensor:
            cost = image_B3HW.shape[0] * (1 if self.checkpointing else 2)
            if self.training and cost > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(image_B3HW)

    Greedy.room = 4
    state = fresh(settings(batch_size=8, gradient_accumulation_steps=1), Greedy)
    reports = list(train(state, crops(), constant_score))
    notices = [report.text for report in reports if isinstance(report, Notice)]
    assert [text.split("micro-batch ")[1].split(",")[0] for text in notices] == ["8 -> 4", "4 -> 2"]
    assert state.progress.micro_batch * state.accumulation == 8
    assert sum(isinstance(report, StepReport) for report in reports) == 2 * STEPS

    Greedy.room = 1
    state = fresh(settings(batch_size=2, gradient_accumulation_steps=4), Greedy)
    notices = [report.text for report in train(state, crops(), constant_score) if isinstance(report, Notice)]
    assert "recomputed" in notices[-1]
    assert state.progress.activation_checkpointing

    Greedy.room = 0
    state = fresh(settings(batch_size=1, gradient_accumulation_steps=8), Greedy)
    with pytest.raises(OutOfMemory, match="micro-batch 1 and activation checkpointing"):
        list(train(state, crops(), constant_score))


def test_a_step_that_ran_out_of_memory_is_taken_with_the_same_crops() -> None:
    class Once(Tiny):
        calls = 0

        def forward(self, image_B3HW: Tensor) -> Tensor:
            self.calls += self.training
            if self.calls == 4:  # in the second step, after its first micro-batch was already backward
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(image_B3HW)

    calm = fresh(settings(), lambda: Tiny(dropout=0.0))
    disturbed = fresh(settings(), lambda: Once(dropout=0.0))
    calm_losses = [report.loss for report in train(calm, crops(), constant_score) if isinstance(report, StepReport)]
    losses = [report.loss for report in train(disturbed, crops(), constant_score) if isinstance(report, StepReport)]
    assert disturbed.progress.micro_batch == 2
    assert losses == pytest.approx(calm_losses, rel=1e-4)


def test_stored_when_memory_had_run_out_and_resumed_the_weights_are_the_same_bit_for_bit() -> None:
    class Once(Tiny):
        calls = 0

        def forward(self, image_B3HW: Tensor) -> Tensor:
            Once.calls += self.training
            logits_B1HW = super().forward(image_B3HW)
            if Once.calls == 4:  # in the second step, with random numbers drawn
                raise torch.OutOfMemoryError("CUDA out of memory")
            return logits_B1HW

    whole, moments = fresh(settings(), Once), []
    for report in train(whole, crops(), constant_score):
        if isinstance(report, Notice):
            moments.append(copy.deepcopy(whole.state_dict()))
    (moment,) = moments
    resumed = fresh(settings(), Once)
    resumed.load_state_dict(moment)
    for _ in train(resumed, crops(), constant_score):
        pass
    assert_same(weights(whole), weights(resumed))


@pytest.mark.parametrize("amp_dtype", [None, torch.float16])
def test_out_of_memory_in_the_optimizers_step_is_an_end_with_a_way_out(
    amp_dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = fresh(settings(), amp_dtype=amp_dtype)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(state.optimizer, "step", full)
    with pytest.raises(OutOfMemory, match=r"^out of memory in epoch 1, step 1, in the optimizer's own step") as caught:
        list(train(state, crops(), constant_score))
    assert "choose a smaller encoder" in str(caught.value.hint)


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    class Poisoned(Tiny):
        poison = False

        def forward(self, image_B3HW: Tensor) -> Tensor:
            return super().forward(image_B3HW) * (math.nan if self.poison else 1.0)

    state = fresh(settings(), Poisoned)
    stream = train(state, crops(), constant_score)
    next(stream)
    before = weights(state)
    Poisoned.poison = True
    with pytest.raises(NotFiniteError, match=r"train/loss is nan in epoch 1, step 2; the step was not taken"):
        next(stream)
    assert_same(before, weights(state))


def test_a_queued_step_is_a_step_where_all_figures_are_finite_and_none_where_one_is_not() -> None:
    queued, plain = (fresh(settings(), lambda: Tiny(dropout=0.0)) for _ in range(2))
    for state in (queued, plain):
        state.model(torch.ones(1, 3, SIDE, SIDE)).sum().backward()
    for _ in range(2):  # the first one makes the optimizer's state
        _queue_step_if_finite(queued.optimizer, torch.tensor([0.5, 2.0]))
        plain.optimizer.step()
        assert_same(weights(queued), weights(plain))
    before = copy.deepcopy(queued.optimizer.state_dict())
    for bad in (math.nan, math.inf):
        _queue_step_if_finite(queued.optimizer, torch.tensor([0.5, bad]))
        assert_same(weights(queued), weights(plain))
        after = queued.optimizer.state_dict()["state"]
        assert all(torch.equal(after[n][key], kept[key]) for n, kept in before["state"].items() for key in kept)


def test_the_next_epochs_crops_are_asked_for_before_validation_and_none_after_the_last_epoch() -> None:
    happened: list[object] = []

    def batches(epoch: int, first_step: int, micro_batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        happened.append(epoch)
        return crops()(epoch, first_step, micro_batch)

    def validate(_: nn.Module) -> Mapping[str, float]:
        happened.append("validation")
        return {"val/crack_iou": 0.5}

    list(train(fresh(settings(epochs=3)), batches, validate))
    assert happened == [0, 1, "validation", 2, "validation", "validation"]


def test_a_gradient_that_is_not_finite_stops_before_the_step() -> None:
    class Steep(Tiny):
        def forward(self, image_B3HW: Tensor) -> Tensor:
            return Overflows.apply(super().forward(image_B3HW))

    state = fresh(settings(), Steep)
    before = weights(state)
    with pytest.raises(NotFiniteError, match="gradient_norm"):
        list(train(state, crops(), constant_score))
    assert_same(before, weights(state))


def test_a_validation_score_that_is_not_a_number_is_a_reason_and_no_score() -> None:
    with pytest.raises(NotFiniteError, match="val/crack_iou is nan after epoch 1"):
        list(train(fresh(settings()), crops(), lambda _: {"val/crack_iou": math.nan}))


def test_training_stops_when_validation_has_not_improved_for_long_enough() -> None:
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    state = fresh(settings(epochs=5, early_stopping_patience=2))
    reports = [
        r for r in train(state, crops(), lambda _: {"val/crack_iou": next(scores)}) if isinstance(r, EpochReport)
    ]
    assert [report.is_best for report in reports] == [True, True, False, False]
    assert (state.progress.best_epoch, state.progress.best_score) == (2, 0.3)


def test_the_best_weights_and_the_patience_follow_the_figure_that_is_monitored() -> None:
    recall = iter([0.2, 0.4, 0.6])
    state = fresh(settings(epochs=3, early_stopping_patience=1, monitor="val/recall"))
    scored = train(state, crops(), lambda _: {"val/crack_iou": 0.5, "val/recall": next(recall)})
    assert [report.is_best for report in scored if isinstance(report, EpochReport)] == [True, True, True]
    assert (state.progress.best_epoch, state.progress.best_score) == (3, 0.6)


def test_validation_sees_the_averaged_weights_and_training_goes_on_with_its_own() -> None:
    seen = []

    def validate(model: nn.Module) -> Mapping[str, float]:
        seen.append(model.state_dict()["head.1.weight"].clone())
        return {"val/crack_iou": 0.5}

    state = fresh(settings(ema_decay=0.99, epochs=1))
    before_validation = None
    for report in train(state, crops(), validate):
        if isinstance(report, StepReport):
            before_validation = state.model.state_dict()["head.1.weight"].clone()
    assert before_validation is not None
    assert torch.equal(state.model.state_dict()["head.1.weight"], before_validation)
    assert not torch.equal(seen[0], before_validation)


def test_the_last_learning_rate_is_the_fraction_that_was_asked_for() -> None:
    reports = [
        r for r in train(fresh(settings(min_lr_fraction=0.1)), crops(), constant_score) if isinstance(r, EpochReport)
    ]
    assert reports[-1].metrics["lr"] == pytest.approx(0.001)


@pytest.mark.gpu
def test_on_a_gpu_a_step_with_a_loss_that_is_not_finite_is_not_taken_either() -> None:
    class Poisoned(Tiny):
        poison = False

        def forward(self, image_B3HW: Tensor) -> Tensor:
            return super().forward(image_B3HW) * (math.nan if self.poison else 1.0)

    device = torch.device("cuda")
    training = settings(ema_decay=0.9)
    state = TrainingState(Poisoned().to(device), training, device=device, amp_dtype=None, steps_per_epoch=STEPS)
    stream = train(state, crops(), constant_score)
    next(stream)
    before, optimizer_before = weights(state), copy.deepcopy(state.optimizer.state_dict()["state"])
    Poisoned.poison = True
    with pytest.raises(NotFiniteError, match=r"train/loss is nan in epoch 1, step 2; the step was not taken"):
        next(stream)
    assert_same(before, weights(state))
    after = state.optimizer.state_dict()["state"]
    assert all(torch.equal(after[n][key], kept[key]) for n, kept in optimizer_before.items() for key in kept)


@pytest.mark.gpu
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_on_a_gpu_a_training_stored_after_any_step_goes_on_bit_for_bit(ema_decay: float | None) -> None:
    device = torch.device("cuda")

    def begin() -> TrainingState:
        torch.manual_seed(0)
        training = settings(ema_decay=ema_decay)
        return TrainingState(
            Tiny().to(device), training, device=device, amp_dtype=torch.bfloat16, steps_per_epoch=STEPS
        )

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        whole, moments = begin(), []
        for _ in train(whole, crops(), constant_score):
            moments.append(copy.deepcopy(whole.state_dict()))
        for moment in moments:
            resumed = begin()
            torch.rand(7, device=device)
            resumed.load_state_dict(moment)
            for _ in train(resumed, crops(), constant_score):
                pass
            assert_same(weights(whole), weights(resumed))
    finally:
        torch.use_deterministic_algorithms(False)
