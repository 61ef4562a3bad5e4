"""Every step that may have a job has one: a whole run in jobs, a lost pod of each of them, and cards for each step."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.catalogue import STEPS
from kubeyolo.kubeflow.client import Kubeflow
from kubeyolo.storage.place import Place
from tests.cluster.site import CARDS, CARDS_LABEL, Command, Site, Submission, wait_for

JOBS = {"pretrain_backbone": "pretrain", "train": "train", "evaluate": "evaluate-", "export_model": "export-"}
"""Start of the name of a step's job after the name of the workflow."""

CLUSTER = {
    "evictions": 3,
    "steps": {
        "pretrain_backbone": {"job": True, "nodes": 2},
        "evaluate": {"job": True, "nodes": 2},
        "export_model": {"job": True},
    },
}

PRESETS = {"ascend910b": 8, "ascend910-a3": 16}
"""Cards of a server, by preset."""


def log_of(submission: Submission, step: str) -> str:
    found = submission.run.step(step)
    assert found is not None, step
    return Kubeflow().log(submission.id, found)


@pytest.fixture(scope="module")
def in_jobs(site: Site, data: str) -> Submission:
    """A run in which every step that may have a job has one; three of them have two pods."""
    submission = site.submit(data, site.new_store(), cluster=CLUSTER)
    assert submission.end(1800) == 0, submission.command.text
    return submission


def test_every_step_has_its_job_and_nothing_is_left(site: Site, in_jobs: Submission) -> None:
    assert in_jobs.run.state == "SUCCEEDED"
    for step, name in JOBS.items():
        found = re.search(
            rf"submitted job ({re.escape(in_jobs.run.workflow)}-{name}\S*) to queue", log_of(in_jobs, step)
        )
        assert found, (step, log_of(in_jobs, step))
        site.nothing_left(found[1])


