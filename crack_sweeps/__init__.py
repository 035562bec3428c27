"""Train, search and honestly compare crack-segmentation models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crack_sweeps.api import plan as plan
    from crack_sweeps.api import run as run
    from crack_sweeps.api import training as training

__all__ = ["plan", "run", "training"]


def __getattr__(name: str) -> Any:
    """`crack_sweeps.run` and the like, imported when first used: they load torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from crack_sweeps import api

    return getattr(api, name)
