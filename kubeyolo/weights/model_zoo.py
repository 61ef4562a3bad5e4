"""Backbones of the MindSpore model zoo: the names of their parameters, and their normalized input.

The zoo's YOLOv3, YOLOv4 and YOLOv5 have the same backbones as ours, with two differences: their images are normalized
by the mean and standard deviation of ImageNet, and YOLOv3 and YOLOv4 pad convolutions of stride 2 on the bottom and
right only. The first difference is moved into the weights here. The second shifts the input of layers by a fraction of
a pixel: training can continue from such a backbone, but a whole detector would detect different boxes. The zoo's YOLOv5
also decodes boxes differently. So whole detectors of the zoo are not imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from kubeyolo.models.darknet_facts import DARKNET53_DEPTHS
from kubeyolo.models.facts import ModelFacts
from kubeyolo.weights.fit import NamedArray
from kubeyolo.weights.stored_array import as_float32

ZOO = "mindspore model zoo"
"""Name of the layout."""

# For images in 0..1: red, green and blue.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
# The names in a file of a whole detector, of a training's loss cell, of a classifier, or of the backbone alone.
_BACKBONE = re.compile(r"(?:\w+\.)*?backbone\.(.+)")
_STEM = "backbone.stem."

Places = dict[str, str]
"""Cells of our backbone by the cells of the zoo's backbone."""


def _yolov3_places() -> Places:
    places = {"conv0": "stem"}
    for stage in range(len(DARKNET53_DEPTHS)):
        places |= {f"conv{stage + 1}": f"down.{stage}", f"layer{stage + 1}": f"stage.{stage}"}
    return places


def _yolov4_places() -> Places:
    # The first stage has one residual, whose convolutions are numbered with the others.
    first_stage = ("down", "main", "m.0.cv1", "m.0.cv2", "tail", "route", "fuse")
    places = {"conv0": "stem"}
    places |= {f"conv{number}": f"stage.0.{cell}" for number, cell in enumerate(first_stage, 1)}
    for stage in range(1, len(DARKNET53_DEPTHS)):
        first = 3 + 5 * stage
        for step, cell in enumerate(("down", "main", "tail", "route", "fuse")):
            places[f"conv{first + step}"] = f"stage.{stage}.{cell}"
        places[f"layer{stage + 1}"] = f"stage.{stage}.m"
    return places


def _yolov5_places() -> Places:
    places = {"focus": "stem", "spp": "pool"}
    for stage in range(1, 5):
        places |= {f"conv{stage}": f"down{stage + 1}", f"CSP{stage}": f"stage{stage + 1}"}
    return places


_PLACES = {"yolov3": _yolov3_places(), "yolov4": _yolov4_places(), "yolov5": _yolov5_places()}
"""Places by family."""


def is_in_zoo(facts: ModelFacts) -> bool:
    """Tell whether the zoo has the backbone of a model."""
    return facts.family in _PLACES


def from_zoo(name: str, facts: ModelFacts) -> str:
    """Translate ``feature_map.backbone.conv0.1.gamma`` to ``backbone.stem.bn.gamma``.

    Returns:
        Our name; the unchanged name if it is not a name in the zoo's backbone.
    """
    found = _BACKBONE.fullmatch(name)
    if found is None:
        return name
    cell, _, rest = found[1].partition(".")
    place = _PLACES[facts.family].get(cell)
    if place is None:
        return name
    # Convolution and batch normalization are numbered in YOLOv3 and YOLOv4, and have names in YOLOv5.
    rest = re.sub(r"(^|\.)conv(\d)\.", r"\1cv\2.", rest)
    rest = re.sub(r"(^|\.)0\.(weight)$", r"\1conv.\2", rest)
    rest = re.sub(r"(^|\.)1\.(gamma|beta|moving_mean|moving_variance)$", r"\1bn.\2", rest)
    return f"backbone.{place}.{rest}"


def take_in_normalization(arrays: Mapping[str, NamedArray]) -> dict[str, NamedArray]:
    """Return the arrays of a zoo's backbone, with the first convolution changed to take images in 0..1.

    With weights w, mean m and standard deviation d of a colour, w·(x − m)/d = (w/d)·x − (w/d)·m. The weights become
    w/d, and (w/d)·m is added to the mean of the batch normalization. At the border, where zeros are padded, the results
    differ.
    """
    changed = dict(arrays)
    kernel = next((name for name in arrays if name.startswith(_STEM) and name.endswith("conv.weight")), "")
    mean = next((name for name in arrays if name.startswith(_STEM) and name.endswith("moving_mean")), "")
    if not kernel or not mean:
        return changed
    weights = as_float32(arrays[kernel].array).astype(np.float64)
    # The four pixels that a Focus stem stacks have three colours each.
    colour = np.arange(weights.shape[1]) % 3
    weights /= np.asarray(_DEVIATION)[colour][:, None, None]
    shift = (weights * np.asarray(_MEAN)[colour][:, None, None]).sum((1, 2, 3))
    means = as_float32(arrays[mean].array) + shift
    changed[kernel] = NamedArray(arrays[kernel].name, weights.astype(np.float32))
    changed[mean] = NamedArray(arrays[mean].name, means.astype(np.float32))
    return changed
