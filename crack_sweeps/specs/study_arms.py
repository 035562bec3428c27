"""The arms of a study: an experiment each, and the space around it, checked value by value before the first trial."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.loading import blame, find_experiment, flat, is_path
from crack_sweeps.specs.overrides import Override, apply_overrides, put
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
from crack_sweeps.specs.settings import dotted
from crack_sweeps.specs.study import (
    ArmQuickLook,
    Choices,
    Parameter,
    StudySpec,
    check_conditions,
    unfrozen,
    wanted_by,
)
from crack_sweeps.specs.study_checks import check_key, check_parameter, fitted, probes
from crack_sweeps.specs.validation import Complaint, check, spec_error
from crack_sweeps.specs.words import printable, shown
from crack_sweeps.specs.yaml import load_yaml

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
MONITOR = "training.monitor"  # what a study maximises is what its trainings keep the best weights by
FINAL = ".final"  # behind an arm's name: the trainings of its finalist
ONE_ARM_S = ("model", "name")  # what is one arm's own; every other setting is shared by all


@dataclass(frozen=True)
class Arm:
    """One experiment with its own space.

    Args:
        name: The file name of its experiment; of a finalist's trainings with `.final` behind it.
        base: The experiment with settings, profile and KEY=VALUE in it; a suggestion is laid over it.
        source: The experiment's file, as a person would name it.
        space: What is searched, in order; empty where nothing is.
        finalist_of: The arm whose best settings are trained here; None for an arm that is searched.
    """

    name: str
    base: Experiment
    source: Path
    space: Mapping[str, Parameter]
    finalist_of: str | None = None

    def final(self) -> Arm:
        """Where the best settings of this arm are trained anew."""
        return Arm(self.name + FINAL, self.base, self.source, self.space, finalist_of=self.name)


@dataclass(frozen=True)
class WrittenArm:
    """What a study's file says of one arm.

    Args:
        where: What stands before its keys in errors: nothing, or `baselines[0].`.
        base: Its experiment's name or path.
        settings: KEY: VALUE under the profile.
        space: What a full search searches.
        quick_settings: KEY: VALUE over a profile that takes a quick look.
        quick_space: Parameters that such a profile replaces, joins or (None) drops.
    """

    where: str
    base: str
    settings: Mapping[str, Any]
    space: Mapping[str, Parameter]
    quick_settings: Mapping[str, Any]
    quick_space: Mapping[str, Parameter | None]


@dataclass(frozen=True)
class OnMachine:
    """What is the same for every arm: the profile, and what was typed."""

    profile: str
    machine: Machine | None
    typed: Sequence[Override]

    @property
    def quick(self) -> bool:
        """Whether the profile takes a quick look."""
        return self.profile != AS_WRITTEN and named_profile(self.profile).quick_look


def main_arm(spec: StudySpec) -> WrittenArm:
    """The arm that the study is about."""
    quick = spec.quick_look
    return WrittenArm(
        "",
        spec.base,
        {MONITOR: spec.objective.metric, **spec.settings},
        spec.space,
        quick.settings if quick else {},
        quick.space if quick else {},
    )


def baseline_arm(spec: StudySpec, number: int, *, source: Path) -> WrittenArm:
    """A baseline with all that it shares with the main arm.

    Raises:
        SpecError: It drops a parameter that it has not.
    """
    baseline, main = spec.baselines[number], main_arm(spec)
    own_quick = baseline.quick_look or ArmQuickLook()
    where = f"baselines[{number}]."
    space = _laid_over_space(_shared_space(spec.space), baseline.space, f"{where}space", source)
    quick = _shared_space({**spec.space, **{key: one for key, one in main.quick_space.items() if one is not None}})
    quick_shared = {
        key: parameter for key, parameter in main.quick_space.items() if key in (space if parameter is None else quick)
    }
    return WrittenArm(
        where,
        baseline.base,
        {**_shared(main.settings), **baseline.settings},
        space,
        {**_shared(main.quick_settings), **own_quick.settings},
        {**quick_shared, **own_quick.space},
    )


def resolve_arm(
    written: WrittenArm, source: Path, on: OnMachine, *, needs_space: bool = True
) -> tuple[Arm, tuple[str, ...]]:
    """One arm as it is searched on this machine, and the keys of its space that KEY=VALUE took out of it.

    Args:
        written: What the file says.
        source: The study's file.
        on: Profile and what was typed; what is typed for the model is the main arm's.
        needs_space: Whether something must be left to search.

    Raises:
        SpecError: Whatever is wrong with it; every choice and both ends of every range have made a valid experiment
            when this returns.
    """
    base_source, base = _base(written, source)
    typed = [o for o in on.typed if not written.where or o.keys[0] not in ONE_ARM_S]
    searched = _searched(written, base, str(source))[on.quick]
    fixed = tuple(key for key in searched if any(dotted(override.keys) == key for override in typed))
    experiment = _settled_base(written, base, searched, typed, on, source)
    space = _left(searched, fixed, experiment)
    if not space and needs_space:
        who = f" for {written.base}" if written.where else ""
        if typed and fixed:
            said = ", ".join(override.label for override in typed)
            raise SpecError(
                f"{said}: nothing is left to search{who} in {source}", hint="leave out at least one of them"
            )
        raise SpecError(
            f"{source}: `{written.where}space`: nothing is left to search{who}",
            hint="give it a `space`, or `budget: {baseline_trials: 0}` to train it as it is",
        )
    place = str(source) if on.profile == AS_WRITTEN else f"{source} with profile {on.profile}"
    _try_values(space, written, experiment, place)
    plain = experiment.model_dump(mode="json")
    space = {key: fitted(key, parameter, plain) for key, parameter in space.items()}
    return Arm(_arm_name(base_source, written, source), experiment, base_source, space), fixed


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


# --- what arms share -----------------------------------------------------------------------------


def _is_shared(key: str) -> bool:
    """Whether a setting is no arm's own."""
    return key.split(".")[0] not in ONE_ARM_S


