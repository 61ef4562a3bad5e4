"""Properties of the networks defined in darknet cfg files: YOLOv3, YOLOv4, YOLOv4-tiny and YOLOv4-CSP.

The module also has the YOLOv3 for quantization-aware training, with ReLU in its backbone.
"""

from __future__ import annotations

from types import MappingProxyType

from kubeyolo.models.facts import Anchors, ModelFacts, PublishedResult

DARKNET53_DEPTHS = (1, 2, 8, 8, 4)
"""Residuals of the five stages of DarkNet53 and CSPDarknet53."""

YOLOV3_ANCHORS: Anchors = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
_QUANT_PUBLISHED = (PublishedResult("MindSpore model zoo, int8, COCO 2014", "val", 416, 0.310, 0.531, 0.322),)
_YOLOV4_ANCHORS: Anchors = (
    ((12.0, 16.0), (19.0, 36.0), (40.0, 28.0)),
    ((36.0, 75.0), (76.0, 55.0), (72.0, 146.0)),
    ((142.0, 110.0), (192.0, 243.0), (459.0, 401.0)),
)
# The cfg file has one more anchor, 10 x 14, which no level uses; both levels use 81 x 82.
_TINY_ANCHORS: Anchors = (
    ((23.0, 27.0), (37.0, 58.0), (81.0, 82.0)),
    ((81.0, 82.0), (135.0, 169.0), (344.0, 319.0)),
)
YOLOV3_SIZES, YOLOV4_SIZES = tuple(range(320, 609, 32)), tuple(range(416, 737, 32))
"""Sides in pixels of the images of multi-scale trainings: of darknet and the MindSpore model zoo."""
_YOLOV4_PAPER = "https://arxiv.org/abs/2004.10934"
_SCALED_PAPER = "https://arxiv.org/abs/2011.08036"


def _yolov3(
    name: str, relu_backbone: bool, loss_divisor: float, published: tuple[PublishedResult, ...] = ()
) -> ModelFacts:
    return ModelFacts(
        name=name,
        family="yolov3",
        network="kubeyolo.models.yolov3",
        strides=(8, 16, 32),
        anchors=YOLOV3_ANCHORS,
        image_size=416,
        parameters=61_949_149,
        multiply_adds=32_932_037_632,
        activations=39_193_635,
        paper="https://arxiv.org/abs/1804.02767",
        decode="darknet",
        scale_xy=(1.0, 1.0, 1.0),
        loss="yolov3",
        loss_divisor=loss_divisor,
        bn_eps=1e-5,
        published=published,
        sizes=YOLOV3_SIZES,
        shape=MappingProxyType({"relu_backbone": int(relu_backbone), "channels": 32}),
    )


DARKNET_FACTS: tuple[ModelFacts, ...] = (
    _yolov3("yolov3", relu_backbone=False, loss_divisor=1.0),
    _yolov3("yolov3-quant", relu_backbone=True, loss_divisor=1024.0, published=_QUANT_PUBLISHED),
    ModelFacts(
        name="yolov4-tiny",
        family="yolov4-tiny",
        network="kubeyolo.models.yolov4_tiny",
        strides=(16, 32),
        anchors=_TINY_ANCHORS,
        image_size=416,
        parameters=6_056_606,
        multiply_adds=3_453_938_176,
        activations=6_337_331,
        paper=_SCALED_PAPER,
        decode="darknet",
        scale_xy=(1.05, 1.05),
        loss="yolov4",
        loss_divisor=64.0,
        bn_eps=1e-5,
        sizes=YOLOV4_SIZES,
    ),
    ModelFacts(
        name="yolov4-csp",
        family="yolov4-csp",
        network="kubeyolo.models.yolov4_csp",
        strides=(8, 16, 32),
        anchors=_YOLOV4_ANCHORS,
        image_size=640,
        parameters=52_921_437,
        multiply_adds=60_119_859_200,
        activations=100_343_600,
        paper=_SCALED_PAPER,
        decode="yolov5",
        scale_xy=(2.0, 2.0, 2.0),
        loss="scaledyolov4",
        bn_eps=1e-5,
    ),
    ModelFacts(
        name="yolov4",
        family="yolov4",
        network="kubeyolo.models.yolov4",
        strides=(8, 16, 32),
        anchors=_YOLOV4_ANCHORS,
        image_size=608,
        parameters=64_363_101,
        multiply_adds=64_194_741_248,
        activations=114_403_427,
        paper=_YOLOV4_PAPER,
        decode="darknet",
        scale_xy=(1.2, 1.1, 1.05),
        loss="yolov4",
        loss_divisor=64.0,
        bn_eps=1e-5,
        sizes=YOLOV4_SIZES,
        published=(
            PublishedResult("MindSpore model zoo", "val", 416, 0.401, 0.607, 0.430),
            PublishedResult("MindSpore model zoo", "test-dev", 416, 0.403),
            PublishedResult("darknet", "test-dev", 416, 0.412),
            PublishedResult("darknet", "test-dev", 608, 0.435),
        ),
    ),
)
