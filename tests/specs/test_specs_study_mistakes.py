"""A mistake in a study is one line that names the file, the key and the value, with what to do; never a traceback."""

from __future__ import annotations

import copy
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.loading import find_study
from crack_sweeps.specs.profiles import PROFILES
from crack_sweeps.specs.study import size_bytes
from crack_sweeps.specs.study_loading import dump_study_snapshot, load_study_snapshot, resolve_study, settle
from crack_sweeps.specs.yaml import dump_yaml, load_yaml

HYBRID = "name: mine\nbase: swinv2_hybrid\n"
LR = "training.learning_rate: {low: 1e-4, high: 1e-2, log: true}"
STRIDE = "model.bottleneck_cfg.stride: {choices: [16, 32]}"

# What is written in `space`: what the error says, what the hint says.
IN_THE_SPACE = {
    "training.loss.focal_gama: {low: 0, high: 3}": (
        "`space.training.loss.focal_gama` is not a setting", "did you mean `training.loss.focal_gamma`?"),
    "focal_gamma: {low: 0, high: 3}": (
        "`space.focal_gamma` is not a setting", "did you mean `training.loss.focal_gamma`?"),
    "training.loss: {choices: [1, 2]}": (
        "`space.training.loss` is a group of settings", "such as `training.loss.focal_weight`"),
    "model.decoder_cfg.channels: {choices: [[1, 2]]}": (
        "`space.model.decoder_cfg.channels` is not a setting", "belongs to the baselines"),
    "training.loss.focal_gamma: {choices: [1, 11]}": (
        "space: `training.loss.focal_gamma` is 11, must be at most 10", "How strongly"),
    "training.loss.focal_alpha: {low: 0, high: 0.5}": (
        "space: `training.loss.focal_alpha` is 0, must be greater than 0", "in (0, 1)"),
    "model.encoder_cfg.model_name: {choices: [swinv2_tiny_window16_265]}": (
        "timm has no SwinV2 called 'swinv2_tiny_window16_265'", "did you mean `swinv2_tiny_window16_256`?"),
    "model.bottleneck_cfg.atrous_rates: {choices: [[1, 2], [1, 0]]}": (
        "space: `model.bottleneck_cfg.atrous_rates[1]` is 0, must be at least 1", "Dilation"),
    "model.bottleneck_cfg.stride: {low: 16, high: 32}": (
        "`space.model.bottleneck_cfg.stride` is a range, but the setting must be 16 or 32", "choices"),
    "model.bottleneck_cfg.out_channels: {low: 64, high: 256}": (
        "space: `model.bottleneck_cfg.out_channels` is 65, must be a multiple of 8", "64 and 72"),
    "evaluation.tile_px: {choices: [256, 512]}": (
        "`space.evaluation.tile_px` changes how trials are measured", "settings: {evaluation.tile_px: ...}"),
    "training.batch_size: {low: 1.5, high: 8}": (
        "`space.training.batch_size` has fractions, but the setting must be a whole number", "Micro-batch"),
    "training.seed: {choices: [1, 2]}": (
        "`space.training.seed` changes nothing that a search could find", "another seed by itself"),
    "model.architecture: {choices: [swinv2_hybrid, unet]}": (
        "`space.model.architecture` is 'unet', which has other settings", "one family"),
    "training.use_amp: {low: 0, high: 1}": (
        "`space.training.use_amp` is a range, but the setting must be true or false", "choices"),
    "training.learning_rate: {low: 1e-2, high: 1e-4}": (
        "`space.training.learning_rate`: low is 0.01 and high is 0.0001: high must be greater than low", "choices"),
    "training.weight_decay: {low: 0, high: 0.1, log: true}": (
        "`space.training.weight_decay`: low is 0, but log needs low greater than 0", "low"),
    "training.weight_decay: {low: 0.01, high: 0.1, log: true, step: 0.01}": (
        "`space.training.weight_decay`: log and step exclude each other", "step"),
    "training.loss.focal_gamma: {low: 0, high: 1, step: 0.3}": (
        "high is 1, which steps of 0.3 from 0 do not meet: the last before it is 0.9", "step"),
    "training.loss.focal_gamma: {low: 0, high: 1, step: 0}": (
        "`space.training.loss.focal_gamma.step` is 0, must be greater than 0", "Distance between values"),
    "training.loss.focal_gamma: {choices: [1, 2, 1.0]}": (
        "`space.training.loss.focal_gamma`: choices holds 1.0 twice", "choices"),
    "model.bottleneck_cfg.atrous_rates: {choices: [[1, 2], [1, 2]]}": (
        "`space.model.bottleneck_cfg.atrous_rates`: choices holds [1, 2] twice", "choices"),
    "training.loss.focal_gamma: {choices: []}": (
        "`space.training.loss.focal_gamma.choices` is empty", "The values"),
    "training.loss.focal_gamma: [1, 2]": (
        "`space.training.loss.focal_gamma` is neither `choices` nor `low` and `high`", "write `{choices: [1, 2]}`"),
    "training.loss.focal_gamma: {choices: [1], low: 2}": (
        "`space.training.loss.focal_gamma` is neither `choices` nor `low` and `high`", "write `{choices: [1, 2]}`"),
    "training.loss.focal_gamma:": (
        "`space.training.loss.focal_gamma` is neither `choices` nor `low` and `high`", "write `{choices: [1, 2]}`"),
    "training.loss.focal_gamma: {low: 1}": ("`space.training.loss.focal_gamma.high` is missing", "The greatest"),
    "training.loss.focal_gamma: {low: 1, hihg: 2, high: 3}": (
        "`space.training.loss.focal_gamma.hihg` is not a setting of a study", "did you mean `high`?"),
    "training.loss.focal_gamma: {low: 1, high: yes}": (
        "`space.training.loss.focal_gamma.high` is 'yes', must be a number", "The greatest value"),
    "training.loss.focal_gamma: {low: false, high: 2}": (
        "`space.training.loss.focal_gamma.low` is false, must be a number", "The least value"),
    "training.loss.focal_gamma: {choices: [{a: 1}]}": (
        "`space.training.loss.focal_gamma.choices[0]` is {'a': 1}, must be a number, text", ""),
    f"{LR}\n  training.loss.focal_gamma: {{low: 0, high: 1, when: {{training.loss.focal_weigt: 1}}}}": (
        "space.training.loss.focal_gamma.when: `training.loss.focal_weigt` is not in the space", "earlier parameter"),
    f"training.loss.focal_gamma: {{low: 0, high: 1, when: {{model.bottleneck_cfg.stride: 16}}}}\n  {STRIDE}": (
        "`model.bottleneck_cfg.stride` stands later in the space, must stand above `training.loss.focal_gamma`",
        "earlier parameter"),
    f"{LR}\n  training.loss.focal_gamma: {{low: 0, high: 1, when: {{training.learning_rate: 1e-3}}}}": (
        "`training.learning_rate` is a range, must have choices", "earlier parameter"),
    f"{STRIDE}\n  training.loss.focal_gamma: {{low: 0, high: 1, when: {{model.bottleneck_cfg.stride: [16, 8]}}}}": (
        "space.training.loss.focal_gamma.when.model.bottleneck_cfg.stride is 8, must be 16 or 32", "earlier parameter"),
    f"{STRIDE}\n  training.loss.focal_gamma: {{low: 0, high: 11, when: {{model.bottleneck_cfg.stride: 16}}}}": (
        "space: `training.loss.focal_gamma` is 11, must be at most 10", "How strongly"),
}  # fmt: skip

