"""Follows the pods of a job: their states as they change, and their logs as they are written.

When Volcano restarts a gang, it deletes the failed pods at once: states and lines that were not read before are lost.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from kubeyolo.errors import KubeyoloError, one_line
from kubeyolo.launch.cluster import Cluster, Document
from kubeyolo.launch.manifest import CONTAINER
from kubeyolo.output_streams import Show

LAST_LINES = 8

_WATCH_SECONDS = 60
_PAUSE_SECONDS = 1.0

# Reasons for which a container waits forever.
_HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull"})
# The kubelet tries again: the runtime may be busy, or the kubelet may not have seen a secret yet.
_TRIED_AGAIN = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_EVICTED = frozenset({"Evicted", "NodeShutdown", "Preempting", "Terminated"})
"""Reasons of the kubelet for ending a pod that has not failed."""

_ENDED_BY_VOLCANO = "volcano.sh/controller-out-of-sync"
"""Annotation of pods that Volcano's controller deletes itself, to restart or end a job."""

_OUT_OF_MEMORY = "OOMKilled"
_PULLING = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})


@dataclass
class PodFacts:
    """The state of a pod, as far as it was read.

    Attributes:
        name: Name of the pod.
        uid: Differs from the uid of an earlier pod of the same name.
        index: Number in the gang.
        attempt: Version of the job that the pod was created for.
        phase: Pending, Running, Succeeded, Failed.
        node: Node of the pod; empty before it is placed.
        waiting: Why the pod does not start; empty if it starts.
        hopeless: Whether the pod will never start.
        failure: Why the pod failed; empty if it has not failed.
        exit_code: Exit code of its container; None before its end.
        evicted: Why the pod was evicted, preempted or deleted by somebody else than Volcano; empty if it was not.
        gone: Whether it was deleted.
        last: Last lines of its log.
    """

    name: str
    uid: str
    index: int
    attempt: str = ""
    phase: str = "Pending"
    node: str = ""
    waiting: str = ""
    hopeless: bool = False
    failure: str = ""
    exit_code: int | None = None
    evicted: str = ""
    gone: bool = False
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    @classmethod
    def of(cls, pod: Document) -> PodFacts:
        """Return the current facts of a pod that is not in a gang."""
        facts = cls(pod["metadata"]["name"], pod["metadata"]["uid"], 0)
        facts.update(pod)
        return facts

    def update(self, pod: Document) -> None:
        """Update the facts from Kubernetes' description of the pod."""
        status = pod.get("status", {})
        self.phase = status.get("phase", "Pending")
        self.node = pod["spec"].get("nodeName", "")
        self.waiting, self.hopeless = _waiting(status)
        if self.phase == "Failed" and not self.failure:
            self.exit_code, self.failure = _failure(pod)
        self.evicted = self.evicted or _eviction(status)

    def report(self) -> str:
        """Return in one line why the pod failed, with the last lines of its log that the reason does not have."""
        words = f"pod {self.index}: {self.failure}"
        lines = [line for line in self.last if line.strip() and line.removeprefix("error: ") not in self.failure]
        return f"{words}; it printed last: {' | '.join(lines)}" if lines else words


class PodWatch:
    """Follows the pods of a job in separate threads.

    Args:
        cluster: Cluster of the job.
        selector: Labels of the pods.
        show: Shows a line of the first pod's log.
        history: Whether lines from before the start are shown too.
    """

    def __init__(self, cluster: Cluster, selector: str, show: Show, history: bool = True) -> None:
        self._cluster, self._selector, self._show = cluster, selector, show
        self._since = "" if history else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._known: dict[str, PodFacts] = {}
        self._followers: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def start(self) -> None:
        """Start to follow the pods."""
        threading.Thread(target=self._watch, daemon=True, name="pods").start()

    def stop(self) -> None:
        """Request the end of the threads, without waiting for them."""
        self._stop.set()

    def settle(self, seconds: float) -> None:
        """Give the followers time to read the last lines of the pods that have ended."""
        end = time.monotonic() + seconds
        for thread in list(self._followers.values()):
            thread.join(max(0.0, end - time.monotonic()))

    def pods(self) -> list[PodFacts]:
        """Return all pods that were ever listed, in the order of their numbers."""
        with self._lock:
            return sorted(self._known.values(), key=lambda facts: facts.index)

    def present(self) -> list[PodFacts]:
        """Return the pods that exist."""
        return [facts for facts in self.pods() if not facts.gone]

    def failed(self) -> list[PodFacts]:
        """Return the pods that failed, of all attempts."""
        return [facts for facts in self.pods() if facts.failure]

    def evicted(self) -> list[PodFacts]:
        """Return the pods that were evicted, preempted or deleted by somebody else than Volcano, of all attempts."""
        return [facts for facts in self.pods() if facts.evicted]

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                pods, version = self._cluster.pods(self._selector)
                self._replace(pods)
                for kind, pod in self._cluster.pod_changes(self._selector, version, _WATCH_SECONDS):
                    if self._stop.is_set() or kind == "ERROR":
                        break
                    self._take(pod, kind == "DELETED")
            except KubeyoloError:
                self._stop.wait(_PAUSE_SECONDS)

    def _replace(self, pods: list[Document]) -> None:
        present = {pod["metadata"]["uid"] for pod in pods}
        for facts in self.pods():
            facts.gone = facts.gone or facts.uid not in present
        for pod in pods:
            self._take(pod, False)

    def _take(self, pod: Document, gone: bool) -> None:
        meta = pod["metadata"]
        uid = meta["uid"]
        with self._lock:
            facts = self._known.get(uid)
            if facts is None:
                annotations = meta.get("annotations") or {}
                index = int(annotations.get("volcano.sh/task-index") or meta["name"].rpartition("-")[2])
                facts = PodFacts(meta["name"], uid, index, annotations.get("volcano.sh/job-version", ""))
                self._known[uid] = facts
        facts.update(pod)
        if (gone or meta.get("deletionTimestamp")) and _ENDED_BY_VOLCANO not in (meta.get("annotations") or {}):
            self._deleted(facts)
        facts.gone = facts.gone or gone
        if facts.phase != "Pending" and uid not in self._followers:
            follower = threading.Thread(target=self._follow, args=(facts,), daemon=True, name=f"log {facts.name}")
            self._followers[uid] = follower
            follower.start()

    def _deleted(self, facts: PodFacts) -> None:
        """Record that a pod is deleted, unless the gang is restarted after a failure: old versions do not mark pods."""
        failed = any(other.failure for other in self.pods() if other.attempt == facts.attempt)
        if not failed and facts.phase != "Succeeded":
            facts.evicted = facts.evicted or "deleted"

    def _follow(self, facts: PodFacts) -> None:
        """Read a pod's log to its end, each line once, with a new connection whenever a connection ends early."""
        newest, again = self._since, False
        while not self._stop.is_set():
            ended = facts.gone or facts.phase in ("Succeeded", "Failed")
            checked = not again
            try:
                for line in self._cluster.log_lines(facts.name, CONTAINER, newest[:19] + "Z" if newest else ""):
                    # The next pod of a restarted gang has the same name: a new connection may return its lines. The
                    # lines are from this pod if it still has the name after the connection was opened.
                    if not checked and not self._exists(facts):
                        return
                    checked = True
                    moment, _, text = line.partition(" ")
                    # A connection starts with all lines of the second in which the previous connection ended.
                    if newest and _sortable(moment) <= _sortable(newest):
                        continue
                    newest = moment
                    facts.last.append(text)
                    if facts.index == 0:
                        self._show(text)
            except KubeyoloError:
                if again and facts.gone:
                    return
                again = True
                self._stop.wait(_PAUSE_SECONDS)
                continue
            if ended:
                return
            again = True
            self._stop.wait(_PAUSE_SECONDS / 4)

    def _exists(self, facts: PodFacts) -> bool:
        pod = self._cluster.pod(facts.name)
        return pod is not None and pod["metadata"]["uid"] == facts.uid


