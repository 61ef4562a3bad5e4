"""A namespace of its own for a test of the launcher, with what the manifests put there, and a double of Volcano."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from kubeyolo.launch.cluster import Cluster
from tests.kubernetes_server import KubernetesServer, wait_for
from tests.launch.launching import SPEC, Launch
from tests.launch.volcano_double import Kubelet, Volcano, kubelet_of

ACCOUNT = "pipeline-runner"
RBAC = Path(__file__).parents[2] / "manifests" / "base" / "rbac.yaml"
_QUEUES = "/apis/scheduling.volcano.sh/v1beta1/queues"
_COLLECTION = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture(scope="session")
def kubelet(kubernetes: KubernetesServer) -> Iterator[Kubelet]:
    with kubelet_of(kubernetes) as found:
        yield found


@pytest.fixture
def namespace(kubernetes: KubernetesServer) -> str:
    """A namespace at the restricted level, with the account of the steps and its rights."""
    name = f"launch-{uuid.uuid4().hex[:8]}"
    kubernetes.namespace(name, {"pod-security.kubernetes.io/enforce": "restricted"})
    kubernetes.do("POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
    for document in yaml.safe_load_all(RBAC.read_text()):
        place = "" if document["kind"].startswith("Cluster") else f"/namespaces/{name}"
        if place == "" and document["kind"].endswith("Binding"):
            document["metadata"]["name"] = f"{document['metadata']['name']}-{name}"
        for subject in document.get("subjects", ()):
            subject["namespace"] = name
        status, answer = kubernetes.request("POST", f"{_COLLECTION}{place}/{document['kind'].lower()}s", document)
        assert status == 201 or (status == 409 and not place), answer
    return name


@pytest.fixture
def account(kubernetes: KubernetesServer, namespace: str) -> Path:
    """The kubeconfig of the account of the steps."""
    token = kubernetes.token_of(namespace, ACCOUNT)
    # The authorizer sees a binding a little after it was made.
    for path in (f"/apis/batch.volcano.sh/v1alpha1/namespaces/{namespace}/jobs", _QUEUES):
        wait_for(lambda path=path: kubernetes.request("GET", path, token=token)[0] == 200)  # type: ignore[misc]
    return kubernetes.kubeconfig(f"runner-{namespace}", token, namespace)


@pytest.fixture
def cluster(account: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The namespace as the steps of a pipeline see it."""
    monkeypatch.setenv("KUBECONFIG", str(account))
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    return Cluster.connect()


@pytest.fixture
def volcano(kubernetes: KubernetesServer, kubelet: Kubelet, namespace: str) -> Volcano:
    return Volcano(kubernetes, kubelet, namespace)


@pytest.fixture
def launch(cluster: Cluster) -> Callable[..., Launch]:
    return lambda spec=SPEC, **others: Launch(cluster, spec, **others)
