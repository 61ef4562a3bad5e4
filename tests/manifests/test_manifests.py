"""The manifests on a real API server: accepted, idempotent, restricted, and without unneeded rights."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from kubeyolo.processes import CONTAINER_VARIABLES
from tests.kubernetes_server import JSON, KubernetesServer, programs, wait_for
from tests.minio_server import MinioServer

MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir() if path.is_dir())
ACCOUNT = "pipeline-runner"
VOLCANO, SCHEDULING = "batch.volcano.sh", "scheduling.volcano.sh"


def kubectl_program() -> str:
    folder = (programs() or {}).get("apiserver", Path("/nowhere")).parent
    found = folder / "kubectl"
    path = str(found) if found.is_file() else shutil.which("kubectl")
    if path is None:
        pytest.skip("no kubectl: put it on PATH, or run `make tools`")
    return path


def kubectl(*arguments: str, config: Path | None = None) -> str:
    # It has a cache in the home folder.
    environment = {"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir()}
    if config is not None:
        environment["KUBECONFIG"] = str(config)
    done = subprocess.run(
        [kubectl_program(), *arguments], capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def containers(value: Any) -> list[JSON]:
    """Return all containers of a manifest."""
    if isinstance(value, dict):
        return [*value.get("containers", ()), *(one for part in value.values() for one in containers(part))]
    return [one for part in value for one in containers(part)] if isinstance(value, list) else []


def test_every_container_runs_the_installed_code_without_telemetry() -> None:
    texts = [path.read_text() for path in sorted(MANIFESTS.rglob("*.yaml"))]
    python = [
        container
        for text in texts
        for document in yaml.safe_load_all(text)
        for container in containers(document)
        if "python3" in container.get("command", ())
    ]
    assert sorted(container["name"] for container in python) == ["prepare", "watch"]
    for container in python:
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert variables.items() >= CONTAINER_VARIABLES.items(), container["name"]


def documents(overlay: str) -> list[JSON]:
    text = kubectl("kustomize", str(MANIFESTS / "overlays" / overlay))
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="module")
def applied(kubernetes: KubernetesServer) -> Path:
    """The kubeconfig of a cluster on which both overlays were applied, the laptop's last."""
    config = kubernetes.kubeconfig("manifests")
    kubernetes.request("POST", "/api/v1/namespaces", {"metadata": {"name": "kubeflow"}})
    for overlay in ("ascend", "laptop"):
        kubectl("apply", "-k", str(MANIFESTS / "overlays" / overlay), config=config)
    path = "/api/v1/namespaces/kubeflow/serviceaccounts"
    wait_for(lambda: kubernetes.request("GET", f"{path}/default")[0] == 200)
    kubernetes.request("POST", path, {"metadata": {"name": ACCOUNT}})
    return config


def test_applying_again_changes_nothing(applied: Path) -> None:
    said = kubectl("apply", "-k", str(MANIFESTS / "overlays" / "laptop"), config=applied)
    assert said and all(line.endswith("unchanged") for line in said.splitlines()), said


def test_the_configuration_of_argo_is_one_that_it_reads(applied: Path, kubernetes: KubernetesServer) -> None:
    name = "workflow-controller-configmap"
    path = "/api/v1/namespaces/kubeflow/configmaps"
    kubernetes.request("POST", path, {"metadata": {"name": name}, "data": {"other": "stays"}})
    patch = ("patch", "configmap", name, "--patch-file", str(MANIFESTS / "argo.yaml"))
    kubectl("-n", "kubeflow", *patch, config=applied)
    data = kubernetes.do("GET", f"{path}/{name}")["data"]
    assert data["other"] == "stays"
    context = yaml.safe_load(data["executor"])["securityContext"]
    pod = {"spec": {"containers": [{"name": "wait", "image": "image", "securityContext": context}]}}
    kubernetes.do("POST", "/api/v1/namespaces/kubeflow/pods?dryRun=All", {"metadata": {"name": "argo"}, **pod})
    spec = yaml.safe_load(data["workflowDefaults"])["spec"]
    assert spec["templateDefaults"]["retryStrategy"]["retryPolicy"] == "Always"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_contain_no_secret(overlay: str) -> None:
    assert [each["kind"] for each in documents(overlay) if each["kind"] == "Secret"] == []


