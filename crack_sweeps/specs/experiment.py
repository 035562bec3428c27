"""What an experiment is: frozen data, every field with its meaning, unit and range."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
Figure = Literal[
    "val/crack_iou", "val/crack_f1", "val/crack_iou_image", "val/crack_f1_image", "val/precision", "val/recall"
]
SmpArchitecture = Literal[
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet"
]


class Frozen(BaseModel):
    """Data that cannot change and refuses keys that it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        defer_build=True,  # one validator, built when the first experiment is read, in place of sixteen at import
    )


# --- model ---------------------------------------------------------------------------------------


class HybridEncoder(Frozen):
    """A SwinV2 encoder of timm."""

    model_name: str = Field(
        "swinv2_tiny_window16_256", description="A SwinV2 of timm, such as swinv2_tiny_window16_256."
    )
    pretrained: bool = Field(True, description="Load timm's ImageNet weights; without a network, name checkpoint_path.")
    checkpoint_path: Path | None = Field(
        None,
        description="A local file of encoder weights (.safetensors or a state dict) to load in place of the download.",
    )
    img_size: int = Field(
        256, ge=64, le=1024, multiple_of=32, description="Side of the square that the encoder is built for, px."
    )
    drop_path_rate: float = Field(
        0.1,
        ge=0.0,
        le=0.5,
        description="Stochastic depth: share of residual branches dropped in the last block, 0..0.5.",
    )


class Bottleneck(Frozen):
    """Atrous spatial pyramid pooling (Chen et al. 2017) on the encoder's deepest maps."""

    out_channels: int = Field(
        256, ge=8, le=2048, multiple_of=8, description="Channels of each branch and of the output."
    )
    atrous_rates: tuple[PositiveInt, ...] = Field(
        (1, 6, 12, 18),
        min_length=1,
        max_length=8,
        description="Dilation of each branch, in cells of the map; 1 is a plain 1x1 convolution.",
    )
    stride: Literal[16, 32] = Field(
        32, description="The map that the ASPP sits on: 32 is img_size/32 cells wide, 16 twice that."
    )
    dropout: float = Field(0.1, ge=0.0, le=0.9, description="Dropout after the ASPP's projection, 0..0.9.")


class HybridDecoder(Frozen):
    """The CNN decoder with skip connections."""

    use_cbam: bool = Field(
        True, description="Channel and spatial attention (Woo et al. 2018) after each decoder stage."
    )
    upsample_mode: Literal["bilinear", "transposed", "pixel_shuffle"] = Field(
        "bilinear", description="How a map doubles its size."
    )
    full_resolution_skips: bool = Field(
        True,
        description="A light convolutional stem gives skips at /2 and /1, without which cracks of 1-2 px are lost.",
    )
    width_multiplier: float = Field(
        0.5, gt=0.0, le=4.0, description="Decoder channels as a multiple of the encoder's at the same stride."
    )


class HybridModel(Frozen):
    """SwinV2 encoder, ASPP, CNN decoder with CBAM and skips."""

    architecture: Literal["swinv2_hybrid"] = Field("swinv2_hybrid", description="Which family of model this is.")
    encoder_cfg: HybridEncoder = Field(default_factory=HybridEncoder, description="The encoder.")
    bottleneck_cfg: Bottleneck = Field(default_factory=Bottleneck, description="The ASPP.")
    decoder_cfg: HybridDecoder = Field(default_factory=HybridDecoder, description="The decoder.")
    norm: Literal["group", "batch"] = Field(
        "group",
        description="Normalisation in ASPP and decoder; "
        "with group, accumulation gives the gradient of the large batch.",
    )


class SmpEncoder(Frozen):
    """Any timm encoder that gives feature maps."""

    model_name: str = Field("resnet50", description="A timm model, such as resnet50.")
    pretrained: bool = Field(True, description="Load timm's weights; without a network, name checkpoint_path.")
    checkpoint_path: Path | None = Field(
        None, description="A local file of encoder weights to load in place of the download."
    )
    depth: int = Field(5, ge=3, le=5, description="How many times the encoder halves the map, 3..5.")


class SmpDecoder(Frozen):
    """The decoder's own settings; null leaves them to the library."""

    channels: tuple[PositiveInt, ...] | None = Field(
        None, description="Decoder channels from deep to shallow, one per encoder halving (unet, unetplusplus, manet)."
    )
    atrous_rates: tuple[PositiveInt, ...] | None = Field(None, description="ASPP rates (deeplabv3, deeplabv3plus).")


