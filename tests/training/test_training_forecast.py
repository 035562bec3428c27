"""The forecast counts what autograd keeps, once; and agrees with a real step and with figures measured elsewhere."""

from __future__ import annotations

import gc
import time
import weakref
from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from crack_sweeps.models.build import build_model
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.training.forecast import _autocast, forecast, trace_step
from crack_sweeps.training.losses import loss_terms, total_loss
from crack_sweeps.training.optimiser import build_optimizer

MIB = 2**20
UNET = {"architecture": "unet", "encoder_cfg": {"model_name": "resnet50", "pretrained": False}}
HYBRID = {"architecture": "swinv2_hybrid", "encoder_cfg": {"pretrained": False}}
SMALL_HYBRID = {
    "architecture": "swinv2_hybrid",
    "encoder_cfg": {"model_name": "swinv2_tiny_window8_256", "pretrained": False, "img_size": 128},
}
TINY = {
    "architecture": "unet",
    "encoder_cfg": {"model_name": "resnet10t", "pretrained": False, "depth": 3},
    "decoder_cfg": {"channels": (16, 16, 16)},
}


def experiment(model: dict, **training) -> Experiment:
    data = {} if model["architecture"] == "swinv2_hybrid" else {"crop_px": 64}
    return Experiment.model_validate({"name": "x", "model": model, "training": training, "data": data})


class Toy(nn.Module):
    """As much of a Segmenter as the forecast asks for, with blocks that can be checkpointed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.GELU(), nn.Dropout(0.1))
            for _ in range(8)
        )
        self.head = nn.Conv2d(8, 1, 1)
        self.checkpointing = False

    def set_activation_checkpointing(self, enabled: bool) -> None:
        self.checkpointing = enabled

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing else block(x)
        return self.head(x)


@pytest.fixture
def toy() -> Toy:
    return Toy()


def kept(net: nn.Module, *shape: int, **settings) -> int:
    return trace_step(net, shape, device_type="cpu", amp_dtype=None, **settings).saved_bytes


def test_a_convolution_and_a_relu_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 1, 1))
    # The first kernel needs the image (not counted: it is the input); the ReLU its result, the second kernel the same.
    assert kept(net, 2, 3, 16, 16) == 2 * 8 * 16 * 16 * 4


def test_the_largest_temporary_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 1, 1))
    step = trace_step(net, (2, 3, 16, 16), device_type="cpu", amp_dtype=None)
    # While the ReLU's backward pass runs, the gradients of its output and its input lie beside what was kept.
    assert step.largest_temporary_bytes == 2 * (2 * 8 * 16 * 16 * 4)


class Twice(nn.Module):
    """Two products that need the same map, the second through a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("table", torch.ones(1, 1, 8, 8), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        map_ = torch.exp(image * self.weight)
        return map_ * map_.view(map_.shape) + image * self.table


def test_a_storage_counts_once_and_parameters_buffers_and_inputs_not_at_all():
    assert kept(Twice(), 1, 3, 8, 8) == 3 * 8 * 8 * 4


def test_mixed_precision_halves_the_maps_of_convolutions():
    net = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU())
    whole = trace_step(net, (2, 3, 16, 16), amp_dtype=None)
    half = trace_step(net, (2, 3, 16, 16), amp_dtype=torch.bfloat16)
    low_copies = 2 * (2 * 3 * 16 * 16) + 2 * (8 * 3)  # of the image and of the kernel, as autocast makes them
    assert half.saved_bytes == whole.saved_bytes / 2 + low_copies


def test_the_rules_are_those_of_cuda_though_no_card_is_there():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8))
    cuda, cpu = (trace_step(net, (1, 3, 32, 32), device_type=kind).saved_bytes for kind in ("cuda", "cpu"))
    assert cuda > cpu  # there, group norm is computed in float32


def test_the_parts_add_up_and_follow_the_experiment(toy):
    plain = forecast(experiment(TINY, use_amp=False), model=toy)
    num_bytes = sum(parameter.numel() * 4 for parameter in toy.parameters())
    assert plain.gradients_bytes == num_bytes
    assert plain.parameters_bytes >= num_bytes
    assert plain.optimizer_bytes == 2 * num_bytes + 4 * len(list(toy.parameters()))
    assert plain.ema_bytes == 0
    assert plain.total_bytes == sum(asdict(plain).values()) - plain.total_bytes

    with_ema = forecast(experiment(TINY, use_amp=False, ema_decay=0.99), model=toy, overhead_bytes=MIB)
    assert with_ema.ema_bytes >= num_bytes
    assert with_ema.total_bytes == plain.total_bytes + with_ema.ema_bytes + MIB


