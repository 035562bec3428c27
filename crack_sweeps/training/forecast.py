"""Peak memory of a training before it runs: one forward pass over tensors that have shapes and no contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from crack_sweeps.models.build import build_model
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.training.footprint import DeviceType as DeviceType
from crack_sweeps.training.footprint import MemoryForecast as MemoryForecast
from crack_sweeps.training.losses import loss_terms

if TYPE_CHECKING:
    from crack_sweeps.models.segmenter import Segmenter

STEP_COUNTER_BYTES = 4  # AdamW keeps a float32 step per parameter tensor


def device_type(device: torch.device) -> DeviceType:
    """The kind of a device that a training can run on."""
    return "cuda" if device.type == "cuda" else "cpu"


def forecast(
    experiment: Experiment,
    *,
    batch_size: int | None = None,
    model: Segmenter | None = None,
    device_type: DeviceType = "cuda",
    amp_dtype: torch.dtype | Literal["as specified"] | None = "as specified",
    activation_checkpointing: bool | None = None,
    overhead_bytes: int = 0,
) -> MemoryForecast:
    """Predict the peak of the allocator in a training step; needs no GPU and draws no random numbers.

    The sum is parameters + gradients + AdamW's two moments + averaged weights + activations + temporaries. It leaves
    out what only a measurement on the card knows: the CUDA context, workspaces of cuDNN and cuBLAS, and fragmentation.

    Args:
        experiment: What would be trained.
        batch_size: Micro-batch; None takes the experiment's.
        model: The experiment's model where it is built already; it is left as it was. None builds one, without weights.
        device_type: Whose rules of mixed precision apply; `cuda` works on a machine without one. Where there is one,
            torch opens a context on it.
        amp_dtype: What `resolve_amp` answered, None for float32; without it, two bytes where `use_amp` is on.
        activation_checkpointing: None takes the experiment's.
        overhead_bytes: Added to the total: what was measured beyond the forecast on this kind of card. The default 0
            makes the total comparable with `vram/peak_allocated_bytes`.
    """
    training = experiment.training
    if model is None:
        with torch.random.fork_rng(devices=[]):
            model = build_model(without_weights(experiment).model)
    if amp_dtype == "as specified":
        amp_dtype = torch.bfloat16 if training.use_amp else None
    checkpointing = training.activation_checkpointing if activation_checkpointing is None else activation_checkpointing
    num_crops = training.batch_size if batch_size is None else batch_size
    side = experiment.crop_px
    model.set_activation_checkpointing(checkpointing)
    try:
        step = trace_step(
            model,
            (num_crops, 3, side, side),
            loss=lambda logits, mask: torch.stack(list(loss_terms(logits, mask, training.loss).values())).sum(),
            device_type=device_type,
            amp_dtype=amp_dtype,
            channels_last=training.channels_last,
        )
    finally:
        model.set_activation_checkpointing(training.activation_checkpointing)
    return _add_up(model, step, ema=training.ema_decay is not None, overhead_bytes=overhead_bytes)


@dataclass(frozen=True)
class StepTrace:
    """Memory of one forward and backward pass, beside the model's own, in bytes."""

    inputs_bytes: int
    saved_bytes: int
    largest_temporary_bytes: int


