"""What a coordinator knows of its study's trials, and where it writes it: the store first, ledger and journal after it.

The store decides; ledger and journal can be made from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crack_sweeps.specs.study_loading import ResolvedStudy
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import TRAINED, Outcome, Trial
from crack_sweeps.study.journal import StudyJournal
from crack_sweeps.study.ledger import Ledger, Row, row_of, trial_name
from crack_sweeps.study.schedule import MAX_ATTEMPTS, missing_finals, num_epochs, num_failures
from crack_sweeps.study.store import Store

OUTCOMES: tuple[Outcome, ...] = ("complete", "pruned", "rejected", "invalid", "failed", "out_of_memory")


@dataclass
class Books:
    """All trials of a study, as they are stored.

    Args:
        study: What is searched.
        folder: Its folder.
        outputs: Folder of all runs.
        store: What each trial suggested, reported and became.
        ledger: A row for each trial that has ended.
        journal: What the trackers are told.
    """

    study: ResolvedStudy
    folder: StudyFolder
    outputs: Path
    store: Store
    ledger: Ledger
    journal: StudyJournal
    trials: dict[str, list[Trial]] = field(init=False)

    def __post_init__(self) -> None:
        self.trials = {arm.name: self.store.trials(arm.name) for arm in self.study.all_arms}

    # --- writing ---------------------------------------------------------------------------------

    def add(self, trial: Trial) -> None:
        """A new trial; one that is never launched has ended with that."""
        self.store.add(trial)
        self.trials[trial.arm].append(trial)
        if trial.outcome != "running":
            self.ledger.add(self.row(trial))

    def report(self, trial: Trial, epoch: int, value: float) -> Trial:
        """The trial with its objective after one more epoch."""
        self.store.report(trial, epoch, value)
        return self._keep(replace(trial, intermediate={**trial.intermediate, epoch: value}))

    def note(self, trial: Trial, **facts: str) -> Trial:
        """The trial with more facts."""
        self.store.note(trial, **facts)
        return self._keep(replace(trial, facts={**trial.facts, **facts}))

    def finish(self, trial: Trial) -> tuple[Row, bool]:
        """Store how a trial ended; its row, and whether it is the best of its arm's search so far."""
        self.store.finish(trial)
        best_before = self.best(trial.arm)
        self._keep(trial)
        row = self.row(trial)
        self.ledger.add(row)
        self.tell_progress()
        searched = next(arm for arm in self.study.all_arms if arm.name == trial.arm).finalist_of is None
        return row, searched and trial.value is not None and self.best(trial.arm) != best_before

    def weigh(self, budget_bytes: int) -> None:
        """Reckon anew by how much each trial is over the budget: another sitting may have had another."""
        for trials in self.trials.values():
            for number, trial in enumerate(trials):
                needed = trial.facts.get("needed_bytes")
                excess = trial.excess if needed is None else needed / budget_bytes - 1
                if excess != trial.excess:
                    trials[number] = replace(trial, excess=excess)

    def tell_progress(self) -> None:
        """Tell the trackers how the study stands."""
        self.journal.progress(self._figures())

    def _keep(self, trial: Trial) -> Trial:
        self.trials[trial.arm][trial.number] = trial
        return trial

    # --- reading ---------------------------------------------------------------------------------

    @property
    def main(self) -> str:
        """Name of the arm that the study is about."""
        return self.study.arms[0].name

    def name(self, trial: Trial) -> str:
        """What people type for it."""
        return trial_name(self.folder, self.main, trial.arm, trial.number)

    def row(self, trial: Trial) -> Row:
        """A trial's row in the ledger."""
        return row_of(trial, name=self.name(trial), outputs=self.outputs)

    def parent_run(self, trial: Trial) -> str | None:
        """The run whose settings a trial trains with another seed; None for settings of its own."""
        first, selected = trial.facts.get("repeat_of"), trial.facts.get("selected_trial")
        if first is not None:
            return str(self.trials[trial.arm][first].facts["run"])
        if selected is not None:
            searched = self.trials[trial.facts["finalist_of"]]
            return str(searched[int(selected.rpartition("/")[2])].facts["run"])
        return None

    def missing(self) -> Iterator[str]:
        """Each training of a finalist that has no score: why, and whether the next sitting tries again."""
        for final, attempts in missing_finals(self.study, self.trials):
            what = f"the finalist of {final.arm.finalist_of} has no score with seed {final.seed}"
            if attempts[-1].outcome == "rejected":
                then = "a larger memory budget (--vram-budget) lets the same command train it"
            elif (left := MAX_ATTEMPTS - num_failures(attempts)) > 0:
                then = f"the same command tries again, {left} time{'' if left == 1 else 's'} at most"
            else:
                then = f"{MAX_ATTEMPTS} attempts failed, so it is given up"
            yield f"{what}: {self.name(attempts[-1])}: {attempts[-1].facts.get('reason')}; {then}"

    def best(self, arm: str) -> float | None:
        """The best objective of an arm's complete trials; None without any."""
        values = [trial.value for trial in self.trials[arm] if trial.value is not None]
        if not values:
            return None
        return max(values) if self.study.spec.objective.direction == "maximize" else min(values)

    def best_row(self) -> Mapping[str, Any] | None:
        """The row of the main arm's best trial, the first of several that are as good."""
        best = self.best(self.main)
        trial = next((t for t in self.trials[self.main] if t.value is not None and t.value == best), None)
        return self.row(trial) if trial is not None else None

    def num_trained(self) -> int:
        """Trials of the main arm that have ended after a training."""
        return self._count(self.main, *TRAINED)

    def num_failed(self) -> int:
        """Trainings of the search that failed, and of finalists those that have no score; not what was made good."""
        searched = sum(self._count(arm.name, "failed", "out_of_memory") for arm in self.study.arms)
        return searched + len(missing_finals(self.study, self.trials))

    def _count(self, arm: str, *outcomes: Outcome) -> int:
        return sum(trial.outcome in outcomes for trial in self.trials[arm])

    def _figures(self) -> dict[str, float]:
        """How the study stands: the main arm by plain names, each baseline under its own."""
        metric = self.study.spec.objective.metric.removeprefix("val/")
        num_ended = sum(trial.outcome != "running" for trials in self.trials.values() for trial in trials)
        figures = {"hours": self.ledger.seconds / 3600, "num_ended": float(num_ended)}
        for arm in self.study.arms:
            prefix = "" if arm.name == self.main else f"{arm.name}/"
            figures[f"{prefix}num_trials"] = float(self._count(arm.name, *TRAINED))
            figures[f"{prefix}num_epochs"] = float(num_epochs(self.trials[arm.name]))
            for outcome in OUTCOMES:
                figures[f"{prefix}num_{outcome}"] = float(self._count(arm.name, outcome))
            best = self.best(arm.name)
            if best is not None:
                figures[f"{prefix}best/{metric}"] = best
        return figures
