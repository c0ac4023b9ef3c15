"""The command line: `python app.py` and its commands.

What only one command needs is imported there: the parent process, which starts servers, loads the settings
and the supervisor alone, so that a module that cannot be imported ends a server and not the parent.
"""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import argparse
import importlib.util
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
from typing import TYPE_CHECKING, TypeVar

from store import cli_parser
from store.serving import lifeline, requests, supervisor
from store.serving.listener import address_of, listen
from store.serving.supervised_programs import GUESTBOOK
from store.settings import BadSetting, Settings, is_sqlite, refuse

if TYPE_CHECKING:
    from flask import Flask

_NEEDED = ("dbos", "flask", "flask_htmx", "psycopg", "rcssmin", "rjsmin", "sqlalchemy", "waitress")
Built = TypeVar("Built")
Opening = Callable[[Settings, str, int], str]


def main(build: Callable[..., Built], open_shop: Callable[..., Flask], built: Built | None = None) -> None:
    """Do what the command line says.

    In a process that is to serve, `build` puts the shop together, unless it is built already, and `open_shop`
    opens it.
    """
    said = cli_parser.read()
    if getattr(said, "requests", None) is not None:
        requests.parents_socket.set(said.requests)
    if getattr(said, "fork_server", None) is not None:
        from store.serving import fork_server

        words, built = fork_server.become_a_server(
            said.fork_server, lambda: build(_settings(said), ahead=True)
        )
        sys.argv[2:] = words
        main(build, open_shop, built)
        return
    _refuse_another_python()
    try:
        settings = _settings(said)
        if said.command != "server":
            raise SystemExit(_do(said, settings))
        from store.durable.executors_table import Death, Told

        open_this = partial(
            open_shop,
            wait_for_database=said.wait_for_database,
            told=Told(
                said.token,
                [Death.read(died) for died in said.died],
            ),
            once_open=lifeline.say_open if said.socket is not None else lambda: None,
        )
        serve(lambda: open_this(built or build(settings)), settings, said)
    except BadSetting as refusal:
        refuse(str(refusal))


