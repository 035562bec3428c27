"""Finds an experiment and resolves it: file, then profile, then KEY=VALUE, checked as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crack_sweeps
from crack_sweeps.errors import SpecError
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.fingerprint import fingerprint
from crack_sweeps.specs.overrides import Override, apply_overrides, parse_override
from crack_sweeps.specs.profiles import AS_WRITTEN, Machine, choose_profile, named_profile, overlay, value_at
from crack_sweeps.specs.settings import dotted, family_of, leaves
from crack_sweeps.specs.validation import Complaint, check, spec_error
from crack_sweeps.specs.words import listed, nearest, printable
from crack_sweeps.specs.yaml import dump_yaml, load_yaml

SUFFIXES = (".yaml", ".yml")
PACKAGE = Path(crack_sweeps.__file__).resolve().parent
QUESTION = "# Question:"  # how the comment that opens a shipped experiment begins


@dataclass(frozen=True)
class SpecFile:
    """An experiment or a study that can be named; `question` is what its opening comment asks, or empty."""

    name: str
    path: Path
    question: str


@dataclass(frozen=True)
class Resolved:
    """An experiment as it will run here, and how it came about.

    Args:
        source: The file, as a person would name it.
        profile: The profile that was used; `none` where the file stands as written.
        quick_look: The profile shrank the work: never to be ranked beside full runs.
        overrides: KEY=VALUE as typed; --data and --seed are among them.
        changed_by_profile: Dotted name to (before, after).
    """

    experiment: Experiment
    source: Path
    profile: str
    quick_look: bool
    overrides: tuple[str, ...]
    changed_by_profile: dict[str, tuple[Any, Any]]
    fingerprint: str


def resolve(
    experiment: str | Path,
    *,
    overrides: Sequence[str] = (),
    profile: str = "auto",
    machine: Machine | None = None,
    data: Path | None = None,
    seed: int | None = None,
) -> Resolved:
    """An experiment by name or path, as it will run on this machine.

    Args:
        experiment: A name of ./experiments or of the shipped ones, or the path of a YAML file.
        profile: `auto` (needs `machine`), `none` (the file as written) or one of PROFILES.

    Raises:
        SpecError: Whatever is wrong with file, profile or overrides; one line, which names file, key and value.
    """
    name = profile_name(profile, machine)
    source = find_experiment(experiment)
    written = load_yaml(source)
    flags = [f"data.path={data}"] if data is not None else []
    flags += [f"training.seed={seed}"] if seed is not None else []
    typed = [parse_override(text) for text in (*overrides, *flags)]
    # The file must stand by itself: what a profile writes over here would fail on another machine.
    _valid(written, str(source))
    meant = settled = apply_overrides(written, typed)
    if name != AS_WRITTEN:
        overridden = {override.keys for override in typed}
        cpus = machine.num_cpus if machine is not None else None
        settled = overlay(named_profile(name), meant, overridden=overridden, num_cpus=cpus)
    checked = check(settled)
    if not isinstance(checked, Experiment):
        raise blame(checked, source, typed, name)
    return Resolved(
        experiment=checked,
        source=source,
        profile=name,
        quick_look=name != AS_WRITTEN and named_profile(name).quick_look,
        overrides=tuple(override.text for override in typed),
        changed_by_profile=_changes(meant, settled),
        fingerprint=fingerprint(checked),
    )


def load_resolved(path: Path) -> Experiment:
    """The experiment of a file that is complete already, such as a run's config.yaml: no profile, no overrides."""
    return _valid(load_yaml(path), str(path))


def dump(experiment: Experiment) -> str:
    """The experiment with every setting, as YAML that loads back to the same."""
    return dump_yaml(experiment.model_dump(mode="json"))


def flat(experiment: Experiment) -> dict[str, Any]:
    """The experiment as one level of dotted keys in the order of the spec; lists stay lists."""
    return flattened(experiment.model_dump(mode="json"))