class SmpModel(Frozen):
    """A baseline of segmentation-models-pytorch over a timm encoder."""

    architecture: SmpArchitecture = Field(description="Which decoder of segmentation-models-pytorch.")
    encoder_cfg: SmpEncoder = Field(default_factory=SmpEncoder, description="The encoder.")
    decoder_cfg: SmpDecoder = Field(default_factory=SmpDecoder, description="The decoder.")

    @model_validator(mode="after")
    def _settings_belong_to_the_architecture(self) -> Self:
        if self.decoder_cfg.channels is not None:
            if self.architecture not in ("unet", "unetplusplus", "manet"):
                raise ValueError(
                    f"decoder_cfg.channels is a setting of unet, unetplusplus and manet, not of {self.architecture}"
                )
            if len(self.decoder_cfg.channels) != self.encoder_cfg.depth:
                raise ValueError(
                    f"decoder_cfg.channels has {len(self.decoder_cfg.channels)} entries, "
                    f"encoder_cfg.depth asks for {self.encoder_cfg.depth}"
                )
        if self.decoder_cfg.atrous_rates is not None and self.architecture not in ("deeplabv3", "deeplabv3plus"):
            raise ValueError(
                f"decoder_cfg.atrous_rates is a setting of deeplabv3 and deeplabv3plus, not of {self.architecture}"
            )
        return self


Model = Annotated[HybridModel | SmpModel, Field(discriminator="architecture")]

# --- training ------------------------------------------------------------------------------------


class Loss(Frozen):
    """A weighted sum of terms; a weight of 0 leaves the term out."""

    focal_weight: float = Field(0.6, ge=0.0, le=100.0, description="Weight of the focal loss, 0..100.")
    dice_weight: float = Field(
        0.4, ge=0.0, le=100.0, description="Weight of the Dice loss (per image, then averaged), 0..100."
    )
    focal_alpha: float | None = Field(
        0.25,
        gt=0.0,
        lt=1.0,
        description="Weight of the crack class in (0, 1); .25 favours background 3:1, null weighs both alike.",
    )
    focal_gamma: float = Field(
        2.0, ge=0.0, le=10.0, description="How strongly pixels that are already right fade; 0 is plain cross-entropy."
    )
    dice_smooth: float = Field(
        1.0,
        gt=0.0,
        le=1000.0,
        description="Pixels added to both sides of the Dice fraction, so that an empty crop is defined.",
    )
    bce_weight: float = Field(0.0, ge=0.0, le=100.0, description="Weight of plain binary cross-entropy, 0..100.")
    tversky_weight: float = Field(
        0.0, ge=0.0, le=100.0, description="Weight of the focal Tversky loss (Abraham 2019), 0..100."
    )
    tversky_alpha: float = Field(0.3, ge=0.0, le=1.0, description="Tversky weight of false positives, 0..1.")
    tversky_beta: float = Field(0.7, ge=0.0, le=1.0, description="Tversky weight of false negatives, 0..1.")
    tversky_gamma: float = Field(
        0.75, gt=0.0, le=4.0, description="Exponent on 1 - Tversky index; .75 is 1/(4/3) of the paper."
    )
    cldice_weight: float = Field(
        0.0, ge=0.0, le=1.0, description="Weight of soft clDice (Shit 2021), 0..1; .3 or less is customary."
    )
    cldice_iterations: int = Field(
        5, ge=1, le=50, description="Erosions of the soft skeleton; at least half the widest crack, px."
    )

    @model_validator(mode="after")
    def _something_to_minimise(self) -> Self:
        if not any((self.focal_weight, self.dice_weight, self.bce_weight, self.tversky_weight, self.cldice_weight)):
            raise ValueError("every weight of the loss is 0, so there is nothing to minimise")
        return self