def test_activations_grow_with_the_micro_batch_and_shrink_with_precision(toy):
    of = {b: forecast(experiment(TINY, use_amp=False), model=toy, batch_size=b) for b in (2, 4, 8)}
    growth = of[8].activations_bytes - of[4].activations_bytes
    assert growth == pytest.approx(2 * (of[4].activations_bytes - of[2].activations_bytes), rel=0.01)
    assert forecast(experiment(TINY), model=toy).activations_bytes < 0.9 * of[4].activations_bytes


def test_activation_checkpointing_takes_less_and_its_block_is_counted(toy):
    without = forecast(experiment(TINY), model=toy)
    with_it = forecast(experiment(TINY, activation_checkpointing=True), model=toy)
    assert with_it.activations_bytes < 0.5 * without.activations_bytes
    assert with_it.largest_temporary_bytes > without.largest_temporary_bytes
    assert with_it.total_bytes < without.total_bytes


def test_cldice_is_in_the_forecast(toy):
    without = forecast(experiment(TINY), model=toy)
    with_it = forecast(experiment(TINY, loss={"cldice_weight": 0.3}), model=toy)
    maps = (with_it.activations_bytes - without.activations_bytes) / (4 * 64 * 64 * 4)
    assert maps == pytest.approx(15 * (5 + 1), rel=0.05)


def test_a_forecast_leaves_model_and_random_numbers_as_they_were(toy):
    before = {name: tensor.clone() for name, tensor in toy.state_dict().items()}
    toy.eval()
    random = torch.get_rng_state()
    first = forecast(experiment(TINY), model=toy)
    assert torch.equal(torch.get_rng_state(), random)
    assert not toy.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in toy.state_dict().items())
    assert not torch.is_autocast_enabled("cuda")
    toy.train()
    assert forecast(experiment(TINY), model=toy) == first


def test_without_a_model_one_is_built_and_random_numbers_stay_as_they_were():
    random = torch.get_rng_state()
    found = forecast(
        experiment(TINY | {"encoder_cfg": TINY["encoder_cfg"] | {"pretrained": True}})
    )  # downloads nothing
    assert torch.equal(torch.get_rng_state(), random)
    assert found == forecast(experiment(TINY), model=build_model(experiment(TINY).model))


