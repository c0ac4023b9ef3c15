"""The Widget Store: the composition root, where settings, databases, workflows and pages meet.

`python app.py`, `flask run` and `waitress-serve --call app:create_app` all begin here.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

import click
from flask import Flask
from waitress.server import create_server

from store import database, durability, web
from store.api import api
from store.config import REFUSED, BadSetting, Process, Settings, is_sqlite
from store.presenter import is_offered, presenter
from store.storefront import storefront

_CONNECTIONS = 2000
_IDLE_SECONDS = 30
"""A connection that says nothing for this long is closed; browsers open another when they need it."""
_STOP_SECONDS = 2.0
"""After this long, requests that are still being answered are left, and their shoppers ask again."""


def create_app(settings: Settings | None = None) -> Flask:
    """Build the shop and, in a process that serves, launch its workflows.

    Settings come from the environment unless given. A setting or a database that cannot be
    used ends the process with one sentence and exit code 2.
    """
    try:
        settings = settings or Settings.from_env()
        databases = database.connect(settings)
    except (BadSetting, database.DatabaseRefused) as refusal:
        _refuse(str(refusal))

    app = Flask("app")
    web.prepare(app, databases)
    app.register_blueprint(storefront)
    app.register_blueprint(api)
    app.jinja_env.globals["presenter_is_offered"] = is_offered
    if settings.offers_presenter_tools:
        app.register_blueprint(presenter)

    if _serves(Process.from_env()):
        durability.launch(settings, databases)
    else:
        # The parent of `flask run --debug`, `flask routes` and the like: they answer no
        # request, and must not take up the orders of the process that does.
        durability.launch_at_first_request(app, settings, databases)
    return app


def main() -> None:
    """Serve the shop until Ctrl+C or SIGTERM, or bring its database up to date."""
    parser = argparse.ArgumentParser(prog="python app.py", description="The Widget Store.")
    parser.add_argument("command", nargs="?", default="serve", choices=["serve", "migrate"])
    command = parser.parse_args().command
    try:
        settings = Settings.from_env()
        if command == "migrate":
            database.connect(settings).close()
        else:
            serve(settings)
    except (BadSetting, database.DatabaseRefused) as refusal:
        _refuse(str(refusal))


def serve(settings: Settings) -> None:
    """Answer requests until told to stop."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    # Bound first: if another shop has the port, this one must not touch its orders.
    listener = _listen(settings.host, settings.port)
    app = create_app(settings)
    server = create_server(
        app,
        sockets=[listener],
        threads=settings.threads,
        # A hall full of phones keeps a connection each; waitress would stop at a hundred.
        connection_limit=_CONNECTIONS,
        asyncore_use_poll=True,  # select() knows only the first 1024 files
        channel_timeout=_IDLE_SECONDS,
        ident=None,
        # Beyond the limit of the shop, which explains itself; this one only hangs up on floods.
        max_request_body_size=16 * web.MAX_BODY_BYTES,
        **_behind_proxies(settings.trusted_proxies),
    )
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    kept = "SQLite" if is_sqlite(settings.database_url) else "Postgres"
    address = f"http://{host}:{listener.getsockname()[1]}"
    print(
        f"The Widget Store is open at {address} (process {os.getpid()}, on {kept}); Ctrl+C closes it.",
        flush=True,
    )
    server.run()


def _serves(process: Process) -> bool:
    """Whether this process is the one that will answer requests, as far as can be told now."""
    if not process.under_flask_command or process.reloader_child:
        return True
    context = click.get_current_context(silent=True)
    return context is not None and context.info_name == "run" and not process.reloads


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise BadSetting(
            f"STORE_HOST {host} and STORE_PORT {port} cannot be listened on ({error.strerror}): "
            "stop what is using them, or choose others."
        ) from error


def _behind_proxies(count: int) -> dict[str, Any]:
    """What waitress needs to believe as many proxies as there are, and nobody else."""
    if count == 0:
        return {"clear_untrusted_proxy_headers": True}
    return {
        "trusted_proxy": "*",
        "trusted_proxy_count": count,
        "trusted_proxy_headers": {"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"},
        "clear_untrusted_proxy_headers": True,
    }


def _stop(_signal: int, _frame: object) -> NoReturn:
    """Stop soon. Whatever is not finished by then is taken up by the next start."""
    deadline = threading.Timer(_STOP_SECONDS, os._exit, [0])
    deadline.daemon = True
    deadline.start()
    raise SystemExit(0)


def _refuse(sentence: str) -> NoReturn:
    print(f"widget store: {sentence}", file=sys.stderr)
    raise SystemExit(REFUSED)


if __name__ == "__main__":
    main()
