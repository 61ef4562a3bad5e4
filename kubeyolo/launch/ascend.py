"""What schedulers and nodes of Ascend clusters require of pods: counts of cards, mounts of the driver, paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kubeyolo.errors import InputError
from kubeyolo.estimate.devices import DeviceKind

CARDS = "huawei.com/Ascend910"
"""Resource of MindCluster's device plugin for the cards 910, 910B and A3; a unit of A3 is a die."""

SCHEDULE_POLICY = "huawei.com/schedule_policy"
"""Annotation from which MindCluster's scheduler learns the kind of server."""

SUPER_POD_BLOCK = "sp-block"
"""Annotation of a job for super pods: for a job of one pod its cards, otherwise a multiple of the cards of a server."""

SERVER_SELECTOR = "accelerator-type"
"""Label in the node selector from which older schedulers learn the kind of server."""

RANK_TABLE_LABEL = "ring-controller.atlas"
"""Label of a job, its pods and its rank table, with the family of the cards."""

DRIVER_MOUNTS: Mapping[str, str] = {
    "/usr/local/Ascend/driver/lib64": "Directory",
    "/usr/local/Ascend/driver/version.info": "File",
    "/usr/local/dcmi": "Directory",
    "/usr/local/bin/npu-smi": "File",
    "/etc/ascend_install.info": "File",
}
"""What a pod needs of the driver of its host where no container runtime of Ascend mounts it: path and kind."""

WORK_PATHS: Mapping[str, str] = {"ASCEND_WORK_PATH": "/tmp/ascend/work", "ASCEND_CACHE_PATH": "/tmp/ascend/cache"}
"""Environment variables with the folders into which CANN writes; the root file system of a pod is read only."""

_NO_MINDSPORE = "huawei.com/Ascend310"
_EVEN = tuple(range(2, 17, 2))


@dataclass(frozen=True)
class Server:
    """A kind of server, and the counts of cards with which its scheduler accepts a pod.

    Attributes:
        name: Name for messages.
        single: Counts of a job of one pod.
        several: Counts of each pod of a job of several pods.
        device: Kind of device whose facts estimates use; a die of A3 is taken for a 910B.
    """

    name: str
    single: tuple[int, ...]
    several: tuple[int, ...]
    device: DeviceKind = "Ascend910B"


_A2_OF_8 = tuple(range(1, 9))
_A2_OF_16 = (*range(1, 9), 10, 12, 14, 16)

SERVERS: Mapping[str, Server] = {
    "chip8-node8": Server("servers with 8 cards 910B", _A2_OF_8, _A2_OF_8),
    "chip8-node16": Server("servers with 16 cards 910B", _A2_OF_16, _A2_OF_16),
    "chip2-node16": Server("A3 servers", (1, *_EVEN), _EVEN),
    "chip2-node16-sp": Server("A3 super pods", (1, *_EVEN), (16,)),
    "chip4-node8": Server("servers with 8 cards 910A", (1, 2, 4, 8), (1, 2, 4, 8), "Ascend910"),
}
"""Kinds of servers by the value of the annotation; for other values the scheduler alone knows the counts."""

_SELECTED: Mapping[str, str] = {
    "module": "chip4-node8",
    "module-910b-8": "chip8-node8",
    "module-910b-16": "chip8-node16",
    "module-a3-16": "chip2-node16",
    "module-a3-16-super-pod": "chip2-node16-sp",
}
"""Annotation that corresponds to each value of the older selector."""


def check_resource(resource: str) -> None:
    """Refuse cards on which MindSpore does not run.

    Raises:
        InputError: The cards are of the family 310.
    """
    if resource.startswith(_NO_MINDSPORE):
        raise InputError(
            f"device_resource = {resource!r}: MindSpore neither trains nor evaluates on these cards; evaluate and "
            "export on processors or on 910B, and run the exported ONNX there as .om (atc), or the MINDIR with "
            "MindSpore Lite"
        )


def schedule_policy(annotations: Mapping[str, str], node_selector: Mapping[str, str]) -> str:
    """Return the kind of server for which the scheduler takes a pod with cards; empty for an unknown older value."""
    policy = annotations.get(SCHEDULE_POLICY, "")
    if policy or SERVER_SELECTOR not in node_selector:
        return policy or "chip4-node8"
    return _SELECTED.get(node_selector[SERVER_SELECTOR], "")


def device_kind(policy: str) -> DeviceKind:
    """Return the kind of device of a server, for estimates; 910 if the scheduler alone knows the server."""
    return SERVERS[policy].device if policy in SERVERS else "Ascend910"


def check_cards(policy: str, pods: int, cards: int, block: str) -> None:
    """Refuse pods that the scheduler refuses only after their submission.

    Args:
        policy: Kind of server; see :func:`schedule_policy`.
        pods: Number of pods; 0 if it is not known yet.
        cards: Cards of each pod.
        block: Value of the annotation ``sp-block``.

    Raises:
        InputError: Names the setting, its value and the values that are allowed.
    """
    server = SERVERS.get(policy)
    if server is None:
        return
    allowed = server.several if pods > 1 else server.single
    if cards not in allowed:
        of = f"pods of a job of {pods} pods" if pods > 1 else "a pod"
        raise InputError(
            f"devices_per_node = {cards}: on {server.name} ({SCHEDULE_POLICY} = {policy}) {of} may have "
            f"{', '.join(map(str, allowed))} cards"
        )
    if policy.endswith("-sp") and pods > 1 and (not re.fullmatch("[1-9][0-9]{0,8}", block) or int(block) % cards):
        raise InputError(
            f"annotations: {SUPER_POD_BLOCK} = {block[:40]!r}: a job of {pods} pods on {server.name} needs a multiple "
            f"of {cards}"
        )
