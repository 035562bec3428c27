"""How most masks of a set want to be read, and what is odd about one that differs. Refuses nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from crack_sweeps.data.mask_files import Colours, read_values
from crack_sweeps.data.mask_remedies import (
    are_labels,
    colour_remedy,
    colour_suggestions,
    describe,
    setting,
    suggestions,
    value_remedy,
)
from crack_sweeps.data.masks import (
    CRACKFOREST_CRACK,
    CRACKFOREST_LABELS,
    INVERTED_ABOVE,
    count_values,
    crack_share,
    given_rule,
)
from crack_sweeps.data.photos import ResolvedMaskRule
from crack_sweeps.errors import DataError
from crack_sweeps.specs.experiment import MaskRule

SAMPLED_MASKS = 64  # a vote needs more of them than a training, which stops at the first that differs
Kind = Literal["empty", "one value", "two values", "CrackForest's labels", "few values", "shades", "colour"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How the masks of a set are read in a check.

    Args:
        rule: The rule that most of them follow; None where only a person can know, or none could be read.
        setting: What must be typed for a training to read them so; None where nothing must.
        problem: What is the matter with most of them, in words; None where nothing is.
        remedy: What to do about it.
    """

    rule: ResolvedMaskRule | None
    setting: str | None = None
    problem: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Oddity:
    """What is wrong with one mask.

    Args:
        kind: A word for programs: colour, shades, few_values, other_value, inverted, full, nothing_by_the_rule.
        cause: The same in words.
        remedy: What to do about it.
    """

    kind: str
    cause: str
    remedy: str


def reading_of(masks: Sequence[Path], given: MaskRule, *, seed: int = 0) -> Reading:
    """The rule that most of a seeded sample of masks follow; masks that cannot be read do not vote.

    Args:
        given: What the person said; it is taken at its word.
    """
    grey: list[tuple[Kind, Counter[int]]] = []
    coloured: list[Colours] = []
    num_coloured = 0
    for path in Random(seed).sample(sorted(masks), min(SAMPLED_MASKS, len(masks))):
        try:
            values = read_values(path, given.channel)
        except DataError:  # the check names it when it comes to it
            continue
        if values.ndim == 3:
            num_coloured += 1
            coloured += [values] if len(coloured) < 4 else []  # enough to suggest a threshold
        else:
            counts = count_values(values)
            grey.append((kind_of(counts, matlab=path.suffix.lower() == ".mat"), counts))
    rule = given_rule(given)
    if rule is not None:
        return Reading(rule, setting(given))
    votes = Counter(_vote(kind, counts) for kind, counts in grey if kind != "empty")
    if num_coloured > votes.total():
        return _coloured(coloured, num_coloured)
    if not votes:
        return Reading(None)
    commonest, number = votes.most_common(1)[0]
    if number > (votes.total() + num_coloured) / 2:
        voters = [counts for kind, counts in grey if kind == "empty" or _vote(kind, counts) == commonest]
        return _grey(commonest[0], sum(voters, Counter[int]()), given)
    together = sum((counts for _, counts in grey), Counter[int]())
    if {kind for kind, _ in votes} == {"two values"} and not num_coloured:
        return _different_twos(together, given)
    return _grey(None, together, given)


def kind_of(counts: Counter[int], *, matlab: bool = False) -> Kind:
    """What kind of mask holds these values."""
    values = sorted(counts)
    if values == [0]:
        return "empty"
    if matlab and CRACKFOREST_CRACK in values and set(values) <= set(CRACKFOREST_LABELS):
        return "CrackForest's labels"
    if len(values) == 1:
        return "one value"
    if len(values) == 2 and values[0] == 0:
        return "two values"
    return "few values" if are_labels(values) else "shades"


def oddity_of(counts: Counter[int], rule: ResolvedMaskRule) -> Oddity | None:
    """What is odd about a grey mask in a set that is read by this rule; None where nothing is."""
    share = crack_share(counts, rule)
    if rule.allowed is not None and not set(counts) <= set(rule.allowed):
        return _unlike_the_others(counts, rule.allowed)
    if share == 1.0:
        return Oddity("full", f"crack everywhere: every pixel is {next(iter(counts))}", "bring this photo's own mask")
    if share > INVERTED_ABOVE:
        return Oddity(
            "inverted",
            f"inverted: {share:.1%} of it would be crack, {describe(counts)}",
            "swap crack and background in this file; `data.mask.invert` is for whole sets",
        )
    if share == 0.0 and len(counts) > 1 and rule.allowed is None:
        return Oddity("nothing_by_the_rule", f"no crack by the rule {rule}; it holds {describe(counts)}", _same(rule))
    return None


