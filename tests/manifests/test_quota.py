"""A namespace whose quota counts processors and memory admits every pod of every pipeline, on a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.compiled.pipeline import CompiledPipeline, pipeline_names
from tests.kubernetes_server import JSON, RESTRICTED, KubernetesServer, wait_for

MANIFESTS = Path(__file__).parents[2] / "manifests"
NAMESPACE = "quota"
PATH = f"/api/v1/namespaces/{NAMESPACE}"
COUNTED = {"requests.cpu", "requests.memory", "limits.memory", "pods"}

# What Kubeflow 2.17 gives its driver, which is a pod of its own, and the container that copies its launcher.
DRIVER = {"limits": {"cpu": "500m", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}}
LAUNCHER = {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m"}}


def documents() -> dict[str, JSON]:
    return {each["kind"]: each for each in yaml.safe_load_all((MANIFESTS / "quota.yaml").read_text())}


@pytest.fixture
def quota(kubernetes: KubernetesServer) -> Iterator[None]:
    """The namespace with the quota of the manifests, but without the LimitRange."""
    kubernetes.request("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    wait_for(lambda: kubernetes.request("GET", f"{PATH}/serviceaccounts/default")[0] == 200)
    made = kubernetes.do("POST", f"{PATH}/resourcequotas", documents()["ResourceQuota"])
    hard = made["spec"]["hard"]
    assert set(hard) == COUNTED
    # As its controller does, which the tests do not start.
    status = {"hard": hard, "used": dict.fromkeys(hard, "0")}
    kubernetes.do("PATCH", f"{PATH}/resourcequotas/{made['metadata']['name']}/status", {"status": status})
    yield
    for kind in ("resourcequotas", "limitranges"):
        kubernetes.request("DELETE", f"{PATH}/{kind}/{made['metadata']['name']}")


def container(name: str, resources: JSON) -> JSON:
    return {"name": name, "image": "image", "resources": resources, "securityContext": RESTRICTED}


def argo_resources() -> JSON:
    """Return the resources of the containers that Argo adds."""
    config = yaml.safe_load((MANIFESTS / "argo.yaml").read_text())["data"]
    return dict(yaml.safe_load(config["executor"])["resources"])


def step_resources(found: JSON) -> JSON:
    """Return what Kubeflow makes of the resources of a container in a compiled pipeline."""
    return {
        "requests": {"cpu": found["resourceCpuRequest"], "memory": found["resourceMemoryRequest"]},
        "limits": {"memory": found["resourceMemoryLimit"]},
    }


def admits(kubernetes: KubernetesServer, init: list[JSON], containers: list[JSON]) -> tuple[int, Any]:
    """Try to make a pod; return the status and the answer."""
    pod = {"metadata": {"name": "try"}, "spec": {"initContainers": init, "containers": containers}}
    return kubernetes.request("POST", f"{PATH}/pods?dryRun=All", pod)


@pytest.mark.usefixtures("quota")
def test_every_pod_of_every_pipeline_has_what_the_quota_counts(kubernetes: KubernetesServer) -> None:
    argo = argo_resources()
    assert admits(kubernetes, [container("init", argo)], [container("wait", argo), container("main", DRIVER)])[0] == 201
    for name in pipeline_names():
        executors = next(yaml.safe_load_all(CompiledPipeline.named(name).text))["deploymentSpec"]["executors"]
        for executor, facts in executors.items():
            step = container("main", step_resources(facts["container"]["resources"]))
            init = [container("init", argo), container("kfp-launcher", LAUNCHER)]
            status, answer = admits(kubernetes, init, [container("wait", argo), step])
            assert status == 201, (executor, answer)
            # Without its resources the pod is refused.
            status, answer = admits(kubernetes, init, [container("wait", argo), container("main", {})])
            assert status == 403 and "must specify limits.memory for: main" in answer["message"], answer


@pytest.mark.usefixtures("quota")
def test_other_pods_get_what_they_lack_and_steps_keep_what_they_have(kubernetes: KubernetesServer) -> None:
    assert admits(kubernetes, [], [container("server", {})])[0] == 403
    kubernetes.do("POST", f"{PATH}/limitranges", documents()["LimitRange"])
    # The API server notices a LimitRange a little later.
    status, answer = wait_for(
        lambda: found if (found := admits(kubernetes, [], [container("server", {})]))[0] == 201 else None
    )
    (server,) = answer["spec"]["containers"]
    assert server["resources"] == {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "2Gi"}}
    executors = next(yaml.safe_load_all(CompiledPipeline.named().text))["deploymentSpec"]["executors"]
    wanted = step_resources(executors["exec-train"]["container"]["resources"])
    status, answer = admits(kubernetes, [], [container("main", wanted)])
    # No limit of processors is added, which would slow the step down.
    assert status == 201 and answer["spec"]["containers"][0]["resources"] == wanted
