"""Finds a study and resolves it: base experiment, profile, KEY=VALUE and space, checked before the first trial."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.experiment import Experiment, Frozen, Name
from crack_sweeps.specs.fingerprint import canonical, fingerprint
from crack_sweeps.specs.loading import find_study, flattened, profile_name
from crack_sweeps.specs.loading import (
    flat as flat,
)  # named here too: what a trial shows is what it was suggested
from crack_sweeps.specs.loading import (
    list_studies as list_studies,
)
from crack_sweeps.specs.overrides import parse_override, put
from crack_sweeps.specs.profiles import Machine
from crack_sweeps.specs.settings import Keys, dotted
from crack_sweeps.specs.study import MAX_PARAMETERS, Key, Parameter, StudySpec, described
from crack_sweeps.specs.study import AnyParameter as AnyParameter
from crack_sweeps.specs.study_arms import FINAL, OnMachine, baseline_arm, main_arm, resolve_arm
from crack_sweeps.specs.study_arms import Arm as Arm
from crack_sweeps.specs.study_arms import settle as settle
from crack_sweeps.specs.study_checks import check_study
from crack_sweeps.specs.validation import spec_error
from crack_sweeps.specs.words import printable, shown
from crack_sweeps.specs.yaml import dump_yaml, load_yaml

DEFAULT_STUDY = "swinv2_hybrid"


@dataclass(frozen=True)
class ResolvedStudy:
    """A study as it will be searched here, and how it came about.

    Args:
        spec: The study with flags and quick look in it: its space is the first arm's.
        source: The study's file, as a person would name it.
        arms: What is searched, the main one first; then its baselines.
        profile: The profile that was used; `none` where the base stands as written.
        quick_look: The profile shrank the work: never to be ranked beside full runs.
        overrides: KEY=VALUE as typed; --data is among them.
        fixed: Keys of the space that KEY=VALUE took out of it.
    """

    spec: StudySpec
    source: Path
    arms: tuple[Arm, ...]
    profile: str
    quick_look: bool
    overrides: tuple[str, ...]
    fixed: tuple[str, ...]

    @property
    def finals(self) -> tuple[Arm, ...]:
        """Where the arms' finalists are trained, in the arms' order."""
        return tuple(arm.final() for arm in self.arms)

    @property
    def all_arms(self) -> tuple[Arm, ...]:
        """All that has trials: what is searched, then the finalists."""
        return (*self.arms, *self.finals)

    def num_trials(self, arm: Arm) -> int:
        """Trials that an arm is to train while it is searched; 0 where its settings stand as shipped."""
        return self.spec.budget.of(main=arm.name == self.arms[0].name)

    def num_finals(self, arm: Arm) -> int:
        """Trainings of an arm's best settings; one that is not searched is trained at least once."""
        return self.spec.finalists.seeds if self.num_trials(arm) else max(1, self.spec.finalists.seeds)


@dataclass(frozen=True)
class Identity:
    """Two digests and the main arm's name, which say whether a stored study is this one.

    A change of `space` alone may import its trials.
    """

    space: str
    rest: str
    main: str


