"""An online guestbook: a third party's system, with a database of its own that the store cannot access.

    python guestbook_service.py --port 8001 --database var/guestbook.sqlite3

It knows nothing of the store. What makes it a good neighbour is the Idempotency-Key of a request: the
same key has the same answer and one signature, however often it is sent. It can be told to misbehave,
by POST /trouble, in every way in which other people's systems do.

    POST /record_greeting  {"name": "Ada"}            {"signature": 1, "name": "Ada", "signed_at_ms": …}
    GET  /signatures       ?limit=100, or ?key=…      {"total": 1, "signatures": [{…}]}, newest first
    DELETE /signatures                               {"total": 0}: the book is empty, and nothing goes wrong
    POST /trouble          {"kind": "fail", "status": 503, "times": 2}, {"kind": "slow", "seconds": 5},
                           or the kinds rubbish, die (after recording, before answering) and none;
                           with "for_seconds": 20 it is over after that, whatever is left of it
    GET  /health           {"status": "ok"}
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, request
from waitress import serve
from werkzeug.exceptions import HTTPException

NAME_MAX_LENGTH = 80
_KEY_MAX_LENGTH = 255
_LIST_LIMIT = 100
_NO_END = 10**9
"""Seconds: thirty years."""
_TROUBLES = ("none", "slow", "fail", "rubbish", "die")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS signatures (
    signature     INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL,
    key           TEXT    UNIQUE, -- of the request that made it, if it had one
    signed_at_ms  INTEGER NOT NULL
);
-- What the service was told to do wrong, and how often still. Kept here, because it may die of it.
CREATE TABLE IF NOT EXISTS trouble (
    only_row  INTEGER PRIMARY KEY CHECK (only_row = 1),
    kind      TEXT    NOT NULL,
    seconds   REAL    NOT NULL,
    status    INTEGER NOT NULL,
    times     INTEGER NOT NULL
);
INSERT INTO trouble VALUES (1, 'none', 0, 500, 0) ON CONFLICT DO NOTHING;
-- When that is over, in ms since 1970, whatever is left of it.
CREATE TABLE IF NOT EXISTS trouble_ends (at_ms INTEGER NOT NULL);
"""


class Trouble(NamedTuple):
    """What to do wrong, the next so many times: one of `_TROUBLES`, with what it needs."""

    kind: str
    seconds: float
    status: int
    times: int


class Guestbook:
    """The book: a SQLite file, one connection for each use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
            with suppress(OSError):  # there is none, or another user owns it
                file.chmod(0o600)
        with closing(self._connect()) as connection:
            connection.executescript("PRAGMA journal_mode = WAL;" + _SCHEMA)

    def sign(self, name: str, key: str | None) -> dict[str, Any]:
        """Add a signature, or find the one that this key has made.

        Raises:
            KeyReused: the key has signed another name.
        """
        with self._writing() as connection:
            if key is not None:
                found = connection.execute("SELECT * FROM signatures WHERE key = ?", (key,)).fetchone()
                if found is not None:
                    if found["name"] != name:
                        raise KeyReused(key)
                    return _as_json(found)
            added = connection.execute(
                "INSERT INTO signatures (name, key, signed_at_ms) VALUES (?, ?, ?) RETURNING *",
                (name, key, _now_ms()),
            )
            return _as_json(added.fetchone())

    def signatures(self, *, limit: int, key: str | None) -> dict[str, Any]:
        """How many there are, and the newest of them; or the one that was made with a key."""
        with closing(self._connect()) as connection:
            [total] = connection.execute("SELECT count(*) FROM signatures").fetchone()
            rows = connection.execute(
                "SELECT * FROM signatures WHERE ?1 IS NULL OR key = ?1 ORDER BY signature DESC LIMIT ?2",
                (key, limit),
            )
            return {"total": total, "signatures": [_as_json(row) for row in rows]}

    def begin_anew(self) -> None:
        """Forget every signature and every trouble; of an empty book, nothing."""
        with self._writing() as connection:
            connection.execute("DELETE FROM signatures")
            connection.execute("UPDATE trouble SET kind = 'none', times = 0")

    def expect_trouble(self, trouble: Trouble, for_seconds: float) -> None:
        """Do this wrong, the next so many times, for so long at most."""
        with self._writing() as connection:
            connection.execute("UPDATE trouble SET kind = ?, seconds = ?, status = ?, times = ?", trouble)
            connection.execute("DELETE FROM trouble_ends")
            ends_at_ms = _now_ms() + round(for_seconds * 1000)
            connection.execute("INSERT INTO trouble_ends (at_ms) VALUES (?)", (ends_at_ms,))

    def next_trouble(self) -> Trouble:
        """What to do wrong this time."""
        with self._writing() as connection:
            row = connection.execute(
                "UPDATE trouble SET times = times - 1 WHERE times > 0"
                " AND NOT EXISTS (SELECT 1 FROM trouble_ends WHERE at_ms <= ?)"
                " RETURNING kind, seconds, status, times",
                (_now_ms(),),
            ).fetchone()
            return Trouble(*row) if row else Trouble("none", 0, 500, 0)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")  # what was not committed is gone with the connection


class KeyReused(Exception):
    """An Idempotency-Key that came with another request before."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _as_json(row: sqlite3.Row) -> dict[str, Any]:
    return {"signature": row["signature"], "name": row["name"], "signed_at_ms": row["signed_at_ms"]}


