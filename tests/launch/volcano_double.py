"""What Volcano's controller and a kubelet would do to a job on a bare API server, one thing at a time."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

from tests.kubernetes_server import JSON, KubernetesServer, wait_for

NODE = "test-node"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


@dataclass
class ContainerLog:
    """What one container has printed; the next pod of the name has another one."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False


class Kubelet:
    """Serves the logs of pods to the API server, and lets go of pods that are deleted."""

    def __init__(self, kubernetes: KubernetesServer) -> None:
        self._logs: dict[str, ContainerLog] = {}
        self.exit_codes: dict[str, int] = {}
        self.connections = 0
        self._cut = threading.Event()
        self._kubernetes = kubernetes
        kubelet = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kubelet._answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(kubernetes.certificate, kubernetes.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._stop = threading.Event()
        for work in (self._server.serve_forever, self._collect):
            threading.Thread(target=work, daemon=True).start()
        self._register()

    def stop(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._kubernetes.request("DELETE", f"/api/v1/nodes/{NODE}")

    def say(self, pod: str, *lines: str) -> None:
        """Let a pod print lines."""
        for line in lines:
            self._log(pod).lines.append((now(), line))

    def begin(self, pod: str) -> None:
        """Let the container of a new pod begin with an empty log."""
        self._logs[pod] = ContainerLog()

    def end(self, *pods: str) -> None:
        """Let containers end: who reads their logs comes to the end of them."""
        for pod in pods:
            self._log(pod).ended = True

    def _log(self, pod: str) -> ContainerLog:
        return self._logs.setdefault(pod, ContainerLog())

    def cut(self) -> None:
        """Break all connections over which logs are read."""
        self._cut.set()
        time.sleep(0.3)
        self._cut.clear()

    def _register(self) -> None:
        self._kubernetes.request("DELETE", f"/api/v1/nodes/{NODE}")
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._server.server_port}},
        }
        self._kubernetes.do("POST", "/api/v1/nodes", {"metadata": {"name": NODE}, "status": status})
        self._kubernetes.do("PATCH", f"/api/v1/nodes/{NODE}/status", {"status": status})

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        address = urlparse(request.path)
        pod = address.path.split("/")[3]
        since = parse_qs(address.query).get("sinceTime", [""])[0].removesuffix("Z")
        self.connections += 1
        request.send_response(200)
        request.end_headers()
        told, log = 0, self._log(pod)
        while not self._stop.is_set():
            # In this order: what is printed before the end is read before the end.
            ended, lines = log.ended, list(log.lines)
            for moment, line in lines[told:]:
                if moment >= since:
                    request.wfile.write(f"{moment} {line}\n".encode())
            request.wfile.flush()
            told = len(lines)
            if ended:
                return
            if self._cut.is_set():
                request.connection.close()
                return
            time.sleep(0.02)

    def _collect(self) -> None:
        while not self._stop.wait(0.1):
            with contextlib.suppress(Exception):
                for pod in self._kubernetes.request("GET", "/api/v1/pods")[1].get("items", ()):
                    if pod["metadata"].get("deletionTimestamp"):
                        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
                        self.end(pod["metadata"]["name"])
                        # A pod that is deleted gets a last phase before it is gone.
                        code = self.exit_codes.pop(pod["metadata"]["name"], None)
                        if code is not None:
                            ended = _container("i", {"terminated": {"exitCode": code, "reason": "Error"}})
                            status = {"phase": "Failed", "containerStatuses": [ended]}
                            self._kubernetes.request("PATCH", f"{path}/status", {"status": status})
                        self._kubernetes.request("DELETE", path, {"gracePeriodSeconds": 0})


