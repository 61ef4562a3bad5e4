"""Published trainings of detectors on Ascend devices, and how far the estimates are from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kubeyolo.estimate.devices import DEVICES, DeviceKind
from kubeyolo.estimate.speed import Placement, Workload, step_time
from kubeyolo.models.named_facts import model_facts

_ZOO_V4 = "MindSpore models, official/cv/YOLOv4/README.md"
_ZOO_V5 = "MindSpore models, official/cv/YOLOv5/README.md"
_MINDYOLO = "mindyolo, configs/{}/README.md, MindSpore 2.5"

HOST_IMAGES_PER_SECOND: dict[DeviceKind, float] = {"Ascend910": 52.0, "Ascend910B": 184.0}
"""Images per second that a process of these programs makes outside of the network at 640 pixels, mostly in its loader.

Fitted, one number for each kind of machine. These programs process as many images per second with networks of very
different size: mindyolo 393, 394, 359 and 354 on 8 Ascend 910 with yolov5n to yolov5l, and 1461 and 1480 on 8 Ascend
910B with yolov5n and yolov5s. The log of the model zoo's yolov5s starts at 580 and falls to 440 when the batches that
were made ahead are used up.
"""

_HOST_SIZE = 640


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """A published speed of a training.

    Attributes:
        model: Name of the model.
        kind: Kind of the devices.
        devices: Number of devices.
        per_batch_size: Images of a device and step.
        image_size: Side of the images in pixels; of several sizes the root of their mean area.
        images_per_second: The published speed, of all devices.
        is_fitted: Whether a constant was fitted to this run.
        source: Document that has the figure.
        note: What is different about this run.
    """

    model: str
    kind: DeviceKind
    devices: int
    per_batch_size: int
    image_size: float
    images_per_second: float
    is_fitted: bool
    source: str
    note: str = ""

    @property
    def estimate(self) -> float:
        """Estimated images per second with the data loading of the program that was measured."""
        facts, device = model_facts(self.model), DEVICES[self.kind]
        host = self.devices * HOST_IMAGES_PER_SECOND[self.kind] * (_HOST_SIZE / self.image_size) ** 2
        work = Workload.of(facts, self.image_size, self.per_batch_size)
        placement = Placement(processes=self.devices, machines=-(-self.devices // device.per_machine), device=device)
        step = replace(step_time(work, placement), loader=self.devices * self.per_batch_size / host)
        return self.devices * self.per_batch_size / step.total

    @property
    def error(self) -> float:
        """Relative error of the estimate: 0.1 is 10 % too fast."""
        return self.estimate / self.images_per_second - 1


def _zoo(model: str, devices: int, batch: int, size: float, speed: float, fitted: bool, note: str = "") -> PublishedRun:
    return PublishedRun(
        model=model,
        kind="Ascend910",
        devices=devices,
        per_batch_size=batch,
        image_size=size,
        images_per_second=speed,
        is_fitted=fitted,
        source=_ZOO_V4 if model == "yolov4" else _ZOO_V5,
        note=note,
    )


def _mindyolo(
    model: str, kind: DeviceKind, batch: int, size: int, speed: float, fitted: bool, note: str = ""
) -> PublishedRun:
    return PublishedRun(
        model=model,
        kind=kind,
        devices=8,
        per_batch_size=batch,
        image_size=size,
        images_per_second=speed,
        is_fitted=fitted,
        source=_MINDYOLO.format(model.removesuffix("-r7")[:6]),
        note=note,
    )


PUBLISHED_RUNS: tuple[PublishedRun, ...] = (
    _zoo("yolov4", 1, 32, 416, 53, True),
    _zoo("yolov4", 8, 32, 416, 390, False),
    # Sides of 416, 448, … 736 pixels: the root of their mean square.
    _zoo("yolov4", 8, 32, 584.7, 220, False, "11 sizes"),
    _zoo("yolov5s", 8, 8, 640, 450, True),
    _mindyolo("yolov5n-r7", "Ascend910", 32, 640, 393.5, False),
    _mindyolo("yolov5s-r7", "Ascend910", 32, 640, 393.8, True),
    _mindyolo("yolov5m-r7", "Ascend910", 32, 640, 359.4, False),
    _mindyolo("yolov5l-r7", "Ascend910", 32, 640, 353.9, False),
    _mindyolo("yolov5x-r7", "Ascend910", 16, 640, 224.6, False, "float32"),
    _mindyolo("yolov3", "Ascend910", 16, 640, 312.5, True),
    _mindyolo("yolov4", "Ascend910", 16, 608, 253.0, False),
    _mindyolo("yolov5n-r7", "Ascend910B", 32, 640, 1461.3, False),
    _mindyolo("yolov5s-r7", "Ascend910B", 32, 640, 1480.5, True),
    _mindyolo("yolov3", "Ascend910B", 16, 640, 404.9, True),
    _mindyolo("yolov4", "Ascend910B", 16, 608, 495.9, True),
)
"""The zoo's ``yolov3-quant`` is left out: its published time of a step and of the whole training contradict each other.

mindyolo writes "Ascend 910*" for the device that is the 910B here.
"""
