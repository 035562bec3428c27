"""File, profile and KEY=VALUE become one experiment, or one line that names whoever wrote what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crack_sweeps.errors import SpecError
from crack_sweeps.specs import loading
from crack_sweeps.specs.experiment import Experiment, HybridModel, SmpModel
from crack_sweeps.specs.loading import dump, find_experiment, list_experiments, load_resolved, resolve
from crack_sweeps.specs.profiles import GIB, PROFILES, Machine, choose_profile
from crack_sweeps.specs.schema import experiment_schema
from crack_sweeps.specs.settings import dotted, leaves
from crack_sweeps.specs.words import printable

SHIPPED = ("deeplabv3plus_resnet50", "swinv2_hybrid", "unet_resnet50", "unet_small")
REPO = Path(__file__).resolve().parents[2]


def test_the_hybrid_has_the_values_that_users_know() -> None:
    experiment = resolve("swinv2_hybrid", profile="none").experiment
    assert isinstance(experiment.model, HybridModel)
    assert experiment.name == "swinv2_hybrid_focal_dice"
    assert experiment.model.encoder_cfg.model_name == "swinv2_tiny_window16_256"
    assert (experiment.model.encoder_cfg.pretrained, experiment.model.encoder_cfg.img_size) == (True, 256)
    assert experiment.model.bottleneck_cfg.atrous_rates == (1, 6, 12, 18)
    loss = experiment.training.loss
    assert (loss.focal_weight, loss.dice_weight, loss.focal_alpha, loss.focal_gamma) == (0.6, 0.4, 0.25, 2.0)
    assert (experiment.training.learning_rate, experiment.training.effective_batch) == (1e-4, 16)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_experiment_opens_with_question_cost_expectation_and_a_command_that_names_it(name: str) -> None:
    comment = [line for line in find_experiment(name).read_text().splitlines() if line.startswith("#")]
    text = "\n".join(comment)
    assert comment[0].startswith("# Question: ")
    assert all(f"# {word}:" in text for word in ("Cost", "Expected"))
    assert comment[-1] == f"# Command:  uv run sweeps run {name}"


@pytest.mark.parametrize("profile", ["none", *PROFILES])
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_experiment_resolves_everywhere_and_its_dump_loads_back_the_same(
    name: str, profile: str, tmp_path: Path
) -> None:
    resolved = resolve(name, profile=profile)
    path = tmp_path / "config.yaml"
    path.write_text(dump(resolved.experiment))
    assert load_resolved(path) == resolved.experiment
    assert resolved.quick_look is (profile == "cpu")


def test_the_shipped_experiments_are_listed_and_the_working_folders_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert {file.name for file in list_experiments()} >= set(SHIPPED)
    (tmp_path / "experiments").mkdir()
    mine = tmp_path / "experiments" / "unet_small.yaml"
    mine.write_text("# Question: mine?\nname: mine\nmodel: {architecture: unet}\n")
    assert find_experiment("unet_small") == Path("experiments/unet_small.yaml")
    assert next(file for file in list_experiments() if file.name == "unet_small").question == "mine?"
    assert resolve("unet_small", profile="none").experiment.name == "mine"


def test_an_installed_package_finds_the_experiments_inside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package" / "_shipped" / "experiments").mkdir(parents=True)
    (tmp_path / "package" / "_shipped" / "experiments" / "one.yaml").write_text("name: one")
    monkeypatch.setattr(loading, "PACKAGE", tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    assert [file.name for file in list_experiments()] == ["one"]


# --- profiles ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory_gib", "name"), [(4, "gpu-8gb"), (16, "gpu-8gb"), (23.7, "gpu-24gb"), (40, "gpu-24gb"), (79.2, "gpu-80gb")]
)
def test_a_gpu_chooses_its_profile_by_memory(memory_gib: float, name: str) -> None:
    assert choose_profile(Machine("some GPU", int(memory_gib * GIB), 8)) == name


def test_a_machine_without_a_gpu_takes_a_quick_look_and_lists_what_changed() -> None:
    resolved = resolve("swinv2_hybrid", machine=Machine(None, None, 2))
    assert (resolved.profile, resolved.quick_look) == ("cpu", True)
    assert resolved.changed_by_profile["model.encoder_cfg.pretrained"] == (True, False)
    assert resolved.changed_by_profile["model.bottleneck_cfg.atrous_rates"] == ([1, 6, 12, 18], [1, 2, 3])
    assert "training.schedule" not in resolved.changed_by_profile
    assert resolved.experiment.crop_px == resolved.experiment.tile_px == 128


def test_the_machine_changes_the_micro_batch_and_never_the_effective_batch() -> None:
    for overrides, small, large in [
        ((), 4, 16),
        (("training.gradient_accumulation_steps=4", "training.batch_size=4"), 4, 4),
    ]:
        for profile, micro in (("gpu-8gb", small), ("gpu-24gb", large), ("gpu-80gb", large)):
            training = resolve("swinv2_hybrid", profile=profile, overrides=overrides).experiment.training
            assert (training.batch_size, training.effective_batch) == (micro, 16)


def test_the_micro_batch_divides_an_odd_effective_batch(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text("name: odd\nmodel: {architecture: swinv2_hybrid}\n"
                    "training: {batch_size: 9, gradient_accumulation_steps: 1}\n")  # fmt: skip
    training = resolve(path, profile="gpu-8gb").experiment.training
    assert (training.batch_size, training.gradient_accumulation_steps) == (3, 3)


def test_what_the_user_types_beats_the_profile_key_by_key() -> None:
    training = resolve("swinv2_hybrid", profile="cpu", overrides=["training.epochs=3"]).experiment.training
    assert (training.epochs, training.steps_per_epoch, training.learning_rate) == (3, 18, 1e-3)
    typed = resolve("swinv2_hybrid", profile="cpu", overrides=["model.encoder_cfg.img_size=192"]).experiment
    assert typed.crop_px == 192


def test_workers_follow_the_processors() -> None:
    for num_cpus, num_workers in ((1, 1), (2, 1), (6, 5), (64, 8)):
        machine = Machine("some GPU", 80 * GIB, num_cpus)
        assert resolve("unet_small", machine=machine).experiment.data.num_workers == num_workers


# --- overrides -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("training.learning_rate=1e-3", 0.001),
        ("training.epochs=7", 7),
        ("training.use_amp=false", False),
        ("training.loss.focal_alpha=null", None),
        ("model.bottleneck_cfg.atrous_rates=1,2,3", (1, 2, 3)),
        ("model.bottleneck_cfg.atrous_rates=[1, 2]", (1, 2)),
        ("model.bottleneck_cfg.atrous_rates=5", (5,)),
        ("data.mask.crack_values=null", None),
        ("name=123", "123"),
        ("name='1e-3'", "1e-3"),
        ("data.path=12:30", Path("12:30")),
        ("data.group_pattern=[a]*(b)", "[a]*(b)"),
        ("data.transform.augmentations=A.Affine(scale=(0.8, 1.2), p=1)", ("A.Affine(scale=(0.8, 1.2), p=1)",)),
        ('data.transform.augmentations=["A.D4(p=1)", "A.Blur(3)"]', ("A.D4(p=1)", "A.Blur(3)")),
        ("data.transform.augmentations=[]", ()),
    ],
)
def test_an_override_is_read_as_the_type_of_its_field(text: str, value: object) -> None:
    found: object = resolve("swinv2_hybrid", profile="none", overrides=[text]).experiment
    for key in text.partition("=")[0].split("."):
        found = getattr(found, key)
    assert (found, type(found)) == (value, type(value))


def test_data_and_seed_count_as_overrides() -> None:
    resolved = resolve("unet_small", profile="none", data=Path("photos"), seed=3)
    assert resolved.overrides == ("data.path=photos", "training.seed=3")
    assert (resolved.experiment.data.path, resolved.experiment.training.seed) == (Path("photos"), 3)


MISTAKES = {
    "training.epochs=-3": ("`training.epochs` is -3, must be at least 1", "Epochs"),
    "training.epochs=two": ("is 'two', must be a whole number", "Epochs"),
    "training.epochs=1.5": ("is 1.5, must be a whole number", "Epochs"),
    "training.epochs=true": ("is true, must be a whole number", "Epochs"),
    "training.learning_rate=.inf": ("must be a finite number", "learning rate"),
    "training.learning_rate=9": ("is 9, must be at most 1", "learning rate"),
    "training.ema_decay=1": ("is 1, must be less than 1", "averaged weights"),
    "training.use_amp=perhaps": ("must be true or false", "precision"),
    "training.schedule=cosin": ("must be cosine, poly or constant", "`cosine`"),
    "training.loss.focal_weigth=1": ("`training.loss.focal_weigth` is not a setting", "focal_weight`"),
    "epochs=5": ("`epochs` is not a setting", "`training.epochs`"),
    "training=5": ("`training` is a group of settings", "training."),
    "training.epochs=": ("is empty, must be a whole number", "Epochs"),
    "training.epochs": ("is no KEY=VALUE", "training.epochs=10"),
    "training.loss.focal_weight=[1": ("is not YAML", "brackets"),
    "model.architecture=swin": ("must be swinv2_hybrid, unet", "`swinv2_hybrid`"),
    "model.architecture=unet": ("belong to swinv2_hybrid", "unet_resnet50"),
    "model.encoder_cfg.depth=3": ("is not a setting", "it belongs to the baselines"),
    "model.encoder_cfg.model_name=swinv2_tiny_window16_265": ("no SwinV2 called", "`swinv2_tiny_window16_256`"),
    "model.encoder_cfg.model_name=swinv2_cr_tiny_224": ("timm's other SwinV2", "without `cr`"),
    "model.encoder_cfg.img_size=250": ("must be a multiple of 32", "224 and 256"),
    "model.bottleneck_cfg.atrous_rates=[1,-2]": ("`model.bottleneck_cfg.atrous_rates[1]` is -2", "Dilation"),
    "model.bottleneck_cfg.atrous_rates=[]": ("must have at least 1 entries", "Dilation"),
    "model.bottleneck_cfg.stride=8": ("must be 16 or 32", "cells"),
    "data.crop_px=128": ("model.encoder_cfg.img_size is 256", "agree"),
    "data.group_pattern=[": ("no regular expression", "group"),
    "data.group_pattern=abc": ("has no group", "brackets"),
    "data.path=a\0b": ("NUL", "plain text"),
    "data.transform.augmentations=A.Flip(p=0.5)": (
        "`data.transform.augmentations[0]`: albumentations 2 has no",
        "A.D4",
    ),
    "name=../../etc": ("must be letters, digits", "names the run's directory"),
}


@pytest.mark.parametrize("text", MISTAKES, ids=repr)
def test_a_mistake_on_the_command_line_is_one_line_that_shows_what_was_typed(text: str) -> None:
    problem, hint = MISTAKES[text]
    with pytest.raises(SpecError) as caught:
        resolve("swinv2_hybrid", profile="none", overrides=["training.seed=1", text])
    message = caught.value.message
    assert printable(text) in message
    assert problem in message
    assert message.isprintable()
    assert caught.value.hint is not None
    assert hint in caught.value.hint


def test_contradicting_overrides_are_refused() -> None:
    with pytest.raises(SpecError, match=r"set twice, also by training\.seed=1"):
        resolve("unet_small", profile="none", overrides=["training.seed=1"], seed=2)


def test_a_mistake_in_the_file_names_the_file_even_beside_overrides_and_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nmodel: {architecture: unet}\ntraining: {schedul: poly, warmup_fraction: 2}\n")
    with pytest.raises(SpecError) as caught:
        resolve(path, profile="cpu", overrides=["training.epochs=3"])
    said = "`training.schedul` is not a setting (and 1 more: `training.warmup_fraction`)"
    assert caught.value.message == f"{path}: {said}", "the mistyped name comes first, the others are named"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {architecture: unet}", "`name` is missing"),
        ("name: x", "`model` is missing"),
        ("name: x\nmodel: {}", "`model.architecture` is missing"),
        ("name: x\nmodel: 3", "`model` is 3, must be a group of settings"),
        ("name: x\nmodel: {architecture: [a]}", "`model.architecture` is"),
        ("name: 5\nmodel: {architecture: unet}", "`name` is 5, must be text"),
        ("name: x\nmodel: {architecture: unet}\ntraining:", "`training` is empty, must be a group of settings"),
        ("name: x\nmodel: {architecture: unet}\ntraining: {epochs: }", "`training.epochs` is empty, must be a whole"),
        (
            "name: x\nmodel: {architecture: unet}\ndata: {crop_px: 100}",
            "`data.crop_px` is 100, must be a multiple of 32",
        ),
        ("name: x\nmodel: {architecture: unet, decoder_cfg: {channels: [1]}}", "decoder_cfg.channels has 1 entries"),
    ],
)
@pytest.mark.parametrize("profile", ["none", "cpu", "gpu-8gb"])
def test_a_mistake_in_a_file_is_one_line(text: str, message: str, profile: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        resolve(path, profile=profile)
    assert caught.value.message.startswith(f"{path}")
    assert message in caught.value.message


def test_a_file_must_stand_by_itself_even_where_a_profile_or_an_override_would_mend_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nmodel: {architecture: unet}\ntraining: {epochs: 0}\n")
    for profile, overrides in (("cpu", ()), ("none", ("training.epochs=3",))):
        with pytest.raises(SpecError, match=r"`training\.epochs` is 0, must be at least 1") as caught:
            resolve(path, profile=profile, overrides=overrides)
        assert caught.value.message.startswith(f"{path}: ")


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(SpecError, match="no such experiment") as caught:
        resolve("swinv2_hybrd", profile="none")
    assert caught.value.hint == "did you mean swinv2_hybrid?"
    with pytest.raises(SpecError, match="no such profile") as caught:
        resolve("unet_small", profile="gpu8")
    assert caught.value.hint == "did you mean gpu-8gb?"


# --- the room ------------------------------------------------------------------------------------


def test_every_setting_says_what_it_means_in_the_schema() -> None:
    assert all(field.description for family in (HybridModel, SmpModel) for field in leaves(family).values())
    schema = experiment_schema()
    json.dumps(schema)
    assert schema["properties"].keys() == Experiment.model_fields.keys()
    silent = [
        dotted((name, key))
        for name, group in schema["$defs"].items()
        for key, entry in group["properties"].items()
        if "description" not in entry
    ]
    assert silent == []


COSTS = """
import sys, time
start = time.process_time()
import pydantic
from pydantic import BaseModel, Field, model_validator
pydantic_s = time.process_time() - start
start = time.process_time()
from crack_sweeps.specs.loading import resolve
resolve("swinv2_hybrid", profile="cpu")
heavy = sorted({"torch", "timm", "albumentations", "numpy", "cv2", "mlflow", "optuna"} & set(sys.modules))
print(pydantic_s, time.process_time() - start, heavy)
"""


def test_resolving_is_light() -> None:
    ratios = []
    for _ in range(3):  # the best of three: a busy machine only adds
        done = subprocess.run([sys.executable, "-c", COSTS], capture_output=True, text=True, check=True, cwd=REPO)
        pydantic_s, ours_s, heavy = done.stdout.strip().split(" ", 2)
        assert heavy == "[]"
        ratios.append(float(ours_s) / float(pydantic_s))
    # Measured 0.8; a second validation library, or torch (20), would show.
    assert min(ratios) < 2.5, f"resolving costs {ratios} times what importing pydantic does"
