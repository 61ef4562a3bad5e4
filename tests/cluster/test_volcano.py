"""Queues, and the nodes with Ascend cards: pretended ones will do, nothing runs on them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.site import CARDS, CLUSTER, Command, Site, wait_for
from tests.kubernetes_server import RESTRICTED

SELECTOR = {"kubernetes.io/arch": "arm64"}


def test_a_queue_without_room_ends_the_step(site: Site, data: str) -> None:
    submission = site.submit(data, site.new_store(), cluster={"cpu": "1900m", "queue_limit": 20})
    assert submission.end() == 1
    text = submission.command.text
    for words in ("train failed", "was not placed within 20 s (queue_limit)", "queue kubeyolo", "2 pods of 1900m cpu"):
        assert words in text
    site.nothing_left(submission.job)


def test_a_job_that_the_queue_never_has_room_for_is_refused(site: Site, dataset: str) -> None:
    (queue,) = (one for one in site.objects("queues") if one["metadata"]["name"] == CLUSTER["queue"])
    room = queue["spec"].get("capability", {}).get("cpu")
    if room is None:
        pytest.skip(f"the queue {CLUSTER['queue']} has no bound")
    settings = (f"queue={CLUSTER['queue']}", f"cpu={room}", f"namespace={site.namespace}", "image=localhost/any:1")
    options = [word for pair in settings for word in ("--cluster-set", pair)]
    places = ("train", dataset, "--config", "settings.yaml", "--store", site.new_store())
    code, text = site.call(*places, "--launcher", "volcano", *options)
    assert code == 2 and "is too small for this job" in text and text.count("error:") == 1, text
    jobs = site.objects("jobs.batch.volcano.sh")
    assert not any(
        job["spec"]["tasks"][0]["template"]["spec"]["containers"][0]["image"] == "localhost/any:1" for job in jobs
    )


@pytest.fixture
def ascend_nodes(site: Site) -> list[dict[str, Any]]:
    nodes = [
        node
        for node in site.objects("nodes")
        if SELECTOR.items() <= node["metadata"]["labels"].items() and node["status"]["allocatable"].get(CARDS) == "8"
    ]
    if len(nodes) < 2:
        pytest.skip(f"the cluster has {len(nodes)} nodes with 8 cards and the labels {SELECTOR}; two are needed")
    return nodes


@pytest.fixture
def ascend(site: Site, dataset: str, ascend_nodes: list[dict[str, Any]], pretended: None) -> Iterator[Command]:
    """A training of 16 processes that is submitted from here."""
    taints = [taint for node in ascend_nodes for taint in node["spec"].get("taints", ())]
    tolerations = [{"key": taint["key"], "operator": "Exists", "effect": taint["effect"]} for taint in taints]
    image = Path(site.images).read_text().split("kubeyolo-train: ")[1].split()[0]
    settings = {"preset": "ascend910b", "namespace": site.namespace, "queue": "default", "image": image}
    settings |= {"tolerations": tolerations, "cpu": "8", "memory": "16Gi"}
    (site.folder / "ascend.yaml").write_text(json.dumps(settings))
    found = site.kubeyolo(
        *("train", dataset, "--config", "settings.yaml", "--store", site.new_store()),
        *("--set", "train.processes=16", "--set", "train.per_batch_size=1"),
        *("--launcher", "volcano", "--cluster", "ascend.yaml"),
    )
    yield found
    if not found.is_over:
        found.send(signal.SIGTERM)
        found.end(60)


def job_of(command: Command) -> str:
    return command.heard(r"submitted job (\S+) to queue default", 120)[1]


def test_a_gang_takes_the_cards_of_two_nodes(site: Site, ascend: Command, ascend_nodes: list[dict[str, Any]]) -> None:
    job = job_of(ascend)

    def placed() -> list[dict[str, Any]]:
        return [pod for pod in site.trainers(job) if pod["spec"].get("nodeName")]

    # Pretended nodes may call a pod done at once.
    pods = wait_for(lambda: found if len(found := placed()) == 2 else None, 120, "two nodes", poll=0.1)
    assert {pod["spec"]["nodeName"] for pod in pods} <= {node["metadata"]["name"] for node in ascend_nodes}
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        assert container["resources"]["limits"][CARDS] == "8"
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
    ascend.heard(r"running on \S+, \S+", 30)
    ascend.send(signal.SIGTERM)
    ascend.end(60)
    site.nothing_left(job)


@pytest.fixture
def occupied(site: Site, ascend_nodes: list[dict[str, Any]]) -> Iterator[None]:
    """One of the nodes has no free card."""
    node = ascend_nodes[0]
    resources = {"limits": {CARDS: "8"}, "requests": {CARDS: "8"}}
    container = {
        "name": "main",
        "image": "busy",
        "resources": resources,
        "securityContext": {**RESTRICTED, "runAsUser": 10001},
    }
    spec = {"nodeName": node["metadata"]["name"], "containers": [container], "tolerations": [{"operator": "Exists"}]}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "occupies-a-node"}, "spec": spec}
    path = site.folder / "occupies.json"
    path.write_text(json.dumps(document))
    site.kubectl("apply", "-f", str(path))
    yield
    site.kubectl("delete", "pod", "occupies-a-node", "--wait=false", "--grace-period=0", "--force")


@pytest.mark.usefixtures("occupied")
def test_a_gang_waits_for_the_second_node_and_says_why(site: Site, ascend: Command) -> None:
    job = job_of(ascend)
    line = ascend.heard(r"waiting for .*Insufficient huawei\.com/Ascend910.*", 120)[0]
    assert f"2 pods of 8 cpu, 8 {CARDS}, 16Gi memory each" in line and "0 of 2 pods placed" in line
    assert not any(pod["spec"].get("nodeName") for pod in site.trainers(job))
