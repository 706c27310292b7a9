"""The line from a process to the coordinator that process 0 has, so that we notice first when it is cut.

Where its connection to the coordinator breaks, JAX aborts a process at once (exit code 134), names nobody, and lets no
one catch that. So here JAX connects to a port of its own process, and what goes through it is carried to the
coordinator and back. When process 0 dies it is the far connection that breaks; JAX's stays, and there is time to say
who died, and to end in order.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

_BYTES = 1 << 16
_PROXIES, _NO_PROXY = ("grpc_proxy", "https_proxy", "http_proxy"), "no_grpc_proxy"  # as gRPC reads them
_CONNECT_SECONDS = 10.0


class Line:
    """Carries connections to the coordinator, on daemon threads.

    Args:
      coordinator: HOST:PORT.
      cut: called, on such a thread, when the coordinator's end of one is gone.

    Attributes:
      address: to be given to JAX in the place of the coordinator's.
    """

    def __init__(self, coordinator: str, cut: Callable[[], None]):
        host, _, port = coordinator.rpartition(":")
        self._far, self._cut = (host.strip("[]"), int(port)), cut
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._door.getsockname()[1]}"
        _spare_proxies()
        _thread(self._admit)

    def _admit(self) -> None:
        while True:
            near, _ = self._door.accept()
            try:
                far = socket.create_connection(self._far, _CONNECT_SECONDS)
            except OSError:  # process 0 is not there yet: JAX tries again
                near.close()
                continue
            far.settimeout(None)
            for end in near, far:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            over = threading.Event()  # JAX has closed its side
            _thread(_carry_out, near, far, over)
            _thread(self._carry_back, far, near, over)

    def _carry_back(self, far: socket.socket, near: socket.socket, over: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(_BYTES):
                near.sendall(data)
        if not over.is_set():
            self._cut()
            return  # and the near side stays open, or JAX would abort
        near.close()
        far.close()


def _spare_proxies() -> None:
    """Where the environment names a proxy, JAX would ask it for this very machine."""
    if any(os.environ.get(name) for name in _PROXIES):
        spared = os.environ.get(_NO_PROXY) or os.environ.get("no_proxy")
        os.environ[_NO_PROXY] = f"{spared},127.0.0.1" if spared else "127.0.0.1"


def _carry_out(near: socket.socket, far: socket.socket, over: threading.Event) -> None:
    while data := _read(near):
        try:
            far.sendall(data)
        except OSError:  # it is gone, which the other thread sees too
            return
    over.set()
    with contextlib.suppress(OSError):
        far.shutdown(socket.SHUT_RDWR)


def _read(near: socket.socket) -> bytes:
    try:
        return near.recv(_BYTES)
    except OSError:
        return b""


def _thread(run: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=run, args=arguments, daemon=True).start()
