"""The Widget Store: the composition root, where settings, databases, workflows and pages meet.

`python app.py`, `flask run` and `waitress-serve --call app:create_app` all begin here. The
supervisor does too, so rooms that it does not need are imported where they are used: one
that cannot be imported ends a server, and not the parent that waits for it to be mended.
"""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import argparse
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from store import supervisor
from store.config import REFUSED, BadSetting, Process, Settings, is_sqlite

if TYPE_CHECKING:
    from flask import Flask

_MOST = 1_000_000
"""Of anything that the command line counts."""


def create_app(settings: Settings | None = None) -> Flask:
    """Build the shop and, in a process that serves, launch its workflows.

    Settings come from the environment unless given. A setting or a database that cannot be
    used ends the process with one sentence and exit code 2.
    """
    from flask import Flask

    from store import database, durability, ledger, presenter, web
    from store.api import api
    from store.books import Books
    from store.storefront import storefront

    try:
        settings = settings or Settings.from_env()
        databases = database.connect(settings)
    except (BadSetting, database.DatabaseRefused) as refusal:
        _refuse(str(refusal))

    app = Flask("app")
    web.prepare(app, databases)
    app.register_blueprint(storefront)
    app.register_blueprint(api)
    ledger.prepare(app, Books(databases.reader, settings.dispatch_tick_seconds))
    presenter.prepare(app, settings)

    if _serves(Process.from_env()):
        durability.launch(settings, databases)
    else:
        # The parent of `flask run --debug`, `flask routes` and the like: they answer no
        # request, and must not take up the orders of the process that does.
        durability.launch_at_first_request(app, settings, databases)
    return app


def main() -> None:
    """Do what the command line says: keep the shop open, unless it says something else."""
    parser = argparse.ArgumentParser(prog="python app.py", description="The Widget Store.")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("serve", help="keep the shop open until Ctrl+C; what it does without a command")
    server = commands.add_parser("server", help="one server, without the parent that starts it again")
    server.add_argument("--socket", type=int, help=argparse.SUPPRESS)  # for servers that have a parent
    server.add_argument("--port", type=int, help=argparse.SUPPRESS)
    commands.add_parser("migrate", help="create the database, or bring it up to date")
    storm = commands.add_parser("storm", help="let shoppers and SIGKILLs loose on a shop of their own")
    storm.add_argument("--shoppers", type=_at_least(1), default=30, help="how many (%(default)s)")
    storm.add_argument("--seconds", type=_at_least(1), default=60, help="how long they shop (%(default)s)")
    storm.add_argument("--kills", type=_at_least(0), default=20, help="of the server meanwhile (%(default)s)")
    storm.add_argument("--seed", type=_at_least(0), help="repeats the choices of an earlier storm")
    storm.add_argument("--database", metavar="URL", help="of a new one; otherwise a SQLite file, thrown away")
    storm.add_argument("--json", action="store_true", help="the verdict as JSON")
    said = parser.parse_args()
    try:
        settings = Settings.from_env()
        if said.command == "migrate":
            migrate(settings)
        elif said.command == "storm":
            raise SystemExit(run_storm(said))
        elif said.command == "server":
            serve(settings, inherited=said.socket, port=said.port)
        else:
            raise SystemExit(supervise(settings))
    except BadSetting as refusal:
        _refuse(str(refusal))


def supervise(settings: Settings) -> int:
    """Keep a server up until told to stop; the exit code."""
    parent = supervisor.Supervisor(settings, news=_say)
    parent.stop_on_signals()
    return parent.run(lambda pid: _opening(settings, parent.address, pid))


def serve(settings: Settings, *, inherited: int | None = None, port: int | None = None) -> None:
    """Be one server: on the socket or port that a parent gives, or else alone and on our own."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    has_parent = inherited is not None or port is not None
    if has_parent:
        supervisor.die_with_parent()
    # Before the shop is made: if another one has the port, this one must not touch its orders.
    listener = (
        supervisor.listen(settings.host, settings.port if port is None else port)
        if inherited is None
        else socket.socket(fileno=inherited)
    )
    from store import durability, server

    server.stop_on_signals(durability.say_goodbye)
    app = create_app(settings)
    if not has_parent:
        _say(_opening(settings, supervisor.address_of(settings.host, listener), os.getpid()))
    server.serve(app, settings, listener)


def run_storm(said: argparse.Namespace) -> int:
    """Let the storm blow that the command line describes; the exit code."""
    from store.database import DatabaseRefused
    from store.storm import Plan
    from store.terminal import run_storm

    seed = secrets.randbelow(1_000_000) if said.seed is None else said.seed
    plan = Plan(shoppers=said.shoppers, seconds=said.seconds, kills=said.kills, seed=seed)
    settings = Settings.from_env({"DBOS_DATABASE_URL": said.database}) if said.database else None
    try:
        return run_storm(plan, settings, as_json=said.json)
    except DatabaseRefused as refusal:
        _refuse(str(refusal))


def migrate(settings: Settings) -> None:
    """Create the database, or bring it up to date."""
    from store import database

    try:
        database.connect(settings).close()
    except database.DatabaseRefused as refusal:
        _refuse(str(refusal))


def _serves(process: Process) -> bool:
    """Whether this process is the one that will answer requests, as far as can be told now."""
    if not process.under_flask_command or process.reloader_child:
        return True
    import click

    context = click.get_current_context(silent=True)
    return context is not None and context.info_name == "run" and not process.reloads


def _opening(settings: Settings, address: str, pid: int) -> str:
    """What whoever starts the shop is told: where it is, and who may crash it."""
    kept = "SQLite" if is_sqlite(settings.database_url) else "Postgres"
    if settings.presenter_password:
        tools = f"are at {address}/presenter, behind STORE_PRESENTER_PASSWORD"
    elif settings.offers_presenter_tools:
        tools = "are on, for this machine only; with STORE_PRESENTER_PASSWORD they are for whoever knows it"
    else:
        tools = "are off; set STORE_PRESENTER_PASSWORD to have them"
    return (
        f"The Widget Store is open at {address} (process {pid}, on {kept}); Ctrl+C closes it.\n"
        f"The presenter's tools {tools}."
    )


def _at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number from the command line."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= _MOST):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {_MOST}, not {text!r}")
        return int(text)

    return read


def _say(line: str) -> None:
    print(line, flush=True)


def _refuse(sentence: str) -> NoReturn:
    print(f"widget store: {sentence}", file=sys.stderr)
    raise SystemExit(REFUSED)


if __name__ == "__main__":
    main()