def _sortable(moment: str) -> str:
    """Return a time of Kubernetes with all nine digits of its fraction, so that the strings sort in time order."""
    whole, _, fraction = moment.removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}"


def _waiting(status: Document) -> tuple[str, bool]:
    """Return why a pod waits, and whether it will wait forever."""
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        state = container.get("state", {}).get("waiting") or {}
        reason = state.get("reason", "")
        if reason in _HOPELESS | _TRIED_AGAIN | _PULLING:
            message = one_line(state.get("message") or "", 300)
            what = f"image {container.get('image', '')} cannot be pulled" if reason in _PULLING else reason
            return f"{what} ({message})" if message else what, reason in _HOPELESS
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return one_line(condition.get("message") or condition.get("reason") or "", 300), False
    return "", False


def _eviction(status: Document) -> str:
    """Return why a pod is being evicted or preempted; empty if it is not."""
    for condition in status.get("conditions", ()):
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            message = one_line(condition.get("message") or "", 300)
            return f"{condition.get('reason')}: {message}" if message else str(condition.get("reason"))
    if status.get("phase") == "Failed" and status.get("reason") in _EVICTED:
        message = one_line(status.get("message") or "", 300)
        return f"{status['reason']}: {message}" if message else str(status["reason"])
    return ""


def memory_kill(pod: Document, container: str) -> str | None:
    """Return the memory limit of a container that was killed because it used more; None if it was not.

    Args:
        pod: Kubernetes' description of a pod.
        container: Name of the container.
    """
    for status in pod["status"].get("containerStatuses", ()):
        ended = status.get("state", {}).get("terminated") or {}
        if status.get("name") == container and ended.get("reason") == _OUT_OF_MEMORY and ended.get("exitCode"):
            specs = {each["name"]: each for each in pod["spec"]["containers"]}
            return str(specs[container].get("resources", {}).get("limits", {}).get("memory", ""))
    return None


def _failure(pod: Document) -> tuple[int | None, str]:
    """Return the exit code of a failed pod, if there is one, and the reason of the failure as a sentence."""
    status: dict[str, Any] = pod["status"]
    for container in status.get("containerStatuses", ()):
        ended = container.get("state", {}).get("terminated")
        if not ended:
            continue
        code = int(ended.get("exitCode", 1))
        if ended.get("reason") == _OUT_OF_MEMORY:
            limit = pod["spec"]["containers"][0].get("resources", {}).get("limits", {}).get("memory", "its limit")
            return (
                code,
                f"out of memory (OOMKilled at {limit}); raise the cluster setting memory, or use smaller batches",
            )
        if status.get("reason"):
            break
        # If a container leaves no message, Kubernetes returns the end of its log, whose last line has the reason.
        lines = [line for line in str(ended.get("message") or "").splitlines() if line.strip()]
        message = one_line(lines[-1]).removeprefix("error: ") if lines else ""
        reason = f"killed by signal {code - 128}" if code > 128 else f"exit code {code}"
        return code, f"{message} ({reason})" if message else reason
    if status.get("reason"):
        message = one_line(status.get("message") or "")
        return None, f"{status['reason'].lower()}: {message}" if message else status["reason"].lower()
    return None, "failed without a message"
