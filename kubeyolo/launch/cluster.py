"""The few requests to Kubernetes that a launch needs; each failure raises an error with a message of one line."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kubernetes import client, config
from urllib3 import disable_warnings
from urllib3.exceptions import HTTPError, InsecureRequestWarning

from kubeyolo.errors import InputError, KubeyoloError, one_line
from kubeyolo.launch.manifest import GROUP, PLURAL, VERSION
from kubeyolo.output_streams import Show

POD_NAME = "KFP_POD_NAME"
"""Environment variable with the name of this pod, which Kubeflow sets."""

Document = dict[str, Any]
T = TypeVar("T")

_AUTHORIZATION = "authorization.k8s.io/v1"
_SCHEDULING = "scheduling.volcano.sh/v1beta1"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 30.0
_DELETE_SECONDS = 5.0
# A connection that is silent for this time may be dead; its reader opens a new connection.
_SILENT_SECONDS = 60.0
_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})


class Unreachable(InputError):
    """The API server does not answer, or cannot answer at the moment; the same request may succeed later."""


class AlreadyExists(KubeyoloError):
    """An object with this name exists."""


class Outage:
    """Measures how long the API server is unreachable; reports once at the start of an outage and once at its end.

    Args:
        limit: How long the API server may be unreachable, in seconds.
        show: Shows a line.
    """

    def __init__(self, limit: float, show: Show) -> None:
        self._limit, self._show = limit, show
        self._since: float | None = None

    def failed(self, error: KubeyoloError) -> None:
        """Record a failed request; raise its error if requests have failed for too long."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._show(f"warning: {error}; trying again for {self._limit:.0f} s")
        elif now - self._since > self._limit:
            raise error

    def answered(self) -> None:
        """Record that a request was answered."""
        if self._since is not None:
            self._since = None
            self._show("the API server is back")

    def retry(self, call: Callable[[], T], pause: float) -> T:
        """Return what ``call`` returns once the API server answers."""
        while True:
            try:
                result = call()
            except Unreachable as error:
                self.failed(error)
                time.sleep(pause)
                continue
            self.answered()
            return result


