"""A double of Kubeflow's REST interface: it keeps pipelines, experiments and runs, whose states are given by the test.

Answers have the form of those of Kubeflow Pipelines 2.17.
"""

from __future__ import annotations

import json
import math
import re
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

BEGIN, ASKED, END = "2026-01-02T03:04:05Z", "2026-01-02T03:05:00Z", "2026-01-02T03:05:05Z"
WORKFLOW = "detector-training-x7abc"
LOGIN = "/dex/auth"
PAGE = b"<!DOCTYPE html>\n<html><body>Log in to Kubeflow</body></html>"
CACHED = "CACHED"
"""A step whose results are taken from the cache, which Kubeflow has no word of its own for."""


def task(name: str, state: str, number: int, message: str = "") -> list[dict[str, Any]]:
    """Return what Kubeflow tells of a step: itself, its driver, and, when it runs, its executor."""
    node = f"{WORKFLOW}-{number}"
    step: dict[str, Any] = {"display_name": name, "state": state, "start_time": BEGIN}
    if state == CACHED:
        # Of a step from the cache nothing runs but its driver: it begins and ends at one moment.
        step |= {"state": "SUCCEEDED", "end_time": BEGIN}
    if state in ("SUCCEEDED", "FAILED"):
        step["end_time"] = END
    if state not in ("PENDING", "SKIPPED"):
        step["child_tasks"] = [{"pod_name": node}]
    if message:
        step["error"] = {"code": 2, "message": message}
    machinery = ("executor", "executor(0)", f"{name}(0)", "exit-handler-1.onExit", f"{name}-driver")
    return [step, *({**step, "display_name": one} for one in machinery)]


def node_of(name: str) -> str:
    """Return the id that Argo gives to a node of the workflow: the number is the FNV-1a digest of its name."""
    digest = 2166136261
    for byte in f"{WORKFLOW}.{name}".encode():
        digest = (digest ^ byte) * 16777619 % 2**32
    return f"{WORKFLOW}-{digest}"


def nodes(tree: dict[str, list[str]], state: str = "RUNNING") -> list[dict[str, Any]]:
    """Return what Kubeflow tells of nodes of Argo: the last part of the name, and the nodes below."""
    return [
        {
            "display_name": name.rpartition(".")[2],
            "state": state,
            "start_time": BEGIN,
            "child_tasks": [{"pod_name": node_of(child)} for child in below],
        }
        for name, below in tree.items()
    ]


@dataclass
class DoubleRun:
    """A run; each look at it takes the next of its states, and the last one stays."""

    body: dict[str, Any]
    states: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)
    looks: int = 0
    terminated: bool = False

    def answer(self, end: str = END) -> dict[str, Any]:
        state, tasks = self.states[min(self.looks, len(self.states) - 1)] if self.states else ("PENDING", [])
        self.looks += 1
        history = [{"state": "RUNNING"}, *([{"state": "CANCELING", "update_time": ASKED}] if self.terminated else [])]
        if self.terminated:
            state = "FAILED"
        over = state in ("SUCCEEDED", "FAILED")
        graph = {"display_name": WORKFLOW, "state": state, "child_tasks": [{"pod_name": f"{WORKFLOW}-1"}]}
        details = [graph, {"display_name": "root", "state": state}, *tasks]
        times = {"created_at": BEGIN, "finished_at": end if over else "1970-01-01T00:00:00Z"}
        run_details = {"run_details": {"task_details": details}}
        return {**self.body, **times, **run_details, "state": state, "state_history": history}


