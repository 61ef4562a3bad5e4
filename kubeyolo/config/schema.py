"""The schema of a configuration: every key, its type, its range and its default.

The names are usual in this field (``per_batch_size``, ``max_epoch``, ``lr_scheduler`` ...). The sections that training
reads are in :mod:`kubeyolo.config.training_schema`. The error for an unknown key suggests the nearest known key; see
:func:`kubeyolo.config.load.load_config`.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from kubeyolo.config.section import (
    IN_FORM,
    JOB_DEVICE,
    MOST_EPOCHS,
    MOST_IMAGES,
    MOST_PIXELS,
    MOST_PROCESSES,
    DeviceTarget,
    Section,
)
from kubeyolo.config.training_schema import AugmentConfig, DataConfig, PretrainConfig, TrainConfig

_SIZE = r"^[1-9]\d*x[1-9]\d*$"
_STRIDE = 32
EngineName = Literal["hotcoco", "pycocotools"]
"""Programs that compute the COCO metrics."""

NmsKind = Literal["greedy", "diou"]
"""Measures of the overlap of two boxes in non-maximum suppression."""

Judge = Literal["point", "interval", "strict"]
"""How a limit is judged: by the value itself, or by its interval."""

QuantizedFor = Literal["onnxruntime", "openvino"]
"""Runtimes that an int8 file can be written for."""

AUTO, NONE = "auto", "none"
"""Words of ``quantize.float_layers`` in place of names."""


def _plain_size(value: Any) -> Any:
    """Return a square as its side, whichever way it was written, and check both sides of other sizes."""
    sides = re.split(r"\s*[xX×,]\s*", value.strip()) if isinstance(value, str) else value
    if not isinstance(sides, list | tuple) or len(sides) != len(("height", "width")):
        return value
    if any(isinstance(side, bool) or not re.fullmatch(r"\d{1,5}", str(side)) for side in sides):
        return value
    height, width = map(int, sides)
    if any(not 0 < side <= MOST_PIXELS or side % _STRIDE for side in (height, width)):
        raise ValueError(f"height and width must be multiples of {_STRIDE}, at most {MOST_PIXELS}")
    return height if height == width else f"{height}x{width}"


def _height_and_width(size: int | str) -> tuple[int, int] | None:
    """Return height and width in pixels; None for 0."""
    if isinstance(size, int):
        return (size, size) if size else None
    height, width = map(int, size.split("x"))
    return height, width


def _side(size: tuple[int, int] | None) -> int:
    """Return the side of the square with as many pixels; 0 for None."""
    return 0 if size is None else round(math.sqrt(math.prod(size)))


InputSize = Annotated[int, Field(ge=0, le=MOST_PIXELS, multiple_of=32)] | Annotated[str, Field(pattern=_SIZE)]
"""Side of a network's input in pixels, or height x width as text; 0 for the training size."""

SIZE_WRITTEN: dict[str, Any] = {"written": "a multiple of 32, at most 8192, or height x width such as 384x640"}
"""How an :data:`InputSize` is written."""


class EvaluateConfig(Section):
    """Evaluation on a split."""

    split: str = Field(default="val", description="Split of the data set.")
    device_target: DeviceTarget = Field(
        default="CPU",
        description=f"Device of the trained network and of MINDIR; ONNX runs on processors. {JOB_DEVICE}",
    )
    image_size: InputSize = Field(
        default=0,
        json_schema_extra=SIZE_WRITTEN,
        description="Side of the images in pixels, or height x width such as 384x640; 0 uses the training size.",
    )
    per_batch_size: int = Field(default=8, ge=1, le=MOST_IMAGES, description="Images per forward pass.")
    conf_threshold: float = Field(
        default=0.001, ge=0, lt=1, description="Objectness and score of a candidate must exceed this value."
    )
    iou_threshold: float = Field(
        default=0.65,
        gt=0,
        le=1,
        description="If two boxes of a class have a larger IoU, the box with the lower score is dropped.",
    )
    max_det: int = Field(default=300, ge=1, le=1_000_000, description="Largest number of boxes per image.")
    multi_label: bool = Field(default=True, description="Whether one box may be a candidate for several classes.")
    nms: NmsKind = Field(
        default="greedy",
        description="Overlap of two boxes: their IoU, or with diou less if their centres are far apart.",
    )
    rect: bool = Field(
        default=False,
        description="Whether batches are rectangles that fit images of similar shapes; for networks of any size.",
    )
    tta: bool = Field(
        default=False,
        description="Whether the network sees each image in three sizes, which takes 2 to 3 times as long.",
    )
    engine: EngineName = Field(
        default="hotcoco",
        description="Program that computes the COCO metrics. Both give the same numbers; pycocotools is slower and "
        "needs more memory.",
    )
    classes: tuple[str, ...] = Field(
        default=(), description="Names of the classes that are evaluated; empty for all classes."
    )
    dets_per_class: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="COCO's AP counts 100 detections of a class in an image. With a number N, AP@maxDets=N is computed "
        "in addition; 0 leaves it out.",
    )
    test_dev: bool = Field(
        default=False,
        description="Whether the detections are written for the test-dev server of COCO, as JSON and zip; the split "
        "needs no annotations, and there is no AP.",
    )
    min_ap: float = Field(
        default=0.0,
        ge=0,
        le=1,
        json_schema_extra=IN_FORM,
        description="The step evaluate fails when AP is below this value.",
    )
    judge: Judge = Field(
        default="point",
        description="How limits on AP and on the loss of AP are judged: point, by the value itself; interval, fails if "
        "the whole 95 % interval misses the limit; strict, fails unless the whole interval meets the limit.",
    )

    @field_validator("image_size", mode="before")
    @classmethod
    def _in_one_form(cls, value: Any) -> Any:
        return _plain_size(value)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of the network's input in pixels; None for the training size."""
        return _height_and_width(self.image_size)

    @property
    def side(self) -> int:
        """Side of the square with as many pixels as the network's input; 0 for the training size."""
        return _side(self.input_size)


