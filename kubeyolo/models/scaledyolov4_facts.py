"""Facts of the large Scaled-YOLOv4 detectors P5, P6 and P7."""

from __future__ import annotations

from types import MappingProxyType

from kubeyolo.models.facts import Anchors, ModelFacts, PublishedResult

_P5: Anchors = (
    ((13.0, 17.0), (31.0, 25.0), (24.0, 51.0), (61.0, 45.0)),
    ((48.0, 102.0), (119.0, 96.0), (97.0, 189.0), (217.0, 184.0)),
    ((171.0, 384.0), (324.0, 451.0), (616.0, 618.0), (800.0, 800.0)),
)
_P6: Anchors = (
    ((13.0, 17.0), (31.0, 25.0), (24.0, 51.0), (61.0, 45.0)),
    ((61.0, 45.0), (48.0, 102.0), (119.0, 96.0), (97.0, 189.0)),
    ((97.0, 189.0), (217.0, 184.0), (171.0, 384.0), (324.0, 451.0)),
    ((324.0, 451.0), (545.0, 357.0), (616.0, 618.0), (1024.0, 1024.0)),
)
_P7: Anchors = (
    ((13.0, 17.0), (22.0, 25.0), (27.0, 66.0), (55.0, 41.0)),
    ((57.0, 88.0), (112.0, 69.0), (69.0, 177.0), (136.0, 138.0)),
    ((136.0, 138.0), (287.0, 114.0), (134.0, 275.0), (268.0, 248.0)),
    ((268.0, 248.0), (232.0, 504.0), (445.0, 416.0), (640.0, 640.0)),
    ((812.0, 393.0), (477.0, 808.0), (1070.0, 908.0), (1408.0, 1408.0)),
)


def _facts(
    name: str,
    anchors: Anchors,
    image_size: int,
    parameters: int,
    multiply_adds: int,
    width: float,
    val: float,
    test_dev: float,
) -> ModelFacts:
    strides = (8, 16, 32, 64, 128)[: len(anchors)]
    return ModelFacts(
        name=name,
        family="scaledyolov4",
        network="kubeyolo.models.scaledyolov4",
        strides=strides,
        anchors=anchors,
        image_size=image_size,
        parameters=parameters,
        multiply_adds=multiply_adds,
        paper="https://arxiv.org/abs/2011.08036",
        decode="yolov5",
        scale_xy=(2.0,) * len(strides),
        loss="scaledyolov4",
        bn_eps=1e-3,
        published=(
            PublishedResult("Scaled-YOLOv4", "val", image_size, val),
            PublishedResult("Scaled-YOLOv4", "test-dev", image_size, test_dev),
        ),
        shape=MappingProxyType({"width": width}),
    )


FACTS: tuple[ModelFacts, ...] = (
    _facts("yolov4-p5", _P5, 896, 70_834_012, 163_321_675_776, width=1.0, val=0.512, test_dev=0.514),
    _facts("yolov4-p6", _P6, 1280, 127_590_576, 358_509_772_800, width=1.0, val=0.539, test_dev=0.543),
    _facts("yolov4-p7", _P7, 1536, 287_575_580, 818_352_046_080, width=1.25, val=0.550, test_dev=0.554),
)
