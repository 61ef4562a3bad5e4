"""The results of an evaluation: the 12 COCO metrics, the metrics of each class, and precision-recall curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kubeyolo.documents import NotJson, read_model
from kubeyolo.errors import InputError, check_known, first_problem
from kubeyolo.evaluation.intervals import Resamples

RuntimeName = Literal["mindspore", "onnx", "int8", "mindir", "openvino", "openvino-int8"]
"""The software that runs a network of a bundle."""

RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
NEED_MINDSPORE: tuple[RuntimeName, ...] = ("mindspore", "mindir")
"""Runtimes that need MindSpore."""
NEED_OPENVINO: tuple[RuntimeName, ...] = ("openvino", "openvino-int8")
"""Runtimes that need OpenVINO."""
MEASURED: tuple[RuntimeName, ...] = ("mindspore", "onnx", "int8")
"""Runtimes whose COCO metrics are kept in a bundle."""


class CocoNumber(NamedTuple):
    """One of the 12 COCO metrics: its key, and its description in pycocotools."""

    key: str
    kind: str
    iou: str
    area: str
    max_det: int


COCO_NUMBERS: tuple[CocoNumber, ...] = (
    CocoNumber("AP", "AP", "0.50:0.95", "all", 100),
    CocoNumber("AP50", "AP", "0.50", "all", 100),
    CocoNumber("AP75", "AP", "0.75", "all", 100),
    CocoNumber("APs", "AP", "0.50:0.95", "small", 100),
    CocoNumber("APm", "AP", "0.50:0.95", "medium", 100),
    CocoNumber("APl", "AP", "0.50:0.95", "large", 100),
    CocoNumber("AR1", "AR", "0.50:0.95", "all", 1),
    CocoNumber("AR10", "AR", "0.50:0.95", "all", 10),
    CocoNumber("AR100", "AR", "0.50:0.95", "all", 100),
    CocoNumber("ARs", "AR", "0.50:0.95", "small", 100),
    CocoNumber("ARm", "AR", "0.50:0.95", "medium", 100),
    CocoNumber("ARl", "AR", "0.50:0.95", "large", 100),
)
"""The 12 COCO metrics, in the order of pycocotools' summary."""

COCO_KEYS = tuple(number.key for number in COCO_NUMBERS)


def additional_coco_numbers(limit: int) -> tuple[CocoNumber, ...]:
    """Return the metrics with an additional limit of the detections of a class in an image; none is named AP."""
    return (
        CocoNumber(f"AP@maxDets={limit}", "AP", "0.50:0.95", "all", limit),
        CocoNumber(f"AP50@maxDets={limit}", "AP", "0.50", "all", limit),
        CocoNumber(f"AR@maxDets={limit}", "AR", "0.50:0.95", "all", limit),
    )


_KINDS = {"AP": "Average Precision", "AR": "Average Recall"}


class ClassResult(BaseModel):
    """Metrics of a class. ``AP`` and ``AP50`` are in 0..1, or None when the split has no ground truth of the class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    AP: float | None
    AP50: float | None
    images: int = Field(ge=0, description="Images with at least one ground truth box of the class.")
    boxes: int = Field(ge=0, description="Ground truth boxes of the class, without crowds.")


class BestThresholds(BaseModel):
    """Confidence thresholds with the largest F1 at IoU .5: one for all classes, and one for each class by its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overall: float = Field(ge=0, le=1)
    classes: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}

    def of(self, classes: Sequence[str]) -> list[float]:
        """Return the threshold of each class; the overall threshold for a class without its own."""
        return [self.classes.get(name, self.overall) for name in classes]


