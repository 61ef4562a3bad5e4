"""The rank table of a job: MindCluster's operator writes which card of which server is which rank."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kubeyolo.documents import NotJson, read_json
from kubeyolo.errors import WorkError, one_line
from kubeyolo.launch.rendezvous import Rendezvous
from kubeyolo.regular_files import DOCUMENT_SIZE, read_regular

RANK_TABLE_FILE = "RANK_TABLE_FILE"
"""Environment variable with the path of the rank table; without it the processes find each other by themselves."""

TABLE_FOLDER = "/user/serverid/devindex/config"
"""Folder of a pod with the ConfigMap of the rank table."""

_COMPLETED = "completed"
_NUMBER = re.compile("0|[1-9][0-9]{0,8}")
"""Numbers of ranks and devices as the operator writes them; Python reads other digits and spellings too."""

_LONGEST = 200
_POLL_SECONDS = 1.0


def initial_table() -> dict[str, str]:
    """Return the data of the ConfigMap that the operator completes."""
    return {"hccl.json": json.dumps({"status": "initializing"})}


def wait_for_rank_table(rendezvous: Rendezvous, poll: float = _POLL_SECONDS) -> None:
    """Wait until the rank table is complete, and check it; do nothing if this pod has none.

    A table of an earlier attempt of the gang is waited out: it does not name the address of this pod.

    Raises:
        WorkError: The table is not complete within the limit of the rendezvous, or does not fit the job.
    """
    name = os.environ.get(RANK_TABLE_FILE, "")
    if not name:
        return
    path, end = Path(name), time.monotonic() + rendezvous.limit
    while True:
        table, reason = _read(path)
        if table is not None:
            reason = _staleness(table, rendezvous)
            if not reason:
                check_rank_table(path, table, rendezvous)
                return
        if time.monotonic() >= end:
            raise WorkError(
                f"rank table {path}: {reason} after {rendezvous.limit:.0f} s (rendezvous_limit); check that "
                "MindCluster's ascend-operator runs, or set rank_table = false in the cluster settings"
            )
        time.sleep(poll)


def check_rank_table(path: Path, table: dict[str, Any], rendezvous: Rendezvous) -> None:
    """Check that a complete table has a card for each rank of the job.

    Args:
        path: Path of the table, for the message.
        table: The table.
        rendezvous: The number of pods and processes.

    Raises:
        WorkError: Names the entry that does not fit.
    """
    try:
        problem = _problem(table, rendezvous)
    except RecursionError:
        problem = "an entry is nested too deeply"
    if problem:
        raise WorkError(
            f"rank table {path}: {problem}; see the log of MindCluster's ascend-operator, or set rank_table = false "
            "in the cluster settings"
        )


def _read(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Return a table that is marked as complete, or None and why there is none yet."""
    try:
        table = read_json(read_regular(path, DOCUMENT_SIZE), str(path))
    except OSError as error:
        return None, f"cannot be read ({error.strerror})"
    except NotJson as error:
        return None, f"is {one_line(error.reason, 120)}"
    status = table.get("status") if isinstance(table, dict) else None
    return (table, "") if status == _COMPLETED else (None, f"has the status {_shown(status)}, not {_COMPLETED!r},")


def _shown(value: Any) -> str:
    """Return a value of the table for a message."""
    return one_line(repr(value) if isinstance(value, str | int | float | None) else type(value).__name__, _LONGEST)


def _listed(numbers: Iterable[str]) -> str:
    """Return numbers for a message."""
    return one_line(", ".join(numbers), _LONGEST)


def _staleness(table: dict[str, Any], rendezvous: Rendezvous) -> str:
    """Return why a table is of an earlier attempt; empty if it is not, or has no addresses of pods."""
    servers = table.get("server_list")
    named = (
        [each.get("container_ip") for each in servers if isinstance(each, dict)] if isinstance(servers, list) else []
    )
    if any(named) and rendezvous.address not in named:
        return f"does not have the address of this pod, {rendezvous.address},"
    return ""


def _problem(table: dict[str, Any], rendezvous: Rendezvous) -> str:
    """Return what is wrong with a table; empty if it fits."""
    servers = table.get("server_list")
    if not isinstance(servers, list) or not all(isinstance(server, dict) for server in servers):
        return f"server_list = {one_line(servers, 80)}: expected a list of servers"
    if str(table.get("server_count")) != str(len(servers)):
        return f"server_count = {_shown(table.get('server_count'))}, but server_list has {len(servers)} servers"
    if len(servers) != rendezvous.nodes:
        return f"server_list has {len(servers)} servers, but the job has {rendezvous.nodes} pods"
    ranks: list[str] = []
    for number, server in enumerate(servers):
        devices = server.get("device")
        if not isinstance(devices, list) or len(devices) != rendezvous.devices:
            count = len(devices) if isinstance(devices, list) else 0
            return f"server_list.{number} has {count} devices, but a pod has {rendezvous.devices}"
        for position, device in enumerate(devices):
            where = f"server_list.{number}.device.{position}"
            problem = _problem_of_device(device, rendezvous.nodes > 1)
            if problem:
                return f"{where}.{problem}"
            ranks.append(str(device["rank_id"]))
        ids = [str(device["device_id"]) for device in devices]
        if len(set(ids)) != len(ids):
            return f"server_list.{number} names a device twice: device_id = {_listed(ids)}"
    if sorted(ranks, key=int) != [str(rank) for rank in range(rendezvous.world)]:
        return f"rank_id = {_listed(ranks)}: expected each of 0 to {rendezvous.world - 1} once"
    return _problem_of_order(servers, rendezvous)


def _problem_of_order(servers: list[dict[str, Any]], rendezvous: Rendezvous) -> str:
    """Return whether this pod has other ranks in the table than its processes get."""
    first = rendezvous.node * rendezvous.devices
    own = [str(rank) for rank in range(first, first + rendezvous.devices)]
    for number, server in enumerate(servers):
        ranks = [str(device["rank_id"]) for device in server["device"]]
        if server.get("container_ip") == rendezvous.address and sorted(ranks, key=int) != own:
            return f"server_list.{number} has rank_id = {_listed(ranks)}, but this pod has {_listed(own)}"
    return ""


def _problem_of_device(device: Any, needs_address: bool) -> str:
    """Return which entry of a device is wrong; cards of one server alone need no address."""
    if not isinstance(device, dict):
        return f"device_id is missing: {one_line(device, 80)}"
    for key in ("device_id", "rank_id"):
        value = device.get(key)
        if type(value) not in (str, int) or not _NUMBER.fullmatch(str(value)):
            return f"{key} = {_shown(value)}: expected a number from 0"
    address = device.get("device_ip") or ""
    if address or needs_address:
        try:
            ipaddress.ip_address(str(address))
        except ValueError:
            return f"device_ip = {_shown(address)}: expected the IP address of the card"
    return ""
