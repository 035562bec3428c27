"""`sweeps spec`: list, show and check experiments; their JSON schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crack_sweeps.specs.loading import Resolved

app = typer.Typer(
    help="List, show and check experiments; their JSON schema.", no_args_is_help=True, rich_markup_mode=None
)
_EXPERIMENT = typer.Argument(help="A shipped experiment, one of ./experiments, or a YAML file.")
_OVERRIDES = typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as training.epochs=10.")
_PROFILE = typer.Option(help="none, auto, cpu, gpu-8gb, gpu-24gb or gpu-80gb.")


@app.command("list")
def list_specs(json: Annotated[bool, typer.Option("--json", help="Print a JSON list on stdout.")] = False) -> None:
    """List the experiments that can be run by name."""
    from crack_sweeps import console
    from crack_sweeps.specs.loading import list_experiments

    found = list_experiments()
    if json:
        from json import dumps

        print(
            dumps([{"name": file.name, "path": str(file.path), "question": file.question} for file in found], indent=2)
        )
        return
    console.print_rows([(file.name, file.question) for file in found])


@app.command()
def show(
    experiment: Annotated[str, _EXPERIMENT],
    overrides: Annotated[list[str] | None, _OVERRIDES] = None,
    profile: Annotated[str, _PROFILE] = "none",
) -> None:
    """Print an experiment with every setting, as YAML."""
    from crack_sweeps.specs.loading import dump

    print(dump(_resolve(experiment, overrides, profile).experiment), end="")


@app.command()
def check(
    experiment: Annotated[str, _EXPERIMENT],
    overrides: Annotated[list[str] | None, _OVERRIDES] = None,
    profile: Annotated[str, _PROFILE] = "none",
) -> None:
    """Say whether an experiment is valid; exit 2 if it is not."""
    resolved = _resolve(experiment, overrides, profile)
    print(f"{resolved.source}: valid, fingerprint {resolved.fingerprint}")


@app.command()
def schema() -> None:
    """Print the JSON schema of experiments, for editors."""
    from json import dumps

    from crack_sweeps.specs.schema import experiment_schema

    print(dumps(experiment_schema(), indent=2))


def _resolve(experiment: str, overrides: list[str] | None, profile: str) -> Resolved:
    from crack_sweeps.specs.loading import resolve

    machine = None
    if profile == "auto":
        from crack_sweeps.training.nvml import detect_machine

        machine = detect_machine()
    return resolve(experiment, overrides=overrides or (), profile=profile, machine=machine)
