"""How the logs of pods are followed when the news of what happens to the pods come late."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

from kubeyolo.launch.cluster import Cluster
from kubeyolo.launch.pods import PodWatch
from tests.kubernetes_server import wait_for


class _LateNews:
    """A cluster whose gang was restarted: the watch has not heard of it, and the pod's log is the next one's."""

    def __init__(self, uids: list[str]) -> None:
        self.uids, self.connections, self.over = uids, 0, threading.Event()

    def pods(self, selector: str) -> tuple[list[dict[str, Any]], str]:
        meta = {"name": "job-trainer-0", "uid": "first", "annotations": {"volcano.sh/task-index": "0"}}
        return [{"metadata": meta, "spec": {"nodeName": "node"}, "status": {"phase": "Running"}}], "1"

    def pod_changes(self, selector: str, version: str, seconds: int) -> Iterator[tuple[str, dict[str, Any]]]:
        self.over.wait()
        return iter(())

    def pod(self, name: str) -> dict[str, Any] | None:
        uid = self.uids[min(self.connections - 2, len(self.uids) - 1)]
        return {"metadata": {"uid": uid}} if uid else None

    def log_lines(self, pod: str, container: str, since: str = "") -> Iterator[str]:
        self.connections += 1
        yield f"2026-01-01T00:00:0{self.connections}.5Z line {self.connections}"


def _heard(uids: list[str], connections: int) -> list[str]:
    cluster, lines = _LateNews(uids), list[str]()
    watch = PodWatch(cast(Cluster, cluster), "job", lines.append)
    watch.start()
    wait_for(lambda: cluster.connections >= connections)
    follower = watch._followers["first"]
    follower.join(2)
    assert not follower.is_alive()
    assert cluster.connections == connections
    watch.stop()
    cluster.over.set()
    return lines


def test_lines_of_the_next_pod_of_the_name_are_not_those_of_this_one() -> None:
    assert _heard(["first", "second"], 3) == ["line 1", "line 2"]


def test_a_pod_that_is_not_there_says_nothing_more() -> None:
    assert _heard([""], 2) == ["line 1"]
