"""Properties of the networks from two PyTorch programs: YOLOv5, and the large Scaled-YOLOv4 detectors P5, P6 and P7.

YOLOv5 has two forms: release 5.0 (Focus stem) and release 7 (6x6 stem, names that end in -r7).
"""

from __future__ import annotations

from types import MappingProxyType

from kubeyolo.models.darknet_facts import YOLOV3_ANCHORS
from kubeyolo.models.facts import Anchors, ModelFacts, PublishedResult

YOLOV5_NETWORK = "kubeyolo.models.yolov5"
_MULTIPLES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
"""Multiples of depth and width, by size."""
_ZOO_SIZES = tuple(range(320, 769, 32))
"""Sides in pixels of the images of a multi-scale training of release 5.0, of the MindSpore model zoo."""
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


def _yolov5(
    letter: str,
    focus: bool,
    parameters: int,
    multiply_adds: int,
    activations: int,
    published: PublishedResult | None = None,
) -> ModelFacts:
    depth, width = _MULTIPLES[letter]
    return ModelFacts(
        name=f"yolov5{letter}" if focus else f"yolov5{letter}-r7",
        family="yolov5" if focus else "yolov5-r7",
        network=YOLOV5_NETWORK,
        strides=(8, 16, 32),
        anchors=YOLOV3_ANCHORS,
        image_size=640,
        parameters=parameters,
        multiply_adds=multiply_adds,
        activations=activations,
        paper="https://github.com/ultralytics/yolov5",
        scale_xy=(2.0, 2.0, 2.0),
        class_prior_offset=0.99 if focus else 0.99999,
        published=() if published is None else (published,),
        sizes=_ZOO_SIZES if focus else (),
        shape=MappingProxyType({"depth": depth, "width": width, "focus": int(focus)}),
    )


def _release7(letter: str, parameters: int, multiply_adds: int, activations: int, ap: float) -> ModelFacts:
    published = PublishedResult("YOLOv5 release 7", "val", 640, ap)
    return _yolov5(letter, False, parameters, multiply_adds, activations, published)


def _scaledyolov4(
    name: str,
    anchors: Anchors,
    image_size: int,
    parameters: int,
    multiply_adds: int,
    activations: int,
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
        activations=activations,
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


YOLOV5_FACTS: tuple[ModelFacts, ...] = (
    _release7("n", 1_872_157, 2_234_060_800, 13_969_200, 0.280),
    _release7("s", 7_235_389, 8_216_780_800, 25_796_400, 0.374),
    _release7("m", 21_190_557, 24_436_224_000, 47_454_000, 0.454),
    _release7("l", 46_563_709, 54_496_870_400, 75_665_200, 0.490),
    _release7("x", 86_749_405, 102_724_096_000, 110_430_000, 0.507),
    _yolov5(
        "s",
        True,
        7_276_605,
        8_478_924_800,
        26_615_600,
        PublishedResult("MindSpore model zoo", "val", 640, 0.369, 0.573, 0.395),
    ),
    _yolov5("m", True, 21_375_645, 25_615_872_000, 49_911_600),
    _yolov5("l", True, 47_056_765, 57_642_598_400, 80_580_400),
    _yolov5("x", True, 87_775_965, 109_277_696_000, 118_622_000),
)

SCALEDYOLOV4_FACTS: tuple[ModelFacts, ...] = (
    _scaledyolov4(
        "yolov4-p5", _P5, 896, 70_834_012, 163_321_675_776, 273_537_600, width=1.0, val=0.512, test_dev=0.514
    ),
    _scaledyolov4(
        "yolov4-p6", _P6, 1280, 127_590_576, 358_509_772_800, 569_230_400, width=1.0, val=0.539, test_dev=0.543
    ),
    _scaledyolov4(
        "yolov4-p7", _P7, 1536, 287_575_580, 818_352_046_080, 1_025_386_560, width=1.25, val=0.550, test_dev=0.554
    ),
)
