"""A double of the Docker engine behind a socket of its own: containers are processes of this machine.

It speaks as much of the API as kfp's DockerRunner and kubeyolo need. What a container would get of its image is the
environment given here; mounts and users are noted, not made.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socketserver
import struct
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Container:
    """One container: what it was made of, and its process once it is started."""

    name: str
    spec: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    ended_as: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in self.spec.get("Env") or [])


class ContainerEngine:
    """Serves on a socket; `containers` has all that were ever made."""

    def __init__(self, socket: Path, images: list[str], environment: Mapping[str, str]) -> None:
        self.host = f"unix://{socket}"
        self.images = images
        self.environment = environment
        self.containers: list[Container] = []
        self.forgets = True
        """Whether a container that has ended is gone before anybody asks how it ended, as Podman's are."""
        self.rootless = False
        engine = self

        class Handler(_Handler):
            pass

        Handler.engine = engine
        self._server = socketserver.ThreadingUnixStreamServer(str(socket), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        for container in self.containers:
            self.kill(container, signal.SIGKILL)
        self._server.shutdown()
        self._server.server_close()

    def running(self) -> list[Container]:
        return [one for one in self.containers if one.process is not None and one.process.poll() is None]

    def kill(self, container: Container, number: int) -> None:
        if container in self.running():
            assert container.process is not None
            # The step is the child of the shell; only the shell would end, as process 1 of a real container would not.
            os.killpg(container.process.pid, number)
            container.ended_as.append(signal.Signals(number).name)


class _Handler(BaseHTTPRequestHandler):
    engine: ContainerEngine

    def do_GET(self) -> None:
        path = self._path()
        if path == "/_ping":
            self._answer("OK")
        elif path == "/version":
            self._answer({"ApiVersion": "1.41", "Version": "double"})
        elif path == "/info":
            self._answer({"SecurityOptions": ["name=rootless"] if self.engine.rootless else []})
        elif path == "/images/json":
            self._answer([{"Id": f"sha256:{number:064}"} for number in range(len(self.engine.images))])
        elif found := re.fullmatch(r"/images/(.+)/json", path):
            self._image(found[1])
        elif path == "/containers/json":
            self._list()
        elif found := re.fullmatch(r"/containers/(\w+)/json", path):
            self._inspect(found[1])
        elif found := re.fullmatch(r"/containers/(\w+)/logs", path):
            self._logs(found[1])
        elif found := re.fullmatch(r"/exec/\w+/json", path):
            self._answer({"ExitCode": 0})
        else:
            self._answer({"message": f"no {path}"}, 404)

    def do_POST(self) -> None:
        path = self._path()
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        if path == "/containers/create":
            container = Container(f"{len(self.engine.containers):012x}", body)
            self.engine.containers.append(container)
            self._answer({"Id": container.name}, 201)
        elif path == "/images/create":
            self._answer({"message": "no such image anywhere"}, 404)
        elif found := re.fullmatch(r"/containers/(\w+)/start", path):
            self._start(found[1])
        elif found := re.fullmatch(r"/containers/(\w+)/wait", path):
            self._wait(found[1])
        elif found := re.fullmatch(r"/containers/(\w+)/exec", path):
            # The only thing that is executed in a container is what ends its step.
            self.engine.kill(self._container(found[1]), signal.SIGTERM)
            self._answer({"Id": "e"}, 201)
        elif re.fullmatch(r"/exec/\w+/start", path):
            self._answer("")
        else:
            self._answer({"message": f"no {path}"}, 404)

    def do_DELETE(self) -> None:
        self.engine.kill(self._container(self._path().split("/")[2]), signal.SIGKILL)
        self._answer("", 204)

    def _path(self) -> str:
        return re.sub(r"^/v1\.\d+", "", urlsplit(self.path).path)

    def _container(self, name: str) -> Container:
        return next(one for one in self.engine.containers if one.name == name)

    def _image(self, name: str) -> None:
        images = self.engine.images
        if name.startswith("sha256:"):
            name = images[int(name.removeprefix("sha256:"))]
        if name in images:
            self._answer({"Id": f"sha256:{images.index(name):064}", "RepoTags": [name], "RepoDigests": []})
        else:
            self._answer({"message": f"no such image: {name}"}, 404)

    def _list(self) -> None:
        filters = json.loads(parse_qs(urlsplit(self.path).query).get("filters", ["{}"])[0])
        wanted = [label.split("=", 1) for label in filters.get("label", [])]
        here = self.engine.running()
        found = [one for one in here if all(one.spec["Labels"].get(name) == value for name, value in wanted)]
        self._answer([{"Id": one.name} for one in found])

    def _inspect(self, name: str) -> None:
        state = {"Status": "running", "Running": True}
        self._answer({"Id": name, "State": state, "Config": {"Tty": False}, "Image": "i", "HostConfig": {}})

    def _start(self, name: str) -> None:
        container = self._container(name)
        environment = {**self.engine.environment, **container.environment}
        container.process = subprocess.Popen(
            container.spec["Cmd"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._answer("", 204)

    def _logs(self, name: str) -> None:
        process = self._container(name).process
        assert process is not None and process.stdout is not None
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.docker.multiplexed-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        # In pieces that end anywhere, as a real engine may cut them.
        while piece := os.read(process.stdout.fileno(), 50):
            self.wfile.write(struct.pack(">BxxxL", 1, len(piece)) + piece)
            self.wfile.flush()
        self.close_connection = True

    def _wait(self, name: str) -> None:
        process = self._container(name).process
        assert process is not None
        code = process.wait()
        if self.engine.forgets:
            self._answer({"message": f"no such container: {name}"}, 404)
        else:
            self._answer({"StatusCode": code if code >= 0 else 128 - code})

    def _answer(self, content: Any, status: int = 200) -> None:
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if status != 204:
            self.wfile.write(data)

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
