"""The loop of a server's connections asks those that something happened to, and misses nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any, BinaryIO

import pytest
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer

from store.serving import event_loop
from store.serving.listener import listen
from store.serving.server import serve
from store.settings import Settings
from tests.support.shopper import eventually

pytestmark = pytest.mark.quick

_PIECE, _PIECES = b"widget!." * 131_072, 40
"""Of a large answer, so many of a megabyte each: more than waitress keeps while nobody reads."""
_ASKED_FOR_A_REQUEST = 4
"""How often a connection is asked for each: after it has read, once it is answered, and in between."""


def answer(environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    """The path, or very much."""
    path = str(environ["PATH_INFO"]).encode()
    pieces = [_PIECE] * _PIECES if path == b"/large" else [path]
    start_response("200 OK", [("Content-Length", str(sum(map(len, pieces))))])
    return iter(pieces)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """Where a server listens that never asks all connections once it has begun."""
    listener = listen("127.0.0.1", 0)
    host, port = listener.getsockname()[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_loop, "LOOK_AT_ALL_SECONDS", 3600.0)
        threading.Thread(target=serve, args=[answer, Settings(), [listener]], daemon=True).start()
        yield host, port


@pytest.fixture
def connect(address: tuple[str, int]) -> Iterator[Callable[[], socket.socket]]:
    """Opens connections to it."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(address, timeout=20))


def ask(connection: socket.socket, *paths: str, headers: str = "") -> None:
    """Requests, all sent at once."""
    requests = (f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n" for path in paths)
    connection.sendall("".join(requests).encode())


def body_of(stream: BinaryIO) -> bytes:
    """The body of the next answer."""
    length = 0
    while (line := stream.readline()) not in {b"\r\n", b""}:
        name, _, value = line.partition(b": ")
        length = int(value) if name.lower() == b"content-length" else length
    return stream.read(length)


def counting(monkeypatch: pytest.MonkeyPatch, kind: Any) -> Iterator[int]:
    """Counts how often any of this kind is asked whether it wants to read; to look counts as one."""
    asked, is_readable = count(), kind.readable

    def count_and_ask(each: Any) -> bool:
        next(asked)
        return bool(is_readable(each))

    monkeypatch.setattr(kind, "readable", count_and_ask)
    return asked


def test_a_kept_connection_is_answered_again_and_again(connect: Callable[[], socket.socket]) -> None:
    """Each time as soon as it asks, also where it has asked twice before it reads."""
    connection = connect()
    stream = connection.makefile("rb")
    for path in ("/one", "/two"):
        ask(connection, path)
        assert body_of(stream) == path.encode()
    ask(connection, "/three", "/four")
    assert [body_of(stream), body_of(stream)] == [b"/three", b"/four"]


def test_a_large_answer_arrives_whole(connect: Callable[[], socket.socket]) -> None:
    """What the thread that answers cannot send, the loop does; and then there is room for more."""
    connection = connect()
    stream = connection.makefile("rb")
    for _ in range(2):
        ask(connection, "/large")
        assert body_of(stream) == _PIECE * _PIECES
    ask(connection, "/small")
    assert body_of(stream) == b"/small"


def test_whoever_is_told_that_it_is_closed_is_closed(connect: Callable[[], socket.socket]) -> None:
    """At once, and not when all are asked again."""
    connection = connect()
    ask(connection, "/last", headers="Connection: close\r\n")
    stream = connection.makefile("rb")
    assert body_of(stream) == b"/last"
    assert stream.read() == b""


def test_the_number_of_one_that_has_gone_is_anothers(connect: Callable[[], socket.socket]) -> None:
    """The system gives the number of a closed file to the next that is opened."""
    for number in range(20):
        connection = connect()
        ask(connection, f"/{number}")
        assert body_of(connection.makefile("rb")) == f"/{number}".encode()
        connection.close()


def test_those_that_say_nothing_cost_nothing(
    connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request costs the same, however many connections are open beside it."""
    asked = counting(monkeypatch, HTTPChannel)
    idle = [connect() for _ in range(200)]
    ask(idle[-1], "/open")  # behind all others, so they are open
    assert body_of(idle[-1].makefile("rb")) == b"/open"
    connection, requests, before = connect(), 50, next(asked)
    stream = connection.makefile("rb")
    for _ in range(requests):
        ask(connection, "/")
        assert body_of(stream) == b"/"
    assert next(asked) - before <= _ASKED_FOR_A_REQUEST * (requests + 1)


def test_many_at_once_are_all_answered(connect: Callable[[], socket.socket]) -> None:
    """More than there are threads, so that most wait in the queue of those."""
    connections = [connect() for _ in range(100)]
    for turn in range(5):
        for connection in connections:
            ask(connection, f"/{turn}")
        answered = [body_of(connection.makefile("rb")) for connection in connections]
        assert answered == [f"/{turn}".encode()] * len(connections)


def test_what_was_closed_costs_nothing(
    connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever hangs up, before a request or in the middle of one or of its answer, is forgotten."""
    rounds = counting(monkeypatch, BaseWSGIServer)  # what listens is asked once in each
    for began in (b"", b"GET / HTTP/1.1\r\nHost", b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        for _ in range(10):
            gone = connect()
            gone.sendall(began)
            gone.close()
    connection = connect()
    stream = connection.makefile("rb")

    def rounds_of_twenty_requests() -> int:
        before = next(rounds)
        for _ in range(20):
            ask(connection, "/here")
            assert body_of(stream) == b"/here"
        return next(rounds) - before

    # A loop that cannot rest makes hundreds.
    eventually(rounds_of_twenty_requests, lambda made: made <= 20 * _ASKED_FOR_A_REQUEST)
