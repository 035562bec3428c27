"""What a study is: frozen data, a base experiment and the space that is searched around it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    model_validator,
)

from crack_sweeps.specs.experiment import Frozen, Name
from crack_sweeps.specs.words import listed, nearest, shown

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr | None
Plain = Scalar | tuple[Scalar, ...]  # what a setting may hold; lists become tuples
Number = Annotated[StrictInt | StrictFloat, Field(ge=-1e15, le=1e15)]  # no setting is larger
MAX_CHOICES = 1000  # TPE weighs every choice at every suggestion
MAX_PARAMETERS = 100
MAX_KEY = 200  # the longest key of an experiment has 42 characters
Count = Annotated[int, Field(strict=True, ge=1)]  # strict: true is no number of trials
Key = Annotated[str, Field(max_length=MAX_KEY)]

# --- the space -----------------------------------------------------------------------------------

WHEN = (
    "Dotted key of an earlier parameter with choices, to the value (or list of values) of it "
    "under which this parameter exists; null: always."
)


class Choices(Frozen):
    """A parameter that takes one of some values."""

    choices: tuple[Plain, ...] = Field(
        min_length=1, max_length=MAX_CHOICES, description="The values; one may be null, or a list."
    )
    when: dict[Key, Plain | tuple[Plain, ...]] | None = Field(None, min_length=1, description=WHEN)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        seen = set()
        for choice in self.choices:
            if identified(choice) in seen:
                raise ValueError(f"choices holds {shown(unfrozen(choice))} twice")
            seen.add(identified(choice))
        return self


class Range(Frozen):
    """A parameter that takes any number between two, both included; whole numbers where all that is written is whole.

    A study that is resolved writes the bounds of a setting that takes fractions as fractions: 0 and 3 become 0.0 and
    3.0, and 0.7 is among them.
    """

    low: Number = Field(description="The least value.")
    high: Number = Field(description="The greatest value.")
    log: StrictBool = Field(False, description="Searched by magnitude: .001 to .01 is as likely as .01 to .1.")
    step: Number | None = Field(
        None, gt=0, description="Distance between values, counted from low; null: whatever lies between."
    )
    when: dict[Key, Plain | tuple[Plain, ...]] | None = Field(None, min_length=1, description=WHEN)

    @model_validator(mode="after")
    def _holds_more_than_one_value(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low!r} and high is {self.high!r}: high must be greater than low")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low!r}, but log needs low greater than 0")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other: keep one of them")
        if self.step is not None:
            num_steps = (self.high - self.low) / self.step
            whole = round(num_steps)
            if whole < 1:
                raise ValueError(f"step is {self.step!r}, more than high - low")
            if abs(num_steps - whole) > 1e-6:
                last = self.low + int(num_steps) * self.step
                raise ValueError(
                    f"high is {self.high!r}, which steps of {self.step!r} from {self.low!r} do not meet: "
                    f"the last before it is {last:.6g}"
                )
        return self

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step) if number is not None)


Parameter = Choices | Range


def exists(parameter: Parameter, suggestion: Mapping[str, Any]) -> bool:
    """Whether a parameter's condition is met by what was suggested before it; one without a condition always exists."""
    return all(
        key in suggestion and wanted_by(wanted, suggestion[key]) for key, wanted in (parameter.when or {}).items()
    )


def wanted_by(wanted: Any, value: Any) -> bool:
    """Whether a value is what a condition names, or one of those that it lists."""
    name = identified(value)
    return identified(wanted) == name or (
        isinstance(wanted, (tuple, list)) and any(identified(item) == name for item in wanted)
    )


def identified(value: Any) -> Any:
    """A hashable stand-in, equal for equal settings: 1 is 1.0 but never true, and a list is the tuple of its items."""
    if isinstance(value, (list, tuple)):
        return tuple(identified(item) for item in value)
    return (isinstance(value, bool), value)


def unfrozen(value: Any) -> Any:
    """The value with lists for tuples, as YAML and JSON write it."""
    return [unfrozen(item) for item in value] if isinstance(value, (list, tuple)) else value


def described(parameter: Parameter) -> str:
    """A parameter on one line: `16, 32` or `0.0001..0.002, log`."""
    if isinstance(parameter, Choices):
        said = ", ".join(str(unfrozen(c)) if isinstance(c, (tuple, str)) else shown(c) for c in parameter.choices)
    else:
        said = f"{parameter.low!r}..{parameter.high!r}"
        said += ", log" if parameter.log else f", step {parameter.step!r}" if parameter.step is not None else ""
    return said + "".join(f", when {key} is {unfrozen(wanted)}" for key, wanted in (parameter.when or {}).items())


