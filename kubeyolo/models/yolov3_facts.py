"""Facts of YOLOv3, and of the network that is quantized while it trains (ReLU in its backbone)."""

from __future__ import annotations

from types import MappingProxyType

from kubeyolo.models.facts import Anchors, ModelFacts, PublishedResult

_ANCHORS: Anchors = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
_QUANT_PUBLISHED = (PublishedResult("MindSpore model zoo, int8, COCO 2014", "val", 416, 0.310, 0.531, 0.322),)


def _yolov3(
    name: str, relu_backbone: bool, loss_divisor: float, published: tuple[PublishedResult, ...] = ()
) -> ModelFacts:
    return ModelFacts(
        name=name,
        family="yolov3",
        network="kubeyolo.models.yolov3",
        strides=(8, 16, 32),
        anchors=_ANCHORS,
        image_size=416,
        parameters=61_949_149,
        multiply_adds=32_932_037_632,
        paper="https://arxiv.org/abs/1804.02767",
        decode="darknet",
        scale_xy=(1.0, 1.0, 1.0),
        loss="yolov3",
        loss_divisor=loss_divisor,
        bn_eps=1e-5,
        published=published,
        shape=MappingProxyType({"relu_backbone": int(relu_backbone)}),
    )


FACTS: tuple[ModelFacts, ...] = (
    _yolov3("yolov3", relu_backbone=False, loss_divisor=1.0),
    _yolov3("yolov3-quant", relu_backbone=True, loss_divisor=1024.0, published=_QUANT_PUBLISHED),
)
