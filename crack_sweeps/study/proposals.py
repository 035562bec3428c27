"""What a study trains next: a suggestion or a finalist, settled, its memory forecast, as a new trial."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import Any

from crack_sweeps.console import gib
from crack_sweeps.errors import NothingFits, SpecError, StudyError, SweepsError
from crack_sweeps.runs.directory import new_run_name
from crack_sweeps.specs.experiment import Experiment
from crack_sweeps.specs.fingerprint import fingerprint
from crack_sweeps.specs.study_loading import Arm, settle
from crack_sweeps.study.books import Books
from crack_sweeps.study.calibration import Calibration
from crack_sweeps.study.executor import Key
from crack_sweeps.study.forecasts import Forecaster, shape_key
from crack_sweeps.study.history import UNUSABLE, Trial
from crack_sweeps.study.outcome import ended
from crack_sweeps.study.schedule import Final, Search, next_final, next_search, next_untuned, nth_seed
from crack_sweeps.study.suggest import Fits, suggest
from crack_sweeps.training.footprint import DeviceType


class Proposals:
    """Proposes trials; each answer is a function of what the books hold.

    Args:
        books: All trials so far.
        forecaster: Forecasts what a trial will need.
        calibration: From forecasts to needs.
        on: The kind of device.
        budget_bytes: What a trial may need; above it, it is rejected.
    """

    def __init__(
        self, books: Books, forecaster: Forecaster, calibration: Calibration, on: DeviceType, budget_bytes: int
    ) -> None:
        self._books, self._study = books, books.study
        self._forecaster, self._calibration, self._on = forecaster, calibration, on
        self._budget_bytes = budget_bytes
        self._arms = {arm.name: arm for arm in self._study.all_arms}
        books.weigh(budget_bytes)
        self._earlier = {
            (trial.arm, trial.number)
            for trials in books.trials.values()
            for trial in trials
            if trial.outcome != "running"
        }

    def next(self, under_way: Collection[Key]) -> Trial | None:
        """A new trial, not in the books yet: `running` if it can be trained, else rejected or invalid.

        Args:
            under_way: Trials that have not ended.

        Returns:
            None where none is due, or none before trials under way have ended.
        """
        match self._turn(under_way):
            case Search() as turn:
                return self._suggestion(turn)
            case Final() as turn:
                return self._finalist(turn)
        return None

    def experiment(self, trial: Trial) -> Experiment:
        """What a trial trains: the suggestion on its arm's base, with the trial's own seed."""
        settled = settle(self._arms[trial.arm], trial.suggestion)
        training = settled.training.model_copy(update={"seed": trial.facts["seed"]})
        return settled.model_copy(update={"training": training})

    def rejected(self, trial: Trial) -> Trial | None:
        """A trial that never began, as rejected, if it is over today's budget; None if it fits."""
        reason = self._over_budget(trial.facts["needed_bytes"])
        return ended(trial, "rejected", reason) if reason is not None else None

    def in_vain(self, arm: str, number: int) -> SweepsError:
        """What to tell a person after this number of an arm's suggestions in a row that could not be trained."""
        last = self._books.trials[arm][-number:]
        reasons = [trial.facts["reason"] for trial in last if trial.outcome == "invalid"]
        of_arm = "" if arm == self._books.main else f" of arm {arm}"
        suggestions = f"{number} suggestions{of_arm} in a row"
        if len(reasons) == len(last):
            return SpecError(
                f"{suggestions} are invalid, the last: {reasons[-1]}",
                hint="take the values that do not go together out of the space, or give one a condition (`when`)",
            )
        needs = min(t.facts["needed_bytes"] for t in self._books.trials[arm] if "needed_bytes" in t.facts)
        invalid = f" ({len(reasons)} of them are invalid, the last: {reasons[-1]})" if reasons else ""
        return NothingFits(
            f"{suggestions} need more than the memory budget of {gib(self._budget_bytes)}; "
            f"the smallest so far needs {gib(needs)}{invalid}",
            hint="raise --vram-budget, or put smaller variants, crops or batches into the space",
        )

    def _turn(self, under_way: Collection[Key]) -> Search | Final | None:
        """Arms by turns, and when all of them have been searched, their finalists."""
        trials, hours = self._books.trials, self._study.spec.budget.gpu_hours
        if hours is None or self._books.ledger.seconds < hours * 3600:
            turn = next_untuned(self._study, trials) or next_search(self._study, trials)
            if turn is not None:
                return turn
        if any(self._arms[arm].finalist_of is None for arm, _ in under_way):
            return None  # who wins is not known yet
        return next_final(self._study, trials, earlier=self._earlier, budget_bytes=self._budget_bytes)

    def _suggestion(self, turn: Search) -> Trial:
        arm, spec, number = turn.arm, self._study.spec, len(self._books.trials[turn.arm.name])
        past = self._past(arm)
        suggestion = suggest(
            arm.space,
            past,
            number=number,
            sampler=spec.sampler,
            objective=spec.objective,
            seed=spec.seed,
            arm=arm.name,
            fits=self._known_misfits(arm, past),
        )
        facts: dict[str, Any] = {}
        try:
            experiment = settle(arm, suggestion)
            facts["shape"] = shape_key(experiment, self._on)
            excess, facts = self._measure(experiment)
        except StudyError:  # the forecaster itself is in trouble
            raise
        except SweepsError as error:  # settings that do not go together, or of which no network can be built
            facts["reason"] = why_invalid(error, suggestion)
            return Trial(arm.name, number, suggestion, "invalid", facts=facts)
        if excess > 0:
            return Trial(arm.name, number, suggestion, "rejected", excess=excess, facts=facts)
        trained = self._books.trials[arm.name]
        alike = [t for t in trained if t.facts.get("fingerprint") == facts["fingerprint"] and t.outcome not in UNUSABLE]
        taken = {t.facts.get("seed") for t in alike}
        facts |= {
            "run": self._new_run_name(arm, number),
            "seed": next(seed for turn in count() if (seed := nth_seed(arm.base.training.seed, turn)) not in taken),
            "repeat_of": alike[0].number if alike else None,
        }
        if turn.epoch_cap is not None:
            facts["epoch_cap"] = turn.epoch_cap
        return Trial(arm.name, number, suggestion, "running", excess=excess, facts=facts)

    def _known_misfits(self, arm: Arm, past: Sequence[Trial]) -> Fits:
        unusable = {trial.facts.get("shape") for trial in past if trial.outcome in UNUSABLE}

        def fits(candidate: Mapping[str, Any]) -> bool | None:
            if not unusable:
                return None
            try:
                return False if shape_key(settle(arm, candidate), self._on) in unusable else None
            except SpecError:  # two settings that do not go together
                return False

        return fits

    def _finalist(self, turn: Final) -> Trial:
        """One more training of an arm's best settings, with a seed that they were not chosen by."""
        arm, number = turn.arm, len(self._books.trials[turn.arm.name])
        assert arm.finalist_of is not None
        selected = None if turn.selected is None else self._books.trials[arm.finalist_of][turn.selected]
        excess, facts = self._measure(settle(arm, turn.suggestion))
        facts |= {
            "seed": turn.seed,
            "repeat_of": None,
            "finalist_of": arm.finalist_of,
            "selected_trial": None if selected is None else self._books.name(selected),
        }
        if excess > 0:
            return Trial(arm.name, number, turn.suggestion, "rejected", excess=excess, facts=facts)
        facts["run"] = self._new_run_name(arm, number)
        return Trial(arm.name, number, turn.suggestion, "running", excess=excess, facts=facts)

    def _measure(self, experiment: Experiment) -> tuple[float, dict[str, Any]]:
        """By how much an experiment's forecast is over the budget, and what a trial's facts say of it."""
        foreseen = self._forecaster.peak(experiment)
        needed = self._calibration.peak(foreseen)
        facts: dict[str, Any] = {
            "fingerprint": fingerprint(experiment),
            "shape": shape_key(experiment, self._on),
            "forecast_bytes": foreseen.total_bytes,
            "needed_bytes": needed,
        }
        reason = self._over_budget(needed)
        return needed / self._budget_bytes - 1, facts if reason is None else {**facts, "reason": reason}

    def _over_budget(self, needed_bytes: int) -> str | None:
        if needed_bytes <= self._budget_bytes:
            return None
        return f"needs {gib(needed_bytes)} by forecast, the budget is {gib(self._budget_bytes)}"

    def _past(self, arm: Arm) -> list[Trial]:
        """What the sampler learns from: an arm's trials, but those that were rejected and would fit today."""
        past = self._books.trials[arm.name]
        return [t for t in past if t.outcome != "rejected" or t.excess is None or t.excess > 0]

    def _new_run_name(self, arm: Arm, number: int) -> str:
        of_arm = "" if arm.name == self._books.main else f"-{arm.name}"
        return new_run_name(f"{self._books.folder.name.replace('@', '.')}{of_arm}-{number:03d}")


def why_invalid(error: SweepsError, suggestion: Mapping[str, Any]) -> str:
    """What is wrong with a suggestion; what it set of the model stands before it where the error names none of it."""
    if any(key in error.message for key in suggestion):
        return error.message
    of_model = [f"{key}: {value}" for key, value in suggestion.items() if key.startswith("model.")]
    return ", ".join([*of_model, error.message])
