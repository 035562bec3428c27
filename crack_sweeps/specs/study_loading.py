"""Finds a study and resolves it: base experiment, profile, KEY=VALUE and space, checked before the first trial."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.experiment import Experiment, Frozen, Name
from crack_sweeps.specs.fingerprint import fingerprint
from crack_sweeps.specs.loading import (
    blame,
    find_experiment,
    find_study,
    is_path,
    profile_name,
)
from crack_sweeps.specs.loading import (
    flat as flat,
)  # named here too: what a trial shows is what it was suggested
from crack_sweeps.specs.loading import (
    list_studies as list_studies,
)
from crack_sweeps.specs.overrides import Override, apply_overrides, parse_override, put
from crack_sweeps.specs.profiles import (
    ACCUMULATION,
    AS_WRITTEN,
    BATCH,
    CROP,
    SIZE,
    Machine,
    named_profile,
    overlay,
)
from crack_sweeps.specs.settings import Keys, dotted
from crack_sweeps.specs.study import (
    Choices,
    Parameter,
    Space,
    StudySpec,
    check_conditions,
    described,
    unfrozen,
    wanted_by,
)
from crack_sweeps.specs.study_checks import check_key, check_parameter, check_study, fitted, probes
from crack_sweeps.specs.validation import Complaint, check, spec_error
from crack_sweeps.specs.words import printable, shown
from crack_sweeps.specs.yaml import dump_yaml, load_yaml

DEFAULT_STUDY = "swinv2_hybrid"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class Arm:
    """One experiment with its own space.

    Args:
        name: The file name of its experiment.
        base: The experiment with settings, profile and KEY=VALUE in it; a suggestion is laid over it.
        source: The experiment's file, as a person would name it.
        space: What is searched, in order.
    """

    name: str
    base: Experiment
    source: Path
    space: Mapping[str, Parameter]


@dataclass(frozen=True)
class ResolvedStudy:
    """A study as it will be searched here, and how it came about.

    Args:
        spec: The study with flags and quick look in it: its space is the first arm's.
        source: The study's file, as a person would name it.
        arms: The main one first.
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


@dataclass(frozen=True)
class Identity:
    """Two digests that say whether a stored study is this one; a change of `space` alone may import its trials."""

    space: str
    rest: str


def resolve_study(
    study: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    profile: str = "auto",
    machine: Machine | None = None,
    data: Path | None = None,
    trials: int | None = None,
    jobs: str | int | None = None,
    gpu_hours: float | None = None,
    memory_budget: str | None = None,
) -> ResolvedStudy:
    """A study by name or path, as it will be searched on this machine; the shipped one where none is named.

    Args:
        study: A name of ./studies or of the shipped ones, or the path of a YAML file.
        profile: `auto` (needs `machine`), `none` (the base as written) or one of PROFILES.

    Raises:
        SpecError: Whatever is wrong with study, base, profile, flags or overrides; one line, which names file, key
            and value. Every choice and both ends of every range have made a valid experiment when this returns.
    """
    name = profile_name(profile, machine)
    quick = name != AS_WRITTEN and named_profile(name).quick_look
    source = find_study(study if study is not None else DEFAULT_STUDY)
    written = load_yaml(source)
    spec = _with_flags(
        _valid(written, str(source)), trials=trials, jobs=jobs, gpu_hours=gpu_hours, memory_budget=memory_budget
    )
    base_source, base = _base(spec, source)
    typed = [parse_override(text) for text in (*overrides, *([f"data.path={data}"] if data is not None else []))]
    searched = _searched(spec, base, str(source))[quick]
    fixed = tuple(key for key in searched if any(dotted(override.keys) == key for override in typed))
    experiment = _settled_base(spec, base, searched, typed, quick=quick, profile=name, machine=machine, source=source)
    space = _left(searched, fixed, experiment)
    if not space:
        raise SpecError(
            f"{', '.join(override.label for override in typed)}: nothing is left to search in {source}",
            hint="leave out at least one of them",
        )
    place = str(source) if name == AS_WRITTEN else f"{source} with profile {name}"
    _try_values(space, spec, experiment, place)
    space = {key: fitted(key, parameter, experiment.model_dump(mode="json")) for key, parameter in space.items()}
    arm = Arm(_arm_name(base_source, spec, source), experiment, base_source, space)
    return ResolvedStudy(
        spec=_as_searched(spec, space, quick=quick),
        source=source,
        arms=(arm,),
        profile=name,
        quick_look=quick,
        overrides=tuple(override.text for override in typed),
        fixed=fixed,
    )