class Volcano:
    """Volcano's controller and scheduler for the jobs of one namespace, told what to do by a test."""

    def __init__(self, kubernetes: KubernetesServer, kubelet: Kubelet, namespace: str) -> None:
        self.kubernetes, self.kubelet, self.namespace = kubernetes, kubelet, namespace
        self._version = 0

    @property
    def _jobs(self) -> str:
        return f"/apis/batch.volcano.sh/v1alpha1/namespaces/{self.namespace}/jobs"

    def jobs(self) -> list[JSON]:
        return list(self.kubernetes.do("GET", self._jobs)["items"])

    def pods(self) -> list[JSON]:
        return list(self.kubernetes.do("GET", f"/api/v1/namespaces/{self.namespace}/pods")["items"])

    def wait_job(self, other_than: str = "") -> JSON:
        """Wait for a job that is there and is not the one with this uid."""

        def found() -> JSON | None:
            return next((job for job in self.jobs() if job["metadata"]["uid"] != other_than), None)

        job: JSON = wait_for(found)
        return job

    def phase(self, job: JSON, phase: str, **status: Any) -> None:
        """Put a job into a phase."""
        body = {"status": {"state": {"phase": phase}, "version": self._version, **status}}
        self.kubernetes.do("PATCH", f"{self._jobs}/{job['metadata']['name']}/status", body)

    def queue(self, job: JSON, message: str = "", phase: str = "Inqueue", event: str = "") -> None:
        """Put a job into its queue: a pod group, with what the scheduler says that is missing, there or in an event."""
        meta = job["metadata"]
        condition = {
            "type": "Unschedulable",
            "status": "True",
            "message": message,
            "reason": "NotEnoughResources",
            "transitionID": "1",
            "lastTransitionTime": now()[:19] + "Z",
        }
        group = {
            "apiVersion": "scheduling.volcano.sh/v1beta1",
            "kind": "PodGroup",
            "metadata": {"name": f"{meta['name']}-{meta['uid']}", "ownerReferences": [_owner(meta)]},
            "spec": {"queue": job["spec"]["queue"], "minMember": job["spec"]["minAvailable"]},
            "status": {"phase": phase, "conditions": [condition] if message else []},
        }
        path = f"/apis/scheduling.volcano.sh/v1beta1/namespaces/{self.namespace}/podgroups"
        self.kubernetes.do("POST", path, group)
        if event:
            self._say(group["metadata"]["name"], event)
        self.phase(job, "Pending")

    def _say(self, group: str, message: str) -> None:
        about = {"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "PodGroup", "name": group}
        body = {
            "metadata": {"generateName": "said-"},
            "involvedObject": {**about, "namespace": self.namespace},
            "reason": "Unschedulable",
            "message": message,
            "type": "Normal",
            "lastTimestamp": now()[:19] + "Z",
        }
        self.kubernetes.do("POST", f"/api/v1/namespaces/{self.namespace}/events", body)

    def create_pods(self, job: JSON, placed: bool = True) -> list[str]:
        """Create the pods of a job and return their names."""
        self._version += 1
        meta, task = job["metadata"], job["spec"]["tasks"][0]
        names = []
        for index in range(task["replicas"]):
            notes = {"volcano.sh/task-index": str(index), "volcano.sh/job-version": str(self._version)}
            labels = {**task["template"]["metadata"]["labels"], "volcano.sh/job-name": meta["name"]}
            name = f"{meta['name']}-{task['name']}-{index}"
            self.kubelet.begin(name)
            pod = {
                "metadata": {"name": name, "labels": labels, "annotations": notes, "ownerReferences": [_owner(meta)]},
                "spec": {**task["template"]["spec"], **({"nodeName": NODE} if placed else {})},
            }
            self.kubernetes.do("POST", f"/api/v1/namespaces/{self.namespace}/pods", pod)
            names.append(name)
        return names

    def pod_status(self, name: str, status: JSON) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/status"
        self.kubernetes.do("PATCH", path, {"status": status})

    def run(self, job: JSON) -> list[str]:
        """Let a job run: its pods are there and run."""
        names = self.create_pods(job)
        for name in names:
            self.pod_status(name, {"phase": "Running"})
        self.phase(job, "Running")
        return names

    def restart(self, job: JSON, count: int, marked: bool = True) -> bool:
        """Restart a gang for the time of this number, as its controller does; tell whether it still may be.

        Args:
            job: The job.
            count: How often it is restarted then.
            marked: Whether the controller marks the pods that it deletes; Volcano before 1.15 does not.
        """
        again: bool = count < job["spec"]["maxRetry"]
        self.phase(job, "Restarting" if again else "Failed", retryCount=count)
        if again:
            self.remove_pods(marked)
        return again

    def happens(self, job: JSON, event: str, code: int = 0) -> str:
        """Do what the policies of a job say about an event of one of its pods, and return the action.

        The policies of the task are looked at before those of the job, each list in its order; an exit code of a
        policy is compared with that of the pod.
        """
        task = job["spec"]["tasks"][0]
        action = next(
            (
                str(policy["action"])
                for policy in (*task.get("policies", ()), *job["spec"]["policies"])
                if event in (policy.get("event"), *policy.get("events", ()))
                or (code and policy.get("exitCode") == code)
            ),
            "SyncJob",
        )
        if action == "TerminateJob":
            self.terminate(job)
        elif action == "RestartJob":
            path = f"{self._jobs}/{job['metadata']['name']}"
            retries = int(self.kubernetes.do("GET", path).get("status", {}).get("retryCount", 0))
            self.restart(job, retries + 1)
        return action

    def evict(self, job: JSON, name: str, reason: str, message: str, code: int = 143) -> str:
        """Evict a pod, whose container ends with an exit code, and return the action of the first policy about it."""
        condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
        self.pod_status(name, {"conditions": [{**condition, "lastTransitionTime": now()[:19] + "Z"}]})
        self.kubelet.exit_codes[name] = code
        self.delete_pod(name, 30)
        return self.happens(job, "PodFailed", code)

    def delete_pod(self, name: str, grace: int) -> None:
        """Delete a pod, as somebody other than the controller does, and wait until it is gone."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
        self.kubelet.end(name)
        self.kubernetes.do("DELETE", path, {"gracePeriodSeconds": grace})
        wait_for(lambda: self.kubernetes.request("GET", path)[0] == 404)

    def terminate(self, job: JSON) -> None:
        """End a job: its pods that have not ended are deleted."""
        self.phase(job, "Terminating")
        self.remove_pods(ended=False)
        self.phase(job, "Terminated")

    def end_pod(self, name: str, code: int, message: str = "", reason: str = "", **status: Any) -> None:
        """Let a pod end with an exit code."""
        self.kubelet.end(name)
        terminated = {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "message": message}
        container = _container("i", {"terminated": terminated})
        phase = "Failed" if code else "Succeeded"
        self.pod_status(name, {"phase": phase, "containerStatuses": [container], **status})

    def container_waits(self, name: str, reason: str, message: str = "") -> None:
        """Let the container of a pod wait for a reason."""
        state = {"waiting": {"reason": reason, "message": message}}
        container = _container("registry/nowhere:1", state)
        self.pod_status(name, {"phase": "Pending", "containerStatuses": [container]})

    def remove_pods(self, marked: bool = True, ended: bool = True) -> None:
        """Delete all pods at once, as a restart of the gang does; with ``ended`` those that have ended too."""

        def present() -> list[str]:
            over = () if ended else ("Failed", "Succeeded")
            return [pod["metadata"]["name"] for pod in self.pods() if pod["status"]["phase"] not in over]

        for name in present():
            self.kubelet.end(name)
            path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
            if marked:
                note = {"metadata": {"annotations": {"volcano.sh/controller-out-of-sync": "true"}}}
                self.kubernetes.request("PATCH", path, note)
            self.kubernetes.request("DELETE", path, {"gracePeriodSeconds": 0})
        wait_for(lambda: not present())


def _owner(job: JSON) -> JSON:
    """Return the reference to a job, by its metadata, as that of an owner."""
    names = {key: job[key] for key in ("name", "uid")}
    return {"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", **names, "controller": True}


def _container(image: str, state: JSON) -> JSON:
    """Return the status of the container of a trainer."""
    rest = {"imageID": "", "ready": False, "restartCount": 0}
    return {"name": "trainer", "image": image, "state": state, **rest}


@contextlib.contextmanager
def kubelet_of(kubernetes: KubernetesServer) -> Iterator[Kubelet]:
    kubelet = Kubelet(kubernetes)
    try:
        yield kubelet
    finally:
        kubelet.stop()
