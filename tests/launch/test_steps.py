"""What the pods of steps tell, on a real API server; a double of the kubelet has the lines of their logs."""

from __future__ import annotations

from typing import Any

import pytest

from kubeyolo.launch.steps import step_log, stuck_step
from tests.kubernetes_server import KubernetesServer
from tests.launch.volcano_double import NODE, Volcano

WORKFLOW = "detector-training-x7k2p"


def make_pod(kubernetes: KubernetesServer, volcano: Volcano, name: str, node_name: str, text: str) -> None:
    """Make a pod as Argo does, and let its container print a line."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    metadata = {
        "name": name,
        "labels": {"workflows.argoproj.io/workflow": WORKFLOW},
        "annotations": {"workflows.argoproj.io/node-name": f"{WORKFLOW}.root.exit-handler-1.{node_name}"},
    }
    spec: dict[str, Any] = {
        "nodeName": NODE,
        "containers": [{"name": "main", "image": "i", "securityContext": security}],
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
    make_pod(kubernetes, volcano, f"{volcano.namespace}-other", "validate-dataset.executor", "of another")
    assert "of the step" in step_log(WORKFLOW, "train", volcano.namespace)
    assert "of another" in step_log(WORKFLOW, "validate_dataset", volcano.namespace)
    assert step_log(WORKFLOW, "publish", volcano.namespace) == ""
    assert step_log("another", "train", volcano.namespace) == ""


@pytest.mark.usefixtures("cluster")
def test_a_step_whose_image_is_not_there_is_stuck(kubernetes: KubernetesServer, volcano: Volcano) -> None:
    name = f"{volcano.namespace}-impl"
    make_pod(kubernetes, volcano, name, "validate-dataset.executor", "")
    assert stuck_step(WORKFLOW, volcano.namespace) is None
    volcano.container_waits(name, "ImagePullBackOff", "not found")
    words = "image registry/nowhere:1 cannot be pulled (not found)"
    assert stuck_step(WORKFLOW, volcano.namespace) == ("validate_dataset", words)
    volcano.container_waits(name, "ContainerCreating")
    assert stuck_step(WORKFLOW, volcano.namespace) is None


def test_without_a_cluster_there_is_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert step_log(WORKFLOW, "train", "kubeflow") == ""
    assert stuck_step(WORKFLOW, "kubeflow") is None