class KubeflowDouble:
    """Serves on a free port of the loopback address."""

    def __init__(self) -> None:
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, list[dict[str, Any]]] = {}
        self.uploads: list[bytes] = []
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, DoubleRun] = {}
        self.recurring: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, str] = {}
        self.log_page = 0
        """Status of the page that answers in place of a log, as at the address of the web pages; 0 for the API's."""
        self.asked_pages: list[dict[str, str]] = []
        """What the endpoint of the web pages was asked for."""
        self.next_states: list[tuple[str, list[dict[str, Any]]]] = []
        self.failures: list[int] = []
        """Statuses of the next answers about a run, in place of the answers."""
        self.end = END
        """When runs that are over have ended."""
        self.token = ""
        self.answers_left = math.inf
        """How often it answers before the session of whoever asks has expired."""
        double = self

        class Handler(_Handler):
            pass

        Handler.double = double
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    double: KubeflowDouble

    def do_GET(self) -> None:
        double, path = self.double, self._path()
        if path == LOGIN:
            self._send(PAGE, content_type="text/html; charset=utf-8")
            return
        if not self._allowed():
            return
        if path == "healthz":
            self._answer({"multi_user": False})
        elif found := re.fullmatch(r"pipelines/names/(.+)", path):
            self._one(double.pipelines.get(found[1]), f"pipeline {found[1]}")
        elif found := re.fullmatch(r"pipelines/(.+)/versions", path):
            self._page("pipeline_versions", double.versions[found[1]])
        elif path == "experiments":
            (wanted,) = (one["string_value"] for one in json.loads(self._query("filter"))["predicates"])
            found_id = double.experiments.get(wanted)
            self._answer({"experiments": [{"experiment_id": found_id, "display_name": wanted}]} if found_id else {})
        elif path == "recurringruns":
            self._page("recurringRuns", list(double.recurring.values()))
        elif path == "runs":
            group = self._query("experiment_id")
            runs = [run.answer(double.end) for run in reversed(double.runs.values())]
            self._page("runs", [run for run in runs if group in ("", run["experiment_id"])])
        elif found := re.fullmatch(r"runs/([^/]+)", path):
            if double.failures:
                self._answer({"message": "not now"}, double.failures.pop(0))
                return
            run = double.runs.get(found[1])
            self._one(run.answer(double.end) if run else None, f"run {found[1]}")
        elif path.startswith("/apis/v1alpha1/") and double.log_page:
            self._send(PAGE, double.log_page, "text/html; charset=UTF-8")
        elif path == "/k8s/pod/logs" and double.log_page:
            asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            double.asked_pages.append(asked)
            text = double.logs.get(asked["podname"])
            if text is None:
                # What express sends as text has this type.
                status, said = (404, "pod not found") if "impl" in asked["podname"] else (500, "Could not get the logs")
                self._send(said.encode(), status, "text/html; charset=utf-8")
            else:
                self._send(text.encode(), content_type="")
        elif found := re.fullmatch(r"/apis/v1alpha1/runs/[^/]+/nodes/([^/]+)/log", path):
            text = double.logs.get(found[1])
            self._send((text or '{"error_message":"no log"}').encode())
        else:
            self._answer({"message": f"no {path}"}, 404)

    def do_POST(self) -> None:
        double, path = self.double, self._path()
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == LOGIN:
            self._send(PAGE, 405, "text/html")
            return
        if not self._allowed():
            return
        if path == "pipelines/upload_version":
            double.uploads.append(data)
            version = {"pipeline_version_id": str(uuid.uuid4()), "display_name": self._query("display_name")}
            double.versions[self._query("pipelineid")].append(version)
            self._answer({"pipeline_id": self._query("pipelineid"), **version})
            return
        body = json.loads(data or b"{}")
        if path == "pipelines":
            made = {**body, "pipeline_id": str(uuid.uuid4())}
            double.pipelines[body["name"]] = made
            double.versions[made["pipeline_id"]] = []
            self._answer(made)
        elif path == "experiments":
            double.experiments[body["display_name"]] = str(uuid.uuid4())
            self._answer({**body, "experiment_id": double.experiments[body["display_name"]]})
        elif path == "runs":
            made = {**body, "run_id": str(uuid.uuid4())}
            double.runs[made["run_id"]] = DoubleRun(made, list(double.next_states))
            self._answer({**made, "state": "PENDING"})
        elif path == "recurringruns":
            state = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
            made = {**body, "recurring_run_id": str(uuid.uuid4()), "status": state}
            double.recurring[made["recurring_run_id"]] = made
            self._answer(made)
        elif found := re.fullmatch(r"recurringruns/(.+):(enable|disable)", path):
            double.recurring[found[1]]["status"] = f"{found[2].upper()}D"
            self._answer({})
        elif found := re.fullmatch(r"runs/(.+):terminate", path):
            double.runs[found[1]].terminated = True
            self._answer({})
        else:
            self._answer({"message": f"no {path}"}, 404)

    def do_DELETE(self) -> None:
        self._one(self.double.recurring.pop(self._path().split("/")[-1], None), "recurring run")

    def _path(self) -> str:
        return urlsplit(self.path).path.removeprefix("/apis/v2beta1/")

    def _query(self, name: str) -> str:
        return parse_qs(urlsplit(self.path).query).get(name, [""])[0]

    def _allowed(self) -> bool:
        token = self.double.token
        self.double.answers_left -= 1
        if self.double.answers_left < 0:
            self.send_response(302)
            self.send_header("Location", LOGIN)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        if token and self.headers.get("Authorization") != f"Bearer {token}":
            self._answer({"code": 16, "message": "token expired"}, 401)
            return False
        return True

    def _one(self, found: Any, what: str) -> None:
        self._answer(found or {"code": 5, "message": f"{what} not found"}, 200 if found else 404)

    def _page(self, field_name: str, items: Sequence[dict[str, Any]]) -> None:
        """Answer with two items a page, as a real server does with more."""
        start = int(self._query("page_token") or 0)
        page: dict[str, Any] = {field_name: items[start : start + 2]}
        if start + 2 < len(items):
            page["next_page_token"] = str(start + 2)
        self._answer(page)

    def _answer(self, content: Any, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), status)

    def _send(self, data: bytes, status: int = 200, content_type: str = "application/json") -> None:
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
