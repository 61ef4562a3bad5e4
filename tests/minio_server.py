"""A real MinIO server for tests, on a free loopback port, in a folder of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import urllib3
from minio import Minio
from minio.error import MinioException

ACCESS_KEY = "kubeyolo-test"
SECRET_KEY = "kubeyolo-test-secret"
_START_SECONDS = 60.0
_ATTEMPTS = 3
_PR_SET_PDEATHSIG = 1


def minio_binary() -> Path | None:
    """Return the server: $MINIO_BIN, minio on PATH, or what `make tools` has built."""
    named = os.environ.get("MINIO_BIN")
    if named:
        return Path(named)
    on_path = shutil.which("minio")
    if on_path:
        return Path(on_path)
    cache = Path(os.environ.get("KUBEYOLO_CACHE") or Path.home() / ".cache" / "kubeyolo")
    built = cache / "bin" / "minio"
    return built if built.is_file() else None


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class MinioServer:
    """A server process; `start` may be called again after `stop` and finds the same data on the same port."""

    binary: Path
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client's environment needs."""
        return {
            "MINIO_ENDPOINT": self.endpoint,
            "MINIO_ACCESS_KEY": ACCESS_KEY,
            "MINIO_SECRET_KEY": SECRET_KEY,
            "MINIO_SECURE": "0",
        }

    @property
    def client(self) -> Minio:
        # A server that is still starting says "come back in 60 seconds", and the client's own pool would obey.
        retries = urllib3.Retry(10, backoff_factor=0.1, status_forcelist=[503], respect_retry_after_header=False)
        pool = urllib3.PoolManager(timeout=30.0, retries=retries)
        return Minio(self.endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1", http_client=pool)

    def make_bucket(self, name: str) -> str:
        self.client.make_bucket(name)
        return name

    def start(self) -> None:
        for name in ("data", "certs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ} | {
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            # Nothing of a test leaves this machine.
            "MINIO_UPDATE": "off",
            "MINIO_CALLHOME_ENABLE": "off",
            "MINIO_BROWSER": "off",
            # It makes a folder for its settings in the home folder.
            "HOME": str(self.folder),
            # Every worker of the tests may have a server.
            "GOMAXPROCS": "1",
        }
        command = [str(self.binary), "server", "--quiet", "--anonymous", "--address", self.endpoint]
        command += ["--certs-dir", str(self.folder / "certs"), str(self.folder / "data")]
        with (self.folder / "server.log").open("ab") as log:
            # With the thread that started it, and so with a worker that is killed; a short-lived thread's must go on.
            lasting = threading.current_thread() is threading.main_thread()
            end = _end_with_parent if lasting else None
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, preexec_fn=end)
        self._wait()

    def _wait(self) -> None:
        assert self.process is not None
        impatient = urllib3.PoolManager(timeout=5.0, retries=False)
        client = Minio(self.endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1", http_client=impatient)
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            # Its health page says "ready" before it takes signed requests.
            try:
                client.list_buckets()
                return
            except (urllib3.exceptions.HTTPError, MinioException):
                time.sleep(0.05)
        self.stop()
        raise RuntimeError("MinIO did not start: " + (self.folder / "server.log").read_text()[-2000:])

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def start_minio(folder: Path) -> MinioServer:
    """Start a server, or skip the test when there is none to start."""
    binary = minio_binary()
    if binary is None:
        pytest.skip("no MinIO server: set MINIO_BIN, put minio on PATH, or run `make tools`")
    for attempt in range(_ATTEMPTS):
        # A port that was free a moment ago may be taken by another worker.
        server = MinioServer(binary, folder / f"minio-{attempt}")
        try:
            server.start()
            return server
        except RuntimeError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """One server for all tests of a worker; take a bucket of your own, and do not stop it."""
    server = start_minio(tmp_path_factory.mktemp("minio"))
    yield server
    server.stop()


@pytest.fixture
def minio_bucket(minio_server: MinioServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket; the environment points at its server for the time of the test."""
    for name, value in minio_server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{os.urandom(6).hex()}"
    return minio_server.make_bucket(bucket)