def _refuse_another_python() -> None:
    """Or every server that the parent starts would die of it. Nothing is imported here, only looked for."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        refuse(
            f"This Python, {sys.executable}, lacks {', '.join(missing)}:"
            " `make run` installs what the shop needs into .venv, so use .venv/bin/python."
        )


def _settings(said: argparse.Namespace) -> Settings:
    # A server that has a parent may be of another version than that one.
    has_parent = any(getattr(said, word, None) is not None for word in ("socket", "fork_server"))
    return Settings.from_env(is_strict=not has_parent)


def _do(said: argparse.Namespace, settings: Settings) -> int:
    """Do one command, other than to be a server; the exit code."""
    if said.command in {"storm", "explore"}:
        return run_storm(said) if said.command == "storm" else run_explorer(said)
    if said.command in {"stuck", "mend", "executors", "adopt", "audit"}:
        return look_after(settings, said)
    if said.command in {"talk", "reset", "disarm"}:
        return give_a_talk(settings, said)
    if said.command == "migrate":
        migrate(settings)
    elif said.command == "sign":
        sign(settings, said)
    else:
        return supervise(settings, _opening)
    return 0


def give_a_talk(settings: Settings, said: argparse.Namespace) -> int:
    """Open a shop for a talk, bring it back to its opening state, or take back its crashes; the exit code."""
    from store import presenter_commands

    if said.command == "talk":
        talk = presenter_commands.settings_of_talk(settings, said, _say)
        return supervise(talk, presenter_commands.opening_of_talk)
    command = presenter_commands.reset if said.command == "reset" else presenter_commands.disarm
    return command(settings, said, _say)


def supervise(settings: Settings, opening: Opening) -> int:
    """Keep a server up until told to stop, with a guestbook unless there is another; the exit code.

    `opening` makes what is said once it is open, of the settings, the address and the process id.
    """
    if settings.processes > 1 and is_sqlite(settings.database_url):
        raise BadSetting(
            "STORE_PROCESSES must be 1 on SQLite, whose file has one server at a time: for more, name a "
            "Postgres in DBOS_DATABASE_URL."
        )
    if settings.guestbook_url:
        return _keep_up(settings, opening, once_open=lambda: None)
    guestbook = supervisor.Supervisor(
        # None of the store's secrets: it is somebody else's. And it may be told to be slow.
        Settings(host="127.0.0.1", port=0, hang_seconds=0),
        on_event=_say,
        program=replace(
            GUESTBOOK,
            command=(*GUESTBOOK.command, "--database", str(settings.guestbook_file)),
        ),
    )
    where = f"An online guestbook, which stands for somebody else's system, is at {guestbook.address}"
    keeper = threading.Thread(
        target=guestbook.run, args=[lambda pid: f"{where} (process {pid})."], daemon=True
    )
    try:
        return _keep_up(replace(settings, guestbook_url=guestbook.address), opening, once_open=keeper.start)
    finally:
        guestbook.stop()
        if keeper.ident is not None:
            keeper.join()
        guestbook.close()


def _keep_up(settings: Settings, opening: Opening, *, once_open: Callable[[], None]) -> int:
    """Keep a server up until told to stop; the exit code."""
    parent = supervisor.Supervisor(settings, on_event=_say)
    parent.stop_on_signals()

    def say_opened(pid: int) -> str:
        once_open()
        return opening(settings, parent.address, pid)

    return parent.run(say_opened)


def serve(open_shop: Callable[[], Flask], settings: Settings, said: argparse.Namespace) -> None:
    """Be one server: on the socket or port that a parent gives, or else alone and on our own."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("store").setLevel(logging.INFO)
    has_parent = said.socket is not None or said.port is not None
    # Before the shop is made: if another one has the port, this one must not touch its orders.
    listener = (
        listen(settings.host, settings.port if said.port is None else said.port)
        if said.socket is None
        else socket.socket(fileno=said.socket)
    )
    from store.durable import runtime
    from store.durable.executors_table import Death
    from store.serving import server, thread_pools

    if has_parent:
        lifeline.listen_to_parent(lambda line: runtime.note_death(Death.read(line)))
    server.stop_on_signals(runtime.say_goodbye)
    app = open_shop()
    if not has_parent:
        _say(_opening(settings, address_of(settings.host, listener), os.getpid()))
    listeners = [listener] if said.probe is None else [listener, socket.socket(fileno=said.probe)]
    server.serve(app, settings, listeners, kind_of=thread_pools.kinds_of(app))


def run_storm(said: argparse.Namespace) -> int:
    """Run the storm that the command line describes; the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what it has started is ended
    from store.storm import command

    return command.run(said)


def run_explorer(said: argparse.Namespace) -> int:
    """Look at every schedule, as the command line describes; the exit code."""
    from store.explore import command

    return command.run(said)


def look_after(settings: Settings, said: argparse.Namespace) -> int:
    """What operators ask of a shop, beside a server or without one; the exit code."""
    from store.repair import audit_command, executor_commands, operator_commands

    command = {
        "stuck": operator_commands.show,
        "mend": operator_commands.mend,
        "executors": executor_commands.show,
        "adopt": executor_commands.adopt,
        "audit": audit_command.run,
    }[said.command]
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
    """What the person who starts the shop is told: where it is, and who may crash it."""
    kept = "SQLite" if is_sqlite(settings.database_url) else "Postgres"
    if settings.presenter_password:
        tools = f"are at {address}/presenter, behind STORE_PRESENTER_PASSWORD"
    elif settings.offers_presenter_tools:
        tools = "are on, for this machine only; with STORE_PRESENTER_PASSWORD they are for those who know it"
    else:
        tools = "are off; set STORE_PRESENTER_PASSWORD to have them"
    return (
        f"The Widget Store is open at {address} (process {pid}, on {kept}); Ctrl+C closes it.\n"
        f"The presenter's tools {tools}."
    )


def _say(line: str) -> None:
    print(line, flush=True)
