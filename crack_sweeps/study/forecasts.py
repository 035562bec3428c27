"""The memory forecast of a suggestion, each shape once: traced in a process of its own, kept in a JSON file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import signal
import traceback
from contextlib import suppress
from dataclasses import asdict, fields
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import crack_sweeps
from crack_sweeps import durable
from crack_sweeps.errors import DiskFull, SpecError, StudyError, SweepsError
from crack_sweeps.specs.experiment import Experiment, HybridModel, Loss
from crack_sweeps.study.warm import processes
from crack_sweeps.training.footprint import DeviceType, MemoryForecast

# Settings of `training` that leave the memory of a step as it is; a new one counts until it is named here. `compile` is
# among them because the forecast knows nothing of it.
WITHOUT_EFFECT = frozenset({
    "learning_rate", "encoder_lr_multiplier", "layer_decay", "weight_decay", "gradient_accumulation_steps", "epochs",
    "steps_per_epoch", "schedule", "warmup_fraction", "min_lr_fraction", "gradient_clip_norm",
    "early_stopping_patience", "monitor", "seed", "compile", "deterministic",
})  # fmt: skip
_PACKAGES = ("torch", "timm", "segmentation-models-pytorch")  # what shapes and maps are made by
_SOURCES = ("models/*.py", "training/forecast.py", "training/footprint.py", "training/losses.py")
_FIELDS = {field.name for field in fields(MemoryForecast)}
_PATIENCE_S = 5.0  # how long the process may take to leave when it is asked to, and to vanish when killed


class Forecaster:
    """Forecasts of the allocator's peak, cached by shape.

    Torch is imported, and models are built, in a child process that sees no GPU: no context is ever opened on a card,
    and none of that memory lasts beyond the study's need for it. The child starts at the first shape that the cache
    does not know, and again where it died.

    Args:
        cache: The JSON file of forecasts; made where it is missing.
        on: The kind of device that trials will run on.
        timeout_s: Seconds that one shape may take, the start of the child and its imports included.
        context: What to start the child with; None is the warm server that trials are forked from.

    Attributes:
        warnings: What a person should know about the cache file, if anything.
    """

    def __init__(
        self, cache: Path, on: DeviceType, *, timeout_s: float = 120.0, context: BaseContext | None = None
    ) -> None:
        self._cache = cache
        self._on = on
        self._timeout_s = timeout_s
        self._context = context
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._known, self.warnings = _read_cache(cache)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def peak(self, experiment: Experiment) -> MemoryForecast:
        """What a training step of this experiment will hold at its peak.

        Raises:
            SweepsError: The settings are to blame: of them no model or step can be built, or their precision is none of
                this device's.
            StudyError: The child died, took too long, or has no memory left.
        """
        key = shape_key(experiment, self._on)
        if key not in self._known:
            self._known[key] = self._ask(experiment)
            self._write_cache()
        return self._known[key]

    def close(self) -> None:
        """End the child. A later forecast starts a new one."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is None or connection is None:
            return
        connection.close()  # idle, it takes this as its leave
        process.join(_PATIENCE_S)
        _kill(process)

    def _ask(self, experiment: Experiment) -> MemoryForecast:
        if self._connection is None or self._process is None or not self._process.is_alive():
            self.close()
            self._process, self._connection = self._start()
        process, connection = self._process, self._connection
        try:
            connection.send(experiment)
            if not wait([connection, process.sentinel], self._timeout_s):
                raise self._stalled(experiment)
            answer: MemoryForecast | SweepsError = connection.recv()
        except (EOFError, OSError) as error:  # its end is closed: it is dead, or about to be
            raise self._died(experiment, process) from error
        if isinstance(answer, SweepsError):
            raise answer
        return answer

    def _start(self) -> tuple[BaseProcess, Connection]:
        context = self._context or processes()
        ours, theirs = context.Pipe()
        process = context.Process(  # type: ignore[attr-defined]  # each context has it, their common ancestor has not
            target=_serve, args=(theirs, self._on), name="memory forecasts", daemon=True
        )
        process.start()
        theirs.close()
        # Before multiprocessing's own clean-up at exit, which sends a SIGTERM that the child ignores, and waits.
        Finalize(self, _kill, args=(process,), exitpriority=100)
        return process, ours

    def _stalled(self, experiment: Experiment) -> StudyError:
        self._give_up()
        return StudyError(
            f"the memory forecast of {experiment.name} took longer than {self._timeout_s:g} s",
            hint="a machine under heavy load? `sweeps estimate EXPERIMENT` shows whether the model can be forecast",
        )

    def _died(self, experiment: Experiment, process: BaseProcess) -> StudyError:
        process.join(_PATIENCE_S)
        exit_code = process.exitcode
        self._give_up()
        return StudyError(
            f"the process that forecasts memory died (exit code {exit_code}) at {experiment.name}",
            hint="killed for want of memory? building a model takes its weights' size in host memory",
        )

    def _give_up(self) -> None:
        if self._process is not None:
            _kill(self._process)
        self.close()

    def _write_cache(self) -> None:
        """Store all forecasts, those that another process added meanwhile too. Without room they last in memory."""
        others, _ = _read_cache(self._cache)
        content = {"forecasts": {key: asdict(known) for key, known in sorted((others | self._known).items())}}
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        with suppress(DiskFull):
            durable.write_text(self._cache, json.dumps(content, indent=1) + "\n")


