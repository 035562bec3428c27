"""Each shape is traced once, in a child that sees no GPU; what goes wrong there is told here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crack_sweeps.errors import DeviceError, SpecError, StudyError
from crack_sweeps.specs.experiment import Experiment, Loss, Training
from crack_sweeps.study.forecasts import WITHOUT_EFFECT, Forecaster, shape_key

TINY = {
    "architecture": "unet",
    "encoder_cfg": {"model_name": "resnet10t", "pretrained": False, "depth": 3},
    "decoder_cfg": {"channels": [16, 16, 16]},
}
HYBRID = {
    "architecture": "swinv2_hybrid",
    "encoder_cfg": {"model_name": "swinv2_tiny_window8_256", "pretrained": False, "img_size": 128},
    "bottleneck_cfg": {"atrous_rates": [1, 2, 3]},
}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be halted by a signal there")


def experiment(model: dict[str, Any] = TINY, **changes: Any) -> Experiment:
    """A small experiment with dotted settings changed: `training__batch_size=8`."""
    data: dict[str, Any] = {"name": "x", "model": json.loads(json.dumps(model)), "training": {}, "data": {}}
    if model["architecture"] != "swinv2_hybrid":
        data["data"]["crop_px"] = 64
    for dotted, value in changes.items():
        *path, last = dotted.split("__")
        inner = data
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return Experiment.model_validate(data)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forecaster]:
    """One child for most tests: it takes seconds to import torch."""
    with Forecaster(tmp_path_factory.mktemp("warm") / "forecasts.json", "cuda") as forecaster:
        yield forecaster


def test_the_parent_needs_no_torch() -> None:
    code = "import sys, crack_sweeps.study.forecasts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_forecast_is_the_one_that_this_process_would_make(warm: Forecaster) -> None:
    from crack_sweeps.training.forecast import forecast

    assert warm.peak(experiment()) == forecast(experiment(), device_type="cuda")


def test_a_shape_that_was_asked_for_once_is_known_to_the_next_without_a_child(warm: Forecaster) -> None:
    first = warm.peak(experiment())
    with Forecaster(warm._cache, "cuda") as second:
        assert second.peak(experiment(training__learning_rate=0.5)) == first
        assert second._process is None
        assert second.warnings == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"forecasts": []}',
        b'{"forecasts": {"a": {"total_bytes": 1}}}',
        b'{"forecasts": {"a": 7}}',
    ],
)
def test_a_damaged_cache_is_told_and_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "forecasts.json"
    path.write_bytes(content)
    forecaster = Forecaster(path, "cpu")
    (warning,) = forecaster.warnings
    assert str(path) in warning
    assert "anew" in warning
    assert forecaster._known == {}


def test_a_forecast_whose_parts_do_not_add_up_is_not_believed(tmp_path: Path, warm: Forecaster) -> None:
    warm.peak(experiment())
    content = json.loads(warm._cache.read_text())
    next(iter(content["forecasts"].values()))["activations_bytes"] += 1
    path = tmp_path / "forecasts.json"
    path.write_text(json.dumps(content))
    assert Forecaster(path, "cuda").warnings != ()


def test_two_studies_that_share_a_cache_lose_nothing(tmp_path: Path, warm: Forecaster) -> None:
    with Forecaster(tmp_path / "deep" / "forecasts.json", "cuda") as one, Forecaster(one._cache, "cuda") as other:
        for forecaster, batch_size in ((one, 1), (other, 2)):
            key = shape_key(experiment(training__batch_size=batch_size), "cuda")
            forecaster._known[key] = warm.peak(experiment())
            forecaster._write_cache()
        assert len(Forecaster(one._cache, "cuda")._known) == 2


CHANGES_NOTHING: dict[str, Any] = {
    "name": "y",
    "training__learning_rate": 0.5,
    "training__encoder_lr_multiplier": 0.5,
    "training__layer_decay": 0.5,
    "training__weight_decay": 0.5,
    "training__gradient_accumulation_steps": 9,
    "training__epochs": 7,
    "training__steps_per_epoch": 7,
    "training__schedule": "poly",
    "training__warmup_fraction": 0.5,
    "training__min_lr_fraction": 0.5,
    "training__gradient_clip_norm": 0.5,
    "training__early_stopping_patience": 3,
    "training__monitor": "val/recall",
    "training__seed": 7,
    "training__compile": True,
    "training__deterministic": False,
    "training__loss__focal_weight": 0.1,
    "training__loss__dice_weight": 0.1,
    "training__loss__focal_alpha": 0.6,
    "training__loss__focal_gamma": 0.0,
    "training__loss__dice_smooth": 3.0,
    "training__loss__cldice_iterations": 9,
    "training__loss__tversky_alpha": 0.5,
    "training__loss__tversky_beta": 0.5,
    "training__loss__tversky_gamma": 1.0,
    "data__val_fraction": 0.3,
    "evaluation__num_overlays": 0,
}
CHANGES_MEMORY: dict[str, Any] = {
    "training__batch_size": 5,
    "training__use_amp": False,
    "training__ema_decay": 0.9,
    "training__activation_checkpointing": True,
    "training__channels_last": False,
    "training__amp_dtype": "float16",
    "training__loss__dice_weight": 0.0,
    "training__loss__focal_weight": 0.0,
    "training__loss__focal_alpha": None,
    "training__loss__bce_weight": 0.1,
    "training__loss__tversky_weight": 0.1,
    "training__loss__cldice_weight": 0.1,
    "data__crop_px": 96,
    "model__decoder_cfg__channels": [32, 16, 16],
    "model__encoder_cfg__model_name": "resnet14t",
}


@pytest.mark.parametrize(("key", "value"), CHANGES_NOTHING.items())
def test_what_changes_no_memory_shares_its_forecast(key: str, value: Any) -> None:
    changed = experiment(**{key: value})
    assert changed != experiment()
    assert shape_key(changed, "cuda") == shape_key(experiment(), "cuda")


@pytest.mark.parametrize(("key", "value"), CHANGES_MEMORY.items())
def test_what_may_change_memory_has_a_forecast_of_its_own(key: str, value: Any) -> None:
    assert shape_key(experiment(**{key: value}), "cuda") != shape_key(experiment(), "cuda")


def test_iterations_count_once_their_term_is_on() -> None:
    few, many = (experiment(training__loss={"cldice_weight": 0.1, "cldice_iterations": n}) for n in (3, 9))
    assert shape_key(few, "cuda") != shape_key(many, "cuda")


def test_every_setting_of_training_and_loss_is_on_one_side() -> None:
    named = CHANGES_NOTHING.keys() | CHANGES_MEMORY.keys()
    assert {f"training__{name}" for name in Training.model_fields if name != "loss"} <= named
    assert {f"training__loss__{name}" for name in Loss.model_fields} <= named
    assert Training.model_fields.keys() >= WITHOUT_EFFECT


def test_the_device_is_part_of_the_shape() -> None:
    assert shape_key(experiment(), "cuda") != shape_key(experiment(), "cpu")


def test_settings_without_effect_leave_the_forecast_as_it_is() -> None:
    from crack_sweeps.training.forecast import forecast

    together = experiment(**{key: value for key, value in CHANGES_NOTHING.items() if not key.startswith("name")})
    assert forecast(together) == forecast(experiment())


@pytest.mark.slow
def test_rates_and_drops_of_the_hybrid_share_a_forecast_and_it_is_true_of_each() -> None:
    from crack_sweeps.training.forecast import forecast

    base = experiment(HYBRID)
    alike = experiment(
        HYBRID,
        model__bottleneck_cfg={"atrous_rates": [1, 3, 2], "dropout": 0.4},
        model__encoder_cfg__drop_path_rate=0.3,
        model__encoder_cfg__pretrained=True,
    )
    other = experiment(HYBRID, model__bottleneck_cfg={"atrous_rates": [3, 2, 1]})
    assert shape_key(base, "cuda") == shape_key(alike, "cuda") != shape_key(other, "cuda")
    assert forecast(base) == forecast(alike)


def test_a_model_that_cannot_be_built_is_told_as_such(warm: Forecaster) -> None:
    encoder = {"model_name": "resnet10t", "pretrained": False}
    two_rates = {"architecture": "deeplabv3", "encoder_cfg": encoder, "decoder_cfg": {"atrous_rates": [2, 3]}}
    with pytest.raises(SpecError, match="must be three rates") as caught:
        warm.peak(experiment(two_rates))
    assert "on top of the three" in (caught.value.hint or "")
    assert warm.peak(experiment())  # and the child goes on


@pytest.mark.parametrize("name", ["not_a_model_of_timm", "vit_tiny_patch16_224"])
def test_what_a_library_cannot_build_is_an_error_of_the_settings_and_keeps_its_traceback(
    warm: Forecaster, name: str
) -> None:
    with pytest.raises(SpecError, match=r"x: no training step can be built of its settings \(.*Error: ") as caught:
        warm.peak(experiment(model__encoder_cfg__model_name=name))
    assert "Traceback" in caught.value.__notes__[0]
    assert warm.peak(experiment()), "and the child goes on"


class Starved:
    """Unpickled, it is an experiment whose every setting costs more memory than there is."""

    def __reduce__(self) -> tuple[Any, ...]:
        starve = "lambda self, key: (_ for _ in ()).throw(MemoryError())"
        return eval, (f"type('Starved', (), {{'name': 'x', '__getattr__': {starve}}})()",)


def test_a_host_without_memory_is_nothing_that_the_settings_are_blamed_for(warm: Forecaster) -> None:
    with pytest.raises(StudyError, match="the host has no memory left"):
        warm._ask(Starved())  # type: ignore[arg-type]


def test_a_precision_that_the_device_lacks_is_told(tmp_path: Path) -> None:
    with Forecaster(tmp_path / "f.json", "cpu") as forecaster, pytest.raises(DeviceError, match="float16"):
        forecaster.peak(experiment(training__amp_dtype="float16"))


class Question:
    """Unpickled, it is a namespace without settings whose name tells about the process that unpickled it."""

    def __init__(self, expression: str) -> None:
        self.expression = expression

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"__import__('types').SimpleNamespace(name={self.expression})",)


def test_the_child_sees_no_gpu_and_takes_one_thread(warm: Forecaster) -> None:
    question = "repr((__import__('os').environ['CUDA_VISIBLE_DEVICES'], __import__('torch').get_num_threads()))"
    with pytest.raises(SpecError, match=r"\('', 1\)"):
        warm._ask(Question(question))  # type: ignore[arg-type]


def child_of(forecaster: Forecaster) -> int:
    assert forecaster._process is not None
    assert forecaster._process.pid is not None
    return forecaster._process.pid


@POSIX
def test_a_child_that_was_killed_in_between_is_replaced(warm: Forecaster) -> None:
    warm.peak(experiment())
    with pytest.raises(SpecError):  # makes sure that there is a child
        warm._ask(Question("'hello'"))  # type: ignore[arg-type]
    first = child_of(warm)
    assert warm._process is not None
    os.kill(first, signal.SIGKILL)
    warm._process.join(5)
    assert warm.peak(experiment(training__batch_size=2))
    assert child_of(warm) != first


@POSIX
def test_a_child_that_dies_at_work_is_told_and_the_next_question_has_another(warm: Forecaster) -> None:
    warm.peak(experiment(training__batch_size=3))
    pid = child_of(warm)
    os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    timer.start()
    with pytest.raises(StudyError, match=r"died \(exit code -9\) at x"):
        warm.peak(experiment(training__batch_size=6))
    timer.join()
    assert warm.peak(experiment(training__batch_size=6))


@POSIX
def test_a_child_that_hangs_is_given_up_in_time(warm: Forecaster, monkeypatch: pytest.MonkeyPatch) -> None:
    warm.peak(experiment(training__batch_size=7))
    process = warm._process
    os.kill(child_of(warm), signal.SIGSTOP)
    monkeypatch.setattr(warm, "_timeout_s", 0.2)
    with pytest.raises(StudyError, match=r"took longer than 0\.2 s"):
        warm.peak(experiment(training__batch_size=8))
    assert process is not None
    assert not process.is_alive()


def test_closing_ends_the_child_and_may_be_done_twice(tmp_path: Path) -> None:
    with Forecaster(tmp_path / "f.json", "cuda") as forecaster:
        forecaster.peak(experiment())
        process = forecaster._process
        assert process is not None
        assert process.is_alive()
        forecaster.close()
        assert not process.is_alive()
    assert forecaster._process is None


@pytest.mark.slow
def test_a_program_that_forgets_to_close_it_ends_all_the_same(tmp_path: Path) -> None:
    script = tmp_path / "forgets.py"
    script.write_text(
        "from pathlib import Path\n"
        "from crack_sweeps.specs.experiment import Experiment\n"
        "from crack_sweeps.study.forecasts import Forecaster\n"
        "if __name__ == '__main__':\n"
        f"    forecaster = Forecaster(Path({str(tmp_path / 'f.json')!r}), 'cpu')\n"
        f"    print(forecaster.peak(Experiment.model_validate_json({experiment().model_dump_json()!r})).total_bytes)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) > 0