def test_the_numbers_of_two_pods_are_those_of_one_process(
    site: Site, in_jobs: Submission, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    bundle, dataset = in_jobs.trained, in_jobs.dataset
    code, text = site.call("evaluate", bundle, dataset, "--store", str(tmp_path))
    assert code == 0, text
    here = {path.name: path.read_bytes() for path in tmp_path.glob("results/evaluate/*/*.json")}
    (output,) = {
        key.key.rpartition("/")[0]
        for key in Place.of(in_jobs.store).store.list("results/evaluate")
        if "result.json" in key.key
    }
    there = Place.of(in_jobs.store) / output
    for name in ("result.json", "detections.json", "confusion.json"):
        assert (there / name).read() == here[name], name


@pytest.mark.parametrize("step", ["pretrain_backbone", "evaluate", "export_model"])
def test_a_step_whose_pod_is_lost_ends_as_any_other(
    site: Site, in_jobs: Submission, commands: list[Command], step: str
) -> None:
    store = site.new_store()
    settings = {**CLUSTER, "namespace": site.namespace, "queue": "kubeyolo", "image": image_of(site, step)}
    (site.folder / "cluster.yaml").write_text(json.dumps(settings))
    words = command_of(step, in_jobs)
    command = site.kubeyolo(*words, "--store", store, "--launcher", "volcano", "--cluster", "cluster.yaml")
    commands.append(command)
    job = command.heard(r"submitted job (\S+) to queue kubeyolo", 120)[1]

    def running() -> list[str]:
        return [pod["metadata"]["name"] for pod in site.trainers(job) if pod["status"]["phase"] == "Running"]

    lost = wait_for(running, 120, f"the pods of {job}", poll=0.2)[-1]
    site.kubectl("delete", "pod", lost, "--wait=false", "--grace-period=0", "--force")
    assert command.end(900) == 0, command.text
    assert "submitting again" in command.text or "the gang is restarted" in command.text, command.text
    site.nothing_left(job)
    place = Place.of(store).store
    if step == "evaluate":
        (key,) = [each.key for each in place.list("results/evaluate") if each.key.endswith("/detections.json")]
        assert place.read_bytes(key) == detections_of(in_jobs)
    else:
        assert [each.key for each in place.list("") if each.key.endswith("bundle/bundle.json")], command.text


def image_of(site: Site, step: str) -> str:
    """Return the reference of the image of a step."""
    return Path(site.images).read_text().split(f"kubeyolo-{STEPS[step].image}: ")[1].split()[0]


def command_of(step: str, in_jobs: Submission) -> list[str]:
    """Return the command line of a step on what a run has made, without its store."""
    if step in ("pretrain_backbone", "train"):
        return [step.split("_")[0], in_jobs.dataset, "--config", "settings.yaml"]
    return [step.split("_")[0], in_jobs.trained, in_jobs.dataset]


def detections_of(in_jobs: Submission) -> bytes:
    """Return the detections of a run's evaluation."""
    store = Place.of(in_jobs.store).store
    (key,) = [each.key for each in store.list("results/evaluate") if each.key.endswith("/detections.json")]
    return store.read_bytes(key)


def nodes_with(site: Site, cards: int) -> list[dict[str, Any]]:
    return [node for node in site.objects("nodes") if node["status"]["allocatable"].get(CARDS) == str(cards)]


@pytest.fixture(params=PRESETS)
def ascend(request: pytest.FixtureRequest, site: Site, pretended: None) -> dict[str, Any]:
    """Settings of a preset, as far as the pretended nodes differ from real ones."""
    nodes = nodes_with(site, PRESETS[request.param])
    if len(nodes) < 2:
        pytest.skip(f"the cluster has {len(nodes)} nodes with {PRESETS[request.param]} cards; two are needed")
    taints = {taint["key"]: taint["effect"] for node in nodes for taint in node["spec"].get("taints", ())}
    return {
        "preset": request.param,
        "namespace": site.namespace,
        "queue": "default",
        "tolerations": [{"key": key, "operator": "Exists", "effect": effect} for key, effect in taints.items()],
        # Only MindCluster's scheduler tells the servers apart by the annotation.
        "node_selector": {"kubernetes.io/arch": "arm64", CARDS_LABEL: str(PRESETS[request.param])},
        "per_device": {"cpu": "1", "memory": "2Gi", "shared_memory": "64Mi"},
        "scratch": "1Gi",
        "steps": {"train": {"nodes": 2}},
    }


@pytest.fixture
def commands(site: Site) -> Iterator[list[Command]]:
    started: list[Command] = []
    yield started
    for command in started:
        if not command.is_over:
            command.send(signal.SIGTERM)
            command.end(60)


@pytest.mark.parametrize("step", JOBS)
def test_each_step_is_placed_with_its_cards(
    site: Site, in_jobs: Submission, ascend: dict[str, Any], commands: list[Command], step: str
) -> None:
    (site.folder / "ascend.yaml").write_text(json.dumps({**ascend, "image": image_of(site, step)}))
    sizes = ["--set", "train.per_batch_size=1", "--set", "train.processes=1"] if step == "pretrain_backbone" else []
    if step == "train":
        sizes = ["--set", "train.per_batch_size=1", "--set", f"train.processes={2 * PRESETS[ascend['preset']]}"]
    words = [*command_of(step, in_jobs), *sizes]
    command = site.kubeyolo(*words, "--store", site.new_store(), "--launcher", "volcano", "--cluster", "ascend.yaml")
    commands.append(command)
    job = command.heard(r"submitted job (\S+) to queue default", 120)[1]

    cards, pods = (PRESETS[ascend["preset"]], 2) if step == "train" else (1, 1)

    def placed() -> list[dict[str, Any]]:
        found = [pod for pod in site.trainers(job) if pod["spec"].get("nodeName")]
        return found if len(found) == pods else []

    # Pretended nodes may call a pod done at once.
    gang = wait_for(placed, 120, f"nodes of {pods} pods", poll=0.1)
    names = {node["metadata"]["name"] for node in nodes_with(site, PRESETS[ascend["preset"]])}
    assert len({pod["spec"]["nodeName"] for pod in gang} & names) == pods
    for pod in gang:
        (container,) = pod["spec"]["containers"]
        assert container["resources"]["limits"][CARDS] == container["resources"]["requests"][CARDS] == str(cards)
        assert pod["metadata"]["annotations"]["huawei.com/schedule_policy"] in ("chip8-node8", "chip2-node16")
    command.send(signal.SIGTERM)
    command.end(60)
    site.nothing_left(job)