def flattened(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested groups as one level of dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    settings: dict[str, Any] = {}
    for key, inner in value.items():
        settings |= flattened(inner, f"{prefix}.{key}" if prefix else key)
    return settings


# --- finding -------------------------------------------------------------------------------------


def list_experiments() -> list[SpecFile]:
    """What can be run by name: the shipped experiments and those of ./experiments, which win."""
    return files_of("experiments")


def find_experiment(experiment: str | Path) -> Path:
    """The file behind a name or a path.

    Raises:
        SpecError: No experiment has that name.
    """
    return find_file(experiment, "experiments", "experiment")


def list_studies() -> list[SpecFile]:
    """What can be searched by name: the shipped studies and those of ./studies, which win."""
    return files_of("studies")


def find_study(study: str | Path) -> Path:
    """The file behind a name or a path; `studies/NAME` is the study of that name, shipped or not.

    Raises:
        SpecError: No study has that name.
    """
    path = Path(study)
    if is_path(study) and path.parent == Path("studies") and not path.is_file():
        if path.suffix not in SUFFIXES:
            return find_file(path.name, "studies", "study")
        return next((file.path for file in list_studies() if file.name == path.stem), path)
    return find_file(study, "studies", "study")


def names_study(named: str) -> bool:
    """Whether a person means a study: a study's name that no experiment has, a path in a `studies` folder, or a file
    that holds one."""
    if not is_path(named):
        known = {file.name for file in list_experiments()}
        return named not in known and named in {file.name for file in list_studies()}
    path = Path(named)
    if path.parent.name == "studies" or not path.is_file():
        return path.parent.name == "studies"
    try:
        written = load_yaml(path)
    except SpecError:
        return False  # whoever reads it says what is wrong
    return "model" not in written and "space" in written


def files_of(folder: str) -> list[SpecFile]:
    """The shipped files of `experiments` or `studies`, and those of that folder here, which win."""
    found: dict[str, Path] = {}
    for place in (shipped_folder(folder), Path(folder)):
        if place is not None and place.is_dir():
            found |= {path.stem: path for path in sorted(place.iterdir()) if path.suffix in SUFFIXES and path.is_file()}
    return [SpecFile(name, path, _question(path)) for name, path in sorted(found.items())]


def find_file(named: str | Path, folder: str, kind: str) -> Path:
    """The file behind a name or a path; `kind` says in an error what was looked for.

    Raises:
        SpecError: Nothing has that name.
    """
    if is_path(named):
        return Path(named)
    name = str(named)
    known = {file.name: file.path for file in files_of(folder)}
    if name in known:
        return known[name]
    close = nearest(name, known)
    there_are = f"there are {listed(known, 'and')}" if known else f"there are none in ./{folder}"
    raise SpecError(f"{printable(name)}: no such {kind}", hint=f"did you mean {close}?" if close else there_are)


def is_path(named: str | Path) -> bool:
    """Whether a person named a file, and not one of those that have names."""
    return isinstance(named, Path) or named.endswith(SUFFIXES) or "/" in named or "\\" in named


def shipped_folder(folder: str = "experiments") -> Path | None:
    """Where the shipped experiments or studies are: inside the installed package, or beside it in a checkout."""
    packaged, checkout = PACKAGE / "_shipped" / folder, PACKAGE.parent / folder
    if packaged.is_dir():
        return packaged
    return checkout if (PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir() else None


def _question(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline(1000)
    return first.removeprefix(QUESTION).strip() if first.startswith(QUESTION) else ""


# --- resolving -----------------------------------------------------------------------------------


def profile_name(profile: str, machine: Machine | None) -> str:
    """The profile that is meant: `auto` is what suits the machine."""
    if profile == "auto":
        if machine is None:
            raise ValueError("profile 'auto' is chosen by the machine, so the machine must be told")
        return choose_profile(machine)
    return profile if profile == AS_WRITTEN else named_profile(profile).name


def _valid(data: Mapping[str, Any], source: str) -> Experiment:
    checked = check(data)
    if not isinstance(checked, Experiment):
        raise spec_error(checked, source=source)
    return checked


def blame(complaints: Sequence[Complaint], source: Path | str, typed: Sequence[Override], profile: str) -> SpecError:
    """The error, with the name of whoever wrote the value: the file is in order, so an override or the profile."""
    names = tuple(key for key in complaints[0].keys if isinstance(key, str))
    # An override is to blame where it wrote the value itself, or something in the group that does not fit together.
    by = [override for override in typed if override.keys[: len(names)] == names[: len(override.keys)]]
    if by:
        return spec_error(complaints, source=", ".join(override.label for override in by))
    return spec_error(complaints, source=f"{source} with profile {profile}")


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    family = family_of(after)
    changes: dict[str, tuple[Any, Any]] = {}
    if family is None:
        return changes
    for keys in leaves(family):
        old, new = _plain(value_at(before, keys)), _plain(value_at(after, keys))
        if old != new:
            changes[dotted(keys)] = (old, new)
    return changes


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
