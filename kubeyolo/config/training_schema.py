"""The settings that weights depend on: reading data, augmentation, pretraining, training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from kubeyolo.config.anchor_forms import anchor_lists
from kubeyolo.config.section import (
    IN_FORM,
    JOB_DEVICE,
    MOST,
    MOST_EPOCHS,
    MOST_IMAGES,
    MOST_PIXELS,
    MOST_PROCESSES,
    DeviceTarget,
    Section,
)
from kubeyolo.config.text import plain_scalar

BACKBONE = "backbone"
"""The word in ``train.freeze`` that stands for all parameters of the backbone."""

PUBLISHED_SMOOTHING = 0.1
"""Factor of label smoothing in the published settings."""

_PROCESSES = "If it is not set, a step with a job on a cluster has one for each device of the job."

_WRITTEN_AS_ANCHORS: dict[str, Any] = {
    "written": f"widths and heights, each > 0 and <= {MOST_PIXELS}, such as [[10,13, 16,30, 33,23], …]"
}
"""The accepted values of anchors, for error messages; the type alone does not show all accepted forms."""


class DataConfig(Section):
    """How a data set is read and how batches are made."""

    workers: int = Field(
        default=2,
        ge=0,
        le=MOST_PROCESSES,
        description="Number of processes that make batches; if 0, the training process makes them.",
    )
    cache: bool = Field(default=True, description="Keep decoded, resized images in memory shared by the workers.")
    cache_limit_mb: int = Field(
        default=2048,
        ge=0,
        le=MOST,
        description="Largest size of the cache in MB. If the images do not fit, it has the most recent images; other "
        "images are decoded again when they are used.",
    )
    label_capacity: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Rows of the padded label array of a batch; 0 derives the number from the data set.",
    )
    format: str = Field(
        default="",
        description="Format of the data set: coco, yolo, voc, cvat or labelme; if empty, the format is detected.",
    )
    split: float = Field(
        default=0.2, gt=0, le=0.9, description="Share of the images for val, if the data set has no splits."
    )
    split_seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of the division into train and val.")
    split_group: str = Field(
        default="",
        description="Key of the images in COCO JSON, such as video_id: images with the same value stay in one split. "
        "If empty, images are not grouped.",
    )
    slice_keys: tuple[str, ...] = Field(
        default=(),
        description="Keys of the images in COCO JSON, such as camera, that the stored data set keeps: the report of an "
        "evaluation compares images by the values of these keys. A change makes another stored data set.",
    )
    orientation: Literal["auto", "ignore"] = Field(
        default="auto",
        description="auto applies the EXIF orientation of images unless the annotated size is that of the stored "
        "pixels; ignore uses the pixels as stored.",
    )
    levels: tuple[float, ...] = Field(
        default=(),
        description="[lowest, highest] value of images with more than 8 bits, mapped to 0..255. If empty, the full "
        "range of the pixel type is used.",
    )
    findings: dict[str, Literal["mend", "warn", "refuse"]] = Field(
        default={}, description="Actions for kinds of findings, by code; docs/data.md lists the codes."
    )
    strict: bool = Field(default=False, description="Refuse the data set if there is any finding.")

    @field_validator("levels")
    @classmethod
    def _are_levels(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and (len(value) != 2 or value[0] >= value[1]):
            raise ValueError("expected [lowest, highest], or an empty list")
        return value


class AugmentConfig(Section):
    """Augmentation of training images; probabilities in [0, 1], changes as fractions."""

    mosaic: float = Field(default=1.0, ge=0, le=1, description="Probability that four images are joined into one.")
    partner_window: Literal["auto"] | Annotated[int, Field(ge=0, le=MOST)] = Field(
        default="auto",
        description="Number of the latest images from which the other images of a mosaic and of mixup are drawn, so "
        "that a cache of this size has them; 0 draws from all images. auto is 0 if all images take at most 2048 MB in "
        "the training size, otherwise as many as take nine tenths of that.",
    )
    mosaic_center: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Largest distance of the point where the four images meet from the centre of their canvas, as a "
        "fraction of the image size.",
    )
    mixup: float = Field(default=0.0, ge=0, le=1, description="Probability that a second image is blended in.")
    mixup_beta: float = Field(
        default=32.0, gt=0, le=MOST, description="b of Beta(b, b), from which the weights of mixup are drawn."
    )
    mixup_mosaics_only: bool = Field(
        default=False, description="Blend only mosaics; images that are not joined are left as they are."
    )
    copy_paste: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability of each object of a mosaic that a mirrored copy of its box is added.",
    )
    hsv_h: float = Field(default=0.015, ge=0, le=0.5, description="Largest relative change of hue.")
    hsv_s: float = Field(default=0.7, ge=0, le=1, description="Largest relative change of saturation.")
    hsv_v: float = Field(default=0.4, ge=0, le=1, description="Largest relative change of value (brightness).")
    translate: float = Field(default=0.1, ge=0, le=0.9, description="Largest shift, as a fraction of the image size.")
    scale: float = Field(default=0.5, ge=0, lt=1, description="Scale is drawn from [1 - scale, 1 + scale].")
    degrees: float = Field(default=0.0, ge=0, le=180, description="Largest rotation, in degrees.")
    shear: float = Field(default=0.0, ge=0, lt=45, description="Largest shear along each axis, in degrees.")
    perspective: float = Field(
        default=0.0,
        ge=0,
        le=0.001,
        description="Largest perspective along each axis: relative change of scale per pixel.",
    )
    max_aspect: float = Field(
        default=100.0, gt=1, le=MOST, description="Boxes whose sides differ by this factor or more are left out."
    )
    min_area_left: float = Field(
        default=0.1, ge=0, lt=1, description="Boxes that keep this fraction of their area or less are left out."
    )
    fliplr: float = Field(default=0.5, ge=0, le=1, description="Probability of a left-right flip.")
    flipud: float = Field(default=0.0, ge=0, le=1, description="Probability of an up-down flip.")
    close_mosaic: int = Field(
        default=0, ge=0, le=MOST_EPOCHS, description="Number of epochs at the end without mosaic, mixup and copy_paste."
    )


class PretrainConfig(Section):
    """Pretraining of the backbone as a classifier."""

    enabled: bool = Field(default=True, description="Whether the backbone is pretrained.")
    device_target: DeviceTarget = Field(default="CPU", description=f"Device of the pretraining. {JOB_DEVICE}")
    data: str = Field(
        default="",
        description="Folder or URI of images to pretrain on: a folder for each class, or the folders train and val, "
        "each with a folder for each class, as in ImageNet. If empty, crops of the data set's objects are used.",
    )
    image_size: int = Field(
        default=96, ge=32, le=MOST_PIXELS, multiple_of=32, description="Side of the square crops, in pixels."
    )
    per_batch_size: int = Field(default=32, ge=1, le=MOST_IMAGES, description="Crops per process and step.")
    processes: int = Field(
        default=1, ge=1, le=MOST_PROCESSES, description=f"Number of data-parallel processes. {_PROCESSES}"
    )
    max_epoch: int = Field(default=20, ge=1, le=MOST_EPOCHS, description="Largest number of epochs.")
    max_steps: int = Field(default=1000, ge=1, le=MOST, description="Largest number of optimizer steps.")
    lr: float = Field(default=0.001, gt=0, description="Peak learning rate of AdamW with a cosine schedule.")
    weight_decay: float = Field(default=0.01, ge=0, description="Decoupled weight decay of AdamW.")
    background: float = Field(
        default=0.3, ge=0, le=10, description="Crops without objects per crop of an object; they form a separate class."
    )
    min_object_size: int = Field(
        default=8, ge=1, le=MOST_PIXELS, description="Smallest size in pixels of an object that is cropped."
    )


class TrainConfig(Section):
    """Training of the detector."""

    weights: str = Field(
        default="",
        json_schema_extra=IN_FORM,
        description="Detector to start from: URI of a bundle, a pointer or a file of weights; if "
        "empty, a backbone or fresh weights.",
    )
    freeze: tuple[str, ...] = Field(
        default=(),
        description="Parameters that are not trained: the word backbone, or patterns of their names such as neck.*. "
        "Statistics of frozen batch normalizations do not change, either.",
    )

    seed: int = Field(
        default=0,
        ge=0,
        le=2**32 - 1,
        description="Seed of initial weights, image order, augmentation and choice of calibration images.",
    )
    image_size: int = Field(
        default=640,
        ge=64,
        le=MOST_PIXELS,
        multiple_of=32,
        json_schema_extra=IN_FORM,
        description="Side of the square training images, in pixels.",
    )
    multi_scale: bool = Field(
        default=False,
        description="Whether the size of the training images changes every resize_rate steps; each size is compiled "
        "once. Validation and export use image_size.",
    )
    sizes: tuple[Annotated[int, Field(ge=64, le=MOST_PIXELS, multiple_of=32)], ...] = Field(
        default=(),
        description="Sides of the images in pixels, from which the size of a step is drawn (multi_scale). If empty, "
        "those of the model.",
    )
    resize_rate: int = Field(
        default=10, ge=1, le=MOST, description="Steps with images of one size, until a size is drawn (multi_scale)."
    )
    per_batch_size: int = Field(
        default=8, ge=1, le=MOST_IMAGES, json_schema_extra=IN_FORM, description="Images per process and step."
    )
    nominal_batch: int = Field(
        default=0,
        ge=0,
        le=MOST_IMAGES * MOST_PROCESSES,
        description="Images that an update of the weights is computed from: gradients of several batches are added, "
        "and weight_decay is scaled to the images of an update. 0 updates after every batch.",
    )
    max_epoch: int = Field(
        default=300, ge=1, le=MOST_EPOCHS, json_schema_extra=IN_FORM, description="Number of epochs."
    )
    processes: int = Field(
        default=1, ge=1, le=MOST_PROCESSES, description=f"Number of data-parallel processes. {_PROCESSES}"
    )
    sync_bn: bool = Field(
        default=False,
        description="With several processes: train as one process with the images of all. Batch normalization uses the "
        "images of all processes, and means of the loss over positive anchors count those of all processes.",
    )
    fake_quantize: bool = Field(
        default=False,
        description="Quantization-aware training: the network rounds weights and values as its int8 file does, so that "
        "it learns these roundings. It starts from trained float weights (train.weights).",
    )
    bind_core: bool = Field(
        default=False,
        description="Whether each of several processes on a machine runs on processors of its own: those next to its "
        "device, as msrun assigns them, or equal shares if the device is CPU.",
    )
    recompute: bool = Field(
        default=False,
        description="Whether the backward pass computes the activations of backbone and neck again instead of keeping "
        "them: less memory, and about a fifth more time; the weights stay the same.",
    )
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="Optimizer.")
    lr: float = Field(default=0.01, gt=0, json_schema_extra=IN_FORM, description="Peak learning rate.")
    lr_scheduler: Literal["cosine_annealing", "linear", "exponential"] = Field(
        default="linear", description="How the learning rate falls after the warm-up."
    )
    lr_final: float = Field(
        default=0.01, ge=0, le=1, description="Final learning rate as a fraction of lr (cosine_annealing, linear)."
    )
    eta_min: float = Field(
        default=0.0, ge=0, description="Lowest learning rate (cosine_annealing with t_max larger than 0)."
    )
    t_max: int = Field(
        default=0,
        ge=0,
        le=MOST_EPOCHS,
        description="Epochs in which cosine_annealing lowers the rate from lr to eta_min; 0 lowers it to lr_final "
        "over max_epoch.",
    )
    lr_epochs: tuple[Annotated[int, Field(ge=0, le=MOST_EPOCHS)], ...] = Field(
        default=(220, 250), description="Epochs at which the learning rate is multiplied by lr_gamma (exponential)."
    )
    lr_gamma: float = Field(
        default=0.1, gt=0, le=1, description="Factor of the learning rate at each of lr_epochs (exponential)."
    )
    warmup: Literal["one_cycle", "linear", "zero"] = Field(
        default="one_cycle",
        description="Learning rate in the warm-up: one_cycle rises to the rate of the epoch, with warmup_bias_lr and "
        "warmup_momentum; linear rises to lr; zero stays at 0, while batch normalization adapts.",
    )
    warmup_epochs: float = Field(default=3.0, ge=0, description="Length of the warm-up in epochs; 0 turns it off.")
    warmup_steps: int = Field(default=100, ge=0, le=MOST, description="Smallest number of warm-up steps.")
    warmup_bias_lr: float = Field(default=0.1, ge=0, description="Learning rate of biases at the start of the warm-up.")
    warmup_momentum: float = Field(default=0.8, ge=0, lt=1, description="Momentum at the start of the warm-up (SGD).")
    momentum: float = Field(default=0.937, ge=0, lt=1, description="Momentum of SGD; beta1 of AdamW.")
    nesterov: bool = Field(default=True, description="Nesterov momentum (SGD).")
    weight_decay: float = Field(
        default=0.0005,
        ge=0,
        description="Weight decay of convolutions; biases and batch normalization are not decayed.",
    )
    grad_clip: float = Field(
        default=10.0, ge=0, description="Largest global norm of the gradients; 0 turns clipping off."
    )
    ema_decay: float = Field(
        default=0.9999,
        ge=0,
        lt=1,
        description="Decay of the moving average (EMA) of the weights; the decay rises to this value.",
    )
    ema_tau: float = Field(
        default=2000.0, gt=0, description="Time constant of the rise of the EMA decay, in weight updates."
    )
    precision: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto",
        description="Type in which convolutions and activations compute; loss, batch statistics and weights are always "
        "float32. auto is float16 on Ascend and float32 on a CPU, which has no kernels for bfloat16.",
    )
    grad_scaler: Literal["auto", "none", "static", "dynamic"] = Field(
        default="auto",
        description="Scale of the loss while gradients are computed, so that small gradients do not vanish; updates "
        "whose gradients overflow are skipped. A dynamic scale is halved after an overflow and doubled after 2000 "
        "updates without one. auto is dynamic with float16, otherwise none.",
    )
    grad_scaler_value: float = Field(
        default=65536.0,
        ge=1,
        le=2**24,
        description="The static scale of grad_scaler, or the dynamic scale at the start.",
    )
    loss_scale: float = Field(
        default=0.0,
        ge=0,
        description="Divisor of the loss, and so of the gradients; 0 uses the divisor that the model's learning rate "
        "was published with.",
    )
    label_smooth: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether class targets are smoothed; auto smooths them if label_smooth_factor is not 0. true and 1 "
        "mean on, false and 0 mean off.",
    )
    label_smooth_factor: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="With factor f the class targets are 1 - f/2 and f/2, with losses of the darknet family 1 - f and "
        f"f/(classes - 1); 0 is {PUBLISHED_SMOOTHING:g} if label_smooth is on.",
    )
    box_gain: float = Field(default=0.05, gt=0, description="Weight of the box loss.")
    cls_gain: float = Field(default=0.5, gt=0, description="Weight of the class loss.")
    obj_gain: float = Field(default=1.0, gt=0, description="Weight of the objectness loss.")
    anchor_t: float = Field(
        default=4.0, gt=1, description="A box matches an anchor if each of its sides differs by less than this factor."
    )
    anchors: tuple[tuple[Annotated[float, Field(gt=0, le=MOST_PIXELS)], ...], ...] = Field(
        default=(),
        json_schema_extra=_WRITTEN_AS_ANCHORS,
        description="Widths and heights of the anchors in pixels at train.image_size: a list for each level, finest "
        "first, or one list from small to large. If empty, the model's anchors are used; 'kubeyolo anchors' computes "
        "anchors for a data set.",
    )
    compile_cache: bool = Field(
        default=True,
        description="Whether the compiled graphs of a training by one process on a CPU are stored in the cache folder, "
        "so that the same training compiles once on a machine.",
    )
    log_interval: int = Field(default=20, ge=1, le=MOST, description="Steps between two log lines.")
    ckpt_interval: int = Field(
        default=0, ge=0, le=MOST, description="Steps between two checkpoints; 0 writes a checkpoint after each epoch."
    )
    keep_checkpoints: int = Field(default=3, ge=1, le=1_000_000, description="Number of newest checkpoints to keep.")
    val_interval: Literal["auto"] | Annotated[int, Field(ge=0, le=MOST_EPOCHS)] = Field(
        default="auto",
        description="Epochs between validations while training; 0 turns them off. auto is the smallest number with "
        "which they take about 5 % of the time.",
    )
    val_split: str = Field(
        default="val",
        min_length=1,
        json_schema_extra={"written": "the name of a split other than train"},
        description="Split of the data set that is validated while training; not train.",
    )
    keep: Literal["best", "last"] = Field(
        default="best",
        description="Which averaged weights are published: those of the validation with the highest AP, or those "
        "after the last epoch. Without validations the last are published.",
    )
    top_k: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Number of best validations whose averaged weights are kept as files in the output.",
    )
    patience: int = Field(
        default=0,
        ge=0,
        le=MOST_EPOCHS,
        description="Epochs without a higher AP after which the training stops early; 0 never stops it.",
    )
    min_delta: float = Field(
        default=0.0, ge=0, lt=1, description="AP, 0..1, by which a validation must be higher to count for patience."
    )
    tensorboard: bool = Field(
        default=True, description="Whether to write TensorBoard's event files, in the folder events of the output."
    )
    need_profiler: bool = Field(
        default=False,
        description="Whether to profile some steps with MindSpore, and to list where the time of the training goes.",
    )
    device_target: DeviceTarget = Field(default="CPU", description=f"Device of the training. {JOB_DEVICE}")

    @property
    def compute_type(self) -> Literal["float32", "float16", "bfloat16"]:
        """The type in which convolutions and activations compute, on the device of the training."""
        if self.precision == "auto":
            return "float16" if self.device_target == "Ascend" else "float32"
        return self.precision

    @property
    def scaling(self) -> Literal["none", "static", "dynamic"]:
        """Whether the loss is scaled, and whether its scale changes."""
        if self.grad_scaler == "auto":
            return "dynamic" if self.compute_type == "float16" else "none"
        return self.grad_scaler

    @property
    def smoothing(self) -> float:
        """The factor with which class targets are smoothed; 0 does not smooth them."""
        if self.label_smooth == "on":
            return self.label_smooth_factor or PUBLISHED_SMOOTHING
        return self.label_smooth_factor if self.label_smooth == "auto" else 0.0

    @field_validator("multi_scale", "need_profiler", mode="before")
    @classmethod
    def _is_on(cls, value: Any) -> Any:
        """Accept 0 and 1, as the model zoo's programs do for their flags."""
        plain = plain_scalar(value.strip()) if isinstance(value, str) else value
        return bool(plain) if plain in (0, 1) else value

    @field_validator("sizes")
    @classmethod
    def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        """Return each size once: order and repetitions have no meaning."""
        return tuple(sorted(set(value)))

    @field_validator("freeze", mode="before")
    @classmethod
    def _as_patterns(cls, value: Any) -> Any:
        """Accept an empty value as no patterns; a text is split at commas, as for all lists."""
        return value or ()

    @field_validator("freeze")
    @classmethod
    def _are_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("a pattern is empty")
        return value

    @field_validator("val_split")
    @classmethod
    def _is_held_out(cls, value: str) -> str:
        if value == "train":
            raise ValueError("expected a split other than train")
        return value

    @field_validator("anchors", mode="before")
    @classmethod
    def _in_one_form(cls, value: Any) -> Any:
        return anchor_lists(value)

    @field_validator("label_smooth", mode="before")
    @classmethod
    def _is_flag(cls, value: Any) -> Any:
        """Accept booleans, and 0 and 1 as the model zoo's programs do."""
        plain = plain_scalar(value.strip()) if isinstance(value, str) else value
        return ("on" if plain else "off") if isinstance(plain, bool | int) and plain in (0, 1) else value
