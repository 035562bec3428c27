"""Study, base, profile, KEY=VALUE and suggestion become one experiment; a study is known by what it searches."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from crack_sweeps.errors import SpecError
from crack_sweeps.specs import loading
from crack_sweeps.specs.experiment import HybridModel
from crack_sweeps.specs.loading import find_study, list_studies, names_study, resolve
from crack_sweeps.specs.profiles import PROFILES, Machine
from crack_sweeps.specs.schema import study_schema
from crack_sweeps.specs.study import Choices, Range, StudySpec
from crack_sweeps.specs.study_checks import METRICS, probes
from crack_sweeps.specs.study_loading import (
    Identity,
    ResolvedStudy,
    dump_study_snapshot,
    flat,
    flat_study,
    identity,
    load_study_snapshot,
    resolve_study,
    settle,
)
from crack_sweeps.specs.yaml import dump_yaml

SHIPPED = ("quick", "swinv2_hybrid")
REPO = Path(__file__).resolve().parents[2]
SMALL = {
    "name": "small",
    "base": "unet_small",
    "settings": {"training.epochs": 4, "training.loss.focal_weight": 0.5},
    "space": {
        "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "training.loss.focal_weight": {"choices": [0, 0.5, 1]},
        "training.loss.focal_gamma": {"low": 0, "high": 3, "when": {"training.loss.focal_weight": [0.5, 1]}},
        "training.gradient_accumulation_steps": {"low": 1, "high": 4},
    },
}


def written(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(dump_yaml({**SMALL, **changes}))
    return path


# --- the shipped studies -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_opens_with_question_cost_expectation_and_a_command_that_names_it(name: str) -> None:
    comment: list[str] = []
    for line in find_study(name).read_text().splitlines():
        if not line.startswith("#"):
            break
        comment.append(line)
    words = [line.split(":")[0].removeprefix("# ") for line in comment if not line.startswith("#  ")]
    assert words == ["Question", "Cost", "Expected", "Command"]
    assert comment[-1] == f"# Command:  uv run sweeps study {name}"
    assert {file.name for file in list_studies()} >= set(SHIPPED)
    assert next(file for file in list_studies() if file.name == name).question.endswith("?")


@pytest.mark.parametrize("profile", ["none", *PROFILES])
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_resolves_everywhere_and_its_snapshot_loads_back_the_same(
    name: str, profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = resolve_study(name, profile=profile)
    path = tmp_path / "study.yaml"
    path.write_text(dump_study_snapshot(study))
    monkeypatch.chdir(tmp_path)  # without the files that it came from
    monkeypatch.setattr(loading, "PACKAGE", tmp_path)
    assert load_study_snapshot(path) == study
    assert list(load_study_snapshot(path).arms[0].space) == list(study.arms[0].space)
    assert study.quick_look is (profile == "cpu")


def test_the_shipped_study_is_the_default_and_searches_what_decides() -> None:
    study = resolve_study(profile="gpu-8gb")
    arm = study.arms[0]
    assert (study.spec.name, arm.name, study.spec.budget.trials) == ("swinv2_hybrid", "swinv2_hybrid", 30)
    assert {key.split(".")[-1] for key in arm.space} == {
        "focal_weight", "dice_weight", "focal_alpha", "focal_gamma", "stride", "atrous_rates", "model_name",
        "drop_path_rate", "learning_rate", "encoder_lr_multiplier", "weight_decay",
    }  # fmt: skip
    alpha = arm.space["training.loss.focal_alpha"]
    assert isinstance(alpha, Choices)
    assert None in alpha.choices


@pytest.mark.parametrize("name", SHIPPED)
def test_a_quick_look_searches_no_rate_that_is_dead_on_its_map(name: str) -> None:
    arm = resolve_study(name, profile="cpu").arms[0]
    for rates in probes(arm.space["model.bottleneck_cfg.atrous_rates"]):
        model = settle(arm, {"model.bottleneck_cfg.atrous_rates": rates}).model
        assert isinstance(model, HybridModel)
        cells = model.encoder_cfg.img_size // model.bottleneck_cfg.stride
        # On a map of n cells the off-centre taps of rate n and above all fall outside.
        assert max(model.bottleneck_cfg.atrous_rates) < cells == 4


@pytest.mark.parametrize("name", SHIPPED)
def test_a_quick_look_leaves_the_pruner_something_to_stop(name: str) -> None:
    study = resolve_study(name, profile="cpu")
    pruner = study.spec.pruner
    assert pruner.min_epochs * pruner.reduction_factor < study.arms[0].base.training.epochs


def test_the_metrics_that_may_be_an_objective_are_those_that_a_run_reports() -> None:
    source = (REPO / "crack_sweeps" / "runs" / "finale.py").read_text()  # read, because its imports take seconds
    source = source[source.index("def validation_scores") :]
    reported = source[source.index("names = (") : source.index("return")]
    assert {f"val/{name}" for name in reported.split('"')[1::2]} == set(METRICS)


# --- order ---------------------------------------------------------------------------------------


def test_file_settings_profile_quick_look_typed_and_suggestion_each_beat_the_one_before(tmp_path: Path) -> None:
    key = "training.steps_per_epoch"

    def steps(profile: str, *typed: str, **changes: object) -> int | None:
        study = resolve_study(written(tmp_path, **changes), profile=profile, overrides=typed)
        return study.arms[0].base.training.steps_per_epoch

    of_file = resolve("unet_small", profile="none").experiment.training.steps_per_epoch
    settings = {"settings": {key: 7}}
    quick = settings | {"quick_look": {"settings": {key: 9}}}
    assert steps("none") == of_file
    assert steps("none", **settings) == 7
    assert steps("cpu", **settings) == 18  # the profile's
    assert steps("cpu", **quick) == 9
    assert steps("none", **quick) == 7
    assert steps("cpu", f"{key}=11", **quick) == 11
    (arm,) = resolve_study(written(tmp_path, **quick), profile="cpu", overrides=[f"{key}=11"]).arms
    assert settle(arm, {key: 13}).training.steps_per_epoch == 13


def test_a_quick_look_replaces_joins_and_drops_parameters_and_the_pruner(tmp_path: Path) -> None:
    quick = {
        "space": {
            "training.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
            "training.loss.focal_weight": None,
            "training.weight_decay": {"choices": [0, 0.1]},
        },
        "pruner": {"name": "median"},
    }
    path = written(tmp_path, quick_look=quick)
    full, small = resolve_study(path, profile="none"), resolve_study(path, profile="cpu")
    assert list(full.arms[0].space) == list(SMALL["space"])  # type: ignore[call-overload]
    assert list(small.arms[0].space) == [
        "training.learning_rate",
        "training.loss.focal_gamma",
        "training.gradient_accumulation_steps",
        "training.weight_decay",
    ]
    assert small.arms[0].space["training.learning_rate"] == Range(low=1e-3, high=1e-2, log=True)
    assert (full.spec.pruner.name, small.spec.pruner.name) == ("hyperband", "median")
    assert small.spec.space == small.arms[0].space
    assert small.spec.quick_look is None


def test_a_typed_key_of_the_space_is_fixed_and_conditions_on_it_are_decided_by_its_value(tmp_path: Path) -> None:
    path, gate, gamma = written(tmp_path), "training.loss.focal_weight", "training.loss.focal_gamma"
    on = resolve_study(path, profile="none", overrides=[f"{gate}=1"])
    off = resolve_study(path, profile="none", overrides=[f"{gate}=0"])
    assert on.fixed == off.fixed == (gate,)
    assert on.overrides == (f"{gate}=1",)
    assert on.arms[0].space[gamma].when is None
    assert gamma not in off.arms[0].space
    assert on.arms[0].base.training.loss.focal_weight == 1.0
    only = written(tmp_path, space={"training.learning_rate": {"choices": [1e-3, 1e-2]}})
    with pytest.raises(SpecError, match=r"training\.learning_rate=0\.001: nothing is left to search"):
        resolve_study(only, profile="none", overrides=["training.learning_rate=0.001"])


def test_where_one_size_is_typed_the_other_follows_through_a_quick_look() -> None:
    for typed in ("data.crop_px=96", "model.encoder_cfg.img_size=96"):
        experiment = resolve_study("swinv2_hybrid", profile="cpu", overrides=[typed]).arms[0].base
        assert isinstance(experiment.model, HybridModel)
        assert (experiment.crop_px, experiment.model.encoder_cfg.img_size) == (96, 96)


def test_a_batch_that_is_searched_is_the_batch_on_every_machine(tmp_path: Path) -> None:
    path = written(tmp_path, base="swinv2_hybrid", space={"training.batch_size": {"choices": [8, 16]}})
    for profile in PROFILES:
        (arm,) = resolve_study(path, profile=profile).arms
        steps = arm.base.training.gradient_accumulation_steps
        assert settle(arm, {"training.batch_size": 16}).training.effective_batch == 16 * steps
        assert steps == (1 if profile == "cpu" else 4)


def test_flags_are_laid_over_the_file(tmp_path: Path) -> None:
    study = resolve_study(
        written(tmp_path), profile="none", trials=3, jobs="2", gpu_hours=1.5, memory_budget="8GiB", data=Path("photos")
    )
    assert (study.spec.budget.trials, study.spec.budget.gpu_hours, study.spec.jobs) == (3, 1.5, 2)
    assert study.spec.memory_budget_bytes == 8 << 30
    assert study.arms[0].base.data.path == Path("photos")
    assert study.overrides == ("data.path=photos",)
    assert resolve_study(written(tmp_path), profile="none", jobs="auto").spec.jobs == "auto"


def test_the_machine_chooses_the_profile() -> None:
    assert resolve_study("quick", machine=Machine(None, None, 2)).profile == "cpu"
    assert resolve_study("quick", machine=Machine("a GPU", 8 << 30, 2)).profile == "gpu-8gb"


# --- the space -----------------------------------------------------------------------------------


def test_bounds_of_a_setting_that_takes_fractions_are_fractions_and_of_a_whole_one_whole(tmp_path: Path) -> None:
    (arm,) = resolve_study(written(tmp_path), profile="none").arms
    gamma, steps = arm.space["training.loss.focal_gamma"], arm.space["training.gradient_accumulation_steps"]
    weight = arm.space["training.loss.focal_weight"]
    assert isinstance(gamma, Range)
    assert isinstance(steps, Range)
    assert isinstance(weight, Choices)
    assert (gamma.whole, steps.whole) == (False, True)
    assert [type(choice) for choice in weight.choices] == [float, float, float]


def test_a_suggestion_settles_as_written_with_lists_or_tuples(tmp_path: Path) -> None:
    arm = resolve_study("quick", profile="cpu").arms[0]
    for rates in ([1, 2], (1, 2)):
        suggestion = {"training.learning_rate": 0.004, "model.bottleneck_cfg.atrous_rates": rates,
                      "training.loss.focal_alpha": None}  # fmt: skip
        settled = flat(settle(arm, suggestion))
        assert settled["model.bottleneck_cfg.atrous_rates"] == [1, 2]
        assert (settled["training.learning_rate"], settled["training.loss.focal_alpha"]) == (0.004, None)
        same = {key for key, value in flat(arm.base).items() if settled[key] == value}
        assert set(settled) - same <= set(suggestion)


def test_a_suggestion_that_makes_no_experiment_names_arm_key_and_value() -> None:
    arm = resolve_study("quick", profile="cpu").arms[0]
    with pytest.raises(SpecError) as caught:
        settle(arm, {"training.learning_rate": 2})
    assert caught.value.message == (
        "arm swinv2_hybrid, suggestion training.learning_rate=2: `training.learning_rate` is 2, must be at most 1"
    )
    with pytest.raises(SpecError, match=r"`suggestion\.training\.learning_rat` is not a setting"):
        settle(arm, {"training.learning_rat": 2})


def test_a_base_by_path_is_looked_for_beside_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "experiments").mkdir()
    mine = tmp_path / "experiments" / "mine.yaml"
    mine.write_text("name: other\nmodel: {architecture: unet}\n")
    path = written(tmp_path / "studies", base="../experiments/mine.yaml")
    monkeypatch.chdir(tmp_path)
    (arm,) = resolve_study("small", profile="none").arms
    assert (arm.name, arm.base.name) == ("mine", "other")
    assert resolve_study(path, profile="none").arms[0].base == arm.base


def test_a_studys_name_is_found_where_no_experiment_has_it_and_its_path_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    (tmp_path / "other.yaml").write_text("name: other\nmodel: {architecture: unet}\n")
    monkeypatch.chdir(tmp_path)  # the shipped ones are found from anywhere
    assert names_study("quick")
    assert names_study("studies/swinv2_hybrid")
    assert names_study("studies/swinv2_hybrid.yaml")
    assert names_study(str(path))
    assert not names_study("swinv2_hybrid")
    assert not names_study("other.yaml")
    assert find_study("studies/quick") == find_study("studies/quick.yaml") == find_study("quick")
    with pytest.raises(SpecError, match="quik: no such study") as caught:
        find_study("studies/quik")
    assert caught.value.hint == "did you mean quick?"


# --- identity ------------------------------------------------------------------------------------


def known(path: Path | str, digest: str = "d", profile: str = "gpu-8gb", **flags: object) -> Identity:
    return identity(resolve_study(path, profile=profile, **flags), digest)  # type: ignore[arg-type]


def test_how_long_how_many_and_in_how_much_memory_is_no_other_study(tmp_path: Path) -> None:
    here = known(written(tmp_path))
    assert here == known(written(tmp_path), trials=99, jobs=3, gpu_hours=2.0, memory_budget="4GiB")
    assert here == known(written(tmp_path, budget={"trials": 5}, memory_budget="1GB", jobs=2))
    assert here == known(written(tmp_path), overrides=["data.num_workers=3"])


def test_what_is_searched_changes_the_space_alone(tmp_path: Path) -> None:
    here = known(written(tmp_path))
    spaces = [
        {**SMALL["space"], "training.learning_rate": {"low": 1e-4, "high": 2e-2, "log": True}},  # type: ignore[dict-item]
        {**SMALL["space"], "training.weight_decay": {"choices": [0.0, 0.1]}},  # type: ignore[dict-item]
        {key: SMALL["space"][key] for key in list(SMALL["space"])[1:]},  # type: ignore[index,call-overload]
    ]
    changed = [known(written(tmp_path, space=space)) for space in spaces]
    assert all(other.rest == here.rest for other in changed)
    assert len({other.space for other in [here, *changed]}) == 4


def test_neither_the_order_of_keys_nor_0_for_0_point_0_is_another_space(tmp_path: Path) -> None:
    space = dict(reversed(SMALL["space"].items()))  # type: ignore[attr-defined]
    space["training.loss.focal_weight"] = {"choices": [0.0, 0.5, 1.0]}
    gamma = space.pop("training.loss.focal_gamma")
    assert known(written(tmp_path, space={**space, "training.loss.focal_gamma": gamma})) == known(written(tmp_path))


def test_everything_else_that_a_score_depends_on_changes_the_rest(tmp_path: Path) -> None:
    here = known(written(tmp_path))
    others = [
        known(written(tmp_path), "other photos"),
        known(written(tmp_path), profile="cpu"),
        known(written(tmp_path), overrides=["training.epochs=3"]),
        known(written(tmp_path, settings={**SMALL["settings"], "training.epochs": 5})),
        known(written(tmp_path, seed=1)),
        known(written(tmp_path, sampler={"name": "gp"})),
        known(written(tmp_path, pruner={"name": "none"})),
        known(written(tmp_path, objective={"metric": "val/crack_f1"})),
    ]
    assert all(other.space == here.space for other in others)
    assert len({other.rest for other in [here, *others]}) == len(others) + 1


def test_arms_are_part_of_the_identity(tmp_path: Path) -> None:
    study = resolve_study(written(tmp_path), profile="none")
    two = replace(study, arms=(*study.arms, replace(study.arms[0], name="second")))
    assert identity(two, "d").space != identity(study, "d").space
    assert identity(two, "d").rest != identity(study, "d").rest


# --- snapshot, schema, words ---------------------------------------------------------------------


def test_a_snapshot_holds_conditions_fixed_keys_and_several_arms(tmp_path: Path) -> None:
    study = resolve_study(written(tmp_path), profile="cpu", overrides=["training.weight_decay=0.02"], trials=4)
    study = replace(study, arms=(*study.arms, replace(study.arms[0], name="second")))
    path = tmp_path / "study.yaml"
    path.write_text(dump_study_snapshot(study))
    loaded = load_study_snapshot(path)
    assert isinstance(loaded, ResolvedStudy)
    assert loaded == study
    assert identity(loaded, "d") == identity(study, "d")


@pytest.mark.parametrize("text", ["format: 2", "name: x\nbase: y", "", "format: 1\nstudy: 3"])
def test_what_is_no_snapshot_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_study_snapshot(path)
    assert caught.value.message.startswith(f"{path}: ")


def test_every_key_of_a_study_says_what_it_means_in_the_schema() -> None:
    schema = study_schema()
    json.dumps(schema)
    assert schema["properties"].keys() == StudySpec.model_fields.keys()
    groups = {"StudySpec": schema, **schema["$defs"]}
    silent = [
        f"{name}.{key}" for name, group in groups.items() for key, entry in group["properties"].items()
        if "description" not in entry
    ]  # fmt: skip
    assert silent == []


def test_a_study_on_one_level_shows_how_it_searches_and_each_space_in_words(tmp_path: Path) -> None:
    shown = flat_study(resolve_study(written(tmp_path), profile="none"))
    assert shown["sampler.name"] == "tpe"
    assert shown["space.training.learning_rate"] == "0.0001..0.01, log"
    assert shown["space.training.loss.focal_weight"] == "0.0, 0.5, 1.0"
    assert shown["space.training.loss.focal_gamma"].endswith("when training.loss.focal_weight is [0.5, 1]")


def test_resolving_a_study_loads_nothing_heavy() -> None:
    code = (
        "import sys; from crack_sweeps.specs.study_loading import resolve_study; resolve_study(profile='cpu');"
        "print(sorted({'torch', 'timm', 'albumentations', 'numpy', 'cv2', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO)
    assert done.stdout.strip() == "[]"