def resolve_study(
    study: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    profile: str = "auto",
    machine: Machine | None = None,
    data: Path | None = None,
    trials: int | None = None,
    baseline_trials: int | None = None,
    seeds: int | None = None,
    jobs: str | int | None = None,
    gpu_hours: float | None = None,
    memory_budget: str | None = None,
) -> ResolvedStudy:
    """A study by name or path, as it will be searched on this machine; the shipped one where none is named.

    Args:
        study: A name of ./studies or of the shipped ones, or the path of a YAML file.
        overrides: KEY=VALUE; what is no setting of the model holds for every arm.
        profile: `auto` (needs `machine`), `none` (the base as written) or one of PROFILES.

    Raises:
        SpecError: Whatever is wrong with study, base, profile, flags or overrides; one line, which names file, key
            and value. Every choice and both ends of every range have made a valid experiment when this returns.
    """
    source = find_study(study if study is not None else DEFAULT_STUDY)
    typed = [parse_override(text) for text in (*overrides, *([f"data.path={data}"] if data is not None else []))]
    on = OnMachine(profile_name(profile, machine), machine, typed)
    flags = (trials, baseline_trials, seeds, gpu_hours, _number(jobs), memory_budget)
    spec = _with_flags(_valid(load_yaml(source), str(source)), flags)
    main, fixed = resolve_arm(main_arm(spec), source, on)
    arms = [main]
    for number in range(len(spec.baselines)):
        searched = spec.budget.of(main=False) > 0
        arm, _ = resolve_arm(baseline_arm(spec, number, source=source), source, on, needs_space=searched)
        if any(arm.name in (other.name, other.name + FINAL) or arm.name + FINAL == other.name for other in arms):
            raise SpecError(
                f"{source}: `baselines[{number}].base` is {arm.source}: there is an arm of that name already",
                hint="an arm is named as its experiment's file: copy the file under another name",
            )
        arms.append(arm)
    return ResolvedStudy(
        spec=_as_searched(spec, main.space, quick=on.quick),
        source=source,
        arms=tuple(arms),
        profile=on.profile,
        quick_look=on.quick,
        overrides=tuple(override.text for override in typed),
        fixed=fixed,
    )


def identity(study: ResolvedStudy, data_digest: str) -> Identity:
    """What decides whether a stored study goes on: `space`, and everything else that a trial's figure depends on.

    How long, how many at once and in how much memory are in neither; nor is the order in which keys are written.
    """
    spec = study.spec
    spaces = {arm.name: {key: p.model_dump(mode="json") for key, p in arm.space.items()} for arm in study.arms}
    rest = {
        "arms": {arm.name: [fingerprint(arm.base), arm.base.training.seed] for arm in study.arms},
        "search": _how_searched(spec),
        "profile": study.profile,
        "data": data_digest,
    }
    return Identity(space=_digest(spaces), rest=_digest(rest), main=study.arms[0].name)


def differences(old: ResolvedStudy, new: ResolvedStudy) -> tuple[str, ...]:
    """What makes two studies of one name different ones, as `identity` sees them; the photos are not looked at."""
    if old.profile != new.profile:  # which sets much else
        return (f"profile was {old.profile}, is {new.profile}",)
    before, after = ({arm.name: arm for arm in study.arms} for study in (old, new))
    found = list(_changes({"base": old.arms[0].name}, {"base": new.arms[0].name}))
    found += [f"arm {name} is new" for name in after if name not in before]
    found += [f"arm {name} is gone" for name in before if name not in after]
    for name in [name for name in after if name in before]:
        found += _changes(_decisive(before[name]), _decisive(after[name]))
    found += _changes(flattened(_how_searched(old.spec)), flattened(_how_searched(new.spec)))
    return tuple(dict.fromkeys(found))  # arms share most settings


