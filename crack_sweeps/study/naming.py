"""Finds the trial that a name means, and the settings that it trained; from files alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crack_sweeps.errors import RunNotFound, StudyNotFound, UserError
from crack_sweeps.runs.directory import OUTPUTS, RunDirectory, find_run
from crack_sweeps.runs.events import read_events
from crack_sweeps.specs.fingerprint import fingerprint
from crack_sweeps.specs.loading import Resolved, resolve
from crack_sweeps.specs.study_loading import Arm, ResolvedStudy, settle
from crack_sweeps.specs.words import listed, nearest
from crack_sweeps.study.folder import STUDIES, StudyFolder, all_studies, find_study, stored_study
from crack_sweeps.study.ledger import Row, read_rows, trial_name, undamaged
from crack_sweeps.study.missing import read_begun

FEWEST_DIGITS = 6  # of a run's name that is typed in part; what is shorter is meant as a trial's number


@dataclass(frozen=True)
class FoundTrial:
    """One trial and where its files are.

    Args:
        folder: Of its study.
        study: Its study as it began.
        arm: The arm that it belongs to.
        number: Its number within the arm.
        row: Of the ledger; None while it has not ended.
        run: Its run's directory; None if it has none, or none any more.
    """

    folder: StudyFolder
    study: ResolvedStudy
    arm: Arm
    number: int
    row: Row | None
    run: RunDirectory | None

    @property
    def name(self) -> str:
        """As people type it."""
        return _typed(self.folder, self.study, self.arm.name, self.number)

    @property
    def membership(self) -> dict[str, Any]:
        """What its run was told of the study when it began; empty without a run."""
        return (self.run.read_environment().get("study") or {}) if self.run is not None else {}

    @property
    def lost(self) -> str | None:
        """What is no longer there of the run of a trial that has ended; None if nothing is, or it never had one."""
        if self.run is not None or self.row is None or self.row["run_dir"] is None:
            return None
        path = Path(self.row["run_dir"])
        if not path.is_dir():
            return f"its run directory is gone ({path.as_posix()})"
        lacking = [name for name in ("environment.json", "events.jsonl") if not (path / name).is_file()]
        return f"its run directory lacks {listed(lacking, 'and')} ({path.as_posix()})"

    @property
    def suggestion(self) -> dict[str, Any] | None:
        """What was suggested; None while nobody has written it down."""
        known: dict[str, Any] | None = self.row["suggestion"] if self.row else self.membership.get("suggestion")
        return known

    @property
    def facts(self) -> dict[str, Any]:
        """Seed, forecast, reason and the like."""
        return self.row if self.row is not None else self.membership.get("facts", {})


def names_trial(wanted: str) -> bool:
    """Whether a name has a trial's form, STUDY/21 or STUDY/ARM/21."""
    parts = wanted.strip("/").removeprefix(f"{STUDIES}/").split("/")
    return len(parts) in (2, 3) and parts[-1].isdecimal() and all(parts)


def find_trial(wanted: str, *, root: Path = STUDIES, outputs: Path = OUTPUTS) -> FoundTrial:
    """The trial that STUDY/21, STUDY/ARM/21 or the name of its run means.

    Raises:
        StudyNotFound: There is no such study or trial.
        RunNotFound: No run, or more than one, answers to the name.
        UserError: The run is no trial of a study.
    """
    if names_trial(wanted):
        study, *arm, number = wanted.strip("/").removeprefix(f"{root}/").split("/")
        return _trial(find_study(study, root=root), arm[0] if arm else None, int(number))
    try:
        run = find_run(wanted, outputs=outputs)
    except RunNotFound:
        if len(wanted) >= FEWEST_DIGITS and not _like_a_study(wanted, root):
            raise
        raise StudyNotFound(f"no trial or run is named `{wanted}`", hint=_example(wanted, root)) from None
    of = run.read_environment().get("study")
    if of is None:
        raise UserError(
            f"run {run.name} is a single run, no trial of a study", hint=f"it is described in {run.path}/metrics.json"
        )
    return _trial(stored_study(of["name"], root=root), of["arm"], of["number"])


