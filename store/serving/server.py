"""One server process: waitress, its limits, and how it stops."""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import WSGITask

from store.serving.client_connections import ClientConnections
from store.serving.event_loop import EventLoop
from store.serving.graceful_stop import Leaving, close_silent
from store.serving.thread_pools import Kind, KindOf, Pools
from store.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
_log = logging.getLogger("store")
_CONNECTIONS = 2000
_SPARE_SHARE = 40
"""One in so many is kept free by closing idle ones, so that the next client is let in."""
_REFUSALS_AT_ONCE = 50
_ACCEPTED_AT_ONCE = 20
"""Fewer than are kept free."""
_IDLE_SECONDS = 30
"""A connection that says nothing for this long is closed; browsers open another when they need it.
So is one whose request is not whole this long after its first byte."""
_MAX_HEADER_BYTES = 32 * 1024
_STOP_SECONDS = 1.5
"""After this long, requests that are still being answered are left, and their shoppers ask again."""
_MAX_BODY_BYTES = 1024 * 1024
"""Far beyond the limit of the shop, which explains itself; this one only hangs up on floods."""


_leaving = Leaving()
_answering = threading.local()
"""`channel`: of each thread that answers, whom."""


def stop_on_signals(goodbye: Callable[[], None]) -> None:
    """End the process on SIGTERM and Ctrl+C: in good order, or after two seconds without it.

    What is not finished by then is taken up by the next start. `goodbye` is said either way. On SIGUSR1, it
    leaves its connections to others first; see `graceful_stop`.
    """

    def leave() -> None:
        goodbye()
        os._exit(0)

    def stop(_signal: int, _frame: object) -> NoReturn:
        deadline = threading.Timer(_STOP_SECONDS, leave)
        deadline.daemon = True
        deadline.start()
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, lambda *_: _leaving.begin(leave))


