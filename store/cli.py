"""The command line: `python app.py` and its commands.

What only one command needs is imported there: the parent process, which starts servers, loads the settings
and the supervisor alone, so that a module that cannot be imported ends a server and not the parent.
"""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from store.serving import supervisor
from store.serving.listener import address_of, listen
from store.settings import BadSetting, Settings, is_sqlite, refuse

if TYPE_CHECKING:
    from flask import Flask


def main(create_app: Callable[..., Flask]) -> None:
    """Do what the command line says; `create_app` makes the shop, in a process that is to serve it."""
    parser = argparse.ArgumentParser(prog="python app.py", description="The Widget Store.")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("serve", help="keep the shop open until Ctrl+C; what it does without a command")
    server = commands.add_parser("server", help="one server, without the parent that starts it again")
    server.add_argument("--socket", type=int, help=argparse.SUPPRESS)  # for servers that have a parent
    server.add_argument("--port", type=int, help=argparse.SUPPRESS)
    commands.add_parser("migrate", help="create the database, or bring it up to date")
    # For servers that come after one that has been open: see `opening`.
    server.add_argument("--wait-for-database", action="store_true", help=argparse.SUPPRESS)
    server.add_argument("--died", action="append", default=[], help=argparse.SUPPRESS)
    signer = commands.add_parser("sign", help="sign a webhook, for curl: see the README")
    signer.add_argument("payment_id", type=_id, help="what is paid")
    signer.add_argument("status", choices=["paid", "failed"], help="what became of it")
    signer.add_argument("--id", help="of the message (a new one)")
    signer.add_argument("--timestamp", type=_whole_number(0, 10**12), help="in seconds since 1970 (now)")
    looker = commands.add_parser("stuck", help="list orders and greetings that will not end by themselves")
    looker.add_argument("--json", action="store_true", help="as JSON")
    mender = commands.add_parser("mend", help="run them again, or one of them")
    mender.add_argument("order", nargs="?", type=_id, help="the number of the order, or its payment id (all)")
    mender.add_argument("--dry-run", action="store_true", help="only say what would be run again")
    mender.add_argument("--json", action="store_true", help="as JSON")
    _describe_storm(commands)
    _describe_explorer(commands)
    said = parser.parse_args([_kept(word) for word in sys.argv[1:]])
    try:
        # A server that has a parent may be of another version than that one.
        settings = Settings.from_env(is_strict=getattr(said, "socket", None) is None)
        if said.command == "migrate":
            migrate(settings)
        elif said.command == "sign":
            sign(settings, said)
        elif said.command == "storm":
            raise SystemExit(run_storm(said))
        elif said.command == "explore":
            raise SystemExit(run_explorer(said))
        elif said.command in {"stuck", "mend"}:
            raise SystemExit(look_after_stuck(settings, said))
        elif said.command == "server":
            from store.durable.executors import Death

            deaths = [Death(*map(int, died.split("@"))) for died in said.died]
            create = partial(create_app, wait_for_database=said.wait_for_database, deaths=deaths)
            serve(create, settings, inherited=said.socket, port=said.port)
        else:
            raise SystemExit(supervise(settings))
    except BadSetting as refusal:
        refuse(str(refusal))


def _describe_storm(commands: Any) -> None:
    storm = commands.add_parser("storm", help="let shoppers and SIGKILLs loose on a shop of their own")
    storm.add_argument("--shoppers", type=_whole_number(1), default=30, help="how many (%(default)s)")
    storm.add_argument(
        "--seconds", type=_whole_number(1), default=60, help="how long they shop (%(default)s)"
    )
    storm.add_argument(
        "--kills", type=_whole_number(0), default=20, help="of the server meanwhile (%(default)s)"
    )
    storm.add_argument("--seed", type=_whole_number(0), help="repeats the choices of an earlier storm")
    storm.add_argument("--database", metavar="URL", help="of a new one; otherwise a SQLite file, thrown away")
    storm.add_argument("--postgres", action="store_true", help="on a Postgres of its own, thrown away")
    storm.add_argument(
        "--faults", action="store_true", help="full disks, locks, hung and restored databases and more, too"
    )
    storm.add_argument("--json", action="store_true", help="the verdict as JSON")


def _describe_explorer(commands: Any) -> None:
    explorer = commands.add_parser("explore", help="look at every schedule of the workflows, with crashes")
    explorer.add_argument("--quick", action="store_true", help="a small scope, in seconds")
    explorer.add_argument("--naive", action="store_true", help="the naive twin: the shortest ways to lose")
    explorer.add_argument("--replay", metavar="CODE", help="tell one schedule again, as a violation names it")


def supervise(settings: Settings) -> int:
    """Keep a server up until told to stop, with a guestbook unless there is another; the exit code."""
    if settings.guestbook_url:
        return _keep_up(settings, once_open=lambda: None)
    guestbook = supervisor.Supervisor(
        # None of the store's secrets: it is somebody else's. And it may be told to be slow.
        Settings(host="127.0.0.1", port=0, hang_seconds=0),
        on_event=_say,
        program=replace(
            supervisor.GUESTBOOK,
            command=(*supervisor.GUESTBOOK.command, "--database", str(settings.guestbook_file)),
        ),
    )
    where = f"An online guestbook, which stands for somebody else's system, is at {guestbook.address}"
    keeper = threading.Thread(
        target=guestbook.run, args=[lambda pid: f"{where} (process {pid})."], daemon=True
    )
    try:
        return _keep_up(replace(settings, guestbook_url=guestbook.address), once_open=keeper.start)
    finally:
        guestbook.stop()
        if keeper.ident is not None:
            keeper.join()
        guestbook.close()


