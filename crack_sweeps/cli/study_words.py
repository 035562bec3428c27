"""A study and its trials in words: short names, figures, and rows and lines that a person reads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from crack_sweeps.console import Cell, Share, Table, View, human_bytes, human_seconds

if TYPE_CHECKING:
    from crack_sweeps.search import StudyRecord
    from crack_sweeps.study.comparison import Attempt, Difference, Explanation
    from crack_sweeps.study.standing import Standing

Rows = list[tuple[str, str]]
COLUMNS = ("trial", "settings", "epoch", "now", "best", "memory", "left")
LONGEST = 24  # characters of a value in a table
SCORES = ("crack_iou", "crack_f1", "precision", "recall")
MOST_EPOCHS = 12  # lines of epochs that a person reads
STATES = {
    "running": "running",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "ended with an error",
    "interrupted": "interrupted: its coordinator is dead",
}

# --- words ---------------------------------------------------------------------------------------


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Dotted keys to their last parts, as many as tell them apart."""
    keys = list(keys)

    def tail(key: str, num_parts: int) -> str:
        return ".".join(key.split(".")[-num_parts:])

    short: dict[str, str] = {}
    for key in keys:
        parts = range(1, key.count(".") + 2)
        alone = (n for n in parts if sum(tail(other, n) == tail(key, n) for other in keys) == 1)
        short[key] = tail(key, next(alone, len(parts)))
    return short


def said(value: Any, *, exact: bool = False) -> str:
    """A setting's value: in a table fractions have three significant digits and words a limit, `exact` shows all."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return repr(value) if exact else f"{value:.3g}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(said(item, exact=exact) for item in value)}]"
    text = str(value)
    return text if exact or len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def settings_line(suggestion: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """`learning_rate=0.0012 dice_weight=0.4`."""
    return " ".join(f"{names.get(key, key)}={said(value)}" for key, value in suggestion.items())


def figure(value: float | None) -> str:
    """An objective's value."""
    return "-" if value is None else f"{value:.3g}" if abs(value) >= 10 else f"{value:.3f}"


def memory(peak: float | None, needed: float | None) -> str:
    """The measured peak, or what was forecast."""
    if peak is not None:
        return human_bytes(peak)
    return f"~{human_bytes(needed)}" if needed is not None else "-"


def left(seconds: float | None) -> str:
    """Time that is left, if anybody knows."""
    return human_seconds(seconds) if seconds is not None else "-"


def ended_line(row: Mapping[str, Any], *, is_best: bool = False) -> str:
    """How a trial ended, on one line; from its row of the ledger."""
    words = {"out_of_memory": "out of memory"}.get(row["outcome"], row["outcome"])
    line = f"{row['trial']} {words}"
    if row["value"] is not None:
        line += f" {figure(row['value'])}{'  best so far' if is_best else ''}"
    elif row["num_epochs"]:
        line += f" after epoch {row['num_epochs']}"
    if row["reason"]:
        line += f": {row['reason']}"
    if row["duration_s"]:
        line += f"  {human_seconds(row['duration_s'])}"
    if row["peaks"]:
        line += f"  {human_bytes(max(row['peaks'].values()))}"
    return line


def head_line(
    standing: Standing, trained: Mapping[str, int], counts: Mapping[str, int], best: Mapping[str, Any] | None
) -> str:
    """The study in one line: how far, how good, what went wrong.

    Args:
        standing: What does not change.
        trained: Trainings by arm, those of finalists under the arm's name with `.final` behind it.
        counts: Trials of the main arm by outcome.
        best: Row of the main arm's best.
    """
    main, *baselines = standing.arms
    line = f"study {standing.study}: {of_wanted(trained.get(main.arm, 0), main.num_trials)} trials trained"
    tuned = [f"{arm.arm} {of_wanted(trained.get(arm.arm, 0), arm.num_trials)}" for arm in baselines if arm.num_trials]
    line += f" ({', '.join(tuned)})" if tuned else ""
    finals = sum(min(trained.get(final_of(arm.arm), 0), arm.num_seeds) for arm in standing.arms)
    if finals:
        line += f", finalists {finals} of {sum(arm.num_seeds for arm in standing.arms)}"
    if best is not None:
        line += f", best {standing.objective} {figure(best['value'])} ({best['trial']}){_in_main(standing)}"
    for outcome in ("pruned", "rejected", "invalid", "failed", "out_of_memory"):
        if counts.get(outcome):
            line += f", {counts[outcome]} {outcome.replace('_', ' ')}"
    return line


def _in_main(standing: Standing) -> str:
    """Whose trials a figure is of, where there are several arms; another's may be better."""
    return f" in arm {standing.arms[0].arm}" if len(standing.arms) > 1 else ""


