"""From a model's spec to the network, and the proof that the network is what the spec says."""

from __future__ import annotations

from collections.abc import Mapping

from crack_sweeps.errors import TrainingError
from crack_sweeps.models.baselines import Baseline
from crack_sweeps.models.hybrid import SwinHybrid, decoder_widths
from crack_sweeps.models.segmenter import Segmenter
from crack_sweeps.specs.experiment import HybridModel, SmpModel

# Where weights came from leaves no trace in the modules; `find_weights` has checked every one of them.
NOT_IN_THE_OBJECTS = frozenset({"encoder_cfg.pretrained", "encoder_cfg.checkpoint_path"})


def build_model(model: HybridModel | SmpModel) -> Segmenter:
    """The network of a spec, on the CPU in float32; random weights come from torch's global generator.

    Raises:
        WeightsError: Pretrained weights are not to be had, or are not this model's.
        SpecError: The library cannot build this combination.
    """
    segmenter = SwinHybrid(model) if isinstance(model, HybridModel) else Baseline(model)
    check_built(segmenter, model)
    return segmenter


def check_built(segmenter: Segmenter, model: HybridModel | SmpModel) -> None:
    """Every setting of the spec is read back from the network; one that a library swallowed stops the run here.

    Raises:
        TrainingError: Another network was built than the one that was asked for.
    """
    facts = segmenter.built()
    settings = _flat(model.model_dump(mode="python"))
    if isinstance(segmenter, SwinHybrid) and isinstance(model, HybridModel):  # the multiplier turns into widths
        widths = decoder_widths(segmenter.encoder.channels, model.decoder_cfg.width_multiplier)
        del settings["decoder_cfg.width_multiplier"]
        settings["encoder_cfg.model_name"] = model.encoder_cfg.model_name.partition(".")[0]  # a tag names weights
        settings["decoder.channels"] = widths if model.bottleneck_cfg.stride == 32 else widths[1:]
    for key, asked in settings.items():
        if asked is None or key in NOT_IN_THE_OBJECTS:
            continue
        if key not in facts:
            raise TrainingError(f"`model.{key}` is {asked}, and nothing in the network shows whether it was heard")
        if facts[key] != asked:
            raise TrainingError(f"`model.{key}` is {asked}, but the network that was built has {facts[key]}")


def _flat(nested: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
