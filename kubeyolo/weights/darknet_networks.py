"""The networks of darknet that are published as ``.weights``, recognized by their number of weights.

The file has no names and no shapes. Its number of weights is a base count plus a count for each class; no two common
combinations of a network and a number of classes have the same number of weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kubeyolo.errors import InputError
from kubeyolo.models.facts import ModelFacts
from kubeyolo.models.named_facts import model_names

_MOST_CLASSES = 2000


class DarknetNetwork(NamedTuple):
    """A network of darknet.

    Attributes:
        name: Name of its cfg file.
        base: Number of its weights without classes.
        each: Number of weights that each class adds.
        backbone: Name of its backbone.
    """

    name: str
    base: int
    each: int
    backbone: str


NETWORKS = (
    DarknetNetwork("yolov3", 61_570_957, 5385, "DarkNet53"),
    DarknetNetwork("yolov3-spp", 62_621_581, 5385, "DarkNet53"),
    DarknetNetwork("yolov3-tiny", 8_673_934, 2310, "that of YOLOv3-tiny"),
    DarknetNetwork("yolov4", 63_998_605, 5385, "CSPDarknet53"),
    DarknetNetwork("yolov4-tiny", 5_878_014, 2310, "that of YOLOv4-tiny"),
    DarknetNetwork("yolov4-csp", 52_555_405, 5385, "that of YOLOv4-CSP"),
    DarknetNetwork("yolov2", 50_573_561, 5125, "DarkNet19"),
    DarknetNetwork("yolov2-tiny", 11_031_945, 2565, "that of YOLOv2-tiny"),
)


def darknet_network(count: int) -> tuple[DarknetNetwork, int] | None:
    """Return the network with this number of weights, and its number of classes; None if there is no such network.

    80 and 20 classes, as in published weights, are preferred to other numbers of classes.
    """
    found = [
        (network, (count - network.base) // network.each)
        for network in NETWORKS
        if count > network.base and (count - network.base) % network.each == 0
    ]
    likely = [pair for pair in found if pair[1] <= _MOST_CLASSES]
    return min(likely, key=lambda pair: (pair[1] not in (80, 20), pair[1]), default=None)


def refuse_other_darknet(path: Path, count: int, facts: ModelFacts, backbone: bool) -> None:
    """Refuse a ``.weights`` file whose number of weights identifies a different published network.

    Args:
        path: The file.
        count: Number of weights in the file.
        facts: Facts of the requested model.
        backbone: Whether only the backbone is imported; several networks share a backbone.

    Raises:
        InputError: The file has a different network; the message names it, and the ``--model`` to give if there is one.
    """
    ours = next((network for network in NETWORKS if network.name == facts.family), None)
    found = darknet_network(count)
    if found is None or ours is None or found[0].name == ours.name:
        return
    other, classes = found
    fits_ours = count > ours.base and (count - ours.base) % ours.each == 0
    if (backbone and other.backbone == ours.backbone) or (not backbone and fits_ours):
        return
    remedy = f"give --model {other.name}" if other.name in model_names() else f"give weights of {facts.name}"
    raise InputError(
        f"{path}: has {count} weights, which fit {other.name} with {classes} classes; {facts.name} has "
        f"{ours.base + 80 * ours.each} weights with 80 classes; {remedy}"
    )
