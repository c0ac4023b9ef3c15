"""Starts what is compared: shops on databases of their own, which are thrown away."""

from __future__ import annotations

import http.client
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import urlsplit

import sqlalchemy as sa

from bench.postgres import Postgres
from bench.processor import Meter, family_of
from store.schema import connect
from store.settings import ROOT, Settings

TICK_SECONDS = 0.001
"""Of every dispatch that is to show throughput: ten of them are ten milliseconds of an order."""
UNITS = 1_000_000_000
"""On the shelf at the start, so that it is never empty and nobody has to fill it."""
STORE = ("app.py", "server")
SUPERVISED = ("app.py",)
PLAIN = ("-m", "bench.plain")
BARE = ("-m", "bench.bare")
_OPEN_SECONDS = 60.0
_STOP_SECONDS = 20.0
_COMMON = {
    "STORE_PORT": "0",
    # All shoppers of a benchmark have one address.
    "STORE_UNPAID_PER_CLIENT": "0",
    "STORE_CONNECTIONS_PER_CLIENT": "0",
    # Nobody's: a shop with a parent would otherwise run one of its own.
    "STORE_GUESTBOOK_URL": "http://127.0.0.1:9",
    "STORE_PAYMENT_WINDOW_SECONDS": "86400",
    "STORE_DISPATCH_TICK_SECONDS": str(TICK_SECONDS),
    "PYTHONUNBUFFERED": "1",
}


class DidNotOpen(RuntimeError):
    """A server that was started did not open; the message has what it said."""


def has_processes() -> bool:
    """Whether this version of the store can run several server processes."""
    return any(each.metadata["variable"] == "STORE_PROCESSES" for each in fields(Settings))


@dataclass(frozen=True)
class Database:
    """A database that was made for one shop."""

    kind: str
    url: str

    def change(self, statement: str, **values: object) -> None:
        """Arrange the shop, while it is closed."""
        engine = self._engine()
        with engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def value(self, statement: str, **values: object) -> int:
        """One number, which a SELECT finds; 0 if it finds none."""
        with self._engine().connect() as connection:
            return int(connection.execute(sa.text(statement), values).scalar() or 0)

    def _engine(self) -> sa.Engine:
        return sa.create_engine(driver_url(self.url), poolclass=sa.NullPool)


def driver_url(url: str) -> str:
    """The same with the driver that SQLAlchemy is to use."""
    return url.replace("postgresql://", "postgresql+psycopg://")


class Server:
    """A server of some kind on a free port of loopback, in a process of its own."""

    def __init__(
        self, words: tuple[str, ...], database: Database | None, settings: Mapping[str, str]
    ) -> None:
        environment = {
            # Nothing of the developer's own settings comes in.
            **{k: v for k, v in os.environ.items() if not k.startswith(("STORE_", "DBOS_", "FLASK_"))},
            **_COMMON,
            **settings,
        }
        if database is not None:
            environment["DBOS_DATABASE_URL"] = database.url
        self.url, self._said = "", list[str]()
        self.database_url = "" if database is None else database.url
        self._process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        threading.Thread(target=self._listen, args=[self._process.stdout], daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def pid(self) -> int:
        """The process that was started; it may have children."""
        return self._process.pid

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        where = urlsplit(self.url)
        return where.hostname or "", where.port or 80

    def wait_until_open(self) -> None:
        """Wait for its first good answer.

        Raises:
            DidNotOpen: there is none.
        """
        deadline = time.monotonic() + _OPEN_SECONDS
        while not (self.url and self.answers()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DidNotOpen("A server of the benchmark did not open:\n" + "".join(self._said))
            time.sleep(0.02)  # between two looks

    def answers(self, path: str = "/") -> bool:
        """Whether it answers a page, on a connection of its own."""
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            connection.request("GET", path, headers={"Accept": "text/html"})
            return connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Its processes stand still meanwhile; nobody may ask it for anything."""
        family = family_of(self.pid)
        for each in family:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            # Its parent last, as if it had noticed nothing.
            for each in reversed(family):
                os.kill(each, signal.SIGCONT)

    def _listen(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._said.append(line)
                if not self.url and (found := re.search(r"open at (http://\S+) ", line)):
                    self.url = found[1]


class Place:
    """Where databases are made, and Postgres if it is asked for."""

    def __init__(self, folder: Path, postgres: Postgres | None) -> None:
        self._folder, self.postgres = folder, postgres
        self._numbers = itertools.count(1)

    def new_database(self, kind: str, units: int = UNITS) -> Database:
        """An empty shop with so many units on its shelf."""
        if kind == "Postgres":
            assert self.postgres is not None  # noqa: S101 - it was asked for
            url = self.postgres.new_url()
        else:
            folder = self._folder / f"shop-{next(self._numbers)}"
            folder.mkdir()
            url = f"sqlite:///{folder}/store.sqlite3"
        connect(Settings.from_env({"DBOS_DATABASE_URL": url})).close()
        database = Database(kind, url)
        database.change("UPDATE products SET on_hand = :units", units=units)
        database.change("UPDATE stock_movements SET units = :units WHERE cause = 'opening'", units=units)
        return database

    @contextmanager
    def serving(
        self, words: tuple[str, ...], database: Database | None = None, **settings: object
    ) -> Iterator[Server]:
        """An open server."""
        with Server(words, database, {name: str(value) for name, value in settings.items()}) as server:
            server.wait_until_open()
            yield server

    def meter(self, server: Server, database: Database) -> Meter:
        """Measures a server, and Postgres if its database is there."""
        is_there = database.kind == "Postgres" and self.postgres is not None
        return Meter(server.pid, self.postgres.pid if is_there and self.postgres else None)


@contextmanager
def place(databases: tuple[str, ...]) -> Iterator[Place]:
    """A place for these kinds of databases, thrown away in the end."""
    with ExitStack() as thrown_away:
        folder = Path(thrown_away.enter_context(tempfile.TemporaryDirectory(prefix="widget-bench-")))
        postgres = None
        if "Postgres" in databases:
            postgres = thrown_away.enter_context(Postgres(folder))
        yield Place(folder, postgres)
