"""A real Kubernetes API server for tests: etcd, the API server and its controllers, on free loopback ports.

There is no kubelet and no scheduler: pods are objects that nothing runs. Authorization and PodSecurity are on.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.minio_server import _end_with_parent, free_port

ADMIN_TOKEN = "test-admin"
PROGRAMS = {"etcd": ("etcd", "server"), "apiserver": ("kube-apiserver",), "controllers": ("kube-controller-manager",)}
_START_SECONDS = 90.0
_CONTROLLERS = (
    "namespace-controller",
    "serviceaccount-controller",
    "garbage-collector-controller",
)

JSON = dict[str, Any]

RESTRICTED: JSON = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Security context of a container that the restricted level of PodSecurity admits."""


def programs() -> dict[str, Path] | None:
    """Return the programs of $KUBEYOLO_KUBERNETES_BIN, or those that `make tools` has built; None without them."""
    cache = Path(os.environ.get("KUBEYOLO_CACHE") or Path.home() / ".cache" / "kubeyolo")
    folder = Path(os.environ.get("KUBEYOLO_KUBERNETES_BIN") or cache / "bin")
    found = {}
    for what, names in PROGRAMS.items():
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            return None
        found[what] = path
    return found


@dataclass
class KubernetesServer:
    """The processes, and requests as the administrator."""

    binaries: Mapping[str, Path]
    folder: Path
    port: int = field(default_factory=free_port)
    etcd_port: int = field(default_factory=free_port)
    peer_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "certs" / "apiserver.crt"

    @property
    def key(self) -> Path:
        return self.folder / "certs" / "apiserver.key"

    def kubeconfig(self, name: str = "admin", token: str = ADMIN_TOKEN, namespace: str = "default") -> Path:
        """Write a kubeconfig for a token and return its path."""
        cluster = {
            "server": self.url,
            "certificate-authority-data": base64.b64encode(self.certificate.read_bytes()).decode(),
        }
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": "test", "user": name, "namespace": namespace}}],
            "current-context": name,
        }
        path = self.folder / f"{name}-{namespace}.kubeconfig"
        path.write_text(yaml.safe_dump(content))
        return path

    def request(
        self, method: str, path: str, body: Any = None, token: str = ADMIN_TOKEN, patch: str = "merge-patch+json"
    ) -> tuple[int, JSON]:
        """Send a request and return status and answer."""
        kind = f"application/{patch}" if method == "PATCH" else "application/json"
        response = self._pool().request(
            method,
            self.url + path,
            body=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {token}", "Content-Type": kind},
        )
        try:
            return response.status, json.loads(response.data)
        except ValueError:
            return response.status, {"message": response.data.decode(errors="replace")}

    def do(self, method: str, path: str, body: Any = None, **settings: Any) -> JSON:
        """Send a request that must succeed."""
        status, answer = self.request(method, path, body, **settings)
        assert 200 <= status < 300, f"{method} {path}: {status} {answer.get('message')}"
        return answer

    def _pool(self) -> urllib3.PoolManager:
        if not hasattr(self, "_kept"):
            context = ssl.create_default_context(cafile=str(self.certificate))
            self._kept = urllib3.PoolManager(ssl_context=context, timeout=30.0, retries=False, maxsize=8)
        return self._kept

    def namespace(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Make a namespace, with the service account that pods need."""
        self.do("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": dict(labels or {})}})
        wait_for(lambda: self.request("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")[0] == 200)
        return name

    def token_of(self, namespace: str, account: str) -> str:
        """Return a token of a service account."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return str(self.do("POST", path, {"spec": {"expirationSeconds": 3600}})["status"]["token"])

    def start(self, volcano: bool = True) -> None:
        """Start all, with the CRDs of Volcano or without."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_keys()
        etcd = f"http://127.0.0.1:{self.etcd_port}"
        peer = f"http://127.0.0.1:{self.peer_port}"
        self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )
        self.start_api_server()
        # Before the garbage collector, which looks for new kinds every half a minute.
        if volcano:
            self._install_volcano()
        self._start(
            "controllers",
            f"--kubeconfig={self.kubeconfig()}",
            f"--controllers={','.join(_CONTROLLERS)}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
        )

    def start_api_server(self) -> None:
        """Start the API server, or start it again."""
        self._start(
            "apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1",
            # Otherwise it looks for the address of a default route, which the network of the tests does not have.
            "--advertise-address=192.0.2.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder / 'certs'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'account.key'}",
            f"--service-account-signing-key-file={self.folder / 'account.key'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--kubelet-preferred-address-types=InternalIP",
            "--endpoint-reconciler-type=none",
        )
        wait_for(self._is_ready, _START_SECONDS)

    def stop_api_server(self) -> None:
        process = self.processes.pop("apiserver")
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.processes.clear()

    def _start(self, what: str, *arguments: str) -> None:
        with (self.folder / f"{what}.log").open("ab") as log:
            self.processes[what] = subprocess.Popen(
                [str(self.binaries[what]), *arguments],
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "GOMAXPROCS": "2"},
                preexec_fn=_end_with_parent,
            )

    def _is_ready(self) -> bool:
        for what, process in self.processes.items():
            if process.poll() is not None:
                log = (self.folder / f"{what}.log").read_text(errors="replace")
                raise RuntimeError(f"{what} did not start: {log[-2000:]}")
        try:
            return self.certificate.is_file() and self.request("GET", "/readyz")[0] == 200
        except (urllib3.exceptions.HTTPError, OSError):
            return False

    def _write_keys(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (self.folder / "account.key").write_bytes(key)
        with (self.folder / "tokens.csv").open("w", newline="") as file:
            csv.writer(file).writerow([ADMIN_TOKEN, "admin", "admin", "system:masters"])

    def _install_volcano(self) -> None:
        for definition in volcano_definitions():
            self.do("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        group = "/apis/scheduling.volcano.sh/v1beta1/queues"
        wait_for(lambda: self.request("GET", group)[0] == 200)
        wait_for(lambda: self.request("GET", "/apis/batch.volcano.sh/v1alpha1/jobs")[0] == 200)
        wait_for(lambda: self.request("GET", "/apis/scheduling.volcano.sh/v1beta1/podgroups")[0] == 200)
        for name in ("default", "training"):
            queue = {"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "Queue", "metadata": {"name": name}}
            self.do("POST", group, {**queue, "spec": {"weight": 1}})


def volcano_definitions() -> list[JSON]:
    """Return the CRDs of Volcano: those of ../shared, else small ones that take any field."""
    from tests.conftest import shared_folder

    folder = shared_folder() / "data" / "crds"
    if folder.is_dir():
        return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    kinds = (
        ("batch.volcano.sh", "v1alpha1", "Job", "jobs", "Namespaced", {"status": {}}),
        ("scheduling.volcano.sh", "v1beta1", "PodGroup", "podgroups", "Namespaced", {}),
        ("scheduling.volcano.sh", "v1beta1", "Queue", "queues", "Cluster", {"status": {}}),
    )
    return [definition(*kind) for kind in kinds]


def definition(group: str, version: str, kind: str, plural: str, scope: str, subresources: JSON) -> JSON:
    """Return a small CRD that takes any field."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "scope": scope,
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": subresources,
                }
            ],
        },
    }


def wait_for(condition: Any, seconds: float = 60.0) -> Any:
    """Wait until a condition holds and return what it gave."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesServer]:
    found = programs()
    if found is None:
        pytest.skip("no Kubernetes API server: set KUBEYOLO_KUBERNETES_BIN, or run `make tools`")
    folder = tmp_path_factory.mktemp("kubernetes")
    server = KubernetesServer(found, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder / "etcd", ignore_errors=True)