def settle(arm: Arm, suggestion: Mapping[str, Any]) -> Experiment:
    """The experiment of one trial: the arm's base with what was suggested, validated again.

    Raises:
        SpecError: The suggestion makes no valid experiment; two settings may disagree that are valid one by one.
    """
    settled = _settle(arm.base, suggestion)
    if not isinstance(settled, Experiment):
        said = ", ".join(f"{key}={shown(unfrozen(value))}" for key, value in suggestion.items())
        raise spec_error(settled, source=f"arm {arm.name}, suggestion {said}")
    return settled


def identity(study: ResolvedStudy, data_digest: str) -> Identity:
    """What decides whether a stored study goes on: `space`, and everything else that a trial's figure depends on.

    How long, how many at once and in how much memory are in neither; nor is the order in which keys are written.
    """
    spec = study.spec
    spaces = {arm.name: {key: p.model_dump(mode="json") for key, p in arm.space.items()} for arm in study.arms}
    rest = {
        "arms": {arm.name: [fingerprint(arm.base), arm.base.training.seed] for arm in study.arms},
        "search": spec.model_dump(mode="json", include={"objective", "sampler", "pruner", "seed"}),
        "profile": study.profile,
        "data": data_digest,
    }
    return Identity(space=_digest(spaces), rest=_digest(rest))


def flat_study(study: ResolvedStudy) -> dict[str, Any]:
    """The study as one level of dotted keys: how it searches, and each arm's space in words."""
    spec = study.spec
    settings: dict[str, Any] = {"base": spec.base, "profile": study.profile, "seed": spec.seed}
    settings |= {"memory_budget": spec.memory_budget, "jobs": spec.jobs}
    for group in ("objective", "sampler", "pruner", "budget"):
        settings |= {f"{group}.{key}": value for key, value in getattr(spec, group).model_dump(mode="json").items()}
    for arm in study.arms:
        prefix = "space" if arm is study.arms[0] else f"{arm.name}.space"
        settings |= {f"{prefix}.{key}": described(parameter) for key, parameter in arm.space.items()}
    return settings


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


# --- finding -------------------------------------------------------------------------------------


def _base(spec: StudySpec, source: Path) -> tuple[Path, dict[str, Any]]:
    """The base experiment's file and what it says; it stands by itself."""
    here = f"{source}: `base` is {shown(spec.base)}"
    if is_path(spec.base):
        path = source.parent / spec.base
        if not path.is_file():
            beside = Path(spec.base).is_file()
            raise SpecError(
                printable(f"{here}, but {path} does not exist"),
                hint="a path is relative to the study's folder" if beside else "name an experiment or its YAML file",
            )
    else:
        try:
            path = find_experiment(spec.base)
        except SpecError as error:
            raise SpecError(printable(f"{here}: no such experiment"), hint=error.hint) from error
    written = load_yaml(path)
    if "model" not in written and "space" in written:
        raise SpecError(
            printable(f"{here}, which is a study, must be an experiment"), hint="write an experiment's name"
        )
    checked = check(written)
    if not isinstance(checked, Experiment):
        raise spec_error(checked, source=str(path))
    return path, written


def _arm_name(base_source: Path, spec: StudySpec, source: Path) -> str:
    if NAME.fullmatch(base_source.stem) is None:
        raise SpecError(
            printable(
                f"{source}: `base` is {shown(spec.base)}, whose file name must be letters, digits, '.', '_', '-'"
            ),
            hint="it names the trials: rename the file",
        )
    return base_source.stem


