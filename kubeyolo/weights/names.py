"""Translates the names that parameters have in other programs to our names, and back.

Other programs number the layers of a network and name the parameters within a layer. A layout is the naming
scheme of such a program; for each family it needs only a map from layer numbers to the cells of our network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, get_args

from kubeyolo.errors import InputError, check_known
from kubeyolo.models.facts import ModelFacts
from kubeyolo.weights import layers

Layout = Literal["yolov5", "scaledyolov4", "darknet"]
"""Names such as ``model.2.cv1.conv.weight`` in the two PyTorch programs, ``layer002.conv.weight`` for a cfg file."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_BATCH_NORM_BACK = {ours: theirs for theirs, ours in _BATCH_NORM.items()}
_NOT_WEIGHTS = ("num_batches_tracked", "anchors", "anchor_grid", "global_step", "learning_rate", "momentum")
_OPTIMIZER = re.compile(r"(moments|moment1|moment2|accum|stat|exp_avg|exp_avg_sq)\.")
_CFG_LAYER = re.compile(r"layer(\d{3})\.(conv|bn)\.(\w+)")
_CFG_MODULE = re.compile(r"module_list\.(\d+)\.(Conv2d|BatchNorm2d)\.(\w+)")
_OUTPUT_CONVOLUTION = re.compile(r"head\.m\.\d+")


# For each family of :class:`ModelFacts` and each layout that its weights are published in: number of a layer -> cell.
# In the layout "darknet" the cell is that of a convolution with its batch normalization, or ``head.m.<level>``.
_LAYERS: Mapping[tuple[str, str], Callable[[ModelFacts], Mapping[int, str]]] = {
    ("yolov5", "yolov5"): layers.yolov5_layers,
    ("yolov5-r7", "yolov5"): layers.yolov5_layers,
    ("scaledyolov4", "scaledyolov4"): layers.scaledyolov4_layers,
    ("yolov3", "darknet"): layers.yolov3_layers,
    ("yolov4", "darknet"): layers.yolov4_layers,
    ("yolov4-tiny", "darknet"): layers.yolov4_tiny_layers,
    ("yolov4-csp", "darknet"): layers.yolov4_csp_layers,
}


def layouts_of(facts: ModelFacts) -> tuple[Layout, ...]:
    """Return the layouts in which weights of a model are published."""
    return tuple(layout for layout in LAYOUTS if (facts.family, layout) in _LAYERS)


def layers_of(facts: ModelFacts, layout: str) -> Mapping[int, str]:
    """Return the cell of our network for each numbered layer of another program.

    Raises:
        InputError: There is no such layout, or no weights of the model are published in it.
    """
    check_known("weight layout", layout, LAYOUTS)
    layers_in = _LAYERS.get((facts.family, layout))
    if layers_in is None:
        has = ", ".join(layouts_of(facts)) or "none"
        raise InputError(f"model {facts.name!r} has no weights in layout {layout!r}; it has: {has}")
    return layers_in(facts)


def from_layout(name: str, facts: ModelFacts, layout: str) -> str | None:
    """Translate ``model.2.cv1.bn.weight`` to ``backbone.stage2.cv1.bn.gamma``.

    Returns:
        Our name; the unchanged name if it does not belong to this layout; None for buffers that are not weights.
    """
    places = layers_of(facts, layout)
    if not is_weight(name):
        return None
    if layout == "darknet":
        return _from_darknet(name, places)
    words = name.split(".")
    if len(words) < 3 or words[0] != "model" or not words[1].isdecimal() or int(words[1]) not in places:
        return name
    if words[-2] == "bn":
        words[-1] = _BATCH_NORM.get(words[-1], words[-1])
    return ".".join([places[int(words[1])], *words[2:]])


def to_layout(ours: str, facts: ModelFacts, layout: str) -> str:
    """Translate ``backbone.stage2.cv1.bn.gamma`` to ``model.2.cv1.bn.weight``: the reverse of :func:`from_layout`.

    Returns:
        The name in the layout; the unchanged name if it belongs to none of the layers.
    """
    found = [(place, number) for number, place in layers_of(facts, layout).items() if ours.startswith(f"{place}.")]
    if not found:
        return ours
    place, number = max(found, key=lambda pair: len(pair[0]))
    rest = ours.removeprefix(f"{place}.").split(".")
    if len(rest) >= 2 and rest[-2] == "bn":
        rest[-1] = _BATCH_NORM_BACK.get(rest[-1], rest[-1])
    if layout == "darknet":
        return ".".join([f"layer{number:03d}", *(["conv"] if _OUTPUT_CONVOLUTION.fullmatch(place) else []), *rest])
    return ".".join(["model", str(number), *rest])


def is_weight(name: str) -> bool:
    """Tell whether a name belongs to a weight, and not to a counter, to anchors, or to the optimizer's state."""
    return name.rsplit(".", 1)[-1] not in _NOT_WEIGHTS and _OPTIMIZER.match(name) is None


def _from_darknet(name: str, places: Mapping[int, str]) -> str:
    """Translate a name of a cfg layer, as darknet or a PyTorch program that reads cfg files writes it."""
    if match := _CFG_MODULE.fullmatch(name):
        number, kind, leaf = int(match[1]), "bn" if match[2] == "BatchNorm2d" else "conv", match[3]
    elif match := _CFG_LAYER.fullmatch(name):
        number, kind, leaf = int(match[1]), match[2], match[3]
    else:
        return name
    if number not in places:
        return name
    if _OUTPUT_CONVOLUTION.fullmatch(places[number]):
        return f"{places[number]}.{leaf}" if kind == "conv" else name
    return f"{places[number]}.{kind}.{_BATCH_NORM.get(leaf, leaf) if kind == 'bn' else leaf}"