# What is written beside a sound name, base and space.
BESIDE_IT = {
    "bugdet: {trials: 3}": ("`bugdet` is not a setting of a study", "did you mean `budget`?"),
    "budget: {trials: 0}": ("`budget.trials` is 0, must be at least 1", "Trials that train"),
    "budget: {trials: true}": ("`budget.trials` is true, must be a whole number", "Trials that train"),
    "budget: {gpu_hours: -1}": ("`budget.gpu_hours` is -1, must be greater than 0", "Hours"),
    "budget: 30": ("`budget` is 30, must be a group of settings", "write `budget: {trials: 30}`"),
    "sampler: {name: tpee}": ("`sampler.name` is 'tpee', must be tpe, random, gp or cmaes", "did you mean `tpe`?"),
    "pruner: {reduction_factor: 1}": ("`pruner.reduction_factor` is 1, must be at least 2", "one of this many"),
    "pruner: {min_epoch: 1}": ("`pruner.min_epoch` is not a setting of a study", "did you mean `min_epochs`?"),
    "memory_budget: 8G": ("`memory_budget` is '8G', must be auto or a size with its unit, such as 8GiB", "forecast"),
    "memory_budget: 0GiB": ("`memory_budget` is '0GiB', must be auto or a size", "forecast"),
    "memory_budget: 8": ("`memory_budget` is 8, must be auto or a size with its unit", "forecast"),
    "jobs: many": ("`jobs` is 'many', must be auto or a whole number from 1", "at once"),
    "jobs: 0": ("`jobs` is 0, must be auto or a whole number from 1", "at once"),
    "jobs:": ("`jobs` is empty, must be auto or a whole number from 1", "at once"),
    "seed: -1": ("`seed` is -1, must be at least 0", "Seed"),
    "seed: 0.5": ("`seed` is 0.5, must be a whole number", "Seed"),
    "objective: {metric: val/crack_iuo}": ("`objective.metric` is 'val/crack_iuo', must be", "`val/crack_iou`?"),
    "objective: {metric: train/loss}": ("`objective.metric` is 'train/loss', must be", "the loss is no objective"),
    "objective: {direction: minimize}": ("`objective.direction` is minimize, but val/crack_iou is better", "maximize"),
    "settings: {training.epoch: 3}": ("`settings.training.epoch` is not a setting", "did you mean `training.epochs`?"),
    "settings: {training.epochs: 0}": ("settings: `training.epochs` is 0, must be at least 1", "Epochs"),
    "settings: {training: {epochs: 3}}": ("`settings.training` is {'epochs': 3}, must be a number, text", ""),
    "settings: [1]": ("`settings` is [1], must be a mapping of KEY: VALUE", "KEY: VALUE"),
    "quick_look: {settings: {training.epoch: 3}}": (
        "`quick_look.settings.training.epoch` is not a setting", "did you mean `training.epochs`?"),
    "quick_look: {space: {training.learning_rat: null}}": (
        "`quick_look.space.training.learning_rat` drops what is not in the space", "take the line out"),
    "quick_look: {space: {training.learning_rat: {choices: [1]}}}": (
        "`quick_look.space.training.learning_rat` is not a setting", "did you mean `training.learning_rate`?"),
    "quick_look: {space: {training.learning_rate: null}}": ("`quick_look.space` drops every parameter", "at least one"),
    "quick_look: {space: {training.learning_rate: 4}}": (
        "`quick_look.space.training.learning_rate` is neither `choices` nor", "write `{choices: [1, 2]}`"),
    "quick_look: {pruner: {name: median, min_epochs: 0}}": ("`quick_look.pruner.min_epochs` is 0, must be", "Epochs"),
    'memory_budget: "a\\0b"': ("`memory_budget` holds a NUL", "plain text"),
}  # fmt: skip

