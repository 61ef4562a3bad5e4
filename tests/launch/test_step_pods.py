"""What the pods of steps tell, on a real API server; a double of the kubelet has the lines of their logs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.launch.step_pods import StepPods
from tests.kubernetes_server import RESTRICTED, KubernetesServer, definition, wait_for
from tests.launch.volcano_double import NODE, Volcano

WORKFLOW = "detector-training-x7k2p"


def make_pod(
    kubernetes: KubernetesServer, volcano: Volcano, name: str, node_name: str, text: str, memory: str = "8Gi"
) -> None:
    """Make a pod as Argo does, and let its container print a line."""
    metadata = {
        "name": name,
        "labels": {"workflows.argoproj.io/workflow": WORKFLOW},
        "annotations": {"workflows.argoproj.io/node-name": f"{WORKFLOW}.root.exit-handler-1.{node_name}"},
    }
    spec: dict[str, Any] = {
        "nodeName": NODE,
        "containers": [
            {"name": "wait", "image": "i", "securityContext": RESTRICTED, "resources": {"limits": {"memory": "64Mi"}}},
            {"name": "main", "image": "i", "securityContext": RESTRICTED, "resources": {"limits": {"memory": memory}}},
        ],
    }
    kubernetes.do("POST", f"/api/v1/namespaces/{volcano.namespace}/pods", {"metadata": metadata, "spec": spec})
    volcano.pod_status(name, {"phase": "Running"})
    volcano.kubelet.begin(name)
    volcano.kubelet.say(name, text)
    volcano.kubelet.end(name)


@pytest.mark.usefixtures("cluster")
def test_the_log_of_a_step_is_that_of_its_own_pod(kubernetes: KubernetesServer, volcano: Volcano) -> None:
    make_pod(kubernetes, volcano, f"{volcano.namespace}-driver", "train-driver", "of the driver")
    make_pod(kubernetes, volcano, f"{volcano.namespace}-impl", "train.executor(0)", "of the step")
    make_pod(kubernetes, volcano, f"{volcano.namespace}-other", "validate-dataset(1).executor(0)", "of another")
    assert "of the step" in StepPods(volcano.namespace).log(WORKFLOW, "train")
    assert "of another" in StepPods(volcano.namespace).log(WORKFLOW, "validate_dataset")
    assert StepPods(volcano.namespace).log(WORKFLOW, "publish") == ""
    assert StepPods(volcano.namespace).log("another", "train") == ""


@pytest.mark.usefixtures("cluster")
def test_a_step_whose_image_is_not_there_is_stuck(kubernetes: KubernetesServer, volcano: Volcano) -> None:
    name = f"{volcano.namespace}-impl"
    make_pod(kubernetes, volcano, name, "validate-dataset.executor", "")
    assert StepPods(volcano.namespace).stuck(WORKFLOW) is None
    volcano.container_waits(name, "ImagePullBackOff", "not found")
    words = "image registry/nowhere:1 cannot be pulled (not found)"
    assert StepPods(volcano.namespace).stuck(WORKFLOW) == ("validate_dataset", words)
    volcano.container_waits(name, "ContainerCreating")
    assert StepPods(volcano.namespace).stuck(WORKFLOW) is None


def ended(name: str, code: int, reason: str) -> dict[str, Any]:
    """Return the status of a container that has ended, as the kubelet reports it."""
    terminated = {
        "exitCode": code,
        "reason": reason,
        "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T00:05:00Z",
        "containerID": f"containerd://{name}",
    }
    rest = {"image": "i", "imageID": "", "ready": False, "restartCount": 0}
    return {"name": name, "state": {"terminated": terminated}, **rest}


@pytest.mark.usefixtures("cluster")
def test_a_step_that_was_killed_for_memory_is_known_with_the_limit_of_its_pod(
    kubernetes: KubernetesServer, volcano: Volcano
) -> None:
    pods = StepPods(volcano.namespace)
    first, second = f"{volcano.namespace}-1", f"{volcano.namespace}-2"
    make_pod(kubernetes, volcano, first, "train.executor(0)", "")
    assert pods.memory_kill(WORKFLOW, "train") is None
    volcano.pod_status(
        first,
        {"phase": "Failed", "containerStatuses": [ended("wait", 0, "Completed"), ended("main", 137, "OOMKilled")]},
    )
    assert pods.memory_kill(WORKFLOW, "train") == "8Gi"
    assert pods.memory_kill(WORKFLOW, "evaluate") is None
    assert pods.memory_kill("another", "train") is None
    # Argo's own container, another signal, and a step that has ended well although a process of it was killed.
    for code, reason, wait in ((1, "Error", "OOMKilled"), (137, "Error", "Error"), (0, "OOMKilled", "Completed")):
        statuses = [ended("wait", 137, wait), ended("main", code, reason)]
        volcano.pod_status(first, {"phase": "Failed", "containerStatuses": statuses})
        assert pods.memory_kill(WORKFLOW, "train") is None
    # The newest attempt counts; times of Kubernetes have seconds.
    time.sleep(1.1)
    make_pod(kubernetes, volcano, second, "train.executor(1)", "", memory="1500M")
    volcano.pod_status(second, {"phase": "Failed", "containerStatuses": [ended("main", 137, "OOMKilled")]})
    assert pods.memory_kill(WORKFLOW, "train") == "1500M"


@pytest.mark.parametrize("text", [None, "a: [", "[]", "{}"])
def test_without_a_cluster_there_is_no_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    if text is not None:
        (tmp_path / "kubeconfig").write_text(text)
    assert StepPods("kubeflow").log(WORKFLOW, "train") == ""
    assert StepPods("kubeflow").stuck(WORKFLOW) is None
    assert StepPods("kubeflow").memory_kill(WORKFLOW, "train") is None


def make_workflow(kubernetes: KubernetesServer, namespace: str, run_id: str, nodes: dict[str, dict[str, str]]) -> None:
    """Make a workflow of a run, as Argo keeps it; its kind too, unless it is there."""
    kinds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    kubernetes.request("POST", kinds, definition("argoproj.io", "v1alpha1", "Workflow", "workflows", "Namespaced", {}))
    path = f"/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows"
    wait_for(lambda: kubernetes.request("GET", path)[0] == 200)
    body = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "status": {"nodes": nodes}}
    metadata = {"generateName": f"{WORKFLOW}-", "labels": {"pipeline/runid": run_id}}
    kubernetes.do("POST", path, {**body, "metadata": metadata})


def test_why_a_run_has_failed_before_any_step_is_told_by_argo(
    kubernetes: KubernetesServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = {"type": "Pod", "phase": "Error"}
    nodes = {
        "a": {"type": "DAG", "phase": "Error", "message": "of the graph", "finishedAt": "2026-01-01T00:00:00Z"},
        "b": {**pod, "message": "of one that was tried again", "finishedAt": "2026-01-01T00:00:01Z"},
        "c": {**pod, "message": "pods are\nforbidden", "finishedAt": "2026-01-01T00:00:02Z"},
        "e": {**pod, "message": "too", "finishedAt": "2026-01-01T00:00:03Z", "name": "w.exit-handler-1.onExit(0).s"},
        "d": {"type": "Pod", "phase": "Succeeded", "message": "well", "finishedAt": "2026-01-01T00:00:00Z"},
    }
    make_workflow(kubernetes, namespace, "run-1", nodes)
    monkeypatch.setenv("KUBECONFIG", str(kubernetes.kubeconfig(namespace=namespace)))
    assert StepPods(namespace).failure("run-1") == "pods are forbidden"
    assert StepPods(namespace).failure("run-2") == ""


@pytest.mark.usefixtures("cluster")
def test_without_the_right_to_read_workflows_nothing_is_said(namespace: str) -> None:
    assert StepPods(namespace).failure("run-1") == ""