NO_PARAMETER = "is neither `choices` nor `low` and `high`"


def _kind_of_parameter(written: Any) -> str | None:
    if isinstance(written, Parameter):
        return "choices" if isinstance(written, Choices) else "range"
    if not isinstance(written, Mapping):
        return None
    chosen, ranged = "choices" in written, "low" in written or "high" in written
    return None if chosen == ranged else "choices" if chosen else "range"


AnyParameter = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Range, Tag("range")],
    Discriminator(_kind_of_parameter, custom_error_type="parameter", custom_error_message=NO_PARAMETER),
]
Space = Annotated[dict[Key, AnyParameter], Field(min_length=1, max_length=MAX_PARAMETERS)]


def check_conditions(space: Mapping[str, Parameter]) -> None:
    """Refuses a condition that can never be met: of a key that is not searched, comes later, or has no such choice.

    Raises:
        ValueError: The first of them, with its place.
    """
    earlier: dict[str, Parameter] = {}
    for key, parameter in space.items():
        for other, wanted in (parameter.when or {}).items():
            here = f"space.{key}.when"
            if other not in space:
                close = nearest(other, space)
                raise ValueError(
                    f"{here}: `{other}` is not in the space" + (f"; did you mean `{close}`?" if close else "")
                )
            if other not in earlier:
                raise ValueError(f"{here}: `{other}` stands later in the space, must stand above `{key}`")
            gate = earlier[other]
            if not isinstance(gate, Choices):
                raise ValueError(f"{here}: `{other}` is a range, must have choices")
            _refuse_no_choice(here, other, gate, wanted)
        earlier[key] = parameter


def _refuse_no_choice(here: str, other: str, gate: Choices, wanted: Any) -> None:
    there_are = {identified(choice) for choice in gate.choices}
    if identified(wanted) in there_are:
        return
    items = wanted if isinstance(wanted, tuple) and wanted else (wanted,)
    for item in items:
        if identified(item) not in there_are:
            choices = listed([shown(unfrozen(choice)) for choice in gate.choices])
            raise ValueError(f"{here}.{other} is {shown(unfrozen(item))}, must be {choices}")


# --- how it is searched --------------------------------------------------------------------------


class Objective(Frozen):
    """What makes one trial better than another."""

    metric: str = Field(
        "val/crack_iou",
        max_length=100,
        description="A figure of the validation split after each epoch: val/crack_iou or val/crack_f1.",
    )
    direction: Literal["maximize", "minimize"] = Field("maximize", description="Which way is better.")


class Sampler(Frozen):
    """How the next suggestion is found."""

    name: Literal["tpe", "random", "gp", "cmaes"] = Field(
        "tpe", description="tpe: Parzen estimators; gp: a Gaussian process; cmaes: an evolution strategy; random."
    )
    startup_trials: Count = Field(
        10, le=10_000, description="Trials suggested at random before the sampler learns from them."
    )


class Pruner(Frozen):
    """When a trial that does badly is stopped."""

    name: Literal["hyperband", "median", "none"] = Field(
        "hyperband",
        description="hyperband: the best share at each rung goes on; median: better than half goes on; none.",
    )
    min_epochs: Count = Field(1, le=100_000, description="Epochs that every trial may train.")
    reduction_factor: int = Field(
        3, strict=True, ge=2, le=100, description="hyperband: one of this many goes on, for this many times the epochs."
    )
    startup_trials: int = Field(
        5, strict=True, ge=0, le=10_000, description="median: trials that end before any is stopped."
    )


class Budget(Frozen):
    """What the search may spend."""

    trials: Count = Field(30, le=1_000_000, description="Trials that train; those rejected before do not count.")
    baseline_trials: int | None = Field(
        None,
        strict=True,
        ge=0,
        le=1_000_000,
        description="The same for each baseline; null: as many. 0: its settings as shipped, trained once.",
    )
    gpu_hours: float | None = Field(
        None,
        strict=True,
        gt=0.0,
        le=1e9,
        description="Hours of training, after which no trial begins; finalists train all the same. null: no limit.",
    )

    def of(self, *, main: bool) -> int:
        """Trials of the main arm, or of each baseline; 0 is no search."""
        return self.trials if main or self.baseline_trials is None else self.baseline_trials


