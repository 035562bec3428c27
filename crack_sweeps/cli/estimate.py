"""`sweeps estimate`: what a model costs, without training it and without a GPU."""

from __future__ import annotations

from typing import Annotated

import typer

from crack_sweeps.cli.rows import cost_rows


def estimate(
    experiment: Annotated[str, typer.Argument(help="A shipped experiment, one of ./experiments, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as training.batch_size=8.")
    ] = None,
    profile: Annotated[str, typer.Option(help="auto, cpu, gpu-8gb, gpu-24gb or gpu-80gb.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Print parameters, FLOPs and the forecast of peak memory."""
    import torch

    from crack_sweeps import console
    from crack_sweeps.api import with_process
    from crack_sweeps.runs.plan import estimate_cost
    from crack_sweeps.specs.loading import resolve
    from crack_sweeps.training.nvml import detect_machine
    from crack_sweeps.training.precision import resolve_amp

    resolved = resolve(experiment, overrides=overrides or (), profile=profile, machine=detect_machine())
    training = resolved.experiment.training
    if resolved.profile == "cpu":
        cpu = torch.device("cpu")
        cost = estimate_cost(resolved.experiment, on="cpu", amp_dtype=resolve_amp(training, cpu))
    else:
        half = torch.bfloat16 if training.use_amp else None
        cost = estimate_cost(resolved.experiment, on="cuda", amp_dtype=half)
    cost = with_process(cost, "cpu" if resolved.profile == "cpu" else "cuda")
    if json:
        from dataclasses import asdict
        from json import dumps

        print(dumps({**asdict(cost), "profile": resolved.profile, "fingerprint": resolved.fingerprint}, indent=2))
        return
    console.print_rows([("experiment", cost.experiment), ("profile", resolved.profile), *cost_rows(cost)])