def _shared(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if _is_shared(key)}


def _shared_space(space: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """A parameter that exists under a condition on one that is an arm's own is that arm's too, and so on."""
    shared = {key: parameter for key, parameter in space.items() if _is_shared(key)}
    while own := [key for key, parameter in shared.items() if not (parameter.when or {}).keys() <= shared.keys()]:
        for key in own:
            del shared[key]
    return shared


def _laid_over_space(
    space: Mapping[str, Parameter], over: Mapping[str, Parameter | None], where: str, source: Path | str
) -> dict[str, Parameter]:
    """Parameters replaced, joined and (None) dropped."""
    laid_over = dict(space)
    for key, parameter in over.items():
        if parameter is not None:
            laid_over[key] = parameter
        elif key not in laid_over:
            complaint = Complaint((), f"`{where}.{key}` drops what is not in the space", "take the line out")
            raise spec_error([complaint], source=str(source))
        else:
            del laid_over[key]
    return laid_over


# --- finding -------------------------------------------------------------------------------------


def _base(written: WrittenArm, source: Path) -> tuple[Path, dict[str, Any]]:
    """The base experiment's file and what it says; it stands by itself."""
    here = f"{source}: `{written.where}base` is {shown(written.base)}"
    if is_path(written.base):
        path = source.parent / written.base
        if not path.is_file():
            beside = Path(written.base).is_file()
            raise SpecError(
                printable(f"{here}, but {path} does not exist"),
                hint="a path is relative to the study's folder" if beside else "name an experiment or its YAML file",
            )
    else:
        try:
            path = find_experiment(written.base)
        except SpecError as error:
            raise SpecError(printable(f"{here}: no such experiment"), hint=error.hint) from error
    content = load_yaml(path)
    if "model" not in content and "space" in content:
        raise SpecError(
            printable(f"{here}, which is a study, must be an experiment"), hint="write an experiment's name"
        )
    checked = check(content)
    if not isinstance(checked, Experiment):
        raise spec_error(checked, source=str(path))
    return path, content


def _arm_name(base_source: Path, written: WrittenArm, source: Path) -> str:
    if NAME.fullmatch(base_source.stem) is None:
        raise SpecError(
            printable(
                f"{source}: `{written.where}base` is {shown(written.base)}, whose file name must be "
                "letters, digits, '.', '_', '-'"
            ),
            hint="it names the trials: rename the file",
        )
    return base_source.stem


# --- the space -----------------------------------------------------------------------------------


def _searched(
    written: WrittenArm, base: Mapping[str, Any], source: str
) -> tuple[dict[str, Parameter], dict[str, Parameter]]:
    """The space of a full search and that of a quick look; both are checked wherever the study is read."""
    complaints = list(_against_base(written, base))
    if complaints:
        raise spec_error(complaints, source=source)
    here = f"{written.where}quick_look"
    laid_over = _laid_over_space(written.space, written.quick_space, f"{here}.space", source)
    if not laid_over and written.space:
        raise SpecError(f"{source}: `{here}.space` drops every parameter", hint="leave at least one")
    try:
        if written.where:  # the main arm's own were checked with the file
            check_conditions(dict(written.space))
        # A condition on what a quick look does not search is decided by that setting's value, later.
        check_conditions({key: _conditions_among(parameter, laid_over) for key, parameter in laid_over.items()})
    except ValueError as error:
        raise SpecError(f"{source}: {here}: {error}", hint=f"replace that parameter in `{here}.space` too") from error
    return dict(written.space), laid_over


def _against_base(written: WrittenArm, base: Mapping[str, Any]) -> Iterator[Complaint]:
    """Keys that are no settings of the base, and parameters that do not suit their setting."""
    where = written.where
    settings = ((f"{where}settings", written.settings), (f"{where}quick_look.settings", written.quick_settings))
    spaces = ((f"{where}space", written.space), (f"{where}quick_look.space", written.quick_space))
    for place, keys in settings:
        for key in keys:
            complaint = check_key(key, base, where=place)
            if complaint is not None:
                yield complaint
    for place, space in spaces:
        for key, parameter in space.items():
            complaint = check_parameter(key, parameter, base, where=place) if parameter is not None else None
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
    arm: WrittenArm,
    base: Mapping[str, Any],
    searched: Mapping[str, Parameter],
    typed: Sequence[Override],
    on: OnMachine,
    source: Path,
) -> Experiment:
    """File < settings < profile < quick look's settings < KEY=VALUE, as one valid experiment."""
    written = _laid_over(base, arm.settings, f"{source}: {arm.where}settings")
    stands = check(written)
    if not isinstance(stands, Experiment):
        raise spec_error(stands, source=f"{source}: {arm.where}settings")
    meant = apply_overrides(written, typed)
    overridden = {override.keys for override in typed}
    if on.profile == AS_WRITTEN:
        settled = meant
    else:
        small = arm.quick_settings if on.quick else {}
        sizes_typed = bool(overridden & {CROP, SIZE})
        small = {
            key: value
            for key, value in small.items()
            # SwinV2 is built for one size: where one of the two is typed, the profile makes the other follow.
            if (keys := tuple(key.split("."))) not in overridden and not (sizes_typed and keys in (CROP, SIZE))
        }
        # A batch that is searched is the batch, like one that is typed: a profile's would be another experiment.
        batch = {keys for keys in (BATCH, ACCUMULATION) if dotted(keys) in searched}
        meant = _laid_over(meant, small, f"{source}: {arm.where}quick_look.settings")
        settled = overlay(
            named_profile(on.profile),
            meant,
            overridden=overridden | {tuple(key.split(".")) for key in small} | batch,
            num_cpus=on.machine.num_cpus if on.machine is not None else None,
        )
    checked = check(settled)
    if not isinstance(checked, Experiment):
        raise (
            blame(checked, source, typed, on.profile)
            if on.profile != AS_WRITTEN or typed
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


def _try_values(space: Mapping[str, Parameter], written: WrittenArm, base: Experiment, place: str) -> None:
    """Settles every choice and the ends of every range, the other parameters at the base's value."""
    for key, parameter in space.items():
        where = f"{written.where}{'quick_look.space' if parameter is written.quick_space.get(key) else 'space'}"
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