SMALLEST_WINDOW = 64
"""Smallest side in pixels of the windows of a large image."""


class PredictConfig(Section):
    """Prediction of boxes on single images."""

    conf_threshold: float = Field(default=0.25, ge=0, lt=1, description="Smallest score of a box.")
    iou_threshold: float = Field(
        default=0.45,
        gt=0,
        le=1,
        description="If two boxes of a class have a larger IoU, the box with the lower score is dropped.",
    )
    max_det: int = Field(default=300, ge=1, le=1_000_000, description="Largest number of boxes per image.")
    tta: bool = Field(
        default=False, description="Whether the network sees each image in three sizes (test-time augmentation)."
    )
    slice: Literal[0] | Annotated[int, Field(ge=SMALLEST_WINDOW, le=MOST_PIXELS)] = Field(
        default=0,
        description="Side in pixels of the overlapping windows of larger images: the network sees each window and the "
        "whole image; 0 for no windows.",
    )
    slice_overlap: float = Field(
        default=0.2,
        ge=0,
        le=0.9,
        description="Smallest overlap of neighbouring windows, as a fraction of their side: objects up to this size "
        "lie whole in a window.",
    )


class ExportConfig(Section):
    """Export of the trained network."""

    device_target: DeviceTarget = Field(
        default="CPU", description=f"Device of the export; AIR needs Ascend. {JOB_DEVICE}"
    )
    formats: tuple[Literal["mindir", "onnx", "air"], ...] = Field(
        default=("mindir", "onnx"), min_length=1, description="Formats to export; a pipeline run needs onnx."
    )
    image_size: InputSize = Field(
        default=0,
        json_schema_extra=SIZE_WRITTEN,
        description="Side of the input of all files in pixels, or height x width such as 384x640; 0 uses the size in "
        "the bundle, which is the training size.",
    )
    batch_size: int = Field(
        default=1,
        ge=1,
        le=MOST_IMAGES,
        description="Batch size of the MINDIR and AIR files; ONNX accepts any batch size.",
    )
    opset: int = Field(
        default=17,
        ge=11,
        le=17,
        description="Opset of the ONNX file; older runtimes need a lower one. The int8 file has at least 13.",
    )
    nms: bool = Field(
        default=False,
        description="Whether to write model-nms.onnx too, with non-maximum suppression inside the graph, by the "
        "thresholds of evaluate.",
    )
    parity_images: int = Field(
        default=8,
        ge=1,
        le=1_000_000,
        description="Number of images on which the exported and the trained network are compared.",
    )
    parity_ap: bool = Field(
        default=True,
        description="Whether AP of the ONNX file is compared with AP of the trained network, which takes as long as "
        "its evaluation.",
    )
    parity_rtol: float = Field(
        default=1e-4, gt=0, description="Largest allowed difference of outputs, relative to a level's largest value."
    )

    @field_validator("image_size", mode="before")
    @classmethod
    def _in_one_form(cls, value: Any) -> Any:
        return _plain_size(value)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of the network's input in pixels; None for the training size."""
        return _height_and_width(self.image_size)

    @property
    def side(self) -> int:
        """Side of the square with as many pixels as the input of the files; 0 for the training size."""
        return _side(self.input_size)

    @field_validator("formats")
    @classmethod
    def _in_one_order(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        """Return each format once, in the order of the schema; the order in the configuration has no meaning."""
        return tuple(name for name in get_args(get_args(cls.model_fields["formats"].annotation)[0]) if name in formats)


class QuantizeConfig(Section):
    """Quantization to int8 ONNX, after the training or by training."""

    method: Literal["ptq", "qat"] = Field(
        default="ptq",
        description="ptq chooses the ranges of activations from calibration images. qat trains the network with "
        "rounded weights and values (YOLOv3 and YOLOv5), and needs MindSpore unless the bundle was trained so.",
    )
    max_epoch: int = Field(
        default=10, ge=1, le=MOST_EPOCHS, description="Epochs of the training with qat, calibration included."
    )
    calibration_epochs: float = Field(
        default=1.0,
        ge=0,
        le=MOST_EPOCHS,
        description="Epochs at the start of the training with qat in which the rate is 0 and only ranges change.",
    )
    lr: float = Field(
        default=0.0,
        ge=0,
        description="Peak learning rate of the training with qat; 0 is a tenth of the rate of the bundle's training.",
    )
    device_target: DeviceTarget = Field(default="CPU", description=f"Device of the training with qat. {JOB_DEVICE}")
    processes: int = Field(
        default=1, ge=1, le=MOST_PROCESSES, description="Number of data-parallel processes of the training with qat."
    )
    runtime: QuantizedFor = Field(
        default="onnxruntime",
        description="Runtime that the int8 file is written for and evaluated with; the other runtime loads it too, but "
        "is slower with it.",
    )
    calibration_images: int = Field(
        default=64,
        ge=1,
        le=1_000_000,
        description="Number of images of the split train that determine the ranges of activations.",
    )
    calibration: Literal["minmax", "entropy", "percentile"] = Field(
        default="minmax", description="How the ranges of activations are chosen."
    )
    max_drop: float = Field(
        default=1.0,
        ge=0,
        json_schema_extra=IN_FORM,
        description="Largest allowed loss of AP by int8 quantization, in points (AP x 100).",
    )
    judge: Judge = Field(
        default="interval",
        description="How the loss is judged: by itself (point), or by its interval over the images: fails if all of it "
        "is beyond the limit (interval), or passes if all of it is within the limit (strict).",
    )
    float_layers: tuple[str, ...] = Field(
        default=(AUTO,),
        description="Convolutions that stay float: none, names from the report, or auto; with auto those that cost "
        "most stay float if the loss is too large, at most as many as min_quantized_convs allows.",
    )
    on_miss: Literal["", "leave_out", "fail"] = Field(
        default="",
        description="What happens when int8 misses a limit: leave_out passes the float networks on without it, fail "
        "ends the step; if empty, leave_out in the pipeline detector-training, otherwise fail.",
    )
    min_quantized_convs: float = Field(
        default=0.95, ge=0, le=1, description="Smallest share of the convolutions that must be int8."
    )
    max_size_ratio: float = Field(
        default=0.35,
        gt=0,
        le=1,
        description="Largest size of the int8 file, as a share of the float file.",
    )

    @field_validator("float_layers")
    @classmethod
    def _words_alone(cls, layers: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse the words auto and none next to names; an empty list is none."""
        if len(layers) > 1 and {AUTO, NONE}.intersection(layers):
            raise ValueError("auto and none stand alone; give names of convolutions, or one of these words")
        return layers


class RetrainConfig(Section):
    """When a retraining starts to train, and when its model becomes current."""

    latest: str = Field(
        default="", description="URI of the pointer to the current model; if empty, models/<model>/latest.json is used."
    )
    force: bool = Field(default=False, description="Train even if the data set has not changed.")
    start_from: Literal["", "current", "weights", "backbone", "fresh"] = Field(
        default="",
        json_schema_extra=IN_FORM,
        description="Start of a retraining: current, weights, backbone or fresh; if empty, current if the "
        "model fits, otherwise as a training.",
    )
    max_regression: float = Field(
        default=0.0,
        json_schema_extra=IN_FORM,
        description="Largest allowed loss of AP compared with the current model's network, in points (AP x 100).",
    )


class Config(Section):
    """The whole configuration of a run."""

    model: str = Field(default="yolov5n-r7", description="Name of the detector.")
    recipe: Literal["", "scratch", "finetune"] = Field(
        default="",
        description="Defaults of schedule and augmentation: scratch, the model's preset; finetune, for a training that "
        "starts from a detector; if empty, finetune for such a training, otherwise scratch.",
    )
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    pretrain: PretrainConfig = PretrainConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    predict: PredictConfig = PredictConfig()
    export: ExportConfig = ExportConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    retrain: RetrainConfig = RetrainConfig()

    def value(self, key: str) -> Any:
        """Return the value of a dotted key, such as ``train.lr``, or of a key without a section, such as ``recipe``."""
        section, _, name = key.partition(".")
        value = getattr(self, section)
        return getattr(value, name) if name else value