class EvaluationResult(BaseModel):
    """Metrics of an evaluation.

    ``numbers`` has the 12 keys of :data:`COCO_NUMBERS`, values in 0..1; a value is None when the split has no ground
    truth of that kind (-1 in pycocotools). ``curves`` maps a class name to precision at the 101 recall points
    0, .01, ..., 1, at IoU .50; classes without ground truth have no curve.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    numbers: dict[str, float | None]
    additional_numbers: dict[str, float | None] = Field(
        default={}, description="Metrics with an additional limit of detections, such as AP@maxDets=300."
    )
    per_class: list[ClassResult] = []
    curves: dict[str, list[float]] = {}
    images: int = Field(default=0, ge=0, description="Images evaluated.")
    boxes: int = Field(default=0, ge=0, description="Ground truth boxes, without crowds.")
    detections: int = Field(default=0, ge=0, description="Detections given to the evaluator.")
    split: str = ""
    runtime: str = Field(default="", description=f"Which backend ran the network: {', '.join(RUNTIMES)}.")
    image_size: tuple[int, int] | None = Field(default=None, description="Height and width of the network's input.")
    best_thresholds: BestThresholds | None = Field(
        default=None, description="Best thresholds; null in results of earlier versions, and if no box was found."
    )
    resamples: Resamples | None = Field(
        default=None, description="AP of resamples; null in results of earlier versions."
    )
    tta: bool = Field(default=False, description="Whether the network saw each image in three views.")
    rect: bool = Field(default=False, description="Whether batches were rectangles that fit their images.")
    nms: str = Field(default="greedy", description="How the overlap of two boxes was measured: greedy, diou.")
    crowded_images: int = Field(default=0, ge=0, description="Images with more than 100 boxes of a class.")
    thresholds: dict[str, float | int | bool] = Field(
        default={}, description="Settings of the evaluation that decide which detections there are, by key."
    )
    notes: list[str] = Field(default=[], description="Notes about the metrics, as sentences.")

    def words(self) -> str:
        """Return the 12 lines of pycocotools' summary, and a line for each metric with an additional limit."""
        lines = [number_line(number, self.numbers.get(number.key)) for number in COCO_NUMBERS]
        return "\n".join(
            [*lines, *(number_line(number, self.additional_numbers[number.key]) for number in self.additional())]
        )

    def additional(self) -> tuple[CocoNumber, ...]:
        """Return the metrics with an additional limit of detections; empty if there are none."""
        limits = {int(key.rpartition("=")[2]) for key in self.additional_numbers}
        return tuple(number for limit in sorted(limits) for number in additional_coco_numbers(limit))

    def manner(self) -> str:
        """Return in parentheses the settings of TTA, batches and NMS that are not the usual ones; empty if all are."""
        names = {"test-time augmentation": self.tta, "rectangular": self.rect, "DIoU-NMS": self.nms == "diou"}
        unusual = ", ".join(name for name, applies in names.items() if applies)
        return f" ({unusual})" if unusual else ""

    def to_json(self) -> str:
        """Return the result as JSON; missing metrics are null."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> EvaluationResult:
        """Read a result that :meth:`to_json` wrote.

        Raises:
            InputError: The text is not an evaluation result.
        """
        try:
            return read_model(text, cls, "evaluation")
        except NotJson as error:
            raise InputError(f"not an evaluation result: {error.reason}; run evaluate again") from error
        except ValidationError as error:
            raise InputError(f"not an evaluation result: {first_problem(error)}; run evaluate again") from error


def number_line(number: CocoNumber, value: float | None) -> str:
    """Return a line of the summary as pycocotools prints it; -1.000 means that there is no ground truth."""
    shown = -1.0 if value is None else value
    return (
        f" {_KINDS[number.kind]:<18} ({number.kind}) @[ IoU={number.iou:<9} | area={number.area:>6s} "
        f"| maxDets={number.max_det:>3d} ] = {shown:0.3f}"
    )


def check_runtime(name: str) -> RuntimeName:
    """Return the runtime with a name.

    Raises:
        InputError: There is no runtime with this name.
    """
    check_known("runtime", name, RUNTIMES)
    return cast(RuntimeName, name)