def _how_searched(spec: StudySpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", include={"objective", "sampler", "pruner", "seed"})


def _decisive(arm: Arm) -> dict[str, Any]:
    settings = {**flattened(canonical(arm.base)), "training.seed": arm.base.training.seed}
    return settings | {f"space.{key}": described(parameter) for key, parameter in arm.space.items()}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys([*before, *after]):
        was, now = (shown(one[key]) if key in one else "absent" for one in (before, after))
        if was != now:
            yield f"{key} was {was}, is {now}"


def flat_study(study: ResolvedStudy) -> dict[str, Any]:
    """The study as one level of dotted keys: how it searches, and each arm's space in words."""
    spec = study.spec
    settings: dict[str, Any] = {"base": spec.base, "profile": study.profile, "seed": spec.seed}
    settings |= {"memory_budget": spec.memory_budget, "jobs": spec.jobs}
    settings |= {"baselines": ", ".join(arm.name for arm in study.arms[1:]) or "none"}
    for group in ("objective", "sampler", "pruner", "budget", "finalists"):
        settings |= {f"{group}.{key}": value for key, value in getattr(spec, group).model_dump(mode="json").items()}
    for arm in study.arms:
        prefix = "space" if arm is study.arms[0] else f"{arm.name}.space"
        settings |= {f"{prefix}.{key}": described(parameter) for key, parameter in arm.space.items()}
    return settings


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


# --- the study's own keys ------------------------------------------------------------------------

FLAGS: dict[Keys, str] = {
    ("budget", "trials"): "--trials",
    ("budget", "baseline_trials"): "--baseline-trials",
    ("finalists", "seeds"): "--seeds",
    ("budget", "gpu_hours"): "--gpu-hours",
    ("jobs",): "--jobs",
    ("memory_budget",): "--vram-budget",
}


def _valid(data: Mapping[str, Any], source: str) -> StudySpec:
    checked = check_study(data)
    if not isinstance(checked, StudySpec):
        raise spec_error(checked, source=source)
    return checked


def _with_flags(spec: StudySpec, values: Sequence[Any]) -> StudySpec:
    """The study with what was typed; values in the order of FLAGS, None where nothing was."""
    flags = {keys: value for keys, value in zip(FLAGS, values, strict=True) if value is not None}
    if not flags:
        return spec
    data = spec.model_dump(mode="json")
    for keys, value in flags.items():
        put(data, keys, value, source=FLAGS[keys])
    checked = check_study(data)
    if not isinstance(checked, StudySpec):
        keys = tuple(str(key) for key in checked[0].keys)
        raise spec_error(checked, source=f"{FLAGS[keys]} {flags[keys]}")
    return checked


def _number(jobs: str | int | None) -> str | int | None:
    return int(jobs) if isinstance(jobs, str) and re.fullmatch(r"[0-9]{1,9}", jobs) else jobs


def _as_searched(spec: StudySpec, space: Mapping[str, Parameter], *, quick: bool) -> StudySpec:
    changes: dict[str, Any] = {"space": dict(space), "quick_look": None}
    if quick and spec.quick_look is not None and spec.quick_look.pruner is not None:
        changes["pruner"] = spec.quick_look.pruner
    return StudySpec.model_validate({**dict(spec), **changes})


# --- the snapshot --------------------------------------------------------------------------------


class _ArmSnapshot(Frozen):
    name: Name
    source: Path
    space: dict[Key, AnyParameter] = Field(max_length=MAX_PARAMETERS)  # empty where nothing is searched
    base: Experiment


class _Snapshot(Frozen):
    format: Literal[1]
    study: StudySpec
    source: Path
    profile: str
    quick_look: bool
    overrides: tuple[str, ...]
    fixed: tuple[str, ...]
    arms: tuple[_ArmSnapshot, ...]


def dump_study_snapshot(study: ResolvedStudy) -> str:
    """The study with everything that it came from, as YAML that loads back to an equal one without any other file."""
    return dump_yaml(
        {
            "format": 1,
            "source": str(study.source),
            "profile": study.profile,
            "quick_look": study.quick_look,
            "overrides": list(study.overrides),
            "fixed": list(study.fixed),
            "study": study.spec.model_dump(mode="json"),
            "arms": [
                {
                    "name": arm.name,
                    "source": str(arm.source),
                    "space": {key: parameter.model_dump(mode="json") for key, parameter in arm.space.items()},
                    "base": arm.base.model_dump(mode="json"),
                }
                for arm in study.arms
            ],
        }
    )


def load_study_snapshot(path: Path) -> ResolvedStudy:
    """The study that `dump_study_snapshot` wrote.

    Raises:
        SpecError: The file holds something else, or does not exist.
    """
    written = load_yaml(path)
    try:
        snapshot = _Snapshot.model_validate(written)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SpecError(
            printable(f"{path}: is no stored study: `{dotted(first['loc'])}`: {first['msg']}"),
            hint="it is written by the study itself; the file that you edit is in ./studies",
        ) from error
    return ResolvedStudy(
        spec=snapshot.study,
        source=snapshot.source,
        arms=tuple(Arm(arm.name, arm.base, arm.source, arm.space) for arm in snapshot.arms),
        profile=snapshot.profile,
        quick_look=snapshot.quick_look,
        overrides=snapshot.overrides,
        fixed=snapshot.fixed,
    )
