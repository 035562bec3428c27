"""What belongs to the machine and not to the experiment: profiles, chosen by what the machine has."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from crack_sweeps.errors import SpecError
from crack_sweeps.specs.experiment import HybridModel
from crack_sweeps.specs.overrides import put
from crack_sweeps.specs.settings import Keys, family_of, field_at
from crack_sweeps.specs.words import listed, nearest

GIB = 1 << 30
MAX_WORKERS = 8  # 300 crops a second and core were measured: eight feed any one GPU


@dataclass(frozen=True)
class Machine:
    """What a profile is chosen by.

    Args:
        gpu_name: The first GPU that may be used; None where there is none.
        gpu_memory_bytes: Its memory.
        num_cpus: Processors that this process may use.
    """

    gpu_name: str | None
    gpu_memory_bytes: int | None
    num_cpus: int


@dataclass(frozen=True)
class Profile:
    """One kind of machine.

    Args:
        micro_batch: Most crops on the device at once, at constant effective batch; None leaves the file's.
        quick_look: The profile shrinks the work as well, so its figures are never ranked beside full runs.
    """

    name: str
    description: str
    micro_batch: int | None
    quick_look: bool


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("cpu", "no GPU: a quick look, from scratch and small", micro_batch=None, quick_look=True),
        Profile("gpu-8gb", "a GPU with less than 20 GiB", micro_batch=4, quick_look=False),
        Profile("gpu-24gb", "a GPU with 20 GiB or more", micro_batch=16, quick_look=False),
        Profile("gpu-80gb", "a GPU with 64 GiB or more", micro_batch=16, quick_look=False),
    )
}
AS_WRITTEN = "none"  # the file as it stands, whatever the machine

# The quick look (DOMAIN facts of a 4-minute CPU training): from scratch at 128 px, where the map at /32 is 4x4 cells
# and rates above 3 are dead; from scratch, the encoder learns as fast as the decoder.
QUICK_LOOK_PX = 128
QUICK_LOOK: dict[Keys, Any] = {
    ("model", "encoder_cfg", "pretrained"): False,
    ("model", "encoder_cfg", "checkpoint_path"): None,
    ("training", "learning_rate"): 1e-3,
    ("training", "encoder_lr_multiplier"): 1.0,
    ("training", "layer_decay"): 1.0,
    ("training", "batch_size"): 8,
    ("training", "gradient_accumulation_steps"): 1,
    ("training", "epochs"): 5,
    ("training", "steps_per_epoch"): 18,
    ("training", "ema_decay"): None,
    ("training", "early_stopping_patience"): None,
    ("training", "compile"): False,
    ("data", "crop_px"): QUICK_LOOK_PX,
    ("data", "num_workers"): 0,  # a step takes a second, its crops 30 ms: a process would cost more than it brings
    ("evaluation", "tile_px"): None,
    ("evaluation", "images_per_epoch"): 6,
    ("evaluation", "tile_overlap"): 0.125,
    ("evaluation", "num_overlays"): 2,
}
QUICK_LOOK_HYBRID: dict[Keys, Any] = {
    ("model", "encoder_cfg", "model_name"): "swinv2_tiny_window8_256",
    ("model", "encoder_cfg", "img_size"): QUICK_LOOK_PX,
    ("model", "encoder_cfg", "drop_path_rate"): 0.0,
    ("model", "bottleneck_cfg", "atrous_rates"): [1, 2, 3],
}

BATCH: Keys = ("training", "batch_size")
ACCUMULATION: Keys = ("training", "gradient_accumulation_steps")
CROP: Keys = ("data", "crop_px")
SIZE: Keys = ("model", "encoder_cfg", "img_size")


def choose_profile(machine: Machine) -> str:
    """The profile of a machine: by the memory of its GPU, `cpu` where there is none."""
    if machine.gpu_name is None:
        return "cpu"
    memory = machine.gpu_memory_bytes or 0
    return "gpu-80gb" if memory >= 64 * GIB else "gpu-24gb" if memory >= 20 * GIB else "gpu-8gb"


def named_profile(name: str) -> Profile:
    """A profile by name.

    Raises:
        SpecError: There is none of that name.
    """
    if name in PROFILES:
        return PROFILES[name]
    names = ("auto", AS_WRITTEN, *PROFILES)
    close = nearest(name, names)
    hint = f"did you mean {close}?" if close else f"there are {listed(names, 'and')}"
    raise SpecError(f"--profile {name}: no such profile", hint=hint)


def overlay(
    profile: Profile, data: Mapping[str, Any], *, overridden: Collection[Keys] = (), num_cpus: int | None = None
) -> dict[str, Any]:
    """A copy of the spec as it runs on that kind of machine; keys that the user set on the command line stay.

    Args:
        data: The spec with the user's overrides in it.
        overridden: The keys that those overrides set.
        num_cpus: Processors for loader workers; None asks the system.
    """
    cpus = num_cpus if num_cpus is not None else os.cpu_count() or 1
    settings = _quick_look(data, overridden) if profile.quick_look else _gpu(profile, data, overridden, cpus)
    changed: dict[str, Any] = deepcopy(dict(data))
    for keys, value in settings.items():
        if keys not in overridden:
            put(changed, keys, deepcopy(value), source=f"profile {profile.name}")
    return changed


def value_at(data: Mapping[str, Any], keys: Keys) -> Any:
    """What a spec says, or the field's default where it says nothing."""
    value: Any = data
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            field = field_at(keys, family_of(data))
            return field.get_default(call_default_factory=True, validated_data={}) if field is not None else None
        value = value[key]
    return value


def _gpu(profile: Profile, data: Mapping[str, Any], overridden: Collection[Keys], num_cpus: int) -> dict[Keys, Any]:
    settings: dict[Keys, Any] = {
        ("data", "num_workers"): max(1, min(MAX_WORKERS, num_cpus - 1)),
        ("training", "amp_dtype"): "auto",
    }
    batch, accumulation = value_at(data, BATCH), value_at(data, ACCUMULATION)
    # A batch that the user types is the batch; a value that is no number is left for validation to name.
    typed = BATCH in overridden or ACCUMULATION in overridden
    if profile.micro_batch is not None and not typed and _counts(batch) and _counts(accumulation):
        effective = batch * accumulation
        micro = next(size for size in range(min(profile.micro_batch, effective), 0, -1) if effective % size == 0)
        settings |= {BATCH: micro, ACCUMULATION: effective // micro}
    return settings


def _quick_look(data: Mapping[str, Any], overridden: Collection[Keys]) -> dict[Keys, Any]:
    if family_of(data) is not HybridModel:
        return QUICK_LOOK
    settings = QUICK_LOOK | QUICK_LOOK_HYBRID
    # SwinV2 is built for one size: where the user types one of the two, the other follows.
    for typed, follows in ((CROP, SIZE), (SIZE, CROP)):
        size = value_at(data, typed) if typed in overridden else None
        if size is not None:
            settings[follows] = size
    return settings


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
