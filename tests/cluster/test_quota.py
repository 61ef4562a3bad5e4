"""A namespace with a quota, and steps that use more memory than their limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kubeyolo.compiled.pipeline import CompiledPipeline
from tests.cluster.site import ROOT, Site, Submission

QUOTA = str(ROOT / "manifests" / "quota.yaml")
TASKS = CompiledPipeline.named().tasks


@pytest.fixture
def quota(site: Site) -> Iterator[None]:
    """The quota of the manifests, for the time of a test."""
    site.kubectl("apply", "-f", QUOTA)
    yield
    site.kubectl("delete", "-f", QUOTA, "--ignore-not-found")


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


@pytest.mark.usefixtures("quota")
def test_a_namespace_with_a_quota_finishes_the_pipeline(site: Site, other_data: str) -> None:
    submission = site.submit(other_data, site.new_store(), "--resources", "evaluate.memory=6Gi")
    assert submission.end() == 0, submission.command.text
    run = submission.run
    assert {step.name: step.state for step in run.steps} == dict.fromkeys(TASKS, "SUCCEEDED")
    pods = site.objects("pods", f"workflows.argoproj.io/workflow={run.workflow}")
    assert len(pods) > 2 * len(TASKS)
    for pod in pods:
        for container in containers(pod):
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), (pod["metadata"]["name"], container["name"])
            assert "memory" in resources["limits"], (pod["metadata"]["name"], container["name"])
    # Steps have what the pipeline says, and no limit of processors.
    found = {
        str(container["resources"]["limits"])
        for pod in pods
        for container in containers(pod)
        if container["name"] == "main" and "kubeyolo-evaluate" in container["image"]
    }
    assert found == {str({"memory": "6Gi"})}


def test_a_step_that_is_killed_for_memory_is_told_with_its_limit_and_the_option(
    site: Site, undisturbed: Submission, data: str
) -> None:
    # The training is taken from the cache; the evaluation is another one, with less memory than MindSpore needs.
    pairs = ("--set", "evaluate.per_batch_size=4", "--resources", "evaluate.memory=256Mi")
    submission = site.submit(data, undisturbed.store, *pairs)
    try:
        assert submission.end() == 1, submission.command.text
    finally:
        submission.abandon()
    words = (
        "evaluate failed: out of memory (OOMKilled at the limit of its pod, 256Mi); allow more with "
        "--resources evaluate.memory=512Mi"
    )
    assert words in submission.command.text
    code, text = site.call("pipeline", "status", submission.id)
    assert code == 1 and words in text
    if "OOMKilled" not in site.kubectl("get", "configmap", "workflow-controller-configmap", "-o", "jsonpath={.data}"):
        return
    # With manifests/argo.yaml Argo does not try it again.
    pods = site.objects("pods", f"workflows.argoproj.io/workflow={submission.run.workflow}")
    nodes = [pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"] for pod in pods]
    assert len([node for node in nodes if ".evaluate" in node and ".executor" in node]) == 1, nodes
