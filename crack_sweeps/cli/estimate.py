"""`sweeps estimate`: what a model costs, without training it and without a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crack_sweeps.runs.plan import Cost


def estimate(
    experiment: Annotated[str, typer.Argument(help="A shipped experiment, one of ./experiments, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as training.batch_size=8.")
    ] = None,
    profile: Annotated[str, typer.Option(help="auto, cpu, gpu-8gb, gpu-24gb or gpu-80gb.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Print parameters, FLOPs and the forecast of peak memory."""
    from crack_sweeps import console
    from crack_sweeps.runs.plan import estimate_cost
    from crack_sweeps.specs.loading import resolve
    from crack_sweeps.training.nvml import detect_machine

    resolved = resolve(experiment, overrides=overrides or (), profile=profile, machine=detect_machine())
    cost = estimate_cost(resolved.experiment)
    if json:
        from dataclasses import asdict
        from json import dumps

        print(dumps({**asdict(cost), "profile": resolved.profile, "fingerprint": resolved.fingerprint}, indent=2))
        return
    console.print_rows([("experiment", cost.experiment), ("profile", resolved.profile), *rows_of(cost)])


def rows_of(cost: Cost) -> list[tuple[str, str]]:
    """A cost as names and values for people."""
    from crack_sweeps import console

    memory = cost.memory
    parts = {
        name.removesuffix("_bytes").replace("_", " "): value
        for name, value in memory.items()
        if name.endswith("_bytes") and name != "total_bytes" and value
    }
    return [
        ("model", cost.architecture),
        ("parameters", f"{cost.num_params / 1e6:.2f} M"),
        ("FLOPs", f"{cost.flops_per_crop / 1e9:.2f} G per {cost.crop_px} px crop (a multiply-add counts as two)"),
        ("peak memory", f"{console.human_bytes(memory['total_bytes'])} forecast at batch {cost.batch_size}"),
        *((f"  {name}", console.human_bytes(value)) for name, value in parts.items()),
    ]
