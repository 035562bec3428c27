"""Baselines of a study: what they share with the main arm, what is their own, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.study_loading import (
    dump_study_snapshot,
    identity,
    load_study_snapshot,
    resolve_study,
    settle,
)
from crack_sweeps.specs.yaml import dump_yaml

RATE, WEIGHT, GAMMA = "training.learning_rate", "training.loss.focal_weight", "training.loss.focal_gamma"
TRIO: dict[str, Any] = {
    "name": "trio",
    "base": "swinv2_hybrid",
    "settings": {"training.epochs": 4, "model.encoder_cfg.pretrained": False},
    "space": {
        "model.bottleneck_cfg.stride": {"choices": [16, 32]},
        RATE: {"low": 1e-4, "high": 1e-2, "log": True},
        WEIGHT: {"choices": [0.5, 1.0]},
        GAMMA: {"low": 0.0, "high": 3.0, "when": {"model.bottleneck_cfg.stride": 16}},
    },
    "baselines": [
        {"base": "unet_resnet50"},
        {
            "base": "deeplabv3plus_resnet50",
            "settings": {"model.encoder_cfg.pretrained": False},
            "space": {RATE: None, "model.decoder_cfg.atrous_rates": {"choices": [[3, 6, 9], [6, 12, 18]]}},
        },
    ],
}


def written(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "trio.yaml"
    path.write_text(dump_yaml({**TRIO, **changes}))
    return path


def refused(path: Path, **flags: Any) -> str:
    with pytest.raises(SpecError) as caught:
        resolve_study(path, profile="none", **flags)
    return caught.value.message


def test_the_shipped_study_tunes_both_baselines_in_the_main_arms_ranges_and_for_as_long() -> None:
    study = resolve_study(profile="gpu-8gb")
    main, *baselines = study.arms
    assert [arm.name for arm in baselines] == ["unet_resnet50", "deeplabv3plus_resnet50"]
    for arm in baselines:
        assert study.num_trials(arm) == study.num_trials(main) == 30
        assert arm.base.training.epochs == main.base.training.epochs
        assert arm.base.crop_px == main.base.crop_px
        shared = {key: parameter for key, parameter in main.space.items() if not key.startswith("model.")}
        assert {key: arm.space[key] for key in shared} == shared
    assert study.spec.finalists.seeds == 3


def test_a_baseline_shares_settings_and_ranges_that_are_no_models_and_has_its_own(tmp_path: Path) -> None:
    main, unet, deeplab = resolve_study(written(tmp_path), profile="none").arms
    assert list(main.space) == list(TRIO["space"])
    assert list(unet.space) == [RATE, WEIGHT], "gamma hangs on the hybrid's ASPP"
    assert list(deeplab.space) == [WEIGHT, "model.decoder_cfg.atrous_rates"], "null drops, a new key joins"
    assert [arm.base.training.epochs for arm in (main, unet, deeplab)] == [4, 4, 4]
    assert [arm.base.model.encoder_cfg.pretrained for arm in (main, unet, deeplab)] == [False, True, False]
    assert settle(deeplab, {"model.decoder_cfg.atrous_rates": [6, 12, 18]}).model.architecture == "deeplabv3plus"


def test_what_hangs_on_a_parameter_that_a_baseline_has_not_is_not_its_own_either(tmp_path: Path) -> None:
    chain = {
        "model.bottleneck_cfg.stride": {"choices": [16, 32]},
        WEIGHT: {"choices": [0.5, 1.0], "when": {"model.bottleneck_cfg.stride": 16}},
        GAMMA: {"low": 0.0, "high": 3.0, "when": {WEIGHT: 0.5}},
        RATE: {"low": 1e-4, "high": 1e-2, "log": True},
    }
    path = written(tmp_path, space=chain, baselines=[{"base": "unet_resnet50"}])
    main, unet = resolve_study(path, profile="none").arms
    assert (list(main.space), list(unet.space)) == (list(chain), [RATE])


def test_every_arm_keeps_the_weights_that_are_best_by_the_studys_objective(tmp_path: Path) -> None:
    plain = resolve_study(written(tmp_path), profile="none")
    path = written(tmp_path, objective={"metric": "val/crack_f1_image"})
    assert {arm.base.training.monitor for arm in plain.arms} == {"val/crack_iou"}
    study = resolve_study(path, profile="none")
    assert {arm.base.training.monitor for arm in study.arms} == {"val/crack_f1_image"}
    typed = resolve_study(path, profile="none", overrides=["training.monitor=val/crack_iou"])
    assert {arm.base.training.monitor for arm in typed.arms} == {"val/crack_iou"}


def test_which_arm_is_the_main_one_is_part_of_the_identity(tmp_path: Path) -> None:
    space = {RATE: TRIO["space"][RATE]}
    names = "unet_resnet50", "deeplabv3plus_resnet50"
    marks = []
    for main, other in (names, names[::-1]):
        settings = {"training.epochs": 4}
        path = written(tmp_path, base=main, settings=settings, space=space, baselines=[{"base": other}])
        marks.append(identity(resolve_study(path, profile="none"), "data"))
    assert [mark.main for mark in marks] == list(names)


def test_what_is_typed_holds_for_every_arm_unless_it_is_the_models(tmp_path: Path) -> None:
    typed = ["training.epochs=7", "model.encoder_cfg.drop_path_rate=0.1", f"{RATE}=0.002"]
    main, unet, deeplab = resolve_study(written(tmp_path), profile="none", overrides=typed).arms
    assert [arm.base.training.epochs for arm in (main, unet, deeplab)] == [7, 7, 7]
    assert [arm.base.training.learning_rate for arm in (main, unet, deeplab)] == [0.002, 0.002, 0.002]
    assert RATE not in {*main.space, *unet.space, *deeplab.space}


def test_a_quick_look_lays_over_all_arms_what_is_no_models_and_over_one_what_is_its_own(tmp_path: Path) -> None:
    quick = {
        "settings": {"training.epochs": 2, "model.encoder_cfg.img_size": 64, "data.crop_px": 64},
        "space": {RATE: {"choices": [0.001, 0.01]}, GAMMA: None},
    }
    own = {"settings": {"training.steps_per_epoch": 3}, "space": {WEIGHT: None}}
    baselines = [{"base": "unet_resnet50", "quick_look": own}]
    path = written(tmp_path, quick_look=quick, baselines=baselines)
    main, unet = resolve_study(path, profile="cpu").arms
    assert [arm.base.training.epochs for arm in (main, unet)] == [2, 2]
    assert [arm.base.crop_px for arm in (main, unet)] == [64, 64]
    assert main.space[RATE] == unet.space[RATE]
    assert (WEIGHT in main.space, WEIGHT in unet.space) == (True, False)
    assert unet.base.training.steps_per_epoch == 3


def test_flags_set_the_baselines_trials_and_the_finalists_seeds_and_are_no_part_of_the_identity(tmp_path: Path) -> None:
    path = written(tmp_path)
    plain = resolve_study(path, profile="none")
    typed = resolve_study(path, profile="none", trials=9, baseline_trials=2, seeds=5)
    assert [typed.num_trials(arm) for arm in typed.arms] == [9, 2, 2]
    assert typed.spec.finalists.seeds == 5
    assert identity(plain, "d") == identity(typed, "d")
    fewer = resolve_study(written(tmp_path, baselines=TRIO["baselines"][:1]), profile="none")
    assert identity(fewer, "d") != identity(plain, "d")


def test_finalists_have_arms_of_their_own_beside_those_that_are_searched(tmp_path: Path) -> None:
    study = resolve_study(written(tmp_path), profile="none")
    assert [arm.name for arm in study.finals] == [f"{arm.name}.final" for arm in study.arms]
    assert [arm.finalist_of for arm in study.all_arms] == [None] * 3 + [arm.name for arm in study.arms]


def test_the_snapshot_of_a_study_with_baselines_loads_back_to_an_equal_one(tmp_path: Path) -> None:
    study = resolve_study(written(tmp_path), profile="none", baseline_trials=0)
    (tmp_path / "study.yaml").write_text(dump_study_snapshot(study))
    assert load_study_snapshot(tmp_path / "study.yaml") == study


def test_a_baseline_without_anything_to_search_is_trained_as_shipped_or_refused(tmp_path: Path) -> None:
    path = written(tmp_path, baselines=[{"base": "unet_resnet50", "space": {RATE: None, WEIGHT: None}}])
    assert "`baselines[0].space`: nothing is left to search for unet_resnet50" in refused(path)
    arm = resolve_study(path, profile="none", baseline_trials=0).arms[1]
    assert arm.space == {}


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ({"base": "unet_resnet51"}, "`baselines[0].base` is 'unet_resnet51': no such experiment"),
        ({"base": "swinv2_hybrid"}, "there is an arm of that name already"),
        ({"base": "unet_resnet50", "space": {"training.seed": {"choices": [1]}}}, "`baselines[0].space.training.seed`"),
        ({"base": "unet_resnet50", "space": {"training.epochs": None}}, "`baselines[0].space.training.epochs` drops"),
        ({"base": "unet_resnet50", "space": {RATE: {"choices": [7]}}}, "baselines[0].space: `training.learning_rate`"),
        ({"base": "unet_resnet50", "space": {RATE: {"low": 2, "high": 1}}}, f"`baselines[0].space.{RATE}"),
        ({"base": "unet_resnet50", "space": {RATE: 3}}, f"`baselines[0].space.{RATE}` is neither `choices` nor"),
        ({"base": "unet_resnet50", "setting": {}}, "`baselines[0].setting` is not a setting of a study"),
        (
            {"base": "unet_resnet50", "settings": {"model.bottleneck_cfg.stride": 16}},
            "`baselines[0].settings.model.bottleneck_cfg.stride` is not a setting",
        ),
        ({"space": {}}, "`baselines[0].base` is missing"),
    ],
)
def test_a_mistake_in_a_baseline_is_named_with_its_place(tmp_path: Path, baseline: Any, said: str) -> None:
    assert said in refused(written(tmp_path, baselines=[baseline]))


def test_an_arm_that_would_take_the_name_of_anothers_finalists_is_refused(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "experiments" / "unet_resnet50.yaml"
    (tmp_path / "swinv2_hybrid.final.yaml").write_text(source.read_text())
    path = written(tmp_path, baselines=[{"base": "./swinv2_hybrid.final.yaml"}])
    assert "there is an arm of that name already" in refused(path)
