"""The key of the store for a job: a Secret of its own on a real API server, made by a real MinIO, or that of others."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError
from kubeyolo.launch.cluster import Cluster
from kubeyolo.launch.manifest import job_manifest
from kubeyolo.launch.settings import cluster_settings
from kubeyolo.launch.store_key import StoreKey, store_key
from kubeyolo.storage.scoped_key import ScopedKey, StoreUnreachable
from kubeyolo.training.spec import TrainingSpec
from kubeyolo.work import Work
from tests.kubernetes_server import JSON, KubernetesServer, wait_for

NAME = "run-train"


def work_in(bucket: str) -> Work:
    config = load_config("yolov5n-r7", sets=("train.processes=2",))
    spec = TrainingSpec(dataset=f"minio://{bucket}/cells", output=f"minio://{bucket}/one", config=config)
    return spec.work()


def manifest(namespace: str, has_own_key: bool) -> JSON:
    settings = cluster_settings()[1]["train"]
    return job_manifest(
        work_in("bucket"), settings, name=NAME, namespace=namespace, image="image", has_own_key=has_own_key
    )


def secret(kubernetes: KubernetesServer, namespace: str) -> JSON | None:
    status, answer = kubernetes.request("GET", f"/api/v1/namespaces/{namespace}/secrets/{NAME}-store-key")
    return answer if status == 200 else None


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def key(cluster: Cluster, minio_bucket: str, said: list[str]) -> StoreKey:
    found = store_key(cluster, work_in(minio_bucket), cluster_settings()[1]["train"], NAME, said.append)
    assert found is not None, said
    return found


def test_the_secret_of_a_job_has_its_key_and_goes_with_the_job(
    kubernetes: KubernetesServer, namespace: str, cluster: Cluster, key: StoreKey, said: list[str]
) -> None:
    assert secret(kubernetes, namespace) is None, "the Secret is written when the job exists"
    job = cluster.create_job(manifest(namespace, has_own_key=True))
    key.keep(job)
    found = secret(kubernetes, namespace)
    assert found is not None
    text = base64.b64decode(found["data"]["credentials"]).decode()
    assert text.startswith("[default]\naws_access_key_id = ") and "aws_session_token = ey" in text
    key.keep(job)
    again = secret(kubernetes, namespace)
    assert again is not None and again["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]
    cluster.delete_job(NAME, job["metadata"]["uid"])
    wait_for(lambda: secret(kubernetes, namespace) is None)
    # A job that is submitted again gets its Secret again.
    second = cluster.create_job(manifest(namespace, has_own_key=True))
    key.keep(second)
    found = secret(kubernetes, namespace)
    assert found is not None and found["metadata"]["ownerReferences"][0]["uid"] == second["metadata"]["uid"]
    assert said == []
    cluster.delete_job(NAME)


def test_the_key_is_renewed_when_half_of_its_time_is_over(
    kubernetes: KubernetesServer,
    namespace: str,
    cluster: Cluster,
    key: StoreKey,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[Any] = [ScopedKey(document="third", seconds=3600.0), StoreUnreachable("the store is away")]
    answers.append(ScopedKey(document="first", seconds=0.8))

    def request(*arguments: Any) -> ScopedKey:
        answer = answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("kubeyolo.launch.store_key.request_key", request)
    monkeypatch.setattr("kubeyolo.launch.store_key._PAUSE_SECONDS", 0.1)

    def content() -> bytes:
        found = secret(kubernetes, namespace)
        return base64.b64decode(found["data"]["credentials"]) if found else b""

    job = cluster.create_job(manifest(namespace, has_own_key=True))
    key.request()  # The first key.
    key.keep(job)
    assert (content(), said) == (b"first", [])
    time.sleep(0.45)  # Half of its time is over: the store is away at first, and answers after a pause.
    key.keep(job)
    assert said == ["warning: the key of the store was not renewed: the store is away; trying again"]
    key.keep(job)
    assert content() == b"first", "the next attempt is made after a pause"
    time.sleep(0.15)
    key.keep(job)
    assert (content(), answers, len(said)) == (b"third", [], 1)
    cluster.delete_job(NAME)


def test_without_the_right_to_secrets_the_trainers_use_that_of_the_settings(
    kubernetes: KubernetesServer, namespace: str, cluster: Cluster, minio_bucket: str, said: list[str]
) -> None:
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/kubeyolo-launcher"
    role = kubernetes.do("GET", path)
    role["rules"] = [rule for rule in role["rules"] if "secrets" not in rule["resources"]]
    kubernetes.do("PUT", path, role)
    wait_for(lambda: not cluster.may("create", "secrets"))
    assert store_key(cluster, work_in(minio_bucket), cluster_settings()[1]["train"], NAME, said.append) is None
    (line,) = said
    assert line.startswith("the trainers use the key in the Secret mlpipeline-minio-artifact")
    assert line.endswith(f"this account may not create and update Secrets in namespace {namespace}")


def test_without_a_key_of_the_store_the_trainers_use_that_of_the_settings(
    cluster: Cluster, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MINIO_ENDPOINT", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    assert store_key(cluster, work_in("bucket"), cluster_settings()[1]["train"], NAME, said.append) is None
    assert "MINIO_ENDPOINT is not set" in said[0]


def test_a_store_that_refuses_the_key_of_a_submitted_job_ends_the_launch(
    namespace: str, cluster: Cluster, key: StoreKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "write_secret", _refuse)
    with pytest.raises(InputError, match="the pods of job run-train get no key of the store: no"):
        key.keep({"metadata": {"uid": "1"}})


def _refuse(manifest: JSON) -> None:
    raise InputError("no")


def test_pods_have_one_key_of_the_store_and_both_jobs_are_the_same() -> None:
    own, given = manifest("kubeflow", has_own_key=True), manifest("kubeflow", has_own_key=False)
    pods = [each["spec"]["tasks"][0]["template"]["spec"] for each in (own, given)]
    names = [{variable["name"] for variable in pod["containers"][0]["env"]} for pod in pods]
    assert names[0] - names[1] == {"AWS_SHARED_CREDENTIALS_FILE"}
    assert names[1] - names[0] == {"MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_SESSION_TOKEN"}
    secrets = [[each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each] for pod in pods]
    assert secrets == [["run-train-store-key"], []]
    # A launcher adopts the job whether or not the store gives out keys when it looks.
    assert own["metadata"]["annotations"] == given["metadata"]["annotations"]