class Finalists(Frozen):
    """What is done with the best settings of each arm: trained anew with other seeds, then scored on test, once."""

    seeds: int = Field(
        3,
        strict=True,
        ge=0,
        le=100,
        description="Trainings of each arm's best settings, from 3 on for an interval over seeds; 0: none.",
    )


SIZE = re.compile(r"^([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(K|M|G|T)(i?)B$")
POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}


def size_bytes(text: str) -> int:
    """Bytes of a size such as 8GiB, 7.5 GiB or 800MB: powers of 1024 with an i, of 1000 without.

    Raises:
        ValueError: It is no size, or less than a byte.
    """
    match = SIZE.match(text.strip())
    if match is None or not float(match[1]):
        raise ValueError("must be auto or a size with its unit, such as 8GiB")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** POWERS[match[2]])


def _memory_budget(text: str) -> str:
    if text != "auto":
        size_bytes(text)
    return text


class QuickLook(Frozen):
    """What a profile that takes a quick look (`cpu`) lays over the study, so that a trial takes seconds."""

    settings: dict[Key, Plain] = Field(
        default_factory=dict, description="KEY: VALUE on the base experiment, over the profile."
    )
    space: dict[Key, AnyParameter | None] = Field(
        default_factory=dict, description="Parameters that replace those of the space or join it; null drops one."
    )
    pruner: Pruner | None = Field(None, description="Takes the place of the study's pruner: there are fewer epochs.")


class ArmQuickLook(Frozen):
    """What a quick look lays over a baseline, beside what it shares with the main arm."""

    settings: dict[Key, Plain] = Field(default_factory=dict, description="KEY: VALUE on the baseline's experiment.")
    space: dict[Key, AnyParameter | None] = Field(
        default_factory=dict, description="Parameters that replace those of its space or join it; null drops one."
    )


class Baseline(Frozen):
    """An arm to compare with: another experiment, searched in the same way and for as long.

    What the study's `settings` and `space` say of anything but the model holds for it too, in the same ranges.
    """

    base: str = Field(
        min_length=1, max_length=4096, description="The baseline's experiment: its name, or a path as `base` has it."
    )
    settings: dict[Key, Plain] = Field(
        default_factory=dict, description="KEY: VALUE on that experiment, beside what it shares."
    )
    space: dict[Key, AnyParameter | None] = Field(
        default_factory=dict, description="Parameters beside those that it shares, or in their place; null drops one."
    )
    quick_look: ArmQuickLook | None = Field(None, description="What the cpu profile lays over this arm alone.")


class StudySpec(Frozen):
    """One search, completely described."""

    name: Name = Field(description="Letters, digits, '.', '_' and '-', 80 at most; it names the study's directory.")
    base: str = Field(
        min_length=1,
        max_length=4096,
        description="The experiment that is searched around: its name, or a path relative to this file's folder.",
    )
    settings: dict[Key, Plain] = Field(
        default_factory=dict, description="KEY: VALUE on the base experiment, under the profile."
    )
    space: Space = Field(description="What is searched: dotted key of a setting to its choices or its range.")
    objective: Objective = Field(default_factory=Objective, description="What makes a trial good.")
    sampler: Sampler = Field(default_factory=Sampler, description="What makes the suggestions.")
    pruner: Pruner = Field(default_factory=Pruner, description="When a trial is stopped early.")
    baselines: tuple[Baseline, ...] = Field((), max_length=20, description="Arms to compare the main one with.")
    budget: Budget = Field(default_factory=Budget, description="How many trials, how many hours.")
    finalists: Finalists = Field(
        default_factory=Finalists, description="How often each arm's best settings are trained anew, for test."
    )
    memory_budget: Annotated[StrictStr, AfterValidator(_memory_budget)] = Field(
        "auto",
        description="Memory that a trial may need by forecast, such as 8GiB; auto: what is free, less 5 %.",
    )
    jobs: Literal["auto"] | Annotated[StrictInt, Field(ge=1, le=1024)] = Field(
        "auto", description="Trials that train at once; auto: as many as fit."
    )
    seed: int = Field(
        0, strict=True, ge=0, le=2**32 - 1, description="Seed of the suggestions and of the trials' trainings."
    )
    quick_look: QuickLook | None = Field(None, description="What the cpu profile lays over the study.")

    @model_validator(mode="after")
    def _conditions_can_be_met(self) -> Self:
        check_conditions(self.space)
        return self

    @property
    def memory_budget_bytes(self) -> int | None:
        """The memory budget in bytes; None where it is what is free."""
        return None if self.memory_budget == "auto" else size_bytes(self.memory_budget)
