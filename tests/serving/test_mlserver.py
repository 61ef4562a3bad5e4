"""Boxes come back from a running MLServer, which is started as the example's InferenceService starts it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3
import yaml

from kubeyolo.bundle import Bundle
from tests.kubernetes_server import JSON, KubernetesServer, wait_for
from tests.minio_server import free_port
from tests.serving.test_detector import GREEN, RED, bundle, encoded  # noqa: F401  bundle is a fixture

ROOT = Path(__file__).parents[2]
MANIFEST: JSON = yaml.safe_load((ROOT / "manifests" / "serving" / "detector.yaml").read_text())
CONTAINER: JSON = MANIFEST["spec"]["predictor"]["containers"][0]
_START_SECONDS = 240.0


def packages() -> Path:
    """Return the folder of MLServer, whose packages are older than those of the project."""
    cache = Path(os.environ.get("KUBEYOLO_CACHE") or Path.home() / ".cache" / "kubeyolo")
    folder = Path(os.environ.get("KUBEYOLO_MLSERVER") or cache / "bin" / "mlserver")
    if not (folder / "mlserver").is_dir():
        pytest.skip("no MLServer: run `make tools`, or set KUBEYOLO_MLSERVER")
    return folder


class Server:
    """A running MLServer.

    Attributes:
        address: Its address.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._pool = urllib3.PoolManager(retries=False, timeout=60.0)

    def do(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = self._pool.request(method, f"{self.address}{path}", json=body)
        return answer.status, json.loads(answer.data) if answer.data else None

    def infer(self, *images: bytes, name: str = "images", **parameters: Any) -> tuple[int, Any]:
        data = [base64.b64encode(image).decode() for image in images]
        given = {"name": name, "shape": [len(data)], "datatype": "BYTES", "data": data}
        return self.do("POST", "/v2/models/detector/infer", {"inputs": [given], "parameters": parameters})


@pytest.fixture(scope="module")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:  # noqa: F811
    folder, path = tmp_path_factory.mktemp("mlserver"), packages()
    ports = {name: str(free_port()) for name in ("HTTP", "GRPC", "METRICS")}
    settings = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
    settings |= {"MLSERVER_MODEL_URI": bundle.reference, "KUBEYOLO_CACHE": str(folder / "cache")}
    settings |= {f"MLSERVER_{name}_PORT": port for name, port in ports.items()} | {"MLSERVER_HOST": "127.0.0.1"}
    start = "import sys; from mlserver.cli import main; sys.argv[0] = 'mlserver'; main()"
    arguments = [*CONTAINER["command"][1:-1], str(folder)]
    environment = {**os.environ, **settings, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", start, *arguments], env=environment, stdout=log, stderr=log)
    made = Server(f"http://127.0.0.1:{ports['HTTP']}")
    probe = CONTAINER["readinessProbe"]["httpGet"]["path"]
    try:
        end = time.monotonic() + _START_SECONDS
        while True:
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()[-3000:]
            try:
                if made.do("GET", probe)[0] == 200:
                    break
            except urllib3.exceptions.HTTPError:
                pass
            time.sleep(0.2)
        yield made
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_boxes_come_back_through_the_open_inference_protocol(server: Server) -> None:
    status, answer = server.infer(encoded(red=RED), encoded(green=GREEN), conf_threshold=0.5)
    assert status == 200, answer
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert {name: (each["datatype"], each["shape"]) for name, each in outputs.items()} == {
        "image": ("INT64", [2]),
        "boxes": ("FP32", [2, 4]),
        "scores": ("FP32", [2]),
        "classes": ("BYTES", [2]),
    }
    assert outputs["image"]["data"] == [0, 1] and outputs["classes"]["data"] == ["red", "green"]
    np.testing.assert_allclose(np.reshape(outputs["boxes"]["data"], (2, 4)), [RED, GREEN], atol=1e-3)
    assert server.do("GET", "/v2/models/detector/ready")[0] == 200
    status, answer = server.infer(encoded(red=RED), conf_threshold=0.95)
    assert status == 200 and answer["outputs"][2]["data"] == []


def test_a_request_that_cannot_be_used_is_answered_with_400_and_the_remedy(server: Server) -> None:
    for request, message in (
        (lambda: server.infer(b"no image"), "image 0 of the request"),
        (lambda: server.infer(encoded(), name="picture"), "picture (BYTES); expected images (BYTES)"),
        (lambda: server.infer(encoded(), iou_threshold=7), "iou_threshold = 7: expected a number from 0 to 1"),
    ):
        status, answer = request()
        assert status == 400 and message in answer["error"], answer
    assert server.infer(encoded(red=RED))[0] == 200


def inference_services() -> JSON:
    """Return a CRD with the fields of an InferenceService that the example uses; the pod's own are checked as a pod."""
    anything: JSON = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    predictor = {
        "type": "object",
        "required": ["containers"],
        "properties": {
            "minReplicas": {"type": "integer", "minimum": 0},
            "maxReplicas": {"type": "integer"},
            "automountServiceAccountToken": {"type": "boolean"},
            "securityContext": anything,
            "containers": {
                "type": "array",
                "items": {
                    **anything,
                    "required": ["name", "image"],
                    "properties": {"name": {"type": "string"}, "image": {"type": "string"}},
                },
            },
            "volumes": {"type": "array", "items": anything},
        },
    }
    spec = {"type": "object", "required": ["predictor"], "properties": {"predictor": predictor}}
    group, plural = "serving.kserve.io", "inferenceservices"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "InferenceService", "plural": plural, "singular": "inferenceservice"},
            "versions": [
                {
                    "name": "v1beta1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
                }
            ],
        },
    }


def test_the_manifest_is_an_inference_service_whose_pod_is_accepted(kubernetes: KubernetesServer) -> None:
    kubernetes.do("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", inference_services())
    group = "/apis/serving.kserve.io/v1beta1"
    wait_for(lambda: kubernetes.request("GET", f"{group}/inferenceservices")[0] == 200)
    namespace = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubernetes.do("POST", "/api/v1/namespaces", {"metadata": {"name": "serving", "labels": namespace}})
    path = f"{group}/namespaces/serving/inferenceservices?dryRun=All&fieldValidation=Strict"
    wait_for(lambda: kubernetes.request("GET", "/api/v1/namespaces/serving/serviceaccounts/default")[0] == 200)
    kubernetes.do("POST", path, MANIFEST)
    wrong = json.loads(json.dumps(MANIFEST))
    wrong["spec"]["predictor"]["minReplica"] = 1
    status, answer = kubernetes.request("POST", path, wrong)
    assert status == 400 and "minReplica" in answer["message"]
    predictor = MANIFEST["spec"]["predictor"]
    assert CONTAINER["name"] == "kserve-container"
    pod = {name: value for name, value in predictor.items() if name not in ("minReplicas", "maxReplicas")}
    pods = "/api/v1/namespaces/serving/pods?dryRun=All&fieldValidation=Strict"
    kubernetes.do("POST", pods, {"metadata": {"name": "detector"}, "spec": pod})
