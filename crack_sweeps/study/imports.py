"""Trials of the version before, brought into a study whose space has changed, where they still mean something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.study import exists, identified
from crack_sweeps.specs.study_loading import Arm, ResolvedStudy, flat, settle
from crack_sweeps.study.distributions import axis
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.history import Trial
from crack_sweeps.study.ledger import trial_name
from crack_sweeps.study.store import Store

CARRIED = frozenset({"complete", "pruned", "failed", "out_of_memory"})  # what was rejected is forecast anew


def import_trials(
    before: StudyFolder, url: str, study: ResolvedStudy, store: Store, *, notify: Callable[[str], None]
) -> None:
    """Bring over what fits, once; a crash in between is made good by the next call.

    Args:
        before: The version that is imported from.
        url: Where its trials are stored.
        study: The new version.
        store: Its store; nothing has been searched there yet.
        notify: Told what came along.
    """
    old_study = before.read_study()
    main = old_study.arms[0].name
    with closing(Store(url, before.name, old_study.arms, old_study.spec.objective)) as old_store:
        for arm in study.arms:
            here = store.trials(arm.name)
            if any(trial.facts.get("imported_from") is None for trial in here):
                continue  # it has been searched already, so the import was complete
            old_arm = next((old for old in old_study.arms if old.name == arm.name), None)
            if old_arm is None:
                continue
            known = {trial.facts["imported_from"] for trial in here}
            found = [trial for trial in old_store.trials(arm.name) if trial.outcome in CARRIED]
            number = len(here)
            for trial in found:
                name = trial.facts.get("imported_from") or trial_name(before, main, arm.name, trial.number)
                suggestion = translated(trial, old_arm, arm)
                if suggestion is None or name in known:
                    continue
                facts = {**trial.facts, "imported_from": name, "repeat_of": None}
                store.add(replace(trial, number=number, suggestion=suggestion, facts=facts))
                number += 1
            notify(f"the space has changed: {number} of {len(found)} trials of {before.name} still fit and came along")


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
