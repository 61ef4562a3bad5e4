"""Why a job waits: its queue, its place in it, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from kubeyolo.errors import InputError, one_line, suggest
from kubeyolo.launch.cluster import Cluster, Document
from kubeyolo.launch.pods import PodFacts
from kubeyolo.launch.settings import ClusterSettings

_WAITING = frozenset({"Pending", "Inqueue"})


def check_queue(cluster: Cluster, name: str) -> None:
    """Refuse a queue that is not there, or takes no jobs: a job would wait in it for ever.

    Raises:
        InputError: Names the queue, and the nearest that there is.
    """
    queue = cluster.queue(name)
    if queue is None:
        known = [each["metadata"]["name"] for each in cluster.queues()]
        raise InputError(f"queue {name!r} is not on this cluster{suggest(name, known) if known else ''}")
    state = queue.get("status", {}).get("state", "")
    if state in ("Closed", "Closing"):
        raise InputError(f"queue {name!r} is {state.lower()}: it takes no jobs; open it, or choose another one")


def queue_report(cluster: Cluster, job: Document, pods: Sequence[PodFacts], settings: ClusterSettings) -> str:
    """Return in one line what a job has asked of its queue, its place among the waiting, and what is missing."""
    spec = job["spec"]
    replicas = spec["tasks"][0]["replicas"]
    requests = spec["tasks"][0]["template"]["spec"]["containers"][0]["resources"]["requests"]
    asked = ", ".join(f"{value} {name}" for name, value in requests.items())
    parts = [f"queue {settings.queue}, {replicas} pods of {asked} each"]
    groups = cluster.pod_groups()
    uid = job["metadata"]["uid"]
    own = next((group for group in groups if uid in _owners(group)), None)
    if own is None:
        return f"{parts[0]}; not yet seen by Volcano"
    if own.get("status", {}).get("phase") in _WAITING:
        created = own["metadata"]["creationTimestamp"]
        before = sum(
            group["spec"].get("queue") == settings.queue
            and group.get("status", {}).get("phase") in _WAITING
            and group["metadata"]["creationTimestamp"] < created
            for group in groups
        )
        parts.append(f"position {before + 1}")
    placed = sum(bool(facts.node) for facts in pods)
    parts.append(f"{placed} of {replicas} pods placed")
    missing = _missing(own, pods)
    return "; ".join([*parts, missing] if missing else parts)


def _owners(group: Document) -> set[str]:
    return {owner["uid"] for owner in group["metadata"].get("ownerReferences", ())}


def _missing(group: Document, pods: Sequence[PodFacts]) -> str:
    """Return what the scheduler says that is missing: of a pod, which is nearer to the point, or of the gang."""
    waiting = next((facts.waiting for facts in pods if facts.waiting), "")
    conditions = group.get("status", {}).get("conditions", ())
    said = [each for each in conditions if each.get("type") == "Unschedulable" and each.get("status") == "True"]
    gang = one_line(said[-1].get("message", "")) if said else ""
    return " / ".join(dict.fromkeys(part for part in (gang, waiting) if part))
