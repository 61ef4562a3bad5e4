"""Facts of the YOLOv5 detectors: release 5.0 (Focus stem) and release 7 (6x6 stem, names ending in -r7)."""

from __future__ import annotations

from types import MappingProxyType

from kubeyolo.models.facts import Anchors, ModelFacts, PublishedResult

_ANCHORS: Anchors = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
_STRIDES = (8, 16, 32)
NETWORK = "kubeyolo.models.yolov5"
_PAPER = "https://github.com/ultralytics/yolov5"
_MULTIPLES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
_FOCUS_PARAMETERS = {"s": 7_276_605, "m": 21_375_645, "l": 47_056_765, "x": 87_775_965}
_R7_PARAMETERS = {"n": 1_872_157, "s": 7_235_389, "m": 21_190_557, "l": 46_563_709, "x": 86_749_405}
_FOCUS_MULTIPLY_ADDS = {"s": 8_478_924_800, "m": 25_615_872_000, "l": 57_642_598_400, "x": 109_277_696_000}
_R7_MULTIPLY_ADDS = {
    "n": 2_234_060_800,
    "s": 8_216_780_800,
    "m": 24_436_224_000,
    "l": 54_496_870_400,
    "x": 102_724_096_000,
}
_R7_AP = {"n": 0.280, "s": 0.374, "m": 0.454, "l": 0.490, "x": 0.507}
_FOCUS_PUBLISHED = {"s": PublishedResult("MindSpore model zoo", "val", 640, 0.369, 0.573, 0.395)}


def _focus(letter: str) -> ModelFacts:
    depth, width = _MULTIPLES[letter]
    return ModelFacts(
        name=f"yolov5{letter}",
        family="yolov5",
        network=NETWORK,
        strides=_STRIDES,
        anchors=_ANCHORS,
        image_size=640,
        parameters=_FOCUS_PARAMETERS[letter],
        multiply_adds=_FOCUS_MULTIPLY_ADDS[letter],
        paper=_PAPER,
        scale_xy=(2.0, 2.0, 2.0),
        class_prior_offset=0.99,
        published=(_FOCUS_PUBLISHED[letter],) if letter in _FOCUS_PUBLISHED else (),
        shape=MappingProxyType({"depth": depth, "width": width, "focus": 1}),
    )


def _release7(letter: str) -> ModelFacts:
    depth, width = _MULTIPLES[letter]
    return ModelFacts(
        name=f"yolov5{letter}-r7",
        family="yolov5-r7",
        network=NETWORK,
        strides=_STRIDES,
        anchors=_ANCHORS,
        image_size=640,
        parameters=_R7_PARAMETERS[letter],
        multiply_adds=_R7_MULTIPLY_ADDS[letter],
        paper=_PAPER,
        scale_xy=(2.0, 2.0, 2.0),
        class_prior_offset=0.99999,
        published=(PublishedResult("YOLOv5 release 7", "val", 640, _R7_AP[letter]),),
        shape=MappingProxyType({"depth": depth, "width": width, "focus": 0}),
    )


FACTS: tuple[ModelFacts, ...] = (
    *(_release7(letter) for letter in _R7_PARAMETERS),
    *(_focus(letter) for letter in _FOCUS_PARAMETERS),
)