class Living(TorchDispatchMode):
    """The most bytes of tensors alive at once, forward and backward, beyond those that were there before."""

    def __init__(self, there_before: list[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = weakref.WeakSet(tensor.untyped_storage() for tensor in there_before)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.forget, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def forget(self, num_bytes: int) -> None:
        self.now -= num_bytes


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("use_amp", [False, True])
@pytest.mark.parametrize("model", ["toy", TINY, pytest.param(SMALL_HYBRID, marks=pytest.mark.slow)])
def test_the_forecast_agrees_with_a_real_step(model, use_amp, checkpointing):
    """On the processor, tensor by tensor: no card, workspace or fragmentation comes between.

    Within -5 % and +10 %; a checkpointed block is counted with all that it makes, so that may be well above.
    """
    spec = experiment(
        TINY if model == "toy" else model,
        use_amp=use_amp,
        batch_size=2,
        channels_last=False,
        activation_checkpointing=checkpointing,
    )
    net = Toy() if model == "toy" else build_model(spec.model)
    predicted = forecast(spec, model=net, device_type="cpu")
    net.train()
    image = torch.rand(2, 3, spec.crop_px, spec.crop_px)
    mask = torch.zeros(2, 1, spec.crop_px, spec.crop_px)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=use_amp):
            logits = net(image)
        total_loss(loss_terms(logits, mask, spec.training.loss)).backward()

    step()  # makes the gradients, which the forecast counts on their own
    gradients = [parameter.grad for parameter in net.parameters()]
    with Living([*net.parameters(), *net.buffers(), *gradients, image, mask]) as living:
        step()
    foreseen = predicted.activations_bytes + predicted.largest_temporary_bytes - image.nbytes - mask.nbytes
    assert 0.95 <= foreseen / living.peak <= (1.6 if checkpointing else 1.10)


@pytest.mark.parametrize(
    ("model", "num_crops", "expected_mib"),
    [
        (UNET, 4, 400),
        pytest.param(HYBRID, 4, 943, marks=pytest.mark.slow),
        pytest.param(HYBRID, 16, 3497, marks=pytest.mark.slow),
    ],
)
def test_saved_activations_are_those_measured_before(model, num_crops, expected_mib):
    """256 px, bfloat16 by the processor's rules, the network alone; the hybrid was measured with another decoder."""
    step = trace_step(build_model(experiment(model).model), (num_crops, 3, 256, 256), device_type="cpu")
    assert step.saved_bytes / MIB == pytest.approx(expected_mib, rel=0.01 if model is UNET else 0.05)


@pytest.mark.benchmark
def test_a_forecast_of_the_hybrid_takes_two_seconds_at_most():
    model = build_model(experiment(HYBRID).model)
    for num_crops in (4, 8):  # each a new shape; the first one also pays for torch's own first time
        began = time.process_time()
        forecast(experiment(HYBRID), model=model, batch_size=num_crops)
        spent = time.process_time() - began
        print(f"forecast at micro-batch {num_crops}: {spent:.2f} s")
    assert spent <= 2.0


@pytest.mark.gpu
@pytest.mark.parametrize("model", [UNET, HYBRID])
def test_on_a_real_card_the_forecast_is_within_a_tenth_of_the_allocators_peak(model):
    """Workspaces of cuBLAS apart, which a forecast leaves out: with other tests' leftovers they are there before."""
    given = {"name": "x", "model": model, "training": {"batch_size": 8}, "data": {"crop_px": 256}}
    spec = Experiment.model_validate(given)
    predicted = forecast(spec, amp_dtype=torch.bfloat16)
    nn.Linear(64, 64, device="cuda")(torch.ones(64, 64, device="cuda", requires_grad=True)).sum().backward()
    gc.collect()  # a failed test's frames and all they hold are in reference cycles
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    net = build_model(spec.model).cuda().to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(net, spec.training)
    image = torch.rand(8, 3, 256, 256, device="cuda").contiguous(memory_format=torch.channels_last)
    mask = torch.zeros(8, 1, 256, 256, device="cuda")
    for _ in range(2):
        for _ in range(2):
            with torch.autocast("cuda", dtype=torch.bfloat16):
                logits = net(image)
            total_loss(loss_terms(logits, mask, spec.training.loss)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    peak = torch.cuda.max_memory_allocated() - before
    ratio = predicted.total_bytes / peak
    print(f"\n{model['architecture']}: forecast {predicted.total_bytes / MIB:.0f} MiB, allocator's peak ", end="")
    print(f"{peak / MIB:.0f} MiB beside {before / MIB:.0f} MiB there before: {ratio:.3f}")
    assert 0.95 <= ratio <= 1.10


def fake_tensor_step(net: nn.Module, device_type: str) -> int:
    """What autograd keeps by torch's own fake tensors, at 2 crops of 64 px in bfloat16."""
    kept: dict[int, object] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor.untyped_storage())
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = {
            name: torch.empty_strided(t.shape, t.stride(), device=device_type, dtype=t.dtype).requires_grad_(
                t.requires_grad
            )
            for name, t in [*net.state_dict(keep_vars=True).items(), *net.named_buffers()]
        }
        image = torch.empty(2, 3, 64, 64, device=device_type)
        uncounted = {t.untyped_storage()._cdata for t in [*fake.values(), image]}
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            _autocast(device_type, torch.bfloat16),
        ):
            functional_call(net, fake, (image,))
        return sum(storage.nbytes() for cdata, storage in kept.items() if cdata not in uncounted)


@pytest.mark.parametrize("device_type", ["cuda", "cpu"])
def test_tensors_without_contents_tell_what_torchs_fake_ones_do(device_type):
    """Exactly, by the rules of CUDA; by those of the processor ours may keep a thousandth more, never less."""
    net = build_model(
        experiment(UNET | {"encoder_cfg": {"model_name": "resnet10t", "pretrained": False}}).model
    ).train()
    ours = trace_step(net, (2, 3, 64, 64), device_type=device_type).saved_bytes
    theirs = fake_tensor_step(net, device_type)
    assert theirs <= ours <= theirs * (1.0 if device_type == "cuda" else 1.002)