class _Task(WSGITask):  # type: ignore[misc]  # waitress has no types
    """A request and its answer. One without a body leaves the connection open.

    Waitress closes after every answer that says no length, so each unchanged poll, a 304, would cost a new
    connection. What ends at its headers needs no length (RFC 9112, section 6.3).
    """

    def service(self) -> None:
        if _leaving.is_on:
            self.request.headers["CONNECTION"] = "close"
        super().service()

    def set_close_on_finish(self) -> None:
        is_asked_to = self.request.headers.get("CONNECTION", "").lower() == "close"
        if self.has_body or self.version == "1.0" or is_asked_to:
            super().set_close_on_finish()


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection. It counts for its client; and it is idle from the first byte of a request on.

    Until the request is whole, that is. Waitress reads without a thread, so that slow clients cost no
    answers; but it counts each byte as a sign of life, and a client that sent one now and then would keep
    their connection for ever.
    """

    task_class = _Task
    request: object
    requests: list[object]
    last_activity: float
    server: _Server

    def __init__(
        self, server: _Server, sock: socket.socket, addr: tuple[Any, ...], *others: Any, **map_: Any
    ):
        self.client = server.connections.client_at(addr[0])
        self.number = sock.fileno()
        self._is_counted = self._will_close = False
        super().__init__(server, sock, addr, *others, **map_)

    def add_channel(self, map: object = None) -> None:  # noqa: A002 - as waitress calls it
        super().add_channel(map)
        self.server.loop.touch(self.number)
        self._is_counted = True
        self.server.connections.add(self.client, 1)

    def del_channel(self, map: object = None) -> None:  # noqa: A002 - as waitress calls it
        super().del_channel(map)
        self.server.loop.touch(self.number)
        if self._is_counted:  # it may be called again
            self._is_counted = False
            self.server.connections.add(self.client, -1)

    @property
    def will_close(self) -> bool:
        """Whether the loop is to close it; waitress and the server set it, from wherever they are."""
        return self._will_close

    @will_close.setter
    def will_close(self, will_close: bool) -> None:
        self._will_close = will_close
        self.server.loop.touch(self.number)

    def service(self) -> None:
        _answering.channel = self
        super().service()

    def handle_read(self) -> None:
        half, since = self.request, self.last_activity
        super().handle_read()
        if half is not None and self.request is half:
            self.last_activity = since


class _Server(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """Waitress, on which no client can have every connection, and idle ones make room for new ones.

    Left to itself, it stops listening when all are taken, until one has been idle for long enough.
    """

    channel_class = _Channel
    active_channels: dict[int, _Channel]

    def __init__(
        self,
        app: WSGIApplication,
        settings: Settings,
        listener: socket.socket,
        loop: EventLoop,
        connections: dict[int, Any],
        **adjustments: Any,
    ):
        self.loop = loop
        self.connections = ClientConnections(settings)
        self.is_shared = False
        """Whether others listen at this address, too."""
        self._has_accepted = False
        limit: int = adjustments["connection_limit"]
        self._most = limit - limit // _SPARE_SHARE
        where = (listener.family, listener.type, listener.proto, listener.getsockname())
        super().__init__(
            app,
            connections,
            _sock=listener,
            sockinfo=where,
            bind_socket=False,
            sockets=[listener],
            **adjustments,
        )

    def accept(self) -> tuple[socket.socket, Any] | None:
        for _ in range(_REFUSALS_AT_ONCE):  # then those who are connected have a turn
            accepted: tuple[socket.socket, Any] | None = super().accept()
            if accepted is None:
                return None
            if self.connections.admits(accepted[1][0]):
                self._has_accepted = True
                return accepted
            accepted[0].close()
        return None

    def handle_accept(self) -> None:
        # One each time, as waitress has it, is slow when many come at once.
        for _ in range(_ACCEPTED_AT_ONCE):
            self._has_accepted = False
            super().handle_accept()
            if not self._has_accepted:
                break

    def readable(self) -> bool:
        if _leaving.is_on and self.is_shared:
            if not close_silent(self.active_channels.values()):
                raise SystemExit(0)  # which ends the loop of all listeners
            return False
        if len(self.active_channels) > self._most:
            self._make_room()
        return bool(super().readable())

    def pull_trigger(self) -> None:
        # Waitress does so in a thread that answers, whenever the loop has something to do for it.
        self.loop.touch(_answering.channel.number)
        if self.loop.must_be_woken():
            super().pull_trigger()

    def _make_room(self) -> None:
        """Close what has been idle for longest, of the client with most connections first."""
        staying = [channel for channel in list(self.active_channels.values()) if not channel.will_close]
        idle = (channel for channel in staying if not channel.requests)
        for channel in heapq.nsmallest(
            len(staying) - self._most,
            idle,
            key=lambda channel: (-self.connections.of(channel.client), channel.last_activity),
        ):
            channel.will_close = True


def serve(
    app: WSGIApplication,
    settings: Settings,
    listeners: Sequence[socket.socket],
    idle_seconds: int = _IDLE_SECONDS,
    *,
    kind_of: KindOf = lambda _method, _path: Kind.LOOK,
) -> None:
    """Answer requests until the process ends, each by a thread of its kind."""
    files = _allow_as_many_files_as_possible()
    # It says each time that somebody waits for a thread, which after a crash everybody does.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    connections: dict[int, Any] = {}  # of all listeners, which one loop looks at
    loop = EventLoop(connections)
    pools = Pools(settings.threads, kind_of)
    serve_on = partial(
        _Server,
        app,
        settings,
        loop=loop,
        connections=connections,
        dispatcher=pools,
        # A hall full of phones keeps a connection each; waitress would stop at a hundred.
        connection_limit=min(_CONNECTIONS, files // 2),
        channel_timeout=idle_seconds,
        cleanup_interval=idle_seconds,  # how often it looks
        max_request_header_size=_MAX_HEADER_BYTES,
        ident=None,
        max_request_body_size=_MAX_BODY_BYTES,
        # Left where they are: `origin` says whose are believed, and to `access` they tell of a proxy.
        clear_untrusted_proxy_headers=False,
    )
    shared, *_ = [serve_on(listener) for listener in listeners]
    shared.is_shared = True
    try:
        loop.run([listener.fileno() for listener in listeners])
    except (SystemExit, KeyboardInterrupt):
        pools.shutdown()


def _allow_as_many_files_as_possible() -> int:
    """Every connection is a file, and the usual limit is far below that of connections; the limit now."""
    enough = 2 * _CONNECTIONS
    try:
        import resource  # noqa: PLC0415 - not everywhere
    except ImportError:
        return enough
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return enough
    wanted = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # then it stays as it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft
