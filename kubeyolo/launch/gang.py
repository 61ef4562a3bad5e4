"""The pods that train together: who they are, how they find each other, and how they wait for each other.

The first pod listens. The others look its name up until it lets them in, so none of them starts with the address of a
pod of an earlier try. Later the first pod passes on to them the files that its rank 0 leaves, for which the ranks of
the other pods wait (:class:`kubeyolo.training.distribution.Meeting`). A pod that loses the connection ends: a
collective would notice the loss only after a minute, and a wait would not notice it at all.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kubeyolo.errors import InputError, WorkError
from kubeyolo.training.spec import MET_PREFIX

GANG_NAME = "KUBEYOLO_GANG"
NODES = "KUBEYOLO_GANG_NODES"
DEVICES = "KUBEYOLO_GANG_DEVICES"
MASTER = "KUBEYOLO_GANG_MASTER"
PORT = "KUBEYOLO_GANG_PORT"
MEETING_LIMIT = "KUBEYOLO_GANG_LIMIT"
ADDRESS = "KUBEYOLO_POD_ADDRESS"
ATTEMPT = "KUBEYOLO_GANG_ATTEMPT"
NODE = "VC_TASK_INDEX"
"""Environment variables of a pod; the last one is Volcano's."""

_POLL_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_WELCOME, _END = "welcome", "end"


@dataclass(frozen=True)
class Gang:
    """One pod among those that train together.

    Attributes:
        name: Of the job.
        nodes: Number of pods.
        node: Number of this one.
        devices: Training processes of a pod.
        master: Name, or address, of the first pod.
        port: On which MindSpore's processes meet; the pods meet on the next one.
        address: Of this pod.
        attempt: Changes when the gang is restarted.
        limit: Longest time in which the pods must meet, in seconds.
    """

    name: str
    nodes: int
    node: int
    devices: int
    master: str
    port: int
    address: str
    attempt: str = ""
    limit: float = 600.0

    @property
    def world(self) -> int:
        """Number of all training processes."""
        return self.nodes * self.devices

    @property
    def greeting(self) -> str:
        """What a pod says to the first one, which lets in those of its own try alone."""
        return f"{self.name} {self.attempt}".strip()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Gang:
        """Read what the job's manifest and Volcano tell a pod.

        Raises:
            InputError: A variable is missing or is no number.
        """
        variables = os.environ if environment is None else environment
        try:
            return cls(
                name=variables[GANG_NAME],
                nodes=int(variables[NODES]),
                node=int(variables[NODE]),
                devices=int(variables[DEVICES]),
                master=variables[MASTER],
                port=int(variables[PORT]),
                address=variables[ADDRESS],
                attempt=variables.get(ATTEMPT, ""),
                limit=float(variables[MEETING_LIMIT]),
            )
        except KeyError as error:
            raise InputError(f"the environment variable {error.args[0]} is not set; a Volcano job sets it") from None
        except ValueError as error:
            raise InputError(f"the environment of this pod cannot be read: {error}") from None


@dataclass
class Relay:
    """The connection between the pods while they train.

    Attributes:
        master: Address of the first pod.
        lost: Set when another pod is gone before its time.
        complete: To be set when this pod's work is done: the others are not told that it is lost.
    """

    master: str
    lost: threading.Event = field(default_factory=threading.Event)
    complete: bool = False


@contextlib.contextmanager
def relay(gang: Gang, folder: Path) -> Iterator[Relay]:
    """Meet the other pods, and pass on what rank 0 leaves in its folder, to theirs, until the work is done.

    Raises:
        WorkError: The first pod did not let this one in within the limit.
    """
    if gang.nodes == 1:
        yield Relay(gang.address)
    elif gang.node == 0:
        with _listening(gang, folder) as state:
            yield state
    else:
        with _connected(gang, folder) as state:
            yield state


