"""The pods that train together: their numbers and addresses, how they connect, and how they wait for each other.

The first pod listens. The other pods look up its name until it accepts them, so none of them starts with the address
of a pod of an earlier attempt. Later the first pod passes on the names of the files that its rank 0 writes, for which
the ranks of the other pods wait (:meth:`kubeyolo.training.distribution.Distribution.synchronize`). A pod that loses
the connection ends: a collective would notice the loss only after a minute, and a wait would not notice it at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kubeyolo.errors import InputError, WorkError
from kubeyolo.work import BARRIER_END, BARRIER_PREFIX, DEVICES

GANG_NAME = "KUBEYOLO_GANG"
NODES = "KUBEYOLO_GANG_NODES"
MASTER = "KUBEYOLO_GANG_MASTER"
PORT = "KUBEYOLO_GANG_PORT"
RENDEZVOUS_LIMIT = "KUBEYOLO_GANG_LIMIT"
ADDRESS = "KUBEYOLO_POD_ADDRESS"
ATTEMPT = "KUBEYOLO_GANG_ATTEMPT"
NODE = "VC_TASK_INDEX"
"""Environment variables of a pod; Volcano sets the last variable."""

_POLL_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_WELCOME, _END = "welcome", "end"
_BARRIER = re.compile(rf"{BARRIER_PREFIX}\d+({BARRIER_END})?", re.ASCII)


@dataclass(frozen=True)
class Rendezvous:
    """One of the pods that train together, and how it finds the other pods.

    Attributes:
        name: Name of the job.
        nodes: Number of pods.
        node: Number of this pod, from 0.
        devices: Training processes of each pod.
        master: Name or address of the first pod.
        port: Port of MindSpore's scheduler; the first pod listens on the next port.
        address: Address of this pod.
        attempt: Changes when the gang is restarted.
        limit: Longest time in which the pods must find each other, in seconds.
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
        """Number of all worker processes."""
        return self.nodes * self.devices

    @property
    def greeting(self) -> str:
        """Line that a pod sends to the first pod, which accepts only pods of its own attempt."""
        return f"{self.name} {self.attempt}".strip()

    @classmethod
    def from_environment(cls) -> Rendezvous:
        """Read the environment variables that the job's manifest and Volcano set in a pod.

        Raises:
            InputError: A variable is missing or is not a number.
        """
        variables = os.environ
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
                limit=float(variables[RENDEZVOUS_LIMIT]),
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
        lost: Set when a different pod has ended too early.
        complete: Set by the caller when this pod's work is done, so that the other pods do not treat it as lost.
    """

    master: str
    lost: threading.Event = field(default_factory=threading.Event)
    complete: bool = False


@contextlib.contextmanager
def relay(rendezvous: Rendezvous, folder: Path) -> Iterator[Relay]:
    """Connect the pods, and pass on the files of rank 0 to the folders of the other pods until the work is done.

    Raises:
        WorkError: The first pod did not accept this pod within the limit.
    """
    if rendezvous.nodes == 1:
        yield Relay(rendezvous.address)
    else:
        with (_listening if rendezvous.node == 0 else _connected)(rendezvous, folder) as state:
            yield state


@contextlib.contextmanager
def _listening(rendezvous: Rendezvous, folder: Path) -> Iterator[Relay]:
    state, stop = Relay(rendezvous.address), threading.Event()
    peers: list[threading.Thread] = []

    def accept(listener: socket.socket) -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                connection, _ = listener.accept()
                peer = threading.Thread(target=_serve, args=(connection, rendezvous, folder, state, stop), daemon=True)
                peer.start()
                peers.append(peer)

    with socket.create_server((rendezvous.address, rendezvous.port + 1), backlog=rendezvous.nodes) as listener:
        listener.settimeout(_RETRY_SECONDS)
        threading.Thread(target=accept, args=(listener,), daemon=True, name="rendezvous").start()
        try:
            yield state
        finally:
            stop.set()
            for peer in peers:
                peer.join(_ANSWER_SECONDS)


def _serve(
    connection: socket.socket, rendezvous: Rendezvous, folder: Path, state: Relay, stop: threading.Event
) -> None:
    """Accept a pod and send it the name of each file that rank 0 writes, until the pod has ended or is lost."""
    sent: set[str] = set()

    def send_new() -> None:
        for path in sorted(folder.glob(f"{BARRIER_PREFIX}*")):
            if path.name not in sent:
                sent.add(path.name)
                connection.sendall(f"{path.name}\n".encode())

    with connection:
        _keep_alive(connection)
        try:
            connection.settimeout(_ANSWER_SECONDS)
            if _receive(connection) != rendezvous.greeting:
                return
        except OSError:
            return
        try:
            connection.sendall(f"{_WELCOME}\n".encode())
            connection.settimeout(_POLL_SECONDS)
            while not stop.is_set():
                send_new()
                word = _receive(connection)
                if word is not None:
                    if word != _END:
                        state.lost.set()
                    return
            if state.complete:
                send_new()
                connection.sendall(f"{_END}\n".encode())
        except OSError:
            state.lost.set()


def _receive(connection: socket.socket) -> str | None:
    """Return a message from the other pod; empty if it has closed the connection, None if it has sent nothing."""
    try:
        return connection.recv(256).decode(errors="replace").strip()
    except TimeoutError:
        return None


@contextlib.contextmanager
def _connected(rendezvous: Rendezvous, folder: Path) -> Iterator[Relay]:
    connection = _accepted_connection(rendezvous)
    state = Relay(connection.getpeername()[0])
    reader = threading.Thread(target=_follow, args=(connection, folder, state), daemon=True, name="rendezvous")
    with connection:
        reader.start()
        try:
            yield state
        finally:
            with contextlib.suppress(OSError):
                if state.complete:
                    connection.sendall(f"{_END}\n".encode())
                connection.shutdown(socket.SHUT_RDWR)


def _accepted_connection(rendezvous: Rendezvous) -> socket.socket:
    end, reason = time.monotonic() + rendezvous.limit, ""
    while time.monotonic() < end:
        try:
            connection = socket.create_connection((rendezvous.master, rendezvous.port + 1), _ANSWER_SECONDS)
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(_RETRY_SECONDS)
            continue
        try:
            connection.sendall(f"{rendezvous.greeting}\n".encode())
            if connection.recv(len(_WELCOME) + 1).decode().strip() == _WELCOME:
                _keep_alive(connection)
                connection.settimeout(None)
                return connection
            reason = "the first pod belongs to a different attempt"
        except OSError as error:
            reason = str(error)
        connection.close()
        time.sleep(_RETRY_SECONDS)
    raise WorkError(
        f"pod {rendezvous.node}: {rendezvous.master} did not accept this pod within {rendezvous.limit:.0f} s ({reason})"
    )


def _follow(connection: socket.socket, folder: Path, state: Relay) -> None:
    """Create an empty file in the folder of this pod for each name that the first pod sends."""
    rest = b""
    try:
        while data := connection.recv(4096):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                name = line.decode()
                if name == _END:
                    return
                if _BARRIER.fullmatch(name):
                    (folder / name).touch()
    except OSError:
        pass
    if not state.complete:
        state.lost.set()


def _keep_alive(connection: socket.socket) -> None:
    """Make the kernel detect within half a minute that a machine has disappeared."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