def templates(overlay: str) -> list[JSON]:
    return [each for each in documents(overlay) if "template" in each.get("spec", {})]


def test_every_pod_is_accepted_at_the_restricted_level(applied: Path, kubernetes: KubernetesServer) -> None:
    found = templates("laptop")
    assert {each["metadata"]["name"] for each in found} == {"kubeyolo-minio", "kubeyolo-buckets", "kubeyolo-watch"}
    for each in found:
        pod = {"metadata": {"name": f"try-{each['metadata']['name']}"}, "spec": each["spec"]["template"]["spec"]}
        kubernetes.do("POST", "/api/v1/namespaces/kubeflow/pods?dryRun=All", pod)


def test_a_pod_below_the_restricted_level_is_refused(applied: Path, kubernetes: KubernetesServer) -> None:
    pod = {"metadata": {"name": "root"}, "spec": {"containers": [{"name": "root", "image": "image"}]}}
    status, answer = kubernetes.request("POST", "/api/v1/namespaces/kubeflow/pods?dryRun=All", pod)
    assert status == 403 and "restricted" in answer["message"]


NEEDED = [
    *[(VOLCANO, "jobs", verb) for verb in ("create", "delete", "get", "list", "watch")],
    *[(SCHEDULING, "podgroups", verb) for verb in ("get", "list", "watch")],
    *[(SCHEDULING, "queues", verb) for verb in ("get", "list", "watch")],
    *[("", "events", verb) for verb in ("get", "list", "watch")],
    *[("", "pods", verb) for verb in ("get", "list", "watch")],
    ("", "pods/log", "get"),
    *[("", "secrets", verb) for verb in ("create", "update")],
]
REFUSED = [
    *[(VOLCANO, "jobs", verb) for verb in ("update", "patch", "deletecollection")],
    *[(VOLCANO, "jobs/status", verb) for verb in ("update", "patch")],
    *[(SCHEDULING, "podgroups", verb) for verb in ("create", "update", "patch", "delete")],
    *[(SCHEDULING, "queues", verb) for verb in ("create", "update", "patch", "delete")],
    *[("", "pods", verb) for verb in ("create", "delete", "patch")],
    ("", "pods/exec", "create"),
    ("", "secrets", "get"),
    ("", "secrets", "list"),
    ("", "secrets", "delete"),
    ("", "configmaps", "create"),
    ("", "services", "create"),
    ("", "nodes", "list"),
    ("apps", "deployments", "create"),
    ("rbac.authorization.k8s.io", "roles", "create"),
]


def may(kubernetes: KubernetesServer, token: str, right: tuple[str, str, str], namespace: str) -> bool:
    group, resource, verb = right
    name, _, sub = resource.partition("/")
    attributes: dict[str, Any] = {"group": group, "resource": name, "verb": verb, "namespace": namespace}
    if sub:
        attributes["subresource"] = sub
    if name in ("queues", "nodes"):
        attributes.pop("namespace")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    return bool(kubernetes.do("POST", path, review, token=token)["status"]["allowed"])


@pytest.mark.parametrize("namespace", ["kubeflow", "kubeyolo-ascend"])
def test_the_account_of_the_steps_may_do_what_it_needs_and_no_more(
    applied: Path, kubernetes: KubernetesServer, namespace: str
) -> None:
    token = kubernetes.token_of("kubeflow", ACCOUNT)
    assert [right for right in NEEDED if not may(kubernetes, token, right, namespace)] == []
    assert [right for right in REFUSED if may(kubernetes, token, right, namespace)] == []
    assert [right for right in NEEDED if right[1] != "queues" and may(kubernetes, token, right, "default")] == []


