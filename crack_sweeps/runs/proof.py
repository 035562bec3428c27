"""Proof that what will be trained is what was asked for: read back from the objects, not from the spec that made them.

The network proves itself when it is built (`models.build.check_built`); here follow the optimizer and the loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from crack_sweeps.errors import TrainingError
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.loading import flat
from crack_sweeps.training.loop import TrainingState


def prove(state: TrainingState, experiment: Experiment) -> None:
    """Compare the optimizer's rates and the loop's settings with the experiment.

    Raises:
        TrainingError: Something else would be trained than what was asked for.
    """
    training = experiment.training
    groups = state.optimizer.param_groups
    decoder = [group["peak_lr"] for group in groups if group["name"].startswith("decoder")]
    encoder = [group["peak_lr"] for group in groups if group["name"].startswith("encoder")]
    decays = {group["weight_decay"] for group in groups if not group["name"].endswith("no_decay")}
    facts: dict[str, tuple[set[Any], set[Any]]] = {
        "training.learning_rate": (set(decoder), {training.learning_rate}),
        "training.encoder_lr_multiplier": (
            {round(max(encoder) / training.learning_rate, 9)} if encoder else set(),
            {round(training.encoder_lr_multiplier, 9)} if encoder else set(),
        ),
        "training.weight_decay": (decays, {training.weight_decay}),
        "training.batch_size": ({state.progress.micro_batch}, {training.batch_size}),
        "training.gradient_accumulation_steps": ({state.accumulation}, {training.gradient_accumulation_steps}),
        "training.ema_decay": ({state.average.decay if state.average else None}, {training.ema_decay}),
    }
    for key, (built, asked) in facts.items():
        if built != asked:
            raise TrainingError(f"`{key}` is {_told(asked)}, but what was built has {_told(built)}")
    if state.training != training:  # the loop reads loss weights, schedule and limits from it
        raise TrainingError("the training loop was given other settings than the experiment's")


def prove_suggestion(suggestion: Mapping[str, Any], experiment: Experiment) -> None:
    """Every suggested value stands in the experiment that is about to be built.

    Raises:
        TrainingError: A suggestion did not reach it.
    """
    settings = flat(experiment)
    for key, asked in suggestion.items():
        found = settings.get(key, "nothing")
        same = math.isclose(found, asked) if _is_number(found) and _is_number(asked) else found == _plain(asked)
        if not same:
            raise TrainingError(f"`{key}` was suggested as {asked}, but the experiment has {found}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _told(values: set[Any]) -> str:
    return ", ".join(map(str, sorted(values, key=str)))
