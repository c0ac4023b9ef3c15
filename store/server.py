"""Owns one server process: waitress, its limits, and how it stops. Imports `config`."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from flask import Flask
from waitress.server import create_server

from store.config import Settings

_CONNECTIONS = 2000
_IDLE_SECONDS = 30
"""A connection that says nothing for this long is closed; browsers open another when they need it."""
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


def serve(app: Flask, settings: Settings, listener: socket.socket) -> None:
    """Answer requests until the process ends."""
    # It says each time that somebody waits for a thread, which after a crash everybody does.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = create_server(
        app,
        sockets=[listener],
        threads=settings.threads,
        # A hall full of phones keeps a connection each; waitress would stop at a hundred.
        connection_limit=_CONNECTIONS,
        asyncore_use_poll=True,  # select() knows only the first 1024 files
        channel_timeout=_IDLE_SECONDS,
        ident=None,
        max_request_body_size=_MAX_BODY_BYTES,
        **_behind_proxies(settings.trusted_proxies),
    )
    server.run()


def _behind_proxies(count: int) -> dict[str, Any]:
    """What waitress needs to believe as many proxies as there are, and nobody else."""
    if count == 0:
        # Left where they are and believed by nobody: to the presenter's tools they say that
        # there is a proxy after all, and so that a request from this machine may be anybody's.
        return {"clear_untrusted_proxy_headers": False}
    return {
        "trusted_proxy": "*",
        "trusted_proxy_count": count,
        "trusted_proxy_headers": {"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"},
        "clear_untrusted_proxy_headers": True,
    }
