"""How masks are read, typed as `data.mask.KEY=VALUE` where there is no experiment around it."""

from __future__ import annotations

from collections.abc import Sequence

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.experiment import Experiment, MaskRule
from crack_sweeps.specs.overrides import apply_overrides, parse_override
from crack_sweeps.specs.validation import check, spec_error
from crack_sweeps.specs.words import listed

_GROUP = ("data", "mask")
# Any model would do: what a mask rule may say does not depend on it.
_AROUND = {"name": "masks", "model": {"architecture": "unet"}}


def mask_rule(settings: Sequence[str]) -> MaskRule:
    """The rule that these settings describe; none of them means that it has to be found.

    Raises:
        SpecError: One of them is no setting of masks, or has a value that it cannot have.
    """
    overrides = [parse_override(text) for text in settings]
    for override in overrides:
        if override.keys[:2] != _GROUP:
            raise SpecError(
                f"{override.label}: only `data.mask` can be set here",
                hint=f"there are {listed([f'data.mask.{name}' for name in MaskRule.model_fields], 'and')}",
            )
    checked = check(apply_overrides(_AROUND, overrides))
    if not isinstance(checked, Experiment):
        raise spec_error(checked, source=", ".join(override.label for override in overrides))
    return checked.data.mask