def shape_key(experiment: Experiment, on: DeviceType) -> str:
    """What all experiments have in common that need the same memory: a digest of settings, versions and our own code.

    Values that change no size are reduced to what of them matters: of atrous rates, which branches are 3x3; of rates
    of dropping, whether anything is dropped; of the loss, which terms are on.
    """
    facts: dict[str, Any] = {"on": on, "made_by": _made_by(), "crop_px": experiment.crop_px}
    training = experiment.training.model_dump(mode="json", exclude=set(WITHOUT_EFFECT))
    training["loss"] = _loss_shape(experiment.training.loss)
    training["ema_decay"] = experiment.training.ema_decay is not None
    if on == "cpu" and experiment.training.use_amp:  # whether a processor has bfloat16 differs by machine
        facts["host"] = platform.node()
    text = json.dumps(facts | {"model": _model_shape(experiment), "training": training}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _model_shape(experiment: Experiment) -> dict[str, Any]:
    model = experiment.model
    shape: dict[str, Any] = model.model_dump(mode="json")
    for name in ("pretrained", "checkpoint_path"):
        del shape["encoder_cfg"][name]
    if isinstance(model, HybridModel):
        shape["encoder_cfg"]["drop_path_rate"] = model.encoder_cfg.drop_path_rate > 0
        shape["bottleneck_cfg"]["dropout"] = model.bottleneck_cfg.dropout > 0
        shape["bottleneck_cfg"]["atrous_rates"] = [rate == 1 for rate in model.bottleneck_cfg.atrous_rates]
    return shape


def _loss_shape(loss: Loss) -> dict[str, Any]:
    terms = {name: value > 0 for name, value in loss.model_dump(mode="json").items() if name.endswith("_weight")}
    return terms | {
        "alpha": loss.focal_alpha is not None and terms["focal_weight"],
        "cldice_iterations": loss.cldice_iterations if terms["cldice_weight"] else 0,
    }


@cache
def _made_by() -> dict[str, str]:
    """Versions, and a digest of the code that a forecast depends on: what an older one said is not believed."""
    package = Path(crack_sweeps.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _SOURCES for path in package.glob(pattern)):
        digest.update(path.read_bytes())
    return {name: importlib.metadata.version(name) for name in _PACKAGES} | {"code": digest.hexdigest()}


def _read_cache(path: Path) -> tuple[dict[str, MemoryForecast], tuple[str, ...]]:
    """The forecasts of a cache file; none, and a warning, where it is damaged."""
    try:
        content = json.loads(path.read_bytes())
        return {key: _forecast(parts) for key, parts in content["forecasts"].items()}, ()
    except FileNotFoundError:
        return {}, ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, (f"{path}: cannot be read ({error}); memory is forecast anew",)


def _forecast(parts: dict[str, Any]) -> MemoryForecast:
    if set(parts) != _FIELDS or not all(type(value) is int and value >= 0 for value in parts.values()):
        raise ValueError("no forecast")
    found = MemoryForecast(**parts)
    if 2 * found.total_bytes != sum(parts.values()):
        raise ValueError("parts that do not add up")
    return found


def _kill(process: BaseProcess) -> None:
    if process.is_alive():
        process.kill()
        process.join(_PATIENCE_S)


# --- in the child --------------------------------------------------------------------------------


def _serve(connection: Connection, on: DeviceType) -> None:
    """Answer one experiment after another, until the parent closes its end or is gone."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before CUDA is asked anything: no context on any card
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the coordinator hears them, and closes this process
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)  # shapes are traced, nothing is computed; the cores are the trials'
    while True:
        try:
            experiment: Experiment = connection.recv()
            connection.send(_trace(experiment, on))
        except (EOFError, OSError):
            return


def _trace(experiment: Experiment, on: DeviceType) -> MemoryForecast | SweepsError:
    import torch

    from crack_sweeps.training.forecast import forecast
    from crack_sweeps.training.precision import resolve_amp

    try:
        if on == "cuda":  # of 2 bytes in either type; which of them a card has cannot be asked here, and need not be
            return forecast(experiment, device_type="cuda")
        return forecast(experiment, device_type="cpu", amp_dtype=resolve_amp(experiment.training, torch.device("cpu")))
    except SweepsError as error:
        return error
    except MemoryError as error:  # the host's want, not the settings': any other model would meet it too
        return StudyError(f"the host has no memory left to build {experiment.name} ({error or 'MemoryError'})")
    except Exception as error:  # noqa: BLE001 - whatever a library says of one suggestion, the others go on
        text = " ".join(str(error).split())
        told = SpecError(
            f"{experiment.name}: no training step can be built of its settings ({type(error).__name__}: {text})",
            hint="settings that timm or segmentation_models.pytorch have no network for",
        )
        told.add_note(traceback.format_exc())
        return told