# What stands for name and base.
AT_THE_TOP = {
    "base: swinv2_hybrid": ("`name` is missing", "names the study's directory"),
    "name: a/b\nbase: swinv2_hybrid": ("`name` is 'a/b', must be letters, digits", "directory"),
    "name: ../x\nbase: swinv2_hybrid": ("`name` is '../x', must be letters, digits", "directory"),
    "name: mine@2\nbase: swinv2_hybrid": ("`name` is 'mine@2', must be letters, digits", "directory"),
    "name: 5\nbase: swinv2_hybrid": ("`name` is 5, must be text", "directory"),
    "name: mine": ("`base` is missing", "The experiment that is searched around"),
    "name: mine\nbase: swinv2_hybrd": ("`base` is 'swinv2_hybrd': no such experiment", "did you mean swinv2_hybrid?"),
    "name: mine\nbase: ../nowhere.yaml": ("`base` is '../nowhere.yaml', but", "name an experiment"),
    "name: mine\nbase: mine.yaml": ("`base` is 'mine.yaml', which is a study", "an experiment's name"),
    "name: mine\nbase: [a]": ("`base` is ['a'], must be text", "The experiment that is searched around"),
}


def refused(text: str, tmp_path: Path, profile: str = "none", **flags: Any) -> SpecError:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        resolve_study(path, profile=profile, **flags)
    assert caught.value.message.isprintable()
    assert caught.value.hint is not None
    return caught.value


