"""Facts of YOLOv4, YOLOv4-tiny and YOLOv4-CSP: the networks of darknet's cfg files of these names."""

from __future__ import annotations

from kubeyolo.models.facts import Anchors, ModelFacts, PublishedResult

_ANCHORS: Anchors = (
    ((12.0, 16.0), (19.0, 36.0), (40.0, 28.0)),
    ((36.0, 75.0), (76.0, 55.0), (72.0, 146.0)),
    ((142.0, 110.0), (192.0, 243.0), (459.0, 401.0)),
)
# The cfg file has one more anchor, 10 x 14, that no level takes, and gives 81 x 82 to both levels.
_TINY_ANCHORS: Anchors = (
    ((23.0, 27.0), (37.0, 58.0), (81.0, 82.0)),
    ((81.0, 82.0), (135.0, 169.0), (344.0, 319.0)),
)
_YOLOV4_PAPER = "https://arxiv.org/abs/2004.10934"
_SCALED_PAPER = "https://arxiv.org/abs/2011.08036"

FACTS: tuple[ModelFacts, ...] = (
    ModelFacts(
        name="yolov4-tiny",
        family="yolov4-tiny",
        network="kubeyolo.models.yolov4_tiny",
        strides=(16, 32),
        anchors=_TINY_ANCHORS,
        image_size=416,
        parameters=6_056_606,
        multiply_adds=3_453_938_176,
        paper=_SCALED_PAPER,
        decode="darknet",
        scale_xy=(1.05, 1.05),
        loss="yolov4",
        loss_divisor=64.0,
        bn_eps=1e-5,
    ),
    ModelFacts(
        name="yolov4-csp",
        family="yolov4-csp",
        network="kubeyolo.models.yolov4_csp",
        strides=(8, 16, 32),
        anchors=_ANCHORS,
        image_size=640,
        parameters=52_921_437,
        multiply_adds=60_119_859_200,
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
        anchors=_ANCHORS,
        image_size=608,
        parameters=64_363_101,
        multiply_adds=64_194_741_248,
        paper=_YOLOV4_PAPER,
        decode="darknet",
        scale_xy=(1.2, 1.1, 1.05),
        loss="yolov4",
        loss_divisor=64.0,
        bn_eps=1e-5,
        published=(
            PublishedResult("MindSpore model zoo", "val", 416, 0.401, 0.607, 0.430),
            PublishedResult("MindSpore model zoo", "test-dev", 416, 0.403),
            PublishedResult("darknet", "test-dev", 416, 0.412),
            PublishedResult("darknet", "test-dev", 608, 0.435),
        ),
    ),
)