def colour_oddity(colours: str, remedy: str) -> Oddity:
    """What is odd about a mask in colour among grey ones."""
    return Oddity(
        "colour", f"a mask in colour, {colours}", f"save it in grey like the others; alone, {remedy} reads it"
    )


def _unlike_the_others(counts: Counter[int], allowed: Sequence[int]) -> Oddity:
    others = "the others hold " + " and ".join(map(str, allowed))
    values = sorted(counts)
    kind = kind_of(counts)
    if kind == "shades":
        cause = f"antialiased or saved as JPEG: {len(values)} values from {values[0]} to {values[-1]}; {others}"
        return Oddity("shades", cause, f"{_either_way(counts)}, for the whole set: a threshold reads the others too")
    if kind == "two values":
        dark = ", so it looks black" if 0 < values[1] < 16 else ""
        cause = f"holds 0 and {values[1]}{dark}; {others}"
        return Oddity("other_value", cause, "`data.mask.threshold=1` reads both, or save it like the others")
    if kind == "one value":
        return Oddity("full", f"every pixel is {values[0]}; {others}", "bring this photo's own mask")
    return Oddity("few_values", f"holds {describe(counts)}; {others}", f"{_either_way(counts)}, for the whole set")


def _either_way(counts: Counter[int]) -> str:
    return " or ".join(f"`{setting(rule)}`" for rule in suggestions(counts))


def _same(rule: ResolvedMaskRule) -> str:
    return f"save it like the others, which are read by {rule}"


def _vote(kind: Kind, counts: Counter[int]) -> tuple[Kind, int]:
    """What two masks must have in common to be of one make: the kind, and for two values which they are."""
    return kind, max(counts) if kind in ("two values", "one value") else 0


def _grey(kind: Kind | None, counts: Counter[int], given: MaskRule) -> Reading:
    """The reading of masks that hold these values together; `kind` is None where no make has a majority."""
    said = f"{'most masks' if kind else 'the masks'} hold {describe(counts)}"
    if kind == "CrackForest's labels":
        crack, labels = (CRACKFOREST_CRACK,), CRACKFOREST_LABELS
        return Reading(ResolvedMaskRule(crack_values=crack, invert=given.invert, allowed=labels))
    if kind == "one value":
        return Reading(None, problem=f"every pixel of most masks is {max(counts)}", remedy=value_remedy(counts))
    if kind != "two values":
        return _by_suggestion(suggestions(counts), counts, given, f"{said}, not 0 and one other value")
    plain = _plain_rule(counts, given)
    if crack_share(counts, plain) <= INVERTED_ABOVE:
        return Reading(plain, setting(given) or None)
    turned = MaskRule(channel=given.channel, invert=not given.invert)
    typed = setting(turned) if turned.invert else "data.mask.invert=false"
    remedy = f"`{typed}` swaps crack and background"
    return Reading(_plain_rule(counts, turned), typed, f"{said}: they are inverted, {min(counts)} is crack", remedy)


def _plain_rule(counts: Counter[int], given: MaskRule) -> ResolvedMaskRule:
    """The rule of masks that hold 0 and one other value."""
    return ResolvedMaskRule(
        crack_values=(max(counts),), invert=given.invert, channel=given.channel, allowed=tuple(sorted(counts))
    )


def _different_twos(counts: Counter[int], given: MaskRule) -> Reading:
    """The reading of masks that each hold 0 and one other value, but not the same."""
    chosen = MaskRule(threshold=1, channel=given.channel, invert=given.invert)
    return Reading(
        given_rule(chosen),
        setting(chosen),
        f"each mask holds 0 and one other value, but not the same: {describe(counts)}",
        f"`{setting(chosen)}` reads all of them",
    )


def _coloured(masks: Sequence[Colours], number: int) -> Reading:
    rules, counts = colour_suggestions(masks)
    if not rules:
        return Reading(None, problem=f"{number} masks in colour, each of one flat colour", remedy=colour_remedy(masks))
    return _by_suggestion(rules, counts, MaskRule(), "most masks are in colour", colour_remedy(masks))


def _by_suggestion(
    rules: Sequence[MaskRule], counts: Counter[int], given: MaskRule, problem: str, remedy: str | None = None
) -> Reading:
    """Read by the only rule that could be meant; by none where several could."""
    remedy = remedy or value_remedy(counts)
    if len(rules) > 1:
        return Reading(None, None, problem, remedy)
    chosen = MaskRule.model_validate({**rules[0].model_dump(), "channel": rules[0].channel or given.channel})
    return Reading(given_rule(chosen) or _plain_rule(counts, chosen), setting(chosen), problem, remedy)
