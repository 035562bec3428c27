"""What a study still lacks: a table that is made before its end says so, and how to go on."""

from __future__ import annotations

import json

from crack_sweeps.specs.words import listed
from crack_sweeps.study.folder import StudyFolder
from crack_sweeps.study.standing import Standing, StudyReader


def what_is_missing(folder: StudyFolder) -> str | None:
    """As `unfinished` says it, from a study's files; one that has ended is not read for it: ledgers may be long."""
    last = _last_event(folder)
    if not last or (last.get("kind"), last.get("status")) == ("ended", "FINISHED"):
        return None
    return unfinished(StudyReader(folder).read())


def _last_event(folder: StudyFolder) -> dict[str, object]:
    """The last event that is written whole; empty where no coordinator ever wrote one."""
    if not folder.events.is_file():
        return {}
    *_, last, _unwritten = (b"", *folder.events.read_bytes().split(b"\n"))
    try:
        event = json.loads(last or b"{}")
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"kind": "damaged"}  # who reads it whole says so, with its line


def unfinished(standing: Standing) -> str | None:
    """How far a study is that has not ended, and the command that goes on; None where no training is missing."""
    if standing.state == "finished" or not any(arm.num_trials_left + arm.num_finals_left for arm in standing.arms):
        return None
    told = how_far(standing)
    if standing.state == "running":
        return f"the study is still running: {told}; ranks may change"
    return f"the study is not finished: {told}; `{standing.go_on}` goes on with it"


def how_far(standing: Standing) -> str:
    """What is there of what is wanted: the main arm's trials until all have trained, and all arms' finalists."""
    told = []
    num_finals = sum(arm.num_finals for arm in standing.arms)
    num_wanted = sum(arm.num_seeds for arm in standing.arms)
    if standing.num_trained < standing.num_trials or not num_wanted:
        told.append(f"{standing.num_trained} of {standing.num_trials} trials of {standing.arms[0].arm} have trained")
    if num_wanted:
        told.append(f"{num_finals} of {num_wanted} finalist trainings {'is' if num_finals == 1 else 'are'} there")
    return listed(told, "and")