# --- the study's own keys ------------------------------------------------------------------------

FLAGS: dict[Keys, str] = {
    ("budget", "trials"): "--trials",
    ("budget", "gpu_hours"): "--gpu-hours",
    ("jobs",): "--jobs",
    ("memory_budget",): "--vram-budget",
}


def _valid(data: Mapping[str, Any], source: str) -> StudySpec:
    checked = check_study(data)
    if not isinstance(checked, StudySpec):
        raise spec_error(checked, source=source)
    return checked


def _with_flags(
    spec: StudySpec,
    *,
    trials: int | None,
    jobs: str | int | None,
    gpu_hours: float | None,
    memory_budget: str | None,
) -> StudySpec:
    values: tuple[Any, ...] = (trials, gpu_hours, _number(jobs), memory_budget)
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


# --- the space -----------------------------------------------------------------------------------


def _searched(
    spec: StudySpec, base: Mapping[str, Any], source: str
) -> tuple[dict[str, Parameter], dict[str, Parameter]]:
    """The space of a full search and that of a quick look; both are checked wherever the study is read."""
    quick = spec.quick_look
    complaints = list(_against_base(spec, base))
    if complaints:
        raise spec_error(complaints, source=source)
    laid_over: dict[str, Parameter] = dict(spec.space)
    for key, parameter in (quick.space if quick is not None else {}).items():
        if parameter is not None:
            laid_over[key] = parameter
        elif key not in laid_over:
            complaint = Complaint((), f"`quick_look.space.{key}` drops what is not in the space", "take the line out")
            raise spec_error([complaint], source=source)
        else:
            del laid_over[key]
    if not laid_over:
        raise SpecError(f"{source}: `quick_look.space` drops every parameter", hint="leave at least one")
    try:
        # A condition on what a quick look does not search is decided by that setting's value, later.
        check_conditions({key: _conditions_among(parameter, laid_over) for key, parameter in laid_over.items()})
    except ValueError as error:
        raise SpecError(
            f"{source}: quick_look: {error}", hint="replace that parameter in `quick_look.space` too"
        ) from error
    return dict(spec.space), laid_over


def _against_base(spec: StudySpec, base: Mapping[str, Any]) -> Iterator[Complaint]:
    """Keys that are no settings of the base, and parameters that do not suit their setting."""
    quick = spec.quick_look
    spaces: list[tuple[str, Mapping[str, Parameter | None]]] = [("space", spec.space)]
    settings = [("settings", spec.settings)]
    if quick is not None:
        spaces.append(("quick_look.space", quick.space))
        settings.append(("quick_look.settings", quick.settings))
    for where, written in settings:
        for key in written:
            complaint = check_key(key, base, where=where)
            if complaint is not None:
                yield complaint
    for where, space in spaces:
        for key, parameter in space.items():
            complaint = check_parameter(key, parameter, base, where=where) if parameter is not None else None
            if complaint is not None:
                yield complaint


def _conditions_among(parameter: Parameter, space: Mapping[str, Parameter]) -> Parameter:
    return _conditioned(parameter, {key: wanted for key, wanted in (parameter.when or {}).items() if key in space})


def _conditioned(parameter: Parameter, when: Mapping[str, Any]) -> Parameter:
    return type(parameter).model_validate({**dict(parameter), "when": when or None})


def _left(searched: Mapping[str, Parameter], fixed: Sequence[str], experiment: Experiment) -> dict[str, Parameter]:
    """The space without what was fixed; a condition on what is not searched is decided by its value."""
    values = flat(experiment)
    space: dict[str, Parameter] = {}
    for key, parameter in searched.items():
        if key in fixed:
            continue
        when = parameter.when or {}
        gone = {other for other in when if other not in searched or other in fixed}
        # What depends on a parameter that cannot exist cannot exist either.
        met = all(wanted_by(when[other], values[other]) for other in gone) and all(
            other in space for other in when if other not in gone
        )
        if met:
            space[key] = _conditions_among(parameter, space) if gone else parameter
    return space


