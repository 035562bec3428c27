"""KEY=VALUE for commands that read photos and train nothing: the settings of `data` that say how a set is read."""

from __future__ import annotations

from collections.abc import Sequence

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.experiment import Data, Experiment
from crack_sweeps.specs.overrides import apply_overrides, parse_override
from crack_sweeps.specs.settings import dotted
from crack_sweeps.specs.validation import check, spec_error
from crack_sweeps.specs.words import listed, nearest

READING = (
    "data.mask.crack_values",
    "data.mask.threshold",
    "data.mask.invert",
    "data.mask.channel",
    "data.group_pattern",
    "data.split_seed",
    "data.val_fraction",
)
_ANY_MODEL = {"name": "data", "model": {"architecture": "swinv2_hybrid"}}  # a spec needs one; it is not looked at


def data_settings(overrides: Sequence[str], defaults: Sequence[str] = ()) -> Data:
    """The settings that were typed, over those that a preset brings.

    Args:
        defaults: KEY=VALUE of lower rank: whatever is typed of one group replaces all of that group.

    Raises:
        SpecError: A key is none of those, or a value does not fit.
    """
    typed = [parse_override(text) for text in overrides]
    for override in typed:
        key = dotted(override.keys)
        if key not in READING:
            close = nearest(key, READING)
            raise SpecError(
                f"{override.label}: `{key}` does not say how photos are read",
                hint=f"did you mean `{close}`?" if close else f"there are {listed(READING, 'and')}",
            )
    groups = {override.keys[:2] for override in typed}
    kept = [override for override in map(parse_override, defaults) if override.keys[:2] not in groups]
    checked = check(apply_overrides(_ANY_MODEL, [*kept, *typed]))
    if not isinstance(checked, Experiment):
        raise spec_error(checked, source=", ".join(override.label for override in typed))
    return checked.data
