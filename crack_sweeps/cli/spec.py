"""`sweeps spec`: list, show and check experiments and studies; their JSON schemas."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crack_sweeps.specs.loading import Resolved
    from crack_sweeps.specs.profiles import Machine
    from crack_sweeps.specs.study_loading import ResolvedStudy

app = typer.Typer(
    help="List, show and check experiments and studies; their JSON schemas.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_NAMED = typer.Argument(metavar="SPEC", help="An experiment or a study: a name, studies/NAME or a YAML file.")
_OVERRIDES = typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as training.epochs=10.")
_PROFILE = typer.Option(help="none, auto, cpu, gpu-8gb, gpu-24gb or gpu-80gb.")


class Kind(StrEnum):
    """What a schema is of."""

    experiment = "experiment"
    study = "study"


@app.command("list")
def list_specs(json: Annotated[bool, typer.Option("--json", help="Print a JSON list on stdout.")] = False) -> None:
    """List the experiments that can be run by name, and the studies."""
    from crack_sweeps import console
    from crack_sweeps.specs.loading import list_experiments, list_studies

    found = [(Kind.experiment, file) for file in list_experiments()] + [(Kind.study, file) for file in list_studies()]
    if json:
        from json import dumps

        rows = [{"kind": k, "name": f.name, "path": str(f.path), "question": f.question} for k, f in found]
        print(dumps(rows, indent=2))
        return
    console.print_rows([(f"studies/{f.name}" if k is Kind.study else f.name, f.question) for k, f in found])


@app.command()
def show(
    spec: Annotated[str, _NAMED],
    overrides: Annotated[list[str] | None, _OVERRIDES] = None,
    profile: Annotated[str, _PROFILE] = "none",
) -> None:
    """Print an experiment or a study with every setting, as YAML."""
    from crack_sweeps.specs.loading import dump, names_study

    if names_study(spec):
        from crack_sweeps.specs.study_loading import dump_study_snapshot

        print(dump_study_snapshot(_resolve_study(spec, overrides, profile)), end="")
    else:
        print(dump(_resolve(spec, overrides, profile).experiment), end="")


@app.command()
def check(
    spec: Annotated[str, _NAMED],
    overrides: Annotated[list[str] | None, _OVERRIDES] = None,
    profile: Annotated[str, _PROFILE] = "none",
) -> None:
    """Say whether an experiment or a study is valid; exit 2 if it is not."""
    from crack_sweeps.specs.loading import names_study

    if names_study(spec):
        study = _resolve_study(spec, overrides, profile)
        around = ", ".join(f"{arm.source} ({', '.join(arm.space)})" for arm in study.arms)
        print(f"{study.source}: valid, around {around}")
    else:
        resolved = _resolve(spec, overrides, profile)
        print(f"{resolved.source}: valid, fingerprint {resolved.fingerprint}")


@app.command()
def schema(
    of: Annotated[Kind, typer.Argument(metavar="[KIND]", help="experiment or study.")] = Kind.experiment,
) -> None:
    """Print the JSON schema of experiments or of studies, for editors."""
    from json import dumps

    from crack_sweeps.specs.schema import experiment_schema, study_schema

    print(dumps(study_schema() if of is Kind.study else experiment_schema(), indent=2))


def _resolve(experiment: str, overrides: list[str] | None, profile: str) -> Resolved:
    from crack_sweeps.specs.loading import resolve

    return resolve(experiment, overrides=overrides or (), profile=profile, machine=_machine(profile))


def _resolve_study(study: str, overrides: list[str] | None, profile: str) -> ResolvedStudy:
    from crack_sweeps.specs.study_loading import resolve_study

    return resolve_study(study, overrides=overrides or (), profile=profile, machine=_machine(profile))


def _machine(profile: str) -> Machine | None:
    if profile != "auto":
        return None
    from crack_sweeps.training.nvml import detect_machine

    return detect_machine()
