"""Why a job waits: its queue, its position in it, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from kubeyolo.errors import InputError, one_line, suggest
from kubeyolo.launch.cluster import Cluster, Document
from kubeyolo.launch.pods import PodFacts

_WAITING = frozenset({"Pending", "Inqueue"})


def check_queue(cluster: Cluster, job: Mapping[str, Any]) -> None:
    """Refuse a job whose queue does not exist, accepts no jobs or is too small: the job would wait there forever.

    Args:
        cluster: Cluster of the queue.
        job: Manifest of the job.

    Raises:
        InputError: Names the queue and an existing queue with a similar name, or the resources that exceed the queue's
            capability.
    """
    name = job["spec"]["queue"]
    queue = cluster.queue(name)
    if queue is None:
        known = [each["metadata"]["name"] for each in cluster.queues()]
        raise InputError(f"queue {name!r} is not on this cluster{suggest(name, known) if known else ''}")
    state = queue.get("status", {}).get("state", "")
    if state in ("Closed", "Closing"):
        raise InputError(f"queue {name!r} is {state.lower()}: it accepts no jobs; open it, or choose a different queue")
    capability, asked = _capability(queue), _asked(job)
    beyond = [
        f"{_plain(amount)} {resource}, the queue's capability is {_plain(capability[resource])}"
        for resource, amount in asked.items()
        if resource in capability and amount > capability[resource]
    ]
    if beyond:
        raise InputError(
            f"queue {name!r} is too small for this job: {_request(job)} request {'; '.join(beyond)}; lower "
            "train.processes or the size of a pod, or raise the capability of the queue"
        )


def queue_report(cluster: Cluster, job: Document, pods: Sequence[PodFacts]) -> str:
    """Return in one line what a job requests, its position among the waiting jobs, and which resources are missing."""
    name, replicas = job["spec"]["queue"], job["spec"]["tasks"][0]["replicas"]
    parts = [f"queue {name}, {_request(job)}"]
    groups = cluster.pod_groups()
    uid = job["metadata"]["uid"]
    own = next((group for group in groups if uid in _owners(group)), None)
    if own is None:
        return f"{parts[0]}; not yet seen by Volcano"
    phase = own.get("status", {}).get("phase")
    if phase in _WAITING:
        created = own["metadata"]["creationTimestamp"]
        before = sum(
            group["spec"].get("queue") == name
            and group.get("status", {}).get("phase") in _WAITING
            and group["metadata"]["creationTimestamp"] < created
            for group in groups
        )
        parts.append(f"position {before + 1}")
    placed = sum(bool(facts.node) for facts in pods)
    parts.append(f"{placed} of {replicas} pods placed")
    missing = _missing(own, pods)
    # Only an event from the scheduler has the reason why a queue does not admit a job.
    if not missing and phase == "Pending":
        # Without the right to read events, the report lacks this part.
        with suppress(InputError):
            missing = " / ".join(filter(None, (_last_event(cluster, own), _in_use(cluster, job))))
    return "; ".join([*parts, missing] if missing else parts)


def _plain(amount: Decimal) -> str:
    """Return an amount of processors, devices or bytes as text: 3.8, 16Gi."""
    return f"{float(amount) / 2**30:.4g}Gi" if amount >= 2**20 else f"{float(amount):g}"


def _request(job: Mapping[str, Any]) -> str:
    """Describe what the pods of a job request."""
    asked = ", ".join(f"{value} {name}" for name, value in _each(job).items())
    return f"{job['spec']['tasks'][0]['replicas']} pods of {asked} each"


def _each(job: Mapping[str, Any]) -> Mapping[str, str]:
    requests: Mapping[str, str] = job["spec"]["tasks"][0]["template"]["spec"]["containers"][0]["resources"]["requests"]
    return requests


def _asked(job: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return the total request of the gang, by resource."""
    replicas = job["spec"]["tasks"][0]["replicas"]
    return {name: replicas * parse_quantity(value) for name, value in _each(job).items()}


def _capability(queue: Document) -> dict[str, Decimal]:
    """Return the capability of a queue by resource; a resource without an entry has no limit."""
    return {name: parse_quantity(value) for name, value in (queue["spec"].get("capability") or {}).items()}


def _in_use(cluster: Cluster, job: Document) -> str:
    """Return how much of the queue other jobs use, for resources of which too little is free for this job."""
    queue = cluster.queue(job["spec"]["queue"]) or {"spec": {}}
    allocated = queue.get("status", {}).get("allocated") or {}
    capability, parts = _capability(queue), []
    for name, amount in _asked(job).items():
        used = parse_quantity(allocated.get(name, 0))
        if name in capability and used + amount > capability[name]:
            parts.append(f"{_plain(used)} of {_plain(capability[name])} {name}")
    return f"in use: {', '.join(parts)}" if parts else ""


def _last_event(cluster: Cluster, group: Document) -> str:
    events = cluster.events("PodGroup", group["metadata"]["name"])
    last = max(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", default=None)
    return one_line(last.get("message", "")) if last else ""


def _owners(group: Document) -> set[str]:
    return {owner["uid"] for owner in group["metadata"].get("ownerReferences", ())}


def _missing(group: Document, pods: Sequence[PodFacts]) -> str:
    """Return what the scheduler reports as missing for the gang, and for a pod, which is more precise."""
    waiting = next((facts.waiting for facts in pods if facts.waiting), "")
    conditions = group.get("status", {}).get("conditions", ())
    messages = [each for each in conditions if each.get("type") == "Unschedulable" and each.get("status") == "True"]
    gang = one_line(messages[-1].get("message", "")) if messages else ""
    return " / ".join(dict.fromkeys(part for part in (gang, waiting) if part))
