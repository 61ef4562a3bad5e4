"""A TCP proxy that breaks connections on purpose."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator


class FlakyProxy:
    """Forwards connections to a port of this machine, but not all of them and not all of their bytes.

    Args:
        port: The server behind it.
        drop: How many connections, from the first one, are reset as soon as they are made.
        cut_after: Bytes of answers after which a connection is reset.
        cuts: How many connections are cut like that.
        lose_answer_to: Bytes in a request whose answer is thrown away with its connection, once.
    """

    def __init__(
        self, port: int, drop: int = 0, cut_after: int = 0, cuts: int = 0, lose_answer_to: bytes = b""
    ) -> None:
        self.target = port
        self.drop, self.cut_after, self.cuts, self.lose_answer_to = drop, cut_after, cuts, lose_answer_to
        self.connections = self.dropped = self.cut = self.lost = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                if self.dropped < self.drop:
                    self.dropped += 1
                    _reset(client)
                    continue
                server = socket.create_connection(("127.0.0.1", self.target))
                self._open += [client, server]
                _Link(self, client, server).start()

    def take_cut(self) -> bool:
        with self._lock:
            if self.cut >= self.cuts:
                return False
            self.cut += 1
            return True

    def take_loss(self) -> bool:
        with self._lock:
            self.lost += 1
            return self.lost == 1

    def close(self) -> None:
        # A close alone does not wake the thread that waits for a connection.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class _Link:
    def __init__(self, proxy: FlakyProxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.lose = False
        self.answered = 0

    def start(self) -> None:
        threading.Thread(target=self.requests, daemon=True).start()
        threading.Thread(target=self.answers, daemon=True).start()

    def requests(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.client.recv(65536):
                marker = self.proxy.lose_answer_to
                if marker and marker in data and self.proxy.take_loss():
                    self.lose = True
                self.server.sendall(data)
            self.server.shutdown(socket.SHUT_WR)

    def answers(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.server.recv(65536):
                self.answered += len(data)
                if self.lose:
                    break
                if 0 < self.proxy.cut_after < self.answered and self.proxy.take_cut():
                    self.client.sendall(data[: len(data) // 2])
                    break
                self.client.sendall(data)
        _reset(self.client)
        self.server.close()


def _reset(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The other thread of a link may wait for data; without this the close would wait for it.
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextlib.contextmanager
def flaky_proxy(port: int, **faults: object) -> Iterator[FlakyProxy]:
    proxy = FlakyProxy(port, **faults)
    thread = threading.Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(5)
