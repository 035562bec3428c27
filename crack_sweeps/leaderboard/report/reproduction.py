"""What it takes to do it again: commands, the winners' settings, machine, versions, data."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crack_sweeps.leaderboard.report.findings import Findings
from crack_sweeps.leaderboard.report.markup import Html, joined, tag
from crack_sweeps.leaderboard.report.tables import Cell, Column, arm_cell, rows_of, swatch, table
from crack_sweeps.leaderboard.report.words import setting
from crack_sweeps.leaderboard.rows import BoardRow
from crack_sweeps.study.ledger import Row

SHORT = 12  # characters of a digest that a person compares


def reproduction(findings: Findings) -> Iterator[Html]:
    """Commands, and what the arms' rows were trained with."""
    yield tag("pre", *_commands(findings), class_="commands")
    ranked = [row for row in findings.board.ranked if row.run_dirs] if findings.board is not None else []
    if not ranked:
        yield tag("p", "Settings of the best follow when there is something to rank.", class_="missing")
        return
    yield tag("h3", "Settings that were searched")
    yield _searched_settings(findings, ranked)
    yield tag("h3", "What stands behind each row")
    yield _identities(findings, ranked)
    for row in ranked:
        config = findings.chosen[row.arm][0].config if row.arm in findings.chosen else None
        if config is not None and config.is_file():
            said = tag("summary", swatch(findings.colour(row.arm)), f"All settings of {row.arm} ({config.name})")
            yield tag("details", said, tag("pre", config.read_text(encoding="utf-8")))


def _commands(findings: Findings) -> Iterator[Html]:
    name, standing = shlex.quote(findings.name), findings.standing
    told = [(standing.go_on, "the whole study, or what is left of it")]
    for row in findings.board.ranked if findings.board is not None else ():
        if row.run_dirs and row.kind in ("finalist", "trial"):
            seed = _trained(findings, row)["seed"]
            again = f"sweeps run --trial {shlex.quote(row.name)}" + (f" --seed {seed}" if seed is not None else "")
            told.append((again, f"one training of {row.arm}'s row"))
    told += [(f"sweeps leaderboard {name}", "the table above"), (f"sweeps report {name}", "this page")]
    width = max(len(command) for command, _ in told)
    for command, why in told:
        yield joined([tag("b", command), " " * (width - len(command) + 3), tag("i", f"# {why}"), "\n"])


def _trained(findings: Findings, row: BoardRow) -> Row:
    """The ledger's row of the first training behind a row of the leaderboard."""
    return next(trial for trial in findings.records.trials if trial["run_dir"] == row.run_dirs[0])


def _searched_settings(findings: Findings, ranked: Sequence[BoardRow]) -> Html:
    """One column an arm."""
    suggestions = {row.arm: _trained(findings, row)["suggestion"] for row in ranked}
    keys = list(dict.fromkeys(key for suggestion in suggestions.values() for key in suggestion))
    if not keys:
        return tag("p", "Nothing was searched: every arm stands as it is shipped.", class_="missing")
    columns = [Column("setting", "text"), *(Column(row.arm, "text") for row in ranked)]
    rows = [
        [
            Cell(tag("code", key), key),
            *(Cell(_said(findings, arm, key, found)) for arm, found in suggestions.items()),
        ]
        for key in keys
    ]
    return table(columns, [rows], name="settings")


def _said(findings: Findings, arm: str, key: str, suggestion: Mapping[str, Any]) -> str:
    if key in suggestion:
        return setting(suggestion[key])
    space = next((known.space for known in findings.arms if known.name == arm), {})
    return "absent" if key in space and suggestion else "as shipped" if not suggestion else "not searched"


def _identities(findings: Findings, ranked: Sequence[BoardRow]) -> Html:
    columns = [Column(title, "text") for title in ("arm", "settings of", "fingerprint", "commit", "data", "thresholds")]
    columns.append(Column("runs", "text"))
    rows = [
        [
            arm_cell(findings, row.arm),
            Cell(row.name),
            Cell(tag("code", row.fingerprint or "–"), row.fingerprint or ""),
            Cell(tag("code", _short(row.commit)), row.commit or ""),
            Cell(tag("code", _short(row.data_digest)), row.data_digest or ""),
            Cell(", ".join(f"{threshold:.2f}" for threshold in row.thresholds or ()) or "–"),
            Cell(joined([tag("div", tag("code", run.rpartition("/")[2])) for run in row.run_dirs]), row.run_dirs[0]),
        ]
        for row in ranked
    ]
    return table(columns, [rows], name="identities")


def _short(commits: str | None) -> str:
    return ", ".join(commit[:SHORT] for commit in commits.split(", ")) if commits else "–"


# --- environment ---------------------------------------------------------------------------------


def environment(findings: Findings) -> Iterator[Html]:
    """Data and machine, from what the runs wrote down; several answers are all given, the most frequent first."""
    data = findings.records.data
    facts: list[tuple[str, str]] = [("photos", data.get("name") or "not on file")]
    if data:
        facts.append(("digest of the data", data["digest"]))
        facts.append(("splits", f"{data['num_train']} train, {data['num_val']} validation, {data['num_test']} test"))
    runs = findings.environments
    study = findings.records.study
    facts.append(("profile", study.profile + (", a quick look" if findings.quick_look else "")))
    facts += [
        (title, _answers(runs, key))
        for title, key in (
            ("device", "device_name"),
            ("precision", "precision"),
            ("CUDA", "cuda"),
            ("platform", "platform"),
            ("processors", "num_cpus"),
            ("Python", "python"),
            ("commit", "commit"),
            ("uncommitted changes", "dirty_diff_sha256"),
        )
    ]
    yield rows_of([fact for fact in facts if fact[1]], name="facts")
    packages = Counter((name, version) for run in runs for name, version in run.get("packages", {}).items())
    if packages:
        versions: dict[str, list[str]] = {}
        for (name, version), _ in packages.most_common():
            versions.setdefault(name, []).append(version)
        yield tag("h3", "Packages")
        yield tag("p", "; ".join(f"{name} {', '.join(versions[name])}" for name in sorted(versions)), class_="packages")
    warnings = list(dict.fromkeys(str(warning) for warning in data.get("warnings", ())))
    if warnings:
        yield tag("h3", "Warnings about the data")
        yield tag("ul", *(tag("li", warning) for warning in warnings))
    leaked = data.get("leaked_test", ())
    if leaked:
        yield tag(
            "details",
            tag("summary", f"{len(leaked)} test images share a photograph with training or validation"),
            tag("p", ", ".join(leaked), class_="packages"),
        )
    if not runs:
        yield tag("p", "The directories of the runs are not here: machine and versions are in them.", class_="missing")


def _answers(runs: Sequence[Mapping[str, Any]], key: str) -> str:
    count = Counter(str(run[key]) for run in runs if run.get(key) is not None)
    if len(count) <= 1:
        return "".join(count)
    return "; ".join(f"{value} ({number} runs)" for value, number in count.most_common())
