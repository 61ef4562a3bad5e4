"""Runs the steps on this machine in containers, through kfp's DockerRunner and the socket of Docker or Podman."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from kubeyolo.compiled.images import IMAGE_USER
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.errors import InputError, one_line
from kubeyolo.processes import CONTAINER_VARIABLES, MLFLOW_VARIABLES, RUN
from kubeyolo.runs.interrupt import Interruption, interruptible
from kubeyolo.runs.local import LocalRun
from kubeyolo.runs.runner import StepEnd
from kubeyolo.signing import variables_of_containers
from kubeyolo.storage.file_errors import make_folder
from kubeyolo.storage.location import BucketLocation, FileLocation, parse
from kubeyolo.storage.minio_settings import VARIABLES, MinioSettings, is_loopback

RUN_LABEL = "io.kubeyolo.run"
_HOST = "DOCKER_HOST"
_CERTIFICATES = "SSL_CERT_FILE"
_SOCKETS = ("/var/run/docker.sock", "{runtime}/docker.sock", "{runtime}/podman/podman.sock", "/run/podman/podman.sock")
_PASSED_ON = (*VARIABLES, *MLFLOW_VARIABLES, "OMP_NUM_THREADS", "KUBEYOLO_DEBUG", "KUBEYOLO_USER")

# The step is the child of the shell in which kfp starts it; if the shell was replaced by the step, it is process 1.
_END_STEP = """
read -r name < /proc/1/comm
pid=1
case "$name" in sh|dash|bash) read -r pid < /proc/1/task/1/children;; esac
kill -TERM $pid
"""


class ContainerRunner:
    """Runs each step in a container of its image: read-only except /tmp, without capabilities, as an ordinary user.

    Steps write to the object store with the credentials from this process's environment variables; the credentials are
    passed to the containers only as environment variables.
    """

    def __init__(self, run: LocalRun) -> None:
        """Check the store and the packages before the run.

        Raises:
            InputError: The store is a folder, which containers do not share, or the settings of the object store are
                missing, or the package docker is not installed.
        """
        store = parse(run.store)
        if not isinstance(store, BucketLocation):
            raise InputError(
                f"store {run.store}: containers do not share folders; give --store minio://bucket/prefix, "
                "and MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY in the environment"
            )
        self._settings = MinioSettings.from_environment(run.store)
        self._run_name = run.name
        sources = (parse(uri) for uri in run.sources if uri)
        self._shared = [source.path for source in sources if isinstance(source, FileLocation)]
        self._arguments: dict[str, Any] = {}
        try:
            import docker  # noqa: F401
        except ImportError as error:
            raise InputError("--runner docker needs the package docker: pip install 'kubeyolo[docker]'") from error

    @contextmanager
    def session(self, folder: Path, pipeline: CompiledPipeline) -> Iterator[Interruption]:
        """Find the engine and the images, create folders for the containers, and remove all containers at the end.

        Raises:
            InputError: No engine answers, or an image is neither on this machine nor can be pulled.
        """
        temporary = folder / "tmp"
        with _engine() as client:
            self._remove_containers(client)
            for reference in pipeline.image_references:
                _find_image(client, reference)
            user = _user(client)
            for path in (temporary, folder / "kfp"):
                make_folder(path)
                if "user" not in user:
                    os.chown(path, IMAGE_USER, IMAGE_USER)
            self._arguments = {**self._container_arguments(temporary), **user}
            try:
                with interruptible(lambda: self._end_step(client)) as interruption:
                    yield interruption
            finally:
                self._remove_containers(client)
                shutil.rmtree(temporary, ignore_errors=True)

    def kfp_runner(self) -> Any:
        """Return kfp's runner of containers."""
        from kfp import local

        return local.DockerRunner(**self._arguments)

    def end_of_step(self) -> StepEnd:
        """Return an empty result: kfp does not report how a container ended."""
        return StepEnd()

    def _container_arguments(self, temporary: Path) -> dict[str, Any]:
        """Return the arguments of the containers, by their names in the package docker."""
        from docker.types import Mount

        environment = {
            name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)
        } | variables_of_containers()
        environment[RUN] = self._run_name
        # The folder is on a disk, not in memory: it has copies of data sets.
        mounts = [Mount("/tmp", str(temporary), type="bind")]
        mounts += [Mount(str(path), str(path), type="bind", read_only=True) for path in self._shared]
        certificates = os.path.expanduser(os.environ.get(_CERTIFICATES, ""))
        if self._settings.secure and Path(certificates).is_file():
            path = str(Path(certificates).absolute())
            mounts.append(Mount(path, path, type="bind", read_only=True))
            environment[_CERTIFICATES] = path
        arguments = {
            "environment": environment | CONTAINER_VARIABLES | {"PYTHONWARNINGS": "ignore"},
            "mounts": mounts,
            "labels": {RUN_LABEL: self._run_name},
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
        }
        if is_loopback(self._settings.endpoint):
            arguments["network_mode"] = "host"
        return arguments

    def _containers(self, client: Any) -> list[Any]:
        return list(client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={self._run_name}"}))

    def _end_step(self, client: Any) -> bool:
        """Send SIGTERM to the running step; tell whether a step is running."""
        ended = False
        for container in self._containers(client):
            with suppress(OSError):
                ended = container.exec_run(["sh", "-c", _END_STEP]).exit_code == 0 or ended
        return ended

    def _remove_containers(self, client: Any) -> None:
        """Remove the containers of this run, which an interrupted step or a killed run has left."""
        for container in self._containers(client):
            with suppress(OSError):
                container.remove(force=True)


@contextmanager
def _engine() -> Iterator[Any]:
    """Yield a client of Docker or Podman; within the block kfp uses the same engine.

    Raises:
        InputError: No engine answers.
    """
    import docker

    before = os.environ.get(_HOST)
    if before is None:
        runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
        sockets = [Path(path.format(runtime=runtime)) for path in _SOCKETS]
        socket = next((socket for socket in sockets if socket.is_socket()), None)
        if socket is None:
            raise InputError(
                "no container engine: start Docker, or start 'podman system service --time=0' "
                "and set DOCKER_HOST to its socket"
            )
        os.environ[_HOST] = f"unix://{socket}"
    try:
        try:
            client = docker.from_env()
            client.ping()
        except (docker.errors.DockerException, OSError) as error:
            host = os.environ[_HOST]
            raise InputError(
                f"container engine {host}: does not answer ({one_line(error, 200)}); start it, or set DOCKER_HOST"
            ) from error
        with closing(client):
            yield client
    finally:
        if before is None:
            del os.environ[_HOST]


def _find_image(client: Any, reference: str) -> None:
    """Pull an image if it is not on this machine.

    Raises:
        InputError: It cannot be pulled.
    """
    import docker

    try:
        client.images.get(reference)
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(reference)
        except docker.errors.APIError as error:
            raise InputError(
                f"image {reference}: not on this machine, and cannot be pulled ({one_line(error, 200)}); "
                "build the images with 'make images'"
            ) from error


def _user(client: Any) -> Mapping[str, str]:
    """Return the user of the containers, who can write into the folder of the run; empty to use the user of the image.

    In a container of a rootless engine, root is mapped to the user who runs the engine.
    """
    if any("rootless" in option for option in client.info().get("SecurityOptions") or ()):
        return {"user": "0:0"}
    return {"user": f"{os.getuid()}:{os.getgid()}"} if os.getuid() else {}