service = Blueprint("guestbook", __name__)


def create_app(book: Guestbook) -> Flask:
    """The service, on this book."""
    app = Flask("guestbook_service", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 16 * 1024
    app.extensions["book"] = book
    app.register_blueprint(service)
    app.register_error_handler(HTTPException, _explain)
    return app


@service.before_app_request
def refuse_other_names() -> None:
    """Answer only to names of this machine: another may be a web page's that its owner made mean it."""
    host = request.headers.get("Host")
    if host is not None and not _is_loopback(host):  # without: HTTP/1.0, no browser of today
        abort(400, "The guestbook is for programs on this machine: ask for 127.0.0.1 or localhost.")


def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


@service.post("/record_greeting")
def record_greeting() -> Response:
    """Sign, unless it is to go wrong this time."""
    name = _member("name", str)
    if name is None or not 1 <= len(name) <= NAME_MAX_LENGTH:
        abort(400, f"The body must be JSON with a name of 1 to {NAME_MAX_LENGTH} characters.")
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= _KEY_MAX_LENGTH:
        abort(400, f"The Idempotency-Key must have 1 to {_KEY_MAX_LENGTH} characters.")
    trouble = _book().next_trouble()
    if trouble.kind == "slow":
        time.sleep(trouble.seconds)
    elif trouble.kind == "fail":
        return _say(trouble.status, "The guestbook was told to fail.")
    elif trouble.kind == "rubbish":
        return Response("<h1>It works!</h1>", mimetype="text/html")
    try:
        signed = _book().sign(name, key)
    except KeyReused:
        abort(422, "That Idempotency-Key came with another name before.")
    if trouble.kind == "die":
        os._exit(1)
    return jsonify(signed)


@service.get("/signatures")
def signatures() -> Response:
    """The newest signatures, or the one that was made with a key."""
    limit = request.args.get("limit", str(_LIST_LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= _LIST_LIMIT):
        abort(400, f"limit must be a whole number from 1 to {_LIST_LIMIT}.")
    return jsonify(_book().signatures(limit=int(limit), key=request.args.get("key")))


@service.delete("/signatures")
def begin_anew() -> Response:
    """Empty the book, for its owner; asked again, it is empty still."""
    _book().begin_anew()
    return jsonify(total=0)


@service.post("/trouble")
def make_trouble() -> Response:
    """Be told what to do wrong, and how often."""
    kind, times = _member("kind", str), _member("times", int, 1)
    seconds, status = _member("seconds", (int, float), 0), _member("status", int, 500)
    for_seconds = _member("for_seconds", (int, float), _NO_END)
    if kind not in _TROUBLES:
        abort(400, f"kind must be one of {', '.join(_TROUBLES)}.")
    if (
        times not in range(10**6)
        or seconds is None
        or not 0 <= seconds <= 600
        or for_seconds is None
        or not (0 <= for_seconds <= 600 or for_seconds == _NO_END)
        or status not in range(400, 600)
    ):
        abort(400, "times must be 0 or more, seconds and for_seconds 0 to 600, and status 400 to 599.")
    _book().expect_trouble(Trouble(kind, seconds, status, times), for_seconds)
    return jsonify(kind=kind, times=times)


@service.get("/health")
def health() -> Response:
    """It is up."""
    return jsonify(status="ok")


def _explain(error: HTTPException) -> Response:
    ours = error.description if error.description != type(error).description else None
    return _say(
        error.code or 500, ours or "The guestbook has no answer to that: its file says what it answers."
    )


def _say(status: int, sentence: str) -> Response:
    response = jsonify(error=sentence)
    response.status_code = status
    return response


def _book() -> Guestbook:
    return cast(Guestbook, current_app.extensions["book"])


def _member(name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    """A member of the JSON object that was sent; None if it is of another kind, or there is no object."""
    sent = request.get_json(silent=True)
    found = sent.get(name, default) if isinstance(sent, dict) else None
    return found if isinstance(found, kind) and not isinstance(found, bool) else None


def main() -> None:
    """Serve it until told to stop."""
    parser = argparse.ArgumentParser(description="An online guestbook, on this machine only.")
    parser.add_argument("--port", type=int, default=8001, help="where to listen (%(default)s)")
    parser.add_argument(
        "--database", type=Path, default=Path("var/guestbook.sqlite3"), help="its file (%(default)s)"
    )
    parser.add_argument("--socket", type=int, help=argparse.SUPPRESS)  # from the parent that keeps the port
    said = parser.parse_args()
    os.umask(0o077)  # the book is for this user alone
    if said.socket is None:
        listener = socket.create_server(("127.0.0.1", said.port))
        print(f"The guestbook is open at http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    else:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        listener = socket.socket(fileno=said.socket)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns whenever somebody waits
    serve(create_app(Guestbook(said.database)), sockets=[listener], threads=8, ident=None)


def _end_with_parent() -> None:
    """The parent holds the other end of standard input, and never writes."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