def trace_step(
    model: nn.Module,
    shape_B3HW: tuple[int, int, int, int],
    *,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    device_type: DeviceType = "cuda",
    amp_dtype: torch.dtype | None = torch.bfloat16,
    channels_last: bool = False,
) -> StepTrace:
    """Run the model forward, in training mode, on tensors without contents, and add up what autograd keeps.

    Storages count once, and the model's parameters and buffers not at all. The largest temporary is an estimate: when
    the backward pass is at an operation, all that was kept up to there is alive, beside the gradients of that
    operation's outputs and inputs. The maximum over operations, less what is kept in all, is the answer.

    Args:
        model: Any network of one image batch.
        shape_B3HW: Micro-batch, channels, height, width.
        loss: A scalar of logits and mask; None traces the network alone.
        device_type: Whose rules of mixed precision apply.
        amp_dtype: Type of mixed precision; None is float32.
        channels_last: Memory layout of kernels and maps.
    """
    was_training = model.training
    model.train()
    try:
        with FakeTensorMode():  # keeps torch from opening CUDA for a factory's device; sees no tensor itself
            device = torch.device(device_type, 0) if device_type == "cuda" else torch.device(device_type)
            tensors: dict[str, Tensor] = {
                name: _hollow_copy(tensor, device, channels_last)
                for name, tensor in [*model.state_dict(keep_vars=True).items(), *model.named_buffers()]
            }
            image_B3HW = _Hollow(_laid_out(torch.empty(shape_B3HW, device="meta"), channels_last), device)
            mask_B1HW = _Hollow(torch.empty((shape_B3HW[0], 1, *shape_B3HW[2:]), device="meta"), device)
            tally = _Tally([*tensors.values(), image_B3HW, mask_B1HW], device)
            with torch.autograd.graph.saved_tensors_hooks(tally.keep, _returned), tally:
                with _autocast(device_type, amp_dtype):
                    logits = functional_call(model, tensors, (image_B3HW,))
                if loss is not None:
                    loss(logits, mask_B1HW)
            tally.close_operation()
    finally:
        model.train(was_training)
    return StepTrace(
        inputs_bytes=_num_bytes(image_B3HW) + (_num_bytes(mask_B1HW) if loss is not None else 0),
        saved_bytes=tally.saved_bytes,
        largest_temporary_bytes=max(tally.peak_bytes - tally.saved_bytes, 0),
    )


