"""The cells of our networks for the numbered layers of other programs: one map for each family.

A darknet cfg file also numbers shortcuts, routes, pools and outputs; the maps leave them out.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubeyolo.models.darknet_facts import DARKNET53_DEPTHS
from kubeyolo.models.facts import ModelFacts

Layers = dict[int, str]
"""Cells of our network by layer number."""

_YOLOV5: Layers = {
    0: "backbone.stem",
    1: "backbone.down2",
    2: "backbone.stage2",
    3: "backbone.down3",
    4: "backbone.stage3",
    5: "backbone.down4",
    6: "backbone.stage4",
    7: "backbone.down5",
    8: "backbone.stage5",
    9: "backbone.pool",
    10: "neck.reduce5",
    13: "neck.top4",
    14: "neck.reduce4",
    17: "neck.top3",
    18: "neck.down3",
    20: "neck.bottom4",
    21: "neck.down4",
    23: "neck.bottom5",
    24: "head",
}


def yolov5_layers(facts: ModelFacts) -> Layers:
    """Return the layers of the YOLOv5 program."""
    layers = dict(_YOLOV5)
    if facts.shape["focus"]:
        layers[8], layers[9] = layers[9], layers[8]
    return layers


def scaledyolov4_layers(facts: ModelFacts) -> Layers:
    """Return the layers of the Scaled-YOLOv4 program for P5, P6 and P7."""
    levels = len(facts.strides)
    layers: Layers = {0: "backbone.stem"}
    for stage in range(levels + 2):
        layers |= {1 + 2 * stage: f"backbone.down.{stage}", 2 + 2 * stage: f"backbone.stage.{stage}"}
    number = 2 * levels + 5
    layers[number] = "neck.pool"
    for level in reversed(range(levels - 1)):
        layers |= {
            number + 1: f"neck.reduce.{level}",
            number + 3: f"neck.lateral.{level}",
            number + 5: f"neck.top.{level}",
        }
        number += 5
    layers[number + 1] = "neck.out.0"
    number += 1
    for level in range(levels - 1):
        layers |= {
            number + 1: f"neck.down.{level}",
            number + 3: f"neck.bottom.{level}",
            number + 4: f"neck.out.{level + 1}",
        }
        number += 4
    layers[number + 1] = "head"
    return layers


def yolov3_layers(_facts: ModelFacts) -> Layers:
    """Return the layers of ``yolov3.cfg``."""
    layers: Layers = {0: "backbone.stem"}
    number = 1
    for stage, depth in enumerate(DARKNET53_DEPTHS):
        layers[number] = f"backbone.down.{stage}"
        layers |= _residuals(f"backbone.stage.{stage}", depth, number + 1)
        number += 1 + 3 * depth
    for level, first in ((5, 75), (4, 87), (3, 99)):
        layers |= _row(f"neck.top{level}", range(first, first + 5))
        layers |= {first + 5: f"neck.out{level}", first + 6: f"head.m.{level - 3}"}
    return layers | {84: "neck.reduce5", 96: "neck.reduce4"}


def yolov4_layers(_facts: ModelFacts) -> Layers:
    """Return the layers of ``yolov4.cfg``."""
    layers: Layers = {0: "backbone.stem"}
    number = 1
    for stage, depth in enumerate(DARKNET53_DEPTHS):
        layers |= _csp_stage(f"backbone.stage.{stage}", depth, number)
        number += 3 * depth + 7
    layers |= _row("neck.before_pool", range(105, 108)) | _row("neck.after_pool", range(114, 117))
    layers |= {117: "neck.reduce5", 120: "neck.lateral4", 127: "neck.reduce4", 130: "neck.lateral3"}
    layers |= _row("neck.top4", range(122, 127)) | _row("neck.top3", range(132, 137))
    layers |= {137: "neck.out3", 138: "head.m.0", 141: "neck.down3"}
    layers |= _row("neck.bottom4", range(143, 148)) | {148: "neck.out4", 149: "head.m.1", 152: "neck.down4"}
    return layers | _row("neck.bottom5", range(154, 159)) | {159: "neck.out5", 160: "head.m.2"}


def yolov4_tiny_layers(_facts: ModelFacts) -> Layers:
    """Return the layers of ``yolov4-tiny.cfg``, which has the coarse level first."""
    layers: Layers = {0: "backbone.stem", 1: "backbone.down"}
    for stage, first in ((1, 2), (2, 10), (3, 18)):
        cells = {0: "cv1", 2: "cv2", 3: "cv3", 5: "fuse"}
        layers |= {first + step: f"backbone.stage{stage}.{cell}" for step, cell in cells.items()}
    layers |= {26: "backbone.last", 27: "neck.top5", 28: "neck.out5", 29: "head.m.1"}
    return layers | {32: "neck.reduce5", 35: "neck.out4", 36: "head.m.0"}


def yolov4_csp_layers(_facts: ModelFacts) -> Layers:
    """Return the layers of ``yolov4-csp.cfg``."""
    layers: Layers = {0: "backbone.stem", 1: "backbone.down"}
    layers |= {2: "backbone.residual.cv1", 3: "backbone.residual.cv2"}
    number = 5
    for stage, depth in enumerate(DARKNET53_DEPTHS[1:]):
        layers |= _csp_stage(f"backbone.stage.{stage}", depth, number)
        number += 3 * depth + 7
    layers |= {99: "neck.pyramid.route", 113: "neck.pyramid.fuse"}
    layers |= _row("neck.pyramid.before", range(101, 104)) | _row("neck.pyramid.after", range(110, 112))
    layers |= {114: "neck.reduce5", 117: "neck.lateral4", 128: "neck.reduce4", 131: "neck.lateral3"}
    for block, first in (("top4", 119), ("top3", 133), ("bottom4", 148), ("bottom5", 163)):
        layers |= {first: f"neck.{block}.reduce", first + 1: f"neck.{block}.route", first + 8: f"neck.{block}.fuse"}
        layers |= _row(f"neck.{block}.main", range(first + 3, first + 7))
    layers |= {142: "neck.out3", 143: "head.m.0", 146: "neck.down3"}
    return layers | {157: "neck.out4", 158: "head.m.1", 161: "neck.down4", 172: "neck.out5", 173: "head.m.2"}


def _row(place: str, numbers: Sequence[int]) -> Layers:
    """Number the cells of a sequence."""
    return {number: f"{place}.{cell}" for cell, number in enumerate(numbers)}


def _residuals(place: str, depth: int, first: int) -> Layers:
    """Number the convolutions of residual blocks; each block is two convolutions and a shortcut layer."""
    pairs = [(residual, cell) for residual in range(depth) for cell in (0, 1)]
    return {first + 3 * residual + cell: f"{place}.{residual}.cv{cell + 1}" for residual, cell in pairs}


def _csp_stage(place: str, depth: int, first: int) -> Layers:
    """Number a CSP stage: down, one branch, a route back, the other branch, the route that joins them."""
    layers: Layers = {first: f"{place}.down", first + 1: f"{place}.route", first + 3: f"{place}.main"}
    layers |= _residuals(f"{place}.m", depth, first + 4)
    tail = first + 4 + 3 * depth
    return layers | {tail: f"{place}.tail", tail + 2: f"{place}.fuse"}