@contextlib.contextmanager
def _listening(gang: Gang, folder: Path) -> Iterator[Relay]:
    state, stop = Relay(gang.address), threading.Event()
    peers: list[threading.Thread] = []

    def accept(listener: socket.socket) -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                connection, _ = listener.accept()
                peer = threading.Thread(target=_serve, args=(connection, gang, folder, state, stop), daemon=True)
                peer.start()
                peers.append(peer)

    with socket.create_server((gang.address, gang.port + 1), backlog=gang.nodes) as listener:
        listener.settimeout(_RETRY_SECONDS)
        threading.Thread(target=accept, args=(listener,), daemon=True, name="gang").start()
        try:
            yield state
        finally:
            stop.set()
            for peer in peers:
                peer.join(_ANSWER_SECONDS)


def _serve(connection: socket.socket, gang: Gang, folder: Path, state: Relay, stop: threading.Event) -> None:
    """Let a pod in, and tell it of each file of rank 0, until it says that it is done or is gone."""
    told: set[str] = set()

    def tell() -> None:
        for path in sorted(folder.glob(f"{MET_PREFIX}*")):
            if path.name not in told:
                told.add(path.name)
                connection.sendall(f"{path.name}\n".encode())

    with connection:
        _keep_alive(connection)
        try:
            connection.settimeout(_ANSWER_SECONDS)
            if _receive(connection) != gang.greeting:
                return
        except OSError:
            return
        try:
            connection.sendall(f"{_WELCOME}\n".encode())
            connection.settimeout(_POLL_SECONDS)
            while not stop.is_set():
                tell()
                word = _receive(connection)
                if word is not None:
                    if word != _END:
                        state.lost.set()
                    return
            if state.complete:
                tell()
                connection.sendall(f"{_END}\n".encode())
        except OSError:
            state.lost.set()


def _receive(connection: socket.socket) -> str | None:
    """Return a word of the other side, empty when it is gone, None when it has nothing to say."""
    try:
        return connection.recv(256).decode(errors="replace").strip()
    except TimeoutError:
        return None


@contextlib.contextmanager
def _connected(gang: Gang, folder: Path) -> Iterator[Relay]:
    connection = _let_in(gang)
    state = Relay(connection.getpeername()[0])
    reader = threading.Thread(target=_follow, args=(connection, folder, state), daemon=True, name="gang")
    with connection:
        reader.start()
        try:
            yield state
        finally:
            with contextlib.suppress(OSError):
                if state.complete:
                    connection.sendall(f"{_END}\n".encode())
                connection.shutdown(socket.SHUT_RDWR)


def _let_in(gang: Gang) -> socket.socket:
    end, reason = time.monotonic() + gang.limit, ""
    while time.monotonic() < end:
        try:
            connection = socket.create_connection((gang.master, gang.port + 1), _ANSWER_SECONDS)
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(_RETRY_SECONDS)
            continue
        try:
            connection.sendall(f"{gang.greeting}\n".encode())
            if connection.recv(len(_WELCOME) + 1).decode().strip() == _WELCOME:
                _keep_alive(connection)
                connection.settimeout(None)
                return connection
            reason = "it is of another try"
        except OSError as error:
            reason = str(error)
        connection.close()
        time.sleep(_RETRY_SECONDS)
    raise WorkError(f"pod {gang.node}: {gang.master} did not let it in within {gang.limit:.0f} s ({reason})")


def _follow(connection: socket.socket, folder: Path, state: Relay) -> None:
    """Leave each file that the first pod tells of in the folder of this one."""
    rest = b""
    try:
        while data := connection.recv(4096):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                name = line.decode()
                if name == _END:
                    return
                if name.startswith(MET_PREFIX) and name[len(MET_PREFIX) :].isdigit():
                    (folder / name).touch()
    except OSError:
        pass
    if not state.complete:
        state.lost.set()


def _keep_alive(connection: socket.socket) -> None:
    """Let the kernel notice within half a minute that a machine is gone without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
