"""Owns one server process: waitress, its limits, and how it stops. Imports `config`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from waitress.channel import HTTPChannel
from waitress.server import create_server

from store.config import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
_CONNECTIONS = 2000
_IDLE_SECONDS = 30
"""A connection that says nothing for this long is closed; browsers open another when they need it.
So is one whose request is not whole this long after its first byte."""
_MAX_HEADER_BYTES = 32 * 1024
_STOP_SECONDS = 1.5
"""After this long, requests that are still being answered are left, and their shoppers ask again."""
_MAX_BODY_BYTES = 1024 * 1024
"""Far beyond the limit of the shop, which explains itself; this one only hangs up on floods."""


def stop_on_signals(goodbye: Callable[[], None]) -> None:
    """End the process on SIGTERM and Ctrl+C: in good order, or after two seconds without it.

    What is not finished by then is taken up by the next start. `goodbye` is said either way.
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


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection that is idle from the first byte of a request on, until the request is whole.

    Waitress reads without a thread, so that slow clients cost no answers; but it counts each byte as a
    sign of life, and whoever sent one now and then would keep their connection for ever.
    """

    request: object
    last_activity: float

    def handle_read(self) -> None:
        half, since = self.request, self.last_activity
        super().handle_read()
        if half is not None and self.request is half:
            self.last_activity = since


def serve(
    app: WSGIApplication, settings: Settings, listener: socket.socket, idle_seconds: int = _IDLE_SECONDS
) -> None:
    """Answer requests until the process ends."""
    _allow_as_many_files_as_possible()
    # It says each time that somebody waits for a thread, which after a crash everybody does.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = create_server(
        app,
        sockets=[listener],
        threads=settings.threads,
        # A hall full of phones keeps a connection each; waitress would stop at a hundred.
        connection_limit=_CONNECTIONS,
        asyncore_use_poll=True,  # select() knows only the first 1024 files
        channel_timeout=idle_seconds,
        cleanup_interval=idle_seconds,  # how often it looks
        max_request_header_size=_MAX_HEADER_BYTES,
        ident=None,
        max_request_body_size=_MAX_BODY_BYTES,
        # Left where they are: `origin` says whose are believed, and to `gate` they tell of a proxy.
        clear_untrusted_proxy_headers=False,
    )
    server.channel_class = _Channel
    server.run()


def _allow_as_many_files_as_possible() -> None:
    """Every connection is a file, and the usual limit is far below that of connections."""
    try:
        import resource  # noqa: PLC0415 - not everywhere
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 2 * _CONNECTIONS if hard == resource.RLIM_INFINITY else min(2 * _CONNECTIONS, hard)
    if soft < enough:
        with contextlib.suppress(OSError, ValueError):  # then it stays as it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