class _Hollow(Tensor):
    """A tensor that has a shape, a type and a device, which need not be there, and no contents.

    What torch's FakeTensor is, without its checks and caches, which took three quarters of a forecast's time. Autograd
    and autocast see the device; the kernel sees a tensor of the meta device, whose storage tells who shares memory.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as FakeTensor: in C++
    meta: Tensor

    @staticmethod
    def __new__(cls, meta: Tensor, device: torch.device, requires_grad: bool = False) -> _Hollow:
        hollow: _Hollow = Tensor._make_wrapper_subclass(
            cls,
            meta.shape,
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            device=device,
            requires_grad=requires_grad,
        )
        hollow.meta = meta
        return hollow

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub leaves out the class and the function
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError(f"{func} outside of a tally")


class _Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts storages that autograd keeps, and what each operation would need beside them in the backward pass."""

    def __init__(self, uncounted: list[Tensor], device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self.saved_bytes = 0
        self.peak_bytes = 0
        self._seen = {_storage(tensor): _contents(tensor) for tensor in uncounted}  # held, so that no id returns
        self._uncounted = set(self._seen)
        self._gradients_bytes = 0  # of the operation that ran last
        self._gradients_before_bytes = 0  # of the one before it
        self._block: Any = None  # the checkpointed block under way, by its own hook
        self._block_bytes = 0
        self._casts_bytes = 0  # low-precision weights of checkpointed blocks: autocast's cache holds them till it ends

    def keep(self, tensor: Tensor) -> Tensor:
        """Called by autograd with each tensor that it keeps for the backward pass."""
        contents = _contents(tensor)
        if _storage(tensor) not in self._seen:
            self._seen[_storage(tensor)] = contents
            self.saved_bytes += contents.untyped_storage().nbytes()
        return tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.close_operation()
        result = self._run(func, args, kwargs or {})
        inputs = {_storage(t): t for t in _tensors(args) if _storage(t) not in self._uncounted}
        outputs = list(_tensors((result,)))
        new = [tensor for tensor in outputs if _storage(tensor) not in inputs]
        if new or func._schema.is_mutable:  # anything else made a view
            self._gradients_bytes = sum(_num_bytes(t) for t in (*inputs.values(), *outputs) if t.is_floating_point())
        self._note_block(sum(map(_num_bytes, new)))
        if self._block is not None and func is torch.ops.aten._to_copy.default and _storage(args[0]) in self._uncounted:
            self._casts_bytes += sum(map(_num_bytes, new))
        return result

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The shapes that an operation gives."""
        hollow: dict[int, _Hollow] = {}  # the arguments, by what they wrap: an operation in place gives one of them

        def unwrap(value: Any) -> Any:
            if isinstance(value, _Hollow):
                hollow[id(value.meta)] = value
                return value.meta
            if isinstance(value, Tensor):  # a constant of the model
                return value.to("meta")
            return type(value)(map(unwrap, value)) if isinstance(value, (list, tuple)) else value

        def wrap(value: Any) -> Any:
            if isinstance(value, Tensor):
                return hollow[id(value)] if id(value) in hollow else _Hollow(value, self._device)
            return type(value)(map(wrap, value)) if isinstance(value, (list, tuple)) else value

        asked = kwargs.get("device")
        with torch._C._DisableTorchDispatch():
            meta_args, meta_kwargs = unwrap(args), {key: unwrap(value) for key, value in kwargs.items()}
            if asked is not None and torch.device(asked).type == self._device.type:
                meta_kwargs["device"] = torch.device("meta")
            elif not hollow:
                return func(*args, **kwargs)  # of constants alone
            results = func(*meta_args, **meta_kwargs)
            if func is torch.ops.aten.log_sigmoid_forward.default and self._device.type == "cuda":
                results = results[0], results[1].new_empty(0)  # the buffer beside its result is the processor's alone
        return wrap(results)

    def close_operation(self) -> None:
        """Autograd has kept what the last operation needs: what would its backward pass hold?

        The result of an in-place operation is kept one operation late, so the one before is looked at again.
        """
        gradients_bytes = max(self._gradients_bytes, self._gradients_before_bytes)
        beside_bytes = gradients_bytes + max(self._block_bytes, self._casts_bytes)  # in backward; in forward
        self.peak_bytes = max(self.peak_bytes, self.saved_bytes + beside_bytes)
        self._gradients_before_bytes, self._gradients_bytes = self._gradients_bytes, 0

    def _note_block(self, new_bytes: int) -> None:
        """A checkpointed block keeps nothing now, and everything while its backward pass runs."""
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
        block = hooks[0] if hooks is not None and hooks[0] != self.keep else None
        if block is not self._block:
            self._block, self._block_bytes = block, 0
        if block is not None:
            self._block_bytes += new_bytes


def _add_up(model: nn.Module, step: StepTrace, *, ema: bool, overhead_bytes: int) -> MemoryForecast:
    parameters = list(model.parameters())
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    persistent_bytes = sum(_num_bytes(tensor) for tensor in model.state_dict().values())
    parts = {
        "parameters_bytes": sum(map(_num_bytes, parameters)) + sum(map(_num_bytes, model.buffers())),
        "gradients_bytes": sum(map(_num_bytes, trainable)),
        "optimizer_bytes": sum(2 * _num_bytes(parameter) + STEP_COUNTER_BYTES for parameter in trainable),
        "ema_bytes": persistent_bytes if ema else 0,
        "activations_bytes": step.inputs_bytes + step.saved_bytes,
        "largest_temporary_bytes": step.largest_temporary_bytes,
        "overhead_bytes": overhead_bytes,
    }
    return MemoryForecast(**parts, total_bytes=sum(parts.values()))


def without_weights(experiment: Experiment) -> Experiment:
    """The same shapes with nothing to download or read."""
    encoder = experiment.model.encoder_cfg.model_copy(update={"pretrained": False, "checkpoint_path": None})
    return experiment.model_copy(update={"model": experiment.model.model_copy(update={"encoder_cfg": encoder})})


def _hollow_copy(tensor: Tensor, device: torch.device, channels_last: bool) -> _Hollow:
    """A tensor of the same shape, strides and type that has no contents."""
    meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return _Hollow(_laid_out(meta, channels_last), device, tensor.requires_grad)


def _laid_out(tensor: Tensor, channels_last: bool) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last and tensor.ndim == 4 else tensor


@contextmanager
def _autocast(device_type: DeviceType, dtype: torch.dtype | None) -> Iterator[None]:
    """Autocast by the rules of a device that may be missing, where torch.autocast would turn itself off."""
    if dtype is None:
        yield
        return
    before = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)
    torch.set_autocast_enabled(device_type, True)
    torch.set_autocast_dtype(device_type, dtype)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device_type, before[0])
        torch.set_autocast_dtype(device_type, before[1])


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _contents(tensor: Tensor) -> Tensor:
    return tensor.meta if isinstance(tensor, _Hollow) else tensor


def _storage(tensor: Tensor) -> int:
    return int(_contents(tensor).untyped_storage()._cdata)


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _returned(tensor: Tensor) -> Tensor:
    return tensor
