"""The rank table that an operator writes: a pod waits for it, and checks that it fits the job."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.errors import InputError, WorkError
from kubeyolo.launch.rank_table import wait_for_rank_table
from kubeyolo.launch.rendezvous import Rendezvous
from tests.kubernetes_server import KubernetesServer, wait_for
from tests.launch.conftest import ACCOUNT
from tests.launch.launching import Launch, nothing_left
from tests.launch.volcano_double import Volcano

POD = Rendezvous("run-train", 2, 1, 2, "run-train-worker-0.run-train", 8118, "10.1.0.2", limit=0.3)


def server(number: int) -> dict[str, Any]:
    devices = [
        {"device_id": str(card), "device_ip": f"192.168.{number}.{card}", "rank_id": str(2 * number + card)}
        for card in range(2)
    ]
    return {"server_id": f"10.0.0.{number}", "container_ip": f"10.1.0.{number + 1}", "device": devices}


TABLE: dict[str, Any] = {
    "status": "completed",
    "version": "1.0",
    "server_count": "2",
    "server_list": [server(0), server(1)],
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "hccl.json"
    monkeypatch.setenv("RANK_TABLE_FILE", str(path))
    return path


def test_without_a_rank_table_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK_TABLE_FILE", raising=False)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    wait_for_rank_table(POD)
    assert waits == []


def test_a_pod_waits_until_the_table_is_complete(file: Path) -> None:
    file.write_text('{"status": "initializing"}')
    writer = threading.Timer(0.2, lambda: file.write_text(json.dumps(TABLE)))
    writer.start()
    started = time.monotonic()
    wait_for_rank_table(POD.__class__(**{**POD.__dict__, "limit": 20.0}), poll=0.02)
    assert 0.1 < time.monotonic() - started < 10.0


def stale(table: dict[str, Any]) -> None:
    table["server_list"][1]["container_ip"] = "10.1.0.99"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read (No such file or directory) after 0 s"),
        ("{", "is not JSON"),
        ('{"status": "initializing"}', "has the status 'initializing', not 'completed', after"),
        ("[]", "has the status None, not 'completed'"),
        ("[" * 100_000, "is nested more than 100 deep after 0 s"),
        ('{"a":' * 100_000, "is nested more than 100 deep after 0 s"),
        ('{"status": [' + "[" * 40 + "]" * 40 + "]}", "has the status list, not 'completed', after"),
        ('{"status": "' + "x" * 5000 + '"}', "xxx, not 'completed', after"),
        ('{"status": ' + "9" * 5000 + "}", "is not JSON"),
        (stale, "does not have the address of this pod, 10.1.0.2,"),
    ],
)
def test_a_table_that_is_not_completed_ends_the_wait(
    file: Path, text: str | Callable[[dict[str, Any]], None] | None, words: str
) -> None:
    if callable(text):
        table = copy.deepcopy(TABLE)
        text(table)
        text = json.dumps(table)
    if text is not None:
        file.write_text(text)
    with pytest.raises(WorkError) as caught:
        wait_for_rank_table(POD, poll=0.02)
    assert words in str(caught.value) and "(rendezvous_limit); check that MindCluster's" in str(caught.value)


def set_device(key: str, value: Any, number: int = 1) -> Callable[[dict[str, Any]], None]:
    def change(table: dict[str, Any]) -> None:
        table["server_list"][1]["device"][number][key] = value

    return change


def set_table(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda table: table.update({key: value})


def swap_servers(table: dict[str, Any]) -> None:
    for each, address in zip(table["server_list"], ("10.1.0.2", "10.1.0.1"), strict=True):
        each["container_ip"] = address


def drop_device(table: dict[str, Any]) -> None:
    table["server_list"][0]["device"].pop()


def drop_server(table: dict[str, Any]) -> None:
    table["server_list"].pop(0)
    table["server_count"] = "1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_table("server_list", {}), "server_list = {}: expected a list of servers"),
        (set_table("server_count", "3"), "server_count = '3', but server_list has 2 servers"),
        (drop_server, "server_list has 1 servers, but the job has 2 pods"),
        (drop_device, "server_list.0 has 1 devices, but a pod has 2"),
        (set_device("device_id", "x"), "server_list.1.device.1.device_id = 'x': expected a number"),
        (set_device("device_id", "0"), "server_list.1 names a device twice: device_id = 0, 0"),
        (set_device("device_ip", ""), "server_list.1.device.1.device_ip = '': expected the IP address of the card"),
        (set_device("device_ip", "card"), "server_list.1.device.1.device_ip = 'card'"),
        (set_device("rank_id", "-1"), "server_list.1.device.1.rank_id = '-1'"),
        (set_device("rank_id", "9" * 5000), "server_list.1.device.1.rank_id = '999"),
        (set_device("rank_id", "\u0663"), "server_list.1.device.1.rank_id = '\u0663': expected a number"),
        (set_device("rank_id", "03"), "server_list.1.device.1.rank_id = '03': expected a number"),
        (set_device("rank_id", True), "server_list.1.device.1.rank_id = True: expected a number"),
        (set_device("rank_id", 3.0), "server_list.1.device.1.rank_id = 3.0: expected a number"),
        (set_device("rank_id", ["3"]), "server_list.1.device.1.rank_id = list: expected a number"),
        (set_device("device_id", "9" * 5000), "server_list.1.device.1.device_id = '999"),
        (set_device("device_ip", "9" * 5000), "server_list.1.device.1.device_ip = '999"),
        (set_device("rank_id", "0"), "rank_id = 0, 1, 2, 0: expected each of 0 to 3 once"),
        (swap_servers, "server_list.0 has rank_id = 0, 1, but this pod has 2, 3"),
        (set_device("rank_id", "4"), "rank_id = 0, 1, 2, 4: expected each of 0 to 3 once"),
    ],
)
def test_a_table_that_does_not_fit_is_named(file: Path, change: Callable[[dict[str, Any]], None], words: str) -> None:
    table = copy.deepcopy(TABLE)
    change(table)
    file.write_text(json.dumps(table))
    with pytest.raises(WorkError) as caught:
        wait_for_rank_table(POD, poll=0.02)
    assert words in str(caught.value) and str(caught.value).startswith(f"rank table {file}: ")
    assert len(str(caught.value)) < 600


def test_the_cards_of_one_server_need_no_address(file: Path) -> None:
    table = copy.deepcopy(TABLE)
    for each in table["server_list"]:
        for device in each["device"]:
            del device["device_ip"]
    file.write_text(json.dumps(table))
    with pytest.raises(WorkError, match=r"server_list\.0\.device\.0\.device_ip = ''"):
        wait_for_rank_table(POD, poll=0.02)
    file.write_text(json.dumps({**table, "server_count": "1", "server_list": table["server_list"][:1]}))
    wait_for_rank_table(Rendezvous("run-train", 1, 0, 2, "m", 8118, "10.1.0.1", limit=0.3), poll=0.02)


LABELS = {"ring-controller.atlas": "ascend-910b"}


def test_without_the_right_to_create_its_config_map_a_job_is_refused(
    launch: Callable[..., Launch], volcano: Volcano
) -> None:
    error = launch(rank_table=True, labels=LABELS).end()
    assert isinstance(error, InputError)
    assert f"may not create ConfigMaps, as rank_table = true needs, in namespace {volcano.namespace}" in str(error)
    assert nothing_left(volcano)


@pytest.fixture
def may_create(kubernetes: KubernetesServer, namespace: str, account: Path) -> None:
    """The account of the steps may create ConfigMaps, by the Role of the documentation."""
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    (block,) = (each for each in text.split("```")[1::2] if "kubeyolo-rank-table" in each)
    for document in yaml.safe_load_all(block.removeprefix("yaml\n")):
        document["metadata"]["namespace"] = namespace
        for subject in document.get("subjects", ()):
            subject["namespace"] = namespace
        plural = f"{document['kind'].lower()}s"
        kubernetes.do("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/{plural}", document)
    review = {"resourceAttributes": {"namespace": namespace, "verb": "create", "resource": "configmaps"}}
    body = {"spec": review, "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
    path, token = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", kubernetes.token_of(namespace, ACCOUNT)
    wait_for(lambda: kubernetes.do("POST", path, body, token=token)["status"]["allowed"])


@pytest.mark.usefixtures("may_create")
def test_the_launcher_makes_the_table_anew_for_each_job(
    launch: Callable[..., Launch], volcano: Volcano, kubernetes: KubernetesServer
) -> None:
    run = launch(rank_table=True, labels=LABELS)
    path = f"/api/v1/namespaces/{volcano.namespace}/configmaps"
    job = volcano.wait_job()
    name = f"rings-config-{job['metadata']['name']}"

    def table_of(uid: str) -> dict[str, Any] | None:
        _, found = kubernetes.request("GET", f"{path}/{name}")
        owners = found.get("metadata", {}).get("ownerReferences", ())
        return found if any(owner["uid"] == uid for owner in owners) else None

    table = wait_for(lambda: table_of(job["metadata"]["uid"]))
    assert json.loads(table["data"]["hccl.json"]) == {"status": "initializing"}
    kubernetes.do("PATCH", f"{path}/{name}", {"data": {"hccl.json": json.dumps(TABLE)}})
    names = volcano.run(job)
    volcano.evict(job, names[1], "EvictionByEvictionAPI", "Eviction API: evicting")
    second = volcano.wait_job(job["metadata"]["uid"])
    table = wait_for(lambda: table_of(second["metadata"]["uid"]))
    assert json.loads(table["data"]["hccl.json"]) == {"status": "initializing"}
    volcano.phase(second, "Completed")
    assert run.end() is None