class Training(Frozen):
    """How the weights are found."""

    loss: Loss = Field(default_factory=Loss, description="What is minimised.")
    learning_rate: float = Field(1e-4, gt=0.0, le=1.0, description="Peak learning rate of decoder and head (AdamW).")
    encoder_lr_multiplier: float = Field(
        1.0, gt=0.0, le=10.0, description="Encoder learning rate as a multiple of learning_rate."
    )
    layer_decay: float = Field(
        1.0, gt=0.0, le=1.0, description="Each encoder stage nearer to the input learns this much slower; 1 is off."
    )
    weight_decay: float = Field(
        0.01,
        ge=0.0,
        le=1.0,
        description="AdamW weight decay; never on norms, biases, logit_scale and position-bias MLPs.",
    )
    batch_size: int = Field(4, ge=1, le=4096, description="Micro-batch: crops on the device at once.")
    gradient_accumulation_steps: int = Field(
        4, ge=1, le=4096, description="Micro-batches per optimizer step; effective batch = batch_size x this."
    )
    use_amp: bool = Field(True, description="Automatic mixed precision where the device has it.")
    amp_dtype: Literal["auto", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 where supported, else float16 with loss scaling."
    )
    epochs: PositiveInt = Field(100, le=100_000, description="Epochs at most.")
    steps_per_epoch: PositiveInt | None = Field(
        None, le=1_000_000, description="Optimizer steps per epoch; null: one crop per training photo."
    )
    schedule: Literal["cosine", "poly", "constant"] = Field(
        "cosine", description="Course of the learning rate after warm-up."
    )
    warmup_fraction: float = Field(
        0.05, ge=0.0, lt=1.0, description="Share of all steps in which the rate rises linearly."
    )
    min_lr_fraction: float = Field(0.01, ge=0.0, le=1.0, description="Last learning rate as a share of the peak.")
    gradient_clip_norm: float | None = Field(
        1.0, gt=0.0, description="Gradients are scaled down to this L2 norm; null is off."
    )
    ema_decay: float | None = Field(
        None, gt=0.0, lt=1.0, description="Decay per step of the averaged weights that are then evaluated; null is off."
    )
    early_stopping_patience: PositiveInt | None = Field(
        20, description="Epochs without a better validation score before stopping; null is off."
    )
    monitor: Figure = Field(
        "val/crack_iou",
        description="Validation figure that decides on best weights and early stopping; in a study, its objective.",
    )
    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="Seed of initial weights, order, crops and augmentation; never of the split."
    )
    activation_checkpointing: bool = Field(
        False, description="Recompute encoder activations in backward: less memory, slower."
    )
    channels_last: bool = Field(True, description="NHWC memory layout for convolutions.")
    compile: bool = Field(
        False, description="torch.compile; minutes of compiling first, so it pays on long GPU trainings alone."
    )
    deterministic: bool = Field(
        True, description="Deterministic algorithms, which bit-exact resume and reproduction need."
    )

    @property
    def effective_batch(self) -> int:
        """Crops per optimizer step."""
        return self.batch_size * self.gradient_accumulation_steps


# --- data ----------------------------------------------------------------------------------------


