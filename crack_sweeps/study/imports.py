"""Trials of earlier versions, brought into a study whose space has changed, where they still mean something."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import Timeout

from crack_sweeps.errors import SpecError, StoreError
from crack_sweeps.specs.study import exists, identified
from crack_sweeps.specs.study_loading import Arm, ResolvedStudy, flat, settle
from crack_sweeps.study.distributions import axis
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import Trial
from crack_sweeps.study.ledger import Ledger, read_rows, row_of, trial_name
from crack_sweeps.study.outcome import ended, outcome_of
from crack_sweeps.study.store import Store, address_of, database_of

CARRIED = frozenset({"complete", "pruned", "failed", "out_of_memory"})  # what was rejected is forecast anew
LEFT = "a newer version of the study was begun before it had ended"


@dataclass(frozen=True)
class Source:
    """An earlier version, and where its trials are stored."""

    folder: StudyFolder
    url: str


def sources(before: Sequence[StudyFolder], storage: str | None) -> list[Source]:
    """Earlier versions with the storage that each was begun with, whatever the new one's is.

    Args:
        before: Folders of earlier versions.
        storage: What was typed for the new one; it may have the password that no file keeps.

    Raises:
        StoreError: A storage has a password that was not typed, or its file is gone.
    """
    found = []
    for folder in before:
        kept, url = folder.read_facts().get("storage"), address_of(folder, storage)
        if url is None:
            raise StoreError(
                f"trials of {folder.typed} would come along, and their storage {kept} needs its password",
                hint=f"type --storage {kept} (with its password), or give this study another `name` in its file",
            )
        if kept is not None or (database := database_of(folder)).is_file():
            found.append(Source(folder, url))
        elif any(read_rows(folder)):
            raise StoreError(
                f"trials of {folder.typed} would come along, and its database {database} is gone",
                hint="`sweeps doctor --fix` rebuilds it from ledger and runs; or set SWEEPS_STORE as it was",
            )
    return found


def import_trials(
    before: Sequence[Source], study: ResolvedStudy, store: Store, *, outputs: Path, notify: Callable[[str], None]
) -> None:
    """Bring over what fits, once; a crash in between is made good by the next call.

    A trial that has come along from version to version is the same one: it is known by its run.

    Args:
        before: The versions that are imported from, the oldest first.
        study: The new version.
        store: Its store; nothing has been searched there yet.
        outputs: Folder of all runs.
        notify: Told what came along.
    """
    with ExitStack() as stack:
        opened = [(source, source.folder.read_study()) for source in before]
        stores = [
            stack.enter_context(
                closing(Store(source.url, source.folder.name, old.all_arms, old.spec.objective, owner=source.folder))
            )
            for source, old in opened
        ]
        for arm in study.arms:
            here = store.trials(arm.name)
            if any(trial.facts.get("imported_from") is None for trial in here):
                continue  # it has been searched already, so the import was complete
            known = {told_apart_by(trial, str(trial.facts["imported_from"])) for trial in here}
            number, seen = len(here), set(known)
            for (source, old), old_store in zip(opened, stores, strict=True):
                for key, trial in _fitting(source.folder, old, old_store, arm, seen):
                    if key not in known:
                        store.add(replace(trial, number=number))
                        known.add(key)
                        number += 1
            if seen:
                names = " and ".join(source.folder.typed for source in before)
                notify(f"the space has changed: {number} of {len(seen)} trials of {names} still fit and came along")
        for (source, old), old_store in zip(opened, stores, strict=True):
            _close(source.folder, old, old_store, outputs)


def _fitting(
    folder: StudyFolder, study: ResolvedStudy, store: Store, new: Arm, seen: set[str]
) -> Iterator[tuple[str, Trial]]:
    """What an earlier version has of an arm and the new space holds, each by what tells it apart; `seen` gets all."""
    old = next((arm for arm in study.arms if arm.name == new.name), None)
    for trial in store.trials(new.name) if old is not None else ():
        if old is None or not is_carried(trial):
            continue
        name = folder.typed_trial(trial_name(folder, study.arms[0].name, new.name, trial.number))
        name = trial.facts.get("imported_from") or name
        key = told_apart_by(trial, name)
        seen.add(key)
        suggestion = translated(trial, old, new)
        if suggestion is not None:
            facts = {**trial.facts, "imported_from": name, "repeat_of": None}
            yield key, replace(trial, suggestion=suggestion, facts=facts)


def _close(folder: StudyFolder, study: ResolvedStudy, store: Store, outputs: Path) -> None:
    """Trials of an earlier version that had not ended will not be gone on with: that is their end."""
    try:
        with folder.lock().acquire(blocking=False), closing(Ledger(folder)) as ledger:
            for arm in study.all_arms:
                for trial in store.trials(arm.name):
                    if trial.outcome != "running":
                        continue
                    over = outcome_of(trial, outputs=outputs, objective=study.spec.objective)
                    over = over or ended(trial, "failed", LEFT)
                    store.finish(over)
                    name = trial_name(folder, study.arms[0].name, arm.name, trial.number)
                    ledger.add(row_of(over, name=name, outputs=outputs))
    except Timeout:
        return  # it is being searched at this moment, so that they go on


def is_carried(trial: Trial) -> bool:
    """Whether a trial of an earlier version says something of its settings."""
    return trial.outcome in CARRIED and trial.facts.get("reason") != LEFT


def told_apart_by(trial: Trial, name: str) -> str:
    """What a trial keeps when it comes along: its run, or the name that it had, if it never had one."""
    return str(trial.facts.get("run") or trial.facts.get("imported_from") or name)


def translated(trial: Trial, old: Arm, new: Arm) -> Mapping[str, Any] | None:
    """The trial's settings as a suggestion of the new space; None where the new space does not hold them."""
    trained = flat(old.base) | dict(trial.suggestion)
    suggestion: dict[str, Any] = {}
    for key, parameter in new.space.items():
        if not exists(parameter, suggestion):
            continue
        if axis(parameter).encoded(trained[key]) is None:
            return None
        suggestion[key] = trained[key]
    try:
        would_train = flat(settle(new, suggestion))
    except SpecError:  # two settings that no longer go together
        return None
    same = all(identified(would_train[key]) == identified(value) for key, value in trained.items())
    return suggestion if same else None