@pytest.mark.parametrize("profile", ["none", "cpu"])
@pytest.mark.parametrize("text", IN_THE_SPACE, ids=repr)
def test_a_mistake_in_the_space_is_one_line(text: str, profile: str, tmp_path: Path) -> None:
    problem, hint = IN_THE_SPACE[text]
    error = refused(f"{HYBRID}space:\n  {text}\n", tmp_path, profile)
    assert error.message.startswith(f"{tmp_path / 'mine.yaml'}")
    assert problem in error.message
    assert hint in (error.hint or "")


@pytest.mark.parametrize("text", BESIDE_IT, ids=repr)
def test_a_mistake_beside_the_space_is_one_line(text: str, tmp_path: Path) -> None:
    problem, hint = BESIDE_IT[text]
    error = refused(f"{HYBRID}space: {{{LR}}}\n{text}\n", tmp_path)
    assert error.message.startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert problem in error.message
    assert hint in (error.hint or "")


@pytest.mark.parametrize("text", AT_THE_TOP, ids=repr)
def test_a_mistake_in_name_or_base_is_one_line(text: str, tmp_path: Path) -> None:
    problem, hint = AT_THE_TOP[text]
    error = refused(f"{text}\nspace: {{{LR}}}\n", tmp_path)
    assert error.message.startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert problem in error.message
    assert hint in (error.hint or "")


def test_a_value_that_does_not_go_with_the_base_is_named_with_what_it_disagrees_with(tmp_path: Path) -> None:
    space = "space: {model.encoder_cfg.img_size: {choices: [256, 320]}}\nsettings: {data.crop_px: 256}\n"
    assert refused(f"{HYBRID}{space}", tmp_path).message == (
        f"{tmp_path / 'mine.yaml'}: space with `model.encoder_cfg.img_size` 320: "
        "data.crop_px is 256, but model.encoder_cfg.img_size is 320: SwinV2 is built for one size"
    )