def rules(kubernetes: KubernetesServer, token: str, namespace: str) -> set[tuple[str, str, str]]:
    """Return the rights of an account in a namespace: group, resource and verb; without those that everybody has."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    status = kubernetes.do("POST", path, {**review, "spec": {"namespace": namespace}}, token=token)["status"]
    assert status["incomplete"] is False
    return {
        (group, resource, verb)
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if group not in ("authorization.k8s.io", "authentication.k8s.io")
    }


READS_RUNS = {("argoproj.io", "workflows", "get")}
DELETES_JOBS = {(VOLCANO, "jobs", "delete"), (VOLCANO, "jobs", "list")}


@pytest.mark.parametrize(
    ("namespace", "rights"),
    [("kubeflow", READS_RUNS | DELETES_JOBS), ("kubeyolo-ascend", DELETES_JOBS), ("default", set())],
)
def test_the_watch_may_read_runs_and_delete_jobs_and_no_more(
    applied: Path, kubernetes: KubernetesServer, namespace: str, rights: set[tuple[str, str, str]]
) -> None:
    token = kubernetes.token_of("kubeflow", "kubeyolo-watch")
    assert rules(kubernetes, token, namespace) == rights
    assert [right for right in rights if not may(kubernetes, token, right, namespace)] == []
    others = {*NEEDED, *REFUSED, ("argoproj.io", "workflows", "list"), ("argoproj.io", "workflows", "delete")}
    assert [right for right in others - rights if may(kubernetes, token, right, namespace)] == []


@pytest.mark.parametrize(("overlay", "arguments"), [("laptop", []), ("ascend", ["--jobs=kubeyolo-ascend"])])
def test_the_watch_looks_where_the_trainers_of_an_overlay_are(overlay: str, arguments: list[str]) -> None:
    (deployment,) = [each for each in templates(overlay) if each["metadata"]["name"] == "kubeyolo-watch"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["--alive=/tmp/alive", *arguments]
    assert container["image"] == "kubeyolo-launch"


def test_the_policy_of_the_network_is_of_the_trainers(applied: Path) -> None:
    from kubeyolo.launch.manifest import POD_LABELS

    for overlay in OVERLAYS:
        policies = [
            each
            for each in documents(overlay)
            if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "kubeyolo-trainer"
        ]
        assert policies
        for policy in policies:
            assert policy["spec"]["podSelector"]["matchLabels"] == POD_LABELS
            assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_policies_of_the_network_select_our_pods_and_open_what_they_need(overlay: str) -> None:
    from kubeyolo.launch.manifest import POD_LABELS
    from pipelines.pod import STEP_LABELS

    found = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each["spec"]
        for each in documents(overlay)
        if each["kind"] == "NetworkPolicy"
    }

    def opened(name: str) -> set[int]:
        rules = found["kubeflow", name]["egress"]
        return {port["port"] for rule in rules for port in rule.get("ports", ())}

    step = found["kubeflow", "kubeyolo-step"]
    assert step["podSelector"]["matchLabels"] == STEP_LABELS != POD_LABELS
    assert "ingress" not in step and step["policyTypes"] == ["Ingress", "Egress"]
    assert opened("kubeyolo-step") == {53, 443, 6443, 8080, 8333, 8887, 8888, 9000}
    assert opened("kubeyolo-trainer") == {53, 9000}
    assert opened("kubeyolo-watch") == {53, 443, 6443}
    # Rules without a peer open a port for every address: only the store and the API server have no fixed one.
    for (namespace, name), policy in found.items():
        everywhere = {port["port"] for rule in policy.get("egress", ()) if "to" not in rule for port in rule["ports"]}
        assert everywhere <= {443, 6443, 9000}, (namespace, name)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_namespace_is_checked_by_the_admission_policy(overlay: str) -> None:
    made = documents(overlay)
    labels = {each["metadata"]["name"]: each["metadata"]["labels"] for each in made if each["kind"] == "Namespace"}
    (policy,) = [each["data"] for each in made if each["metadata"]["name"] == "kubeyolo-policy"]
    assert {name for name, own in labels.items() if own.get("kubeyolo.io/jobs") == "checked"} == set(labels)
    trainers = {name for name, own in labels.items() if own.get("kubeyolo.io/pods") == "checked"}
    assert trainers == set(policy["namespaces"].split()) == set(labels) - {"kubeflow"}
    bindings = [each["spec"] for each in made if each["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert len(bindings) == 3
    assert {each["paramRef"]["parameterNotFoundAction"] for each in bindings if "paramRef" in each} == {"Deny"}
    assert {each["validationActions"][0] for each in bindings} == {"Deny"}


def test_the_account_of_the_steps_reads_the_policy_and_cannot_change_it(
    applied: Path, kubernetes: KubernetesServer
) -> None:
    token, path = kubernetes.token_of("kubeflow", ACCOUNT), "/api/v1/namespaces/kubeflow/configmaps/kubeyolo-policy"
    assert kubernetes.do("GET", path, token=token)["data"]["groups"] == "1000"
    for method, body in (("PATCH", {"data": {"groups": "0"}}), ("DELETE", None)):
        assert kubernetes.request(method, f"{path}?dryRun=All", body, token=token)[0] == 403


def test_the_settings_of_the_store_are_those_the_launcher_refers_to(applied: Path) -> None:
    from kubeyolo.launch.settings import cluster_settings

    for overlay in OVERLAYS:
        names = {each["metadata"]["name"] for each in documents(overlay) if each["kind"] == "ConfigMap"}
        assert cluster_settings()[1]["train"].store_config in names


def test_the_bucket_is_private_and_creating_it_again_changes_nothing(
    minio_server: MinioServer, minio_bucket: str
) -> None:
    script = MANIFESTS / "overlays" / "laptop" / "prepare.py"
    environment = {**os.environ, **minio_server.environment}
    bucket = f"{minio_bucket}-runs"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(script), bucket],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"bucket {bucket} is ready"
    client = minio_server.client
    client.put_object(bucket, "a", io.BytesIO(b"x"), 1)
    assert client.get_object(bucket, "a").read() == b"x"
    assert urllib3.PoolManager().request("GET", f"http://{minio_server.endpoint}/{bucket}/a").status == 403


def test_the_policy_of_the_bucket_denies_only_anonymous_requests(minio_server: MinioServer, minio_bucket: str) -> None:
    """Together with a statement that allows everything to everybody, since MinIO closes buckets without a policy."""
    (policy,) = (MANIFESTS / "overlays" / "laptop").glob("policy.json")
    content = json.loads(policy.read_text().replace("BUCKET", minio_bucket))
    (denied,) = content["Statement"]
    # On stores other than MinIO, denying everybody would include users with keys.
    assert (denied["Effect"], denied["Condition"]) == ("Deny", {"StringEquals": {"aws:principaltype": "Anonymous"}})
    opened = {name: denied[name] for name in ("Principal", "Action", "Resource")} | {"Effect": "Allow"}
    client, pool = minio_server.client, urllib3.PoolManager()
    client.put_object(minio_bucket, "a", io.BytesIO(b"x"), 1)

    def answers() -> list[int]:
        place = f"http://{minio_server.endpoint}/{minio_bucket}"
        asked = (("GET", "a", None), ("PUT", "b", b"y"), ("DELETE", "b", None))
        return [pool.request(method, f"{place}/{key}", body=body).status for method, key, body in asked]

    client.set_bucket_policy(minio_bucket, json.dumps({**content, "Statement": [opened]}))
    assert answers() == [200, 200, 204]
    client.set_bucket_policy(minio_bucket, json.dumps({**content, "Statement": [opened, denied]}))
    assert answers() == [403, 403, 403]
    assert client.get_object(minio_bucket, "a").read() == b"x"
    assert pool.request("GET", client.presigned_get_object(minio_bucket, "a")).status == 200
    client.put_object(minio_bucket, "b", io.BytesIO(b"y"), 1)
    client.remove_object(minio_bucket, "b")