def of_wanted(number: int, wanted: int) -> str:
    """`3 of 8`; more than are wanted, as there are once --trials was lowered, or where an arm got extra ones."""
    return f"{number} of {wanted}" if number <= wanted else f"{number} ({wanted} wanted)"


def final_of(arm: str) -> str:
    """The name under which an arm's finalist trains."""
    from crack_sweeps.specs.study_arms import FINAL

    return arm + FINAL


def trained_by_arm(standing: Standing) -> dict[str, int]:
    """Trainings that have ended, by arm."""
    searched = {arm.arm: arm.num_trained for arm in standing.arms}
    return searched | {final_of(arm.arm): arm.num_finals for arm in standing.arms}


def clock(seconds: float) -> str:
    """A moment in local time; the day where it is not today."""
    moment, today = time.localtime(seconds), time.localtime()
    return time.strftime("%H:%M" if moment[:3] == today[:3] else "%Y-%m-%d %H:%M", moment)


# --- a study -------------------------------------------------------------------------------------


def standing_rows(standing: Standing) -> Rows:
    """How a study stands."""
    rows = [("study", standing.study), ("state", _state(standing))]
    main = _in_main(standing)
    trained = of_wanted(standing.num_trained, standing.num_trials)
    rows.append(("trials", f"{trained} trained{main}{_counts(standing.counts)}"))
    for arm in standing.arms[1:]:
        done = f"{of_wanted(arm.num_trained, arm.num_trials)} trained" if arm.num_trials else "as shipped"
        rows.append((f"  {arm.arm}", done + (f", best {figure(arm.best)}" if arm.best is not None else "")))
    if wanted := sum(arm.num_seeds for arm in standing.arms):
        rows.append(("finalists", f"{sum(arm.num_finals for arm in standing.arms)} of {wanted} trained"))
    if standing.best is not None:
        rows.append(("best", f"{standing.objective} {figure(standing.best['value'])} ({standing.best['trial']}){main}"))
    limit = f" of {standing.max_hours:g}" if standing.max_hours is not None else ""
    rows.append(("hours of training", f"{standing.hours:.2f}{limit}"))
    if standing.seconds_left is not None:
        rows.append(
            ("until", f"about {clock(time.time() + standing.seconds_left)}, {left(standing.seconds_left)} left")
        )
    rows.append(("folder", standing.folder))
    if standing.quick_look:
        rows.append(("note", "a quick look: not to be ranked beside full runs"))
    if standing.state not in ("running", "finished"):
        rows.append(("go on with", standing.go_on))
    return rows


def _state(standing: Standing) -> str:
    text = STATES[standing.state]
    if standing.reason and standing.state in ("stopped", "failed"):
        text += f" ({standing.reason})"
    who = standing.coordinator
    if who is not None and standing.state == "running":
        text += f", process {who.pid} on {who.host}"
        text += " (another machine: whether it lives cannot be seen from here)" if who.alive is None else ""
    return text


def _counts(counts: Mapping[str, int]) -> str:
    said = [f"{number} {outcome.replace('_', ' ')}" for outcome, number in counts.items() if number]
    return f": {', '.join(said)}" if said else ""


def running_table(standing: Standing) -> Table:
    """The trials that are under way, or wait to be gone on with."""
    names = short_names({key: None for trial in standing.running for key in trial.suggestion})
    rows: list[list[Cell]] = [
        [
            trial.trial,
            settings_line(trial.suggestion, names),
            Share(trial.epoch, trial.total_epochs) if trial.total_epochs is not None else "-",
            figure(trial.value),
            figure(trial.best),
            memory(trial.peak_bytes, trial.needed_bytes),
            left(trial.seconds_left) if standing.state == "running" else "-",
            f"{human_seconds(trial.epoch_age_s)} ago" if trial.epoch_age_s is not None else "-",
        ]
        for trial in standing.running
    ]
    return Table((*COLUMNS, "last epoch"), rows)


def standing_view(standing: Standing) -> View:
    """How a study stands, as a live view."""
    head = head_line(standing, trained_by_arm(standing), standing.counts, standing.best)
    if standing.seconds_left is not None:
        head += f", about {human_seconds(standing.seconds_left)} left"
    return View((head,), running_table(standing), [ended_line(row) for row in standing.recent])


