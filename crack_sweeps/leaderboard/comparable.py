"""What may stand in one table: the same photos and masks, the same kind of run, a threshold from validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from crack_sweeps.errors import UserError
from crack_sweeps.leaderboard.entries import Entry
from crack_sweeps.leaderboard.images import Scored, differ
from crack_sweeps.specs.words import listed
from crack_sweeps.study.ledger import Row


def refuse_mixtures(entries: Sequence[Entry]) -> None:
    """No table of several data sets, of quick looks and full runs, or of thresholds of several origins."""
    trainings = [(row["trial"], row) for entry in entries for row in entry.rows]
    kinds: tuple[tuple[str, Callable[[Row], str]], ...] = (
        ("photos", lambda row: f"data digest {str(row['data_digest'])[:12]}"),
        ("quick looks and full runs", lambda row: "a quick look" if row["quick_look"] else "a full run"),
    )
    for what, key in kinds:
        found: dict[str, list[str]] = {}
        for name, row in trainings:
            found.setdefault(key(row), []).append(name)
        if len(found) > 1:
            told = "; ".join(f"{value}: {listed(names, 'and')}" for value, names in found.items())
            raise UserError(
                f"rows of different {what} are not ranked together: {told}", hint="rank each kind in a study of its own"
            )


def refuse_other_images(rivals: Sequence[tuple[Entry, Scored]]) -> None:
    """All rows above the line speak of the same images and masks."""
    (first, reference), *others = rivals
    for entry, scored in others:
        difference = differ(reference.counts, scored.counts)
        if difference is not None:
            raise UserError(
                f"{first.name} and {entry.name} were not scored on the same images: {difference}",
                hint=f"compare {reference.files[0]} with {scored.files[0]}",
            )


def why_not_ranked(entry: Entry, scored: Scored, reference: Scored, first: Entry) -> str | None:
    """Why an entry stands below the line: in words, empty for a floor (it is one); None where it is ranked."""
    if entry.kind == "floor":
        difference = differ(reference.counts, scored.counts)
        if difference is not None:
            raise UserError(f"{scored.files[0]} and {reference.files[0]} disagree: {difference}")
        return ""
    if entry.threshold_origin != "validation":
        origin = {"oracle": "chosen on these very images", "given": "given by hand"}
        return f"not ranked: its threshold was {origin.get(entry.threshold_origin or '', entry.threshold_origin)}"
    ours = first.rows[0]["data_digest"]
    if entry.data_digest is not None and entry.data_digest != ours:
        return f"not ranked: its data digest is {entry.data_digest[:12]}, the study's {str(ours)[:12]}"
    difference = differ(reference.counts, scored.counts)
    return None if difference is None else f"not ranked: it was scored on other images than the arms: {difference}"
