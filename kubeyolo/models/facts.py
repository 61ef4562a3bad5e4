"""Facts of a detector that are known without building it; this module can be imported without MindSpore."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Anchors = tuple[tuple[tuple[float, float], ...], ...]
"""(level, anchor, 2): widths and heights in pixels of the network's input."""


@dataclass(frozen=True)
class PublishedResult:
    """COCO metrics that the authors of a model published; AP values in 0..1."""

    source: str
    split: Literal["val", "test-dev"]
    image_size: int
    ap: float
    ap50: float | None = None
    ap75: float | None = None


@dataclass(frozen=True)
class ModelFacts:
    """Facts of one registered detector.

    Attributes:
        name: Name in the registry.
        family: Name of the family; its models share a network module and published training settings.
        network: Module that builds the network: it has ``build_detector(facts, num_classes)`` and
            ``build_backbone(facts)``. Imported only when a network is built.
        strides: Stride of each level in pixels, finest first.
        anchors: (level, anchor, 2) widths and heights in pixels.
        image_size: Side of the published training images, in pixels.
        parameters: Number of trainable parameters with 80 classes.
        multiply_adds: Multiplications, each with its addition, of all convolutions for one square image of
            ``image_size`` with 80 classes. Published tables count both operations, which is twice as many.
        activations: Elements that all convolutions write for such an image.
        paper: Document that describes the network.
        decode: How raw outputs become boxes: "yolov5" is ``(2σ)²·anchor``, "darknet" is ``exp(t)·anchor``.
        scale_xy: Growth of the centre offset around the cell, for each level: ``s·σ(t) − (s − 1)/2``.
        loss: Name of the published loss settings.
        loss_divisor: Divisor of the loss that the published learning rate expects; used if ``train.loss_scale`` is 0.
        bn_eps: Added to the variance by the batch normalizations; published weights were trained with this value.
        class_prior_offset: The offset ``o`` in the class bias of a fresh head, ``log(0.6 / (classes − o))``.
        published: COCO results.
        sizes: Sides in pixels of the images of a multi-scale training, ascending; empty if they depend on the image
            size, see :meth:`training_sizes`.
        shape: Multiples and other numbers that only the network module reads.
    """

    name: str
    family: str
    network: str
    strides: tuple[int, ...]
    anchors: Anchors
    image_size: int
    parameters: int
    multiply_adds: int
    activations: int
    paper: str
    scale_xy: tuple[float, ...]
    decode: Literal["yolov5", "darknet"] = "yolov5"
    loss: Literal["yolov5", "scaledyolov4", "yolov3", "yolov4"] = "yolov5"
    loss_divisor: float = 1.0
    bn_eps: float = 1e-3
    class_prior_offset: float = 0.99
    published: tuple[PublishedResult, ...] = ()
    sizes: tuple[int, ...] = ()
    shape: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def anchors_per_level(self) -> int:
        """Number of anchors of one level."""
        return len(self.anchors[0])

    @property
    def most_of_anchor(self) -> float | None:
        """The largest ratio of a decoded side and its anchor; None if there is no limit."""
        return 4.0 if self.decode == "yolov5" else None

    @property
    def clips_tails(self) -> bool:
        """Whether test-time augmentation is that of YOLOv5, which leaves out two levels, or that of Scaled-YOLOv4."""
        return self.family in ("yolov5", "yolov5-r7")

    def training_sizes(self, image_size: int) -> tuple[int, ...]:
        """Return the sides in pixels of the images of a multi-scale training, ascending.

        Without published sizes they are those of YOLOv5 release 7 and Scaled-YOLOv4: multiples of the coarsest stride
        from half of ``image_size``, rounded down, to one and a half, rounded up.
        """
        if self.sizes:
            return self.sizes
        stride = max(self.strides)
        return tuple(range(max(image_size // 2 // stride, 1) * stride, image_size * 3 // 2 + stride, stride))

    @property
    def anchor_count(self) -> int:
        """Number of anchors of all levels."""
        return sum(len(level) for level in self.anchors)