def record_rows(record: StudyRecord, objective: str) -> Rows:
    """How a study ended, and the best of it."""
    reason = f" ({record.reason})" if record.reason else ""
    failed = f", {record.num_failed} of them failed" if record.num_failed else ""
    rows = [
        ("study", record.study),
        ("status", record.status + reason),
        ("trials", f"{record.num_trained} trained{failed}"),
        ("folder", record.folder),
    ]
    if record.answer is not None:
        rows.append(("answer", record.answer))
    if record.best is None:
        return [*rows, ("best", "none: no trial is complete")]
    best = record.best
    rows += [
        ("best trial", best["trial"]),
        (objective, figure(best["value"])),
        *((f"  {key}", said(value, exact=True)) for key, value in best["suggestion"].items()),
        ("run", str(best["run_dir"])),
    ]
    if best["quick_look"]:
        rows.append(("note", "a quick look: not to be ranked beside full runs"))
    return rows


# --- a trial -------------------------------------------------------------------------------------


def explanation_rows(why: Explanation) -> Rows:
    """What is known of a trial."""
    rows = [("trial", why.trial), ("outcome", why.said)]
    if why.suggestion is not None:
        asked = [(f"  {key}", said(value, exact=True)) for key, value in why.suggestion.items()]
        rows += [("asked for", ""), *asked]
    else:
        rows.append(("asked for", "not written down yet"))
    if why.seed is not None:
        again = f", repeats {why.repeat_of} with another seed" if why.repeat_of else ""
        rows.append(("seed", f"{why.seed}{again}"))
    if why.imported_from:
        rows.append(("imported from", why.imported_from))
    if why.needed_bytes is not None:
        budget = f", the budget was {human_bytes(why.budget_bytes)}" if why.budget_bytes is not None else ""
        rows.append(("memory forecast", human_bytes(why.needed_bytes) + budget))
    rows += [(name, human_bytes(peak)) for name, peak in why.peaks.items()]
    rows += _epochs(why)
    if why.duration_s:
        rows.append(("time", human_seconds(why.duration_s)))
    rows += [(f"attempt {number}", _attempt(attempt)) for number, attempt in enumerate(why.attempts, start=1)]
    rows += [("warning", note) for note in why.notes]
    if why.lost is not None:
        rows.append(("run", f"{why.lost}; what each epoch scored, its processes and its MLflow run are not known"))
        return rows
    rows.append(("run", why.run_dir or "none: it was never launched"))
    if why.run is not None:
        rows.append(("MLflow run", why.mlflow_run_id or "not sent yet"))
    if why.go_on is not None:
        rows.append(("go on with", why.go_on))
    return rows


def _epochs(why: Explanation) -> Rows:
    if not why.epochs:
        best_of = f"; the best was {why.best_epoch}" if why.best_epoch is not None else ""
        return [("epochs", f"{why.num_epochs}{best_of}")] if why.num_epochs else []
    best = (max if why.direction == "maximize" else min)(why.epochs.values())
    marked = [(epoch, value, "  best" if value == best else "") for epoch, value in why.epochs.items()]
    if len(marked) > MOST_EPOCHS:  # the first, the best and the last ones tell how it went
        keep = {marked[0][0], *(epoch for epoch, _, mark in marked if mark), *(m[0] for m in marked[-MOST_EPOCHS:])}
        marked = [m for m in marked if m[0] in keep]
    of_all = f" of {why.total_epochs}" if why.total_epochs is not None else ""
    count = f"{max(why.epochs)}{of_all}; {why.objective}, {why.direction}d"
    scored = []
    if why.images_per_epoch is not None and why.value is not None:
        few = f"each epoch on {why.images_per_epoch} validation photos, the outcome on all {why.num_images}"
        scored = [("scored", few)]
    return [("epochs", count), *((f"  {epoch}", f"{value:.4f}{mark}") for epoch, value, mark in marked), *scored]


def _attempt(attempt: Attempt) -> str:
    text = f"{clock(attempt.began_ms / 1000)}, process {attempt.pid} on {attempt.host}"
    if attempt.resumed_from_step is not None:
        text += f", from step {attempt.resumed_from_step}"
    if attempt.status is None:
        return f"{text}: no word of its end"
    return f"{text}: {attempt.status}" + (f" ({attempt.reason})" if attempt.reason else "")


def difference_tables(difference: Difference) -> list[Table]:
    """Settings, figures and environment side by side; what is alike is left out."""
    tables = []
    parts = (
        ("settings", difference.settings),
        ("figures", difference.figures),
        ("environment", difference.environment),
    )
    for name, pairs in parts:
        if pairs:
            rows = [[key, *(_told(key, value) for value in pair)] for key, pair in pairs.items()]
            tables.append(Table((name, difference.a, difference.b), rows))
    return tables


def _told(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key.endswith("_bytes"):
        return human_bytes(value)
    if key == "seconds":
        return human_seconds(value)
    is_score = key in SCORES and isinstance(value, float)  # `precision` is also what a machine computes in
    return f"{value:.4f}" if is_score else said(value, exact=True)