class Cluster:
    """One namespace of a Kubernetes cluster; ``home`` is the namespace of this pod, or of the kubeconfig.

    All methods raise :class:`Unreachable` when the API server does not answer, and ``InputError`` when it refuses the
    credentials or the request.
    """

    def __init__(self, api: client.ApiClient, namespace: str, home: str) -> None:
        self.namespace, self.home = namespace, home
        self._api = api

    @classmethod
    def connect(cls, namespace: str = "", context: str | None = None) -> Cluster:
        """Return the cluster of this pod, or of the kubeconfig.

        Args:
            namespace: Name of the namespace; if empty, the namespace of the pod or of the context is used.
            context: Name of a context of the kubeconfig; the current context by default.

        Raises:
            InputError: This process is not in a pod and there is no kubeconfig, or the kubeconfig cannot be read.
        """
        settings = client.Configuration()
        try:
            if os.environ.get("KUBECONFIG") is None and (_SERVICE_ACCOUNT / "token").is_file():
                config.load_incluster_config(settings)
                own = (_SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
            else:
                # The package reads the variable only when it is imported.
                file = os.environ.get("KUBECONFIG") or None
                config.load_kube_config(file, context=context, client_configuration=settings)
                contexts, current = config.list_kube_config_contexts(file)
                chosen = next((each for each in contexts if each["name"] == context), current)
                own = chosen["context"].get("namespace", "")
        except (config.ConfigException, OSError, yaml.YAMLError, TypeError, AttributeError, KeyError) as error:
            raise InputError(
                f"no Kubernetes cluster: {one_line(error, 300)}; set KUBECONFIG to the kubeconfig of your cluster"
            ) from error
        settings.retries = False
        if not settings.verify_ssl:
            # The kubeconfig turns verification off; a warning with every request does not help.
            disable_warnings(InsecureRequestWarning)
        home = own or "default"
        return cls(client.ApiClient(settings), namespace or home, home)

    @property
    def host(self) -> str:
        """URL of the API server."""
        return str(self._api.configuration.host)

    def create_job(self, manifest: Mapping[str, Any]) -> Document:
        """Create a job and return it.

        Raises:
            AlreadyExists: A job with this name exists.
            InputError: Volcano is not installed, or the API server refuses the job.
        """
        return self._request("POST", self._jobs(), body=dict(manifest), doing="create Volcano jobs")

    def job(self, name: str) -> Document | None:
        """Return a job, or None if it does not exist."""
        return self._get(self._jobs(name), "read Volcano jobs")

    def jobs(self, selector: str) -> list[Document]:
        """Return the jobs with these labels.

        Raises:
            InputError: Volcano is not installed.
        """
        return self._list(self._jobs(), "list Volcano jobs", {"labelSelector": selector})

    def delete_job(self, name: str, uid: str = "") -> bool:
        """Delete the job with this uid and its pods with one short request; tell whether the job existed."""
        body: Document = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            self._request("DELETE", self._jobs(name), body=body, doing="delete Volcano jobs", seconds=_DELETE_SECONDS)
        except (_Missing, AlreadyExists):  # A different job has its name: the same conflict as in create_job.
            return False
        return True

    def create_config_map(self, manifest: Document) -> None:
        """Create a ConfigMap.

        Raises:
            AlreadyExists: A ConfigMap with this name exists.
        """
        doing = "create ConfigMaps, as rank_table = true needs,"
        self._request("POST", self._core("configmaps"), body=manifest, doing=doing)

    def queue(self, name: str) -> Document | None:
        """Return a queue, or None if it does not exist."""
        return self._get(f"/apis/{_SCHEDULING}/queues/{name}", "read Volcano queues")

    def queues(self) -> list[Document]:
        """Return all queues."""
        return self._list(f"/apis/{_SCHEDULING}/queues", "list Volcano queues")

    def pod_groups(self) -> list[Document]:
        """Return the pod groups of the namespace, which wait in the queues."""
        return self._list(f"/apis/{_SCHEDULING}/namespaces/{self.namespace}/podgroups", "list Volcano pod groups")

    def events(self, kind: str, name: str) -> list[Document]:
        """Return the events of an object of the namespace."""
        query = {"fieldSelector": f"involvedObject.kind={kind},involvedObject.name={name}"}
        return self._list(self._core("events"), "list events", query)

    def workflows(self, selector: str) -> list[Document]:
        """Return the workflows of Argo with these labels."""
        return self._list(self._workflows(), "list workflows", {"labelSelector": selector})

    def workflow(self, name: str) -> Document | None:
        """Return a workflow of Argo, or None if it does not exist.

        Raises:
            InputError: Argo is not installed.
        """
        return self._get(self._workflows(name), "read workflows")

    def config_map(self, name: str, namespace: str) -> dict[str, str] | None:
        """Return the data of a ConfigMap, or None if it does not exist."""
        found = self._get(f"/api/v1/namespaces/{namespace}/configmaps/{name}", "read ConfigMaps")
        return None if found is None else dict(found.get("data") or {})

    def may(self, verb: str, resource: str) -> bool:
        """Tell whether this process has a right to a resource of the core group in the namespace."""
        attributes = {"namespace": self.namespace, "verb": verb, "resource": resource}
        path, review = f"/apis/{_AUTHORIZATION}/selfsubjectaccessreviews", "SelfSubjectAccessReview"
        body: Document = {"apiVersion": _AUTHORIZATION, "kind": review, "spec": {"resourceAttributes": attributes}}
        return bool(self._request("POST", path, body=body, doing="read rights")["status"]["allowed"])

    def write_secret(self, manifest: Mapping[str, Any]) -> None:
        """Create a Secret, or replace it."""
        body, name = dict(manifest), manifest["metadata"]["name"]
        try:
            self._request("POST", self._core("secrets"), body=body, doing="create Secrets")
        except AlreadyExists:
            self._request("PUT", self._core(f"secrets/{name}"), body=body, doing="update Secrets")

    def own_pod(self, name: str, seconds: float = _READ_SECONDS) -> Document | None:
        """Return a pod of this process's namespace, or None if it does not exist; wait at most ``seconds``."""
        return self._get(f"/api/v1/namespaces/{self.home}/pods/{name}", "read pods", seconds)

    def pods(self, selector: str) -> tuple[list[Document], str]:
        """Return the pods with these labels, and the version of the list."""
        answer = self._request("GET", self._core("pods"), {"labelSelector": selector}, doing="list pods")
        return list(answer.get("items", ())), str(answer["metadata"].get("resourceVersion", ""))

    def pod(self, name: str) -> Document | None:
        """Return a pod, or None if it does not exist."""
        return self._get(self._core(f"pods/{name}"), "read pods")

    def pod_changes(self, selector: str, version: str, seconds: int) -> Iterator[tuple[str, Document]]:
        """Yield the kind and the pod of each change since a version of the list of pods with these labels."""
        query = {
            "labelSelector": selector,
            "resourceVersion": version,
            "watch": "true",
            "timeoutSeconds": str(seconds),
        }
        for line in self._lines(self._core("pods"), query, "watch pods"):
            change = json.loads(line)
            yield change["type"], change["object"]

    def log_lines(self, pod: str, container: str, since: str = "") -> Iterator[str]:
        """Yield the lines of a container as they are printed, each prefixed by its time, starting from a given time."""
        query = {"container": container, "follow": "true", "timestamps": "true"}
        if since:
            query["sinceTime"] = since
        yield from self._lines(self._core(f"pods/{pod}/log"), query, "read logs of pods")

    def log_text(self, pod: str, container: str) -> str:
        """Return the output of a container so far."""
        lines = self._lines(self._core(f"pods/{pod}/log"), {"container": container}, "read logs of pods")
        return "\n".join(lines)

    def _jobs(self, name: str = "") -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}/{name}".rstrip("/")

    def _workflows(self, name: str = "") -> str:
        return f"/apis/argoproj.io/v1alpha1/namespaces/{self.namespace}/workflows/{name}".rstrip("/")

    def _core(self, rest: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/{rest}"

    def _list(self, path: str, doing: str, query: Mapping[str, str] | None = None) -> list[Document]:
        return list(self._request("GET", path, query, doing=doing).get("items", ()))

    def _get(self, path: str, doing: str, seconds: float = _READ_SECONDS) -> Document | None:
        try:
            return self._request("GET", path, doing=doing, seconds=seconds)
        except _Missing as error:
            if error.kind:
                raise
            return None

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Document | None = None,
        *,
        doing: str,
        seconds: float = _READ_SECONDS,
    ) -> Document:
        with self._errors(doing):
            response = self._call(method, path, query, body, (min(_CONNECT_SECONDS, seconds), seconds))
            return dict(json.loads(response.data))

    def _lines(self, path: str, query: Mapping[str, str], doing: str) -> Iterator[str]:
        rest = b""
        with self._errors(doing):
            response = self._call("GET", path, query, None, (_CONNECT_SECONDS, _SILENT_SECONDS))
            try:
                # A read returns the bytes that have arrived: reading full chunks would delay lines.
                while data := response.read1(65536):
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        yield line.decode(errors="replace")
            finally:
                response.close()
        if rest:
            yield rest.decode(errors="replace")

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Document | None,
        timeout: tuple[float, float | None],
    ) -> Any:
        return self._api.call_api(
            path,
            method,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=timeout,
        )

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except client.ApiException as error:
            raise self._refusal(error, doing) from error
        except (HTTPError, OSError, ValueError) as error:
            raise Unreachable(
                f"Kubernetes API server {self.host}: does not answer ({one_line(error, 300)}); "
                "check the address in the kubeconfig, and that the cluster runs"
            ) from error

    def _refusal(self, error: client.ApiException, doing: str) -> KubeyoloError:
        message = _message(error)
        if error.status == 404:
            return _Missing(message, doing)
        if error.status == 409:
            return AlreadyExists(message)
        if error.status == 401:
            return InputError(
                f"Kubernetes API server {self.host}: refuses the credentials; they may have expired: "
                "log in again, or renew the token of the kubeconfig"
            )
        if error.status == 403 and "quota" not in message and "violates PodSecurity" not in message:
            return InputError(
                f"this account may not {doing} in namespace {self.namespace}: {message}; "
                "a cluster administrator grants these rights with the manifests of kubeyolo"
            )
        if error.status in _PASSING_STATUS:
            return Unreachable(f"Kubernetes API server {self.host}: answers with status {error.status}: {message}")
        return InputError(f"Kubernetes refuses to {doing} in namespace {self.namespace}: {message}")


class _Missing(InputError):
    """The object does not exist, or the server does not know its kind."""

    def __init__(self, message: str, doing: str) -> None:
        unknown_kind = ("the server could not find the requested resource", "page not found")
        self.kind = not message or any(words in message for words in unknown_kind)
        program = "Argo Workflows" if "workflows" in doing else "Volcano"
        missing = f"{program} is not installed on this cluster; install it with all its CRDs"
        super().__init__(missing if self.kind else message)


def _message(error: client.ApiException) -> str:
    text = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or error.reason)
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        text = json.loads(text).get("message") or text
    return one_line(text, 300)