# --- the base experiment -------------------------------------------------------------------------


def _settled_base(
    spec: StudySpec,
    base: Mapping[str, Any],
    searched: Mapping[str, Parameter],
    typed: Sequence[Override],
    *,
    quick: bool,
    profile: str,
    machine: Machine | None,
    source: Path,
) -> Experiment:
    """File < settings < profile < quick look's settings < KEY=VALUE, as one valid experiment."""
    written = _laid_over(base, spec.settings, f"{source}: settings")
    stands = check(written)
    if not isinstance(stands, Experiment):
        raise spec_error(stands, source=f"{source}: settings")
    meant = apply_overrides(written, typed)
    overridden = {override.keys for override in typed}
    if profile == AS_WRITTEN:
        settled = meant
    else:
        small = spec.quick_look.settings if quick and spec.quick_look is not None else {}
        sizes_typed = bool(overridden & {CROP, SIZE})
        small = {
            key: value
            for key, value in small.items()
            # SwinV2 is built for one size: where one of the two is typed, the profile makes the other follow.
            if (keys := tuple(key.split("."))) not in overridden and not (sizes_typed and keys in (CROP, SIZE))
        }
        # A batch that is searched is the batch, like one that is typed: a profile's would be another experiment.
        batch = {keys for keys in (BATCH, ACCUMULATION) if dotted(keys) in searched}
        meant = _laid_over(meant, small, f"{source}: quick_look.settings")
        settled = overlay(
            named_profile(profile),
            meant,
            overridden=overridden | {tuple(key.split(".")) for key in small} | batch,
            num_cpus=machine.num_cpus if machine is not None else None,
        )
    checked = check(settled)
    if not isinstance(checked, Experiment):
        raise (
            blame(checked, source, typed, profile)
            if profile != AS_WRITTEN or typed
            else spec_error(checked, source=str(source))
        )
    return checked


def _laid_over(base: Mapping[str, Any], settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    merged: dict[str, Any] = apply_overrides(base, ())
    for key, value in settings.items():
        put(merged, tuple(key.split(".")), unfrozen(value), source=source)
    return merged


def _settle(base: Experiment, suggestion: Mapping[str, Any]) -> Experiment | list[Complaint]:
    data = base.model_dump(mode="json")
    unknown = [complaint for key in suggestion if (complaint := check_key(key, data, where="suggestion"))]
    return unknown or check(_laid_over(data, suggestion, "suggestion"))


def _try_values(space: Mapping[str, Parameter], spec: StudySpec, base: Experiment, place: str) -> None:
    """Settles every choice and the ends of every range, the other parameters at the base's value."""
    for key, parameter in space.items():
        replaced = spec.quick_look is not None and parameter is spec.quick_look.space.get(key)
        where = "quick_look.space" if replaced else "space"
        gates = _gates(key, space)
        for value in probes(parameter):
            settled = _settle(base, {**gates, key: value})
            if isinstance(settled, Experiment):
                continue
            own = settled[0].keys[: key.count(".") + 1] == tuple(key.split("."))
            with_value = "" if own else f" with `{key}` {shown(unfrozen(value))}"
            raise spec_error(settled, source=f"{place}: {where}{with_value}")


def _gates(key: str, space: Mapping[str, Parameter]) -> dict[str, Any]:
    """Values of earlier parameters under which a parameter exists: the first that each condition names."""
    values: dict[str, Any] = {}
    for other in space[key].when or {}:
        gate = space[other]
        assert isinstance(gate, Choices)
        wanted = (space[key].when or {})[other]
        values |= _gates(other, space)
        values[other] = next(choice for choice in gate.choices if wanted_by(wanted, choice))
    return values


# --- the snapshot --------------------------------------------------------------------------------


class _ArmSnapshot(Frozen):
    name: Name
    source: Path
    space: Space
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