class MaskRule(Frozen):
    """How a mask file is read. With nothing set, masks must hold two values, 0 and one other."""

    crack_values: tuple[Annotated[int, Field(ge=0, le=65535)], ...] | None = Field(
        None, min_length=1, description="Pixel values that mean crack; all others are background."
    )
    threshold: int | None = Field(None, ge=1, le=65535, description="Pixels at or above this value are crack.")
    invert: bool = Field(False, description="Swap crack and background after the rule above (0 = crack in the file).")
    channel: Literal["red", "green", "blue", "max"] | None = Field(
        None, description="Which channel of a colour mask to read; max is the brightest of the three."
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.crack_values is not None and self.threshold is not None:
            raise ValueError("crack_values and threshold are two rules for one mask: give one of them")
        return self


DEFAULT_AUGMENTATIONS = ("A.RandomRotate90(p=0.5)", "A.HorizontalFlip(p=0.5)", "A.VerticalFlip(p=0.5)")


class Transform(Frozen):
    """What is done to a crop before the model sees it."""

    augmentations: tuple[str, ...] = Field(
        DEFAULT_AUGMENTATIONS, description="albumentations calls written as text, in order; parsed, never evaluated."
    )


class WeightedSet(Frozen):
    """One of several sets that are trained on together."""

    path: Path = Field(description="Name of an imported set, or a folder whose masks need no rule.")
    weight: float = Field(
        1.0,
        gt=0.0,
        le=1000.0,
        strict=True,
        description="How often each of its photos is drawn, relative to the photos of the other sets.",
    )


class Data(Frozen):
    """Where photos and masks come from, how they are split and cropped."""

    path: Path | None = Field(
        None,
        description="Folder of photos and masks, or where there is none, the name of an imported set; "
        "null is the built-in synthetic set.",
    )
    sets: tuple[WeightedSet, ...] | None = Field(
        None,
        max_length=64,
        description="Several sets at once, in place of path: [{path: deepcrack, weight: 2.0}, {path: crack500}], say.",
    )
    mask: MaskRule = Field(
        default_factory=MaskRule, description="How mask files are read; each known layout has its own default."
    )
    split_seed: int = Field(
        0, ge=0, le=2**32 - 1, description="Seed of the train/validation split; --seed never touches it."
    )
    val_fraction: float = Field(
        0.2, gt=0.0, lt=1.0, description="Share of the training photos held out for validation, by group."
    )
    group_pattern: str | None = Field(
        None,
        max_length=200,
        description="Regular expression on the file name whose first group names the photo a crop was cut from.",
    )
    crop_px: int | None = Field(
        None,
        ge=32,
        le=4096,
        multiple_of=32,
        description="Side of training crops at native resolution, px; null: the encoder's img_size, or 256.",
    )
    crack_crop_fraction: Share = Field(0.7, description="Share of crops that are moved onto a crack.")
    cache_gib: float = Field(2.0, ge=0.0, le=1024.0, description="Memory for decoded photos, GiB; 0 is off.")
    num_workers: int = Field(0, ge=0, le=256, description="Loader processes; results do not depend on it.")
    loader_timeout_s: float = Field(
        120.0, gt=0.0, le=86_400.0, description="Seconds without a batch after which the loader counts as stalled."
    )
    transform: Transform = Field(default_factory=Transform, description="Augmentation.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.sets is None:
            return self
        if self.path is not None:
            raise ValueError("path and sets name different photos: give one of them")
        if len(self.sets) < 2:
            raise ValueError(f"sets names {len(self.sets)} set: write data.path for one alone")
        names = [one.path for one in self.sets]
        if len(set(names)) < len(names):
            raise ValueError(f"sets names {max(names, key=names.count)} twice: give it a weight instead")
        if self.mask != MaskRule() or self.group_pattern is not None:
            raise ValueError("mask and group_pattern are of one set: `sweeps data import` gives each set its own")
        return self

    @property
    def source(self) -> str:
        """Where the photos come from, in words."""
        if self.sets is not None:
            return ", ".join(str(one.path) for one in self.sets)
        return str(self.path) if self.path is not None else "builtin"


# --- evaluation ----------------------------------------------------------------------------------


class Evaluation(Frozen):
    """How a model is scored: whole images at native resolution, by overlapping tiles."""

    tile_px: int | None = Field(
        None, ge=32, le=4096, multiple_of=32, description="Side of a tile, px; null: the size of the training crops."
    )
    tile_overlap: float = Field(0.25, ge=0.0, le=0.75, description="Share of a tile that its neighbour covers too.")
    images_per_epoch: PositiveInt | None = Field(
        None,
        description="Validation images scored after each epoch, always the same; null: all. "
        "The final score is always over all.",
    )
    num_overlays: int = Field(4, ge=0, le=64, description="Pictures kept of each of best, median and worst images.")


class Experiment(Frozen):
    """One training, completely described."""

    name: Name = Field(description="Letters, digits, '.', '_' and '-', 80 at most; it names the run's directory.")
    model: Model = Field(description="The network.")
    training: Training = Field(default_factory=Training, description="How the weights are found.")
    data: Data = Field(default_factory=Data, description="Photos, masks, splits, crops.")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="How the model is scored.")

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if isinstance(self.model, HybridModel):
            img_size = self.model.encoder_cfg.img_size
            for key, value in (("data.crop_px", self.data.crop_px), ("evaluation.tile_px", self.evaluation.tile_px)):
                if value is not None and value != img_size:
                    raise ValueError(
                        f"{key} is {value}, but model.encoder_cfg.img_size is {img_size}: SwinV2 is built for one size"
                    )
        return self

    @property
    def crop_px(self) -> int:
        """Side of a training crop, px."""
        if self.data.crop_px is not None:
            return self.data.crop_px
        return self.model.encoder_cfg.img_size if isinstance(self.model, HybridModel) else 256

    @property
    def tile_px(self) -> int:
        """Side of an evaluation tile, px."""
        return self.evaluation.tile_px or self.crop_px
