"""What a study still lacks: a table that is made before its end says so, and how to go on."""

from __future__ import annotations

from crack_sweeps.specs.words import listed
from crack_sweeps.study.standing import Standing


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
    num_finals, num_wanted = (sum(getattr(arm, key) for arm in standing.arms) for key in ("num_finals", "num_seeds"))
    if standing.num_trained < standing.num_trials or not num_wanted:
        told.append(f"{standing.num_trained} of {standing.num_trials} trials of {standing.arms[0].arm} have trained")
    if num_wanted:
        told.append(f"{num_finals} of {num_wanted} finalist trainings {'is' if num_finals == 1 else 'are'} there")
    return listed(told, "and")
