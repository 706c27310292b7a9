"""What a process has between JAX and the coordinator, with sockets in the place of both."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from glore_jax.parallel import line
from glore_jax.parallel.line import Line


class Ends:
    """JAX's end, and the coordinator's, of a line; cut: set once the line says so."""

    def __init__(self):
        self.cut, self.server = threading.Event(), socket.create_server(("127.0.0.1", 0))
        self.line = Line(f"localhost:{self.server.getsockname()[1]}", self.cut.set)
        self.near = self.far = socket.socket()

    def connect(self) -> None:
        self.near.close()
        self.far.close()
        self.near = self.jax()
        self.far, _ = self.server.accept()
        self.far.settimeout(10)

    def jax(self) -> socket.socket:
        host, _, port = self.line.address.partition(":")
        return socket.create_connection((host, int(port)), 10)

    def close(self) -> None:
        for end in (self.near, self.far, self.server):
            end.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def whole(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += end.recv(size)
    return data


def test_bytes_go_both_ways(ends: Ends):
    ends.connect()
    data = bytes(range(256)) * 4000
    for source, sink in ((ends.near, ends.far), (ends.far, ends.near)):
        threading.Thread(target=source.sendall, args=(data,)).start()
        assert whole(sink, len(data)) == data


def test_when_the_coordinator_goes_the_line_says_so_and_jax_hears_nothing(ends: Ends):
    ends.connect()
    ends.far.close()
    assert ends.cut.wait(10)
    ends.near.settimeout(0.5)
    with pytest.raises(TimeoutError):
        ends.near.recv(1)


def test_when_jax_closes_the_coordinator_hears_it_and_nobody_is_missed(ends: Ends):
    ends.connect()
    ends.near.close()
    assert ends.far.recv(1) == b""
    assert not ends.cut.wait(0.5)
    ends.connect()  # as after a failed attempt
    ends.near.sendall(b"again")
    assert whole(ends.far, 5) == b"again"


def test_where_there_is_no_coordinator_yet_jax_may_try_again(ends: Ends):
    port = ends.server.getsockname()[1]
    ends.server.close()
    with ends.jax() as early:
        assert early.recv(1) == b""
    ends.server = socket.create_server(("127.0.0.1", port))
    ends.connect()
    assert not ends.cut.is_set()


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.setenv("no_proxy", "inside")
    monkeypatch.setenv(line._NO_PROXY, "")
    Line("localhost:1", lambda: None)
    assert os.environ[line._NO_PROXY] == "inside,127.0.0.1"