def test_a_mistake_in_the_base_names_the_bases_file(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\nmodel: {architecture: unet}\ntraining: {epochs: 0}\n")
    error = refused(f"name: mine\nbase: ./bad.yaml\nspace: {{{LR}}}\n", tmp_path)
    assert error.message == f"{tmp_path / 'bad.yaml'}: `training.epochs` is 0, must be at least 1"


def test_a_space_is_required(tmp_path: Path) -> None:
    assert "`space` is missing" in refused(HYBRID, tmp_path).message
    assert "`space` is empty" in refused(f"{HYBRID}space: {{}}\n", tmp_path).message
    assert "`space` is empty, must be a mapping" in refused(f"{HYBRID}space:\n", tmp_path).message


FLAGS: dict[str, tuple[dict[str, Any], str]] = {
    "trials": ({"trials": 0}, "--trials 0: `budget.trials` is 0, must be at least 1"),
    "gpu_hours": ({"gpu_hours": 0.0}, "--gpu-hours 0.0: `budget.gpu_hours` is 0.0, must be greater than 0"),
    "jobs": ({"jobs": "two"}, "--jobs two: `jobs` is 'two', must be auto or a whole number from 1"),
    "memory": ({"memory_budget": "8"}, "--vram-budget 8: `memory_budget` is '8', must be auto or a size"),
}


@pytest.mark.parametrize("flags", FLAGS)
def test_a_mistake_in_a_flag_names_the_flag(flags: str, tmp_path: Path) -> None:
    values, problem = FLAGS[flags]
    assert problem in refused(f"{HYBRID}space: {{{LR}}}\n", tmp_path, **values).message


def test_what_is_typed_is_blamed_for_what_it_wrote(tmp_path: Path) -> None:
    text = f"{HYBRID}space: {{{LR}}}\n"
    assert refused(text, tmp_path, overrides=["training.epochs=0"]).message.startswith("training.epochs=0: `training.")
    assert "is not a setting" in refused(text, tmp_path, overrides=["training.epoch=1"]).message
    error = refused(text, tmp_path, overrides=["training.learning_rate=7"])  # a key that it would have fixed
    assert error.message == "training.learning_rate=7: `training.learning_rate` is 7, must be at most 1"


def test_a_quick_look_is_checked_for_names_even_where_it_is_not_taken(tmp_path: Path) -> None:
    gate = f"{STRIDE}, training.loss.focal_gamma: {{low: 0, high: 1, when: {{model.bottleneck_cfg.stride: 16}}}}"
    quick = "quick_look: {space: {model.bottleneck_cfg.stride: {choices: [32]}}}"
    error = refused(f"{HYBRID}space: {{{gate}}}\n{quick}\n", tmp_path)
    assert "quick_look: space.training.loss.focal_gamma.when.model.bottleneck_cfg.stride is 16, must be 32" in (
        error.message
    )


def test_a_value_that_only_a_quick_look_cannot_take_is_found_when_it_is_taken(tmp_path: Path) -> None:
    quick = "quick_look: {space: {training.learning_rate: {choices: [2]}}}"
    error = refused(f"{HYBRID}space: {{{LR}}}\n{quick}\n", tmp_path, "cpu")
    place = f"{tmp_path / 'mine.yaml'} with profile cpu: quick_look.space"
    assert error.message == f"{place}: `training.learning_rate` is 2, must be at most 1"


def test_an_unknown_study_gets_a_suggestion() -> None:
    with pytest.raises(SpecError, match="swinv2_hybrd: no such study") as caught:
        resolve_study("swinv2_hybrd", profile="none")
    assert caught.value.hint == "did you mean swinv2_hybrid?"
    with pytest.raises(SpecError, match="does not exist"):
        resolve_study("nowhere/x.yaml", profile="none")


def test_sizes_are_read_by_their_unit() -> None:
    sizes = {"8GiB": 8 << 30, "7.5 GiB": 7.5 * (1 << 30), "800MB": 8e8, "1TB": 1e12, "4KiB": 4096}
    assert {text: size_bytes(text) for text in sizes} == sizes
    for text in ("8", "8G", "GiB", "-8GiB", "8 GiB of it", "1e3GiB", "0.0MB", "８GiB"):
        with pytest.raises(ValueError, match="must be auto or a size"):
            size_bytes(text)


# --- whatever else stands there ------------------------------------------------------------------

VALID = [load_yaml(find_study(name)) for name in ("swinv2_hybrid", "quick")]
ODD: list[Any] = [
    None, True, -1, 0, 10**400, 1e308, float("inf"), float("nan"), "", "no", "\0", "é\u2028", "x" * 500, [], [[]], {},
    {"a": 1}, [None], {"choices": [1]}, {"low": 1, "high": 2}, {"low": 0, "high": 10**400, "step": 1e-300}, "auto",
    {"choices": [[[1]]]}, {"choices": [1, 2], "when": {"training.learning_rate": 1}},
]  # fmt: skip


def check_mutated(which: int, seed: int, profile: str) -> None:
    choice, spec = random.Random(seed), copy.deepcopy(VALID[which])
    for _ in range(choice.randint(1, 3)):
        places = list(_places(spec, ()))
        if not places:
            break
        *groups, key = choice.choice(places)
        group = spec
        for name in groups:
            group = group[name]
        how = choice.randrange(4)
        if how == 0:
            del group[key]
        elif how == 1:
            group[key[:-1] + choice.choice("xé.-")] = group.pop(key)
        else:
            group[key] = copy.deepcopy(choice.choice(ODD))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.yaml"
        path.write_text(dump_yaml(spec), encoding="utf-8")
        refusal = None
        try:
            study = resolve_study(path, profile=profile)
        except SpecError as error:
            refusal = error.message
        if refusal is None:
            path.write_text(dump_study_snapshot(study), encoding="utf-8")
            assert load_study_snapshot(path) == study
            assert settle(study.arms[0], {}) == study.arms[0].base
        else:
            assert refusal.startswith(str(path))
            assert refusal.isprintable()
            assert len(refusal) < 800 + len(str(path))


def _places(spec: dict[str, Any], keys: tuple[str, ...]) -> list[tuple[str, ...]]:
    here = [(*keys, key) for key in spec]
    return here + [place for key in spec if isinstance(spec[key], dict) for place in _places(spec[key], (*keys, key))]


ANY = (st.integers(0, 1), st.integers(0, 2**32), st.sampled_from(["none", *PROFILES]))
test_a_mutated_study_is_read_or_refused_by_name = settings(max_examples=80, deadline=None)(given(*ANY)(check_mutated))
test_1000_mutated_studies_are_read_or_refused_by_name = pytest.mark.slow(
    settings(max_examples=1000, deadline=None)(given(*ANY)(check_mutated))
)