def _keep_up(settings: Settings, *, once_open: Callable[[], None]) -> int:
    """Keep a server up until told to stop; the exit code."""
    parent = supervisor.Supervisor(settings, on_event=_say)
    parent.stop_on_signals()

    def opening(pid: int) -> str:
        once_open()
        return _opening(settings, parent.address, pid)

    return parent.run(opening)


def serve(
    create_app: Callable[[Settings], Flask],
    settings: Settings,
    *,
    inherited: int | None = None,
    port: int | None = None,
) -> None:
    """Be one server: on the socket or port that a parent gives, or else alone and on our own."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("store").setLevel(logging.INFO)
    has_parent = inherited is not None or port is not None
    if has_parent:
        supervisor.die_with_parent()
    # Before the shop is made: if another one has the port, this one must not touch its orders.
    listener = (
        listen(settings.host, settings.port if port is None else port)
        if inherited is None
        else socket.socket(fileno=inherited)
    )
    from store.durable import runtime
    from store.serving import server, thread_pools

    server.stop_on_signals(runtime.say_goodbye)
    app = create_app(settings)
    if not has_parent:
        _say(_opening(settings, address_of(settings.host, listener), os.getpid()))
    server.serve(app, settings, listener, kind_of=thread_pools.kinds_of(app))


def run_storm(said: argparse.Namespace) -> int:
    """Let the storm blow that the command line describes; the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what it has started is ended
    from store.database_errors import DatabaseRefused
    from store.storm.terminal import run_storm
    from store.storm.verdict import Plan

    seed = secrets.randbelow(1_000_000) if said.seed is None else said.seed
    plan = Plan(said.shoppers, said.seconds, said.kills, seed, faults=said.faults)
    if said.postgres and said.database:
        refuse("A storm is on a Postgres of its own or on the database of --database: say one of the two.")
    settings = Settings.from_env({"DBOS_DATABASE_URL": said.database}) if said.database else None
    try:
        return run_storm(plan, settings, on_postgres=said.postgres, as_json=said.json)
    except DatabaseRefused as refusal:
        refuse(str(refusal))


def run_explorer(said: argparse.Namespace) -> int:
    """Look at every schedule, as the command line describes; the exit code."""
    from store.explore import command

    return command.run(said)


def look_after_stuck(settings: Settings, said: argparse.Namespace) -> int:
    """List what is stuck, or run it again; the exit code."""
    from store.repair import operator_commands

    command = operator_commands.show if said.command == "stuck" else operator_commands.mend
    return command(settings, said, _say)


def migrate(settings: Settings) -> None:
    """Create the database, or bring it up to date."""
    from store import schema
    from store.database_errors import DatabaseRefused

    try:
        schema.connect(settings).close()
    except DatabaseRefused as refusal:
        refuse(str(refusal))


def sign(settings: Settings, said: argparse.Namespace) -> None:
    """Print a signed webhook as `curl -K -` reads it: its headers and its body."""
    from store.vocabulary import Outcome, is_key
    from store.web import webhook_signatures

    if not settings.webhook_keys:
        raise BadSetting(
            "STORE_WEBHOOK_SECRET is not set: set it to the secret that the shop was started with."
        )
    if not is_key(said.payment_id):
        refuse("A payment id is 1 to 64 letters, digits, _ or -: use the one that the checkout answered.")
    message_id = f"msg_{secrets.token_hex(12)}" if said.id is None else said.id
    if not webhook_signatures.is_message_id(message_id):
        refuse("The id of a message is 1 to 255 visible ASCII characters, without a full stop: use another.")
    timestamp = int(time.time()) if said.timestamp is None else said.timestamp
    key, *_ = settings.webhook_keys
    body = webhook_signatures.body_of(said.payment_id, Outcome(said.status))
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": webhook_signatures.sign(key, message_id, timestamp, body),
    }
    for name, text in headers.items():
        _say(f"header = {_quoted(f'{name}: {text}')}")
    _say(f"data-raw = {_quoted(body.decode())}")


def _quoted(text: str) -> str:
    """Printable text as a configuration file of curl has it."""
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


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


_DASH = "\0-"
"""Stands for the dash that an id may begin with: argparse takes whatever begins with one for an option."""


def _kept(word: str) -> str:
    is_id = word.startswith("-") and not word.startswith("--") and word != "-h"
    return _DASH + word[1:] if is_id else word


def _id(word: str) -> str:
    return word.replace(_DASH, "-")


def _whole_number(least: int, most: int = 1_000_000) -> Callable[[str], int]:
    """Reads a whole number from the command line."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return read


def _say(line: str) -> None:
    print(line, flush=True)