def trial_settings(wanted: str, *, seed: int | None = None, root: Path = STUDIES, outputs: Path = OUTPUTS) -> Resolved:
    """What a trial trained, to be trained again by itself: nothing is laid over it but a seed.

    Args:
        wanted: Its name, or that of its run.
        seed: Instead of the trial's own.

    Raises:
        UserError: There is no such trial, or its settings are not known.
    """
    found = find_trial(wanted, root=root, outputs=outputs)
    if found.run is not None:
        facts = found.run.read_environment()
        stored = resolve(found.run.config, profile="none", seed=seed)
        overrides = (*facts["overrides"], *stored.overrides)
        return replace(stored, profile=facts["profile"], quick_look=facts["quick_look"], overrides=overrides)
    suggestion = found.suggestion
    if suggestion is None:
        raise UserError(f"{found.name} has not begun yet, so its settings are not known", hint="try again soon")
    known = seed if seed is not None else found.facts.get("seed")
    experiment = settle(found.arm, suggestion if known is None else {**suggestion, "training.seed": known})
    return Resolved(
        experiment=experiment,
        source=found.folder.snapshot,
        profile=found.study.profile,
        quick_look=found.study.quick_look,
        overrides=(*found.study.overrides, *([f"training.seed={seed}"] if seed is not None else [])),
        changed_by_profile={},
        fingerprint=fingerprint(experiment),
    )


def _trial(folder: StudyFolder, arm_name: str | None, number: int) -> FoundTrial:
    study = read_begun(folder)
    arms = {arm.name: arm for arm in study.all_arms}
    name = arm_name if arm_name is not None else study.arms[0].name
    if name not in arms:
        raise StudyNotFound(f"study {folder.typed} has no arm `{name}`", hint=f"it has {listed(arms, 'and')}")
    highest: dict[str, int] = {}
    with undamaged(folder.ledger):
        for row in read_rows(folder):
            highest[row["arm"]] = max(highest.get(row["arm"], 0), row["number"])
            if (row["arm"], row["number"]) == (name, number):
                return FoundTrial(folder, study, arms[name], number, row, _run(row["run_dir"]))
    with undamaged(folder.events):
        for event in read_events(folder.events):
            if event["kind"] != "trial":
                continue
            highest[event["arm"]] = max(highest.get(event["arm"], 0), event["number"])
            if (event["arm"], event["number"]) == (name, number):
                return FoundTrial(folder, study, arms[name], number, None, _run(event["run_dir"]))
    alike = study.arms if arms[name] in study.arms else study.finals  # of a search, or of finalists
    ranges = [_range(folder, study, arm.name, highest[arm.name]) for arm in alike if arm.name in highest]
    raise StudyNotFound(
        f"study {folder.typed} has no trial {number} in arm {name}",
        hint=f"there are {listed(ranges, 'and')}" if ranges else "it has none",
    )


def _range(folder: StudyFolder, study: ResolvedStudy, arm: str, highest: int) -> str:
    """`toy/0 to toy/4`, all trials of an arm."""
    first, last = (_typed(folder, study, arm, number) for number in (0, highest))
    return f"{first} to {last}" if highest else first


def _typed(folder: StudyFolder, study: ResolvedStudy, arm: str, number: int) -> str:
    return folder.typed_trial(trial_name(folder, study.arms[0].name, arm, number))


def _run(run_dir: str | None) -> RunDirectory | None:
    run = RunDirectory(Path(run_dir)) if run_dir is not None else None
    return run if run is not None and run.environment.is_file() and run.events.is_file() else None


def _like_a_study(wanted: str, root: Path) -> bool:
    known = {name for folder in all_studies(root=root) for name in (folder.typed, folder.plain_name)}
    return wanted in known or "/" in wanted or nearest(wanted, known) is not None


def _example(wanted: str, root: Path) -> str:
    studies = all_studies(root=root)
    if not studies:
        return "there is no study yet; begin one with `sweeps study`"
    close = nearest(wanted.split("/")[0], [folder.typed for folder in studies]) or studies[0].typed
    return f"type STUDY/NUMBER, such as {close}/{wanted if wanted.isdecimal() else 0}"
