"""Owns the engines and the schema: how the shop connects, to what, and what it finds there.

Imports `config` and `files`. Four engines, because three parties connect: DBOS keeps its
checkpoints through `system`, the workflows write through `store`, and pages read through
`reader` and `system_reader`, which the databases themselves hold to reading.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from store.config import ROOT, Settings, is_sqlite
from store.files import make_private

SCHEMA_VERSION = 2
_SCHEMA = ROOT / "schema.sql"

_READ_PATIENCE_SECONDS = 1
"""How long a page waits for a connection, and then for an answer, before it says that the shop is busy."""
_SYSTEM_READERS = 2
"""Connections that read the checkpoints for the books."""
_CONNECT_SECONDS = 2
"""How long making a connection may take: the least that Postgres's own client allows."""
_WRITE_PATIENCE_SECONDS = 3600
"""How long a workflow waits for its turn to write. It has all the time in the world; the
request that started it has not, and stops waiting by itself."""
_WRITER_OPTIONS = (
    "-c statement_timeout=60000 -c lock_timeout=30000 -c idle_in_transaction_session_timeout=60000"
)
"""Our own, so that none of the server's or the role's applies. In ms."""
_KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""A machine that is gone without a word is noticed within half a minute. Over TCP alone."""
_SCHEMA_LOCK = 0x57494447
"""Any number, the same in every process: two that start together must not both create tables."""


class DatabaseRefused(RuntimeError):
    """The database cannot be used as it is; the message is one sentence that says what to do."""


class DatabaseAway(DatabaseRefused):
    """It cannot be reached, or not be written to: that may pass without anybody changing the shop."""


@dataclass(frozen=True)
class Databases:
    """The open engines of one process."""

    store: sa.Engine
    reader: sa.Engine
    system: sa.Engine
    system_reader: sa.Engine

    def close(self) -> None:
        """Give every connection back."""
        for engine in (self.store, self.reader, self.system, self.system_reader):
            engine.dispose()


def connect(settings: Settings) -> Databases:
    """Open both databases and apply `schema.sql`.

    Raises:
        DatabaseRefused: they cannot be reached, created or used by this version.
    """
    databases = make_engines(settings)
    prepare(databases, settings)
    return databases


def make_engines(settings: Settings) -> Databases:
    """The engines of both databases, none of which has connected yet."""
    return Databases(
        store=_writer(settings.database_url, pool_size=10),
        reader=_reader(settings.database_url, settings.threads),
        system_reader=_reader(settings.system_database_url, _SYSTEM_READERS),
        system=_writer(settings.system_database_url, pool_size=20),
    )


def prepare(databases: Databases, settings: Settings) -> None:
    """Make both databases where they are missing, and apply `schema.sql`; may be tried again.

    Raises:
        DatabaseAway: they cannot be reached or created, which may pass.
        DatabaseRefused: they cannot be used by this version.
    """
    for variable, url in (
        ("DBOS_DATABASE_URL", settings.database_url),
        ("DBOS_SYSTEM_DATABASE_URL", settings.system_database_url),
    ):
        try:
            _make_place(url)
        except (OSError, psycopg.Error) as error:
            raise DatabaseAway(
                f"The database that {variable} names cannot be opened or created: {_first_line(error)}."
            ) from error
    with _naming("DBOS_DATABASE_URL"):
        _apply_schema(databases.store)
    with _naming("DBOS_SYSTEM_DATABASE_URL"):
        databases.system.connect().close()


def answers(engine: sa.Engine) -> bool:
    """Whether the database behind `engine` answers now. Through `reader` it takes two seconds at most."""
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    except (DBAPIError, sa.exc.TimeoutError):
        return False
    return True


def for_a_last_word(settings: Settings) -> sa.Engine:
    """An engine for the one thing that a process writes as it ends: it gives up within two seconds."""
    if is_sqlite(settings.database_url):
        patience: dict[str, Any] = {"timeout": _READ_PATIENCE_SECONDS}
    else:
        milliseconds = _READ_PATIENCE_SECONDS * 1000
        patience = {
            "connect_timeout": _CONNECT_SECONDS,
            "options": f"-c statement_timeout={milliseconds}",
        }
    engine = sa.create_engine(
        settings.database_url, poolclass=sa.NullPool, connect_args=patience, hide_parameters=True
    )
    if is_sqlite(settings.database_url):
        event.listen(engine, "connect", _keep_foreign_keys)
    return engine


@contextmanager
def _naming(variable: str) -> Iterator[None]:
    """Refuse a database that cannot be used, by the name of its setting."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, psycopg.Error) as error:
        # `_apply_schema` speaks to the drivers themselves, too.
        cause = error.orig if isinstance(error, DBAPIError) else error
        refused = DatabaseAway if _may_come_back(cause) else DatabaseRefused
        raise refused(f"The database that {variable} names cannot be used: {_first_line(cause)}.") from error


def _apply_schema(engine: sa.Engine) -> None:
    """Bring the store's tables to `SCHEMA_VERSION`, refusing those of a newer shop."""
    script = _SCHEMA.read_text(encoding="utf-8")
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        if isinstance(raw, sqlite3.Connection):
            _refuse_newer(connection)
            # executescript() knows nothing of the driver's transactions, so the script opens its own.
            raw.executescript(f"BEGIN IMMEDIATE;\n{script}\nCOMMIT;")
        else:
            with connection.begin():
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _SCHEMA_LOCK})
                _refuse_newer(connection)
                raw.execute(script)


def _refuse_newer(connection: sa.Connection) -> None:
    if not sa.inspect(connection).has_table("schema_version"):
        return
    found = connection.execute(sa.text("SELECT version FROM schema_version")).scalar()
    if found is not None and found > SCHEMA_VERSION:
        raise DatabaseRefused(
            f"The database is of version {found} and this shop knows version {SCHEMA_VERSION}: "
            "start the newer shop, or name another database in DBOS_DATABASE_URL."
        )


def _make_place(url: str) -> None:
    """Make a SQLite file and its folder, or the Postgres database if the server lets us."""
    parsed = sa.make_url(url)
    if is_sqlite(url):
        make_private(Path(parsed.database or ""))
        return
    address = parsed.set(drivername="postgresql")
    try:
        _try_postgres(address)
    except psycopg.errors.ConnectionTimeout:
        raise  # neither will another database of that server answer
    except psycopg.OperationalError as error:
        try:
            server = psycopg.connect(
                address.set(database="postgres").render_as_string(hide_password=False),
                connect_timeout=_CONNECT_SECONDS,
                autocommit=True,
            )
        except psycopg.OperationalError:
            raise error from None  # it is not the database that is missing
        with server:
            _create_if_missing(server, parsed.database or "")
        _try_postgres(address)  # if it was something else, this says what


def _try_postgres(address: sa.URL) -> None:
    psycopg.connect(address.render_as_string(hide_password=False), connect_timeout=_CONNECT_SECONDS).close()


def _create_if_missing(server: psycopg.Connection[Any], name: str) -> None:
    # Asked, because the words of a refusal are in the server's own language.
    if server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
        return
    # Unless another process that starts now was first.
    with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
        server.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))


def _writer(url: str, pool_size: int) -> sa.Engine:
    """An engine for workflows and checkpoints. Its errors are logged, and name no payment."""
    if not is_sqlite(url):
        engine = sa.create_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_WRITE_PATIENCE_SECONDS,
            # DBOS retries a lost connection by itself; asking first would cost a round trip each time.
            pool_pre_ping=False,
            connect_args={
                "connect_timeout": 10,
                "application_name": "widget-store",
                "options": _WRITER_OPTIONS,
                **_KEEPALIVES,
            },
            hide_parameters=True,
        )
        event.listen(engine, "handle_error", _wait_out)
        return engine
    engine = _sqlite(url, pool_size=1, pool_timeout=_WRITE_PATIENCE_SECONDS)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # One connection: SQLite has one writer, and writers that queue here are served in
        # turn, where writers that meet at the file starve each other.
        connection.execute("PRAGMA journal_mode = WAL")
        # The store and its checkpoints are two files. FULL keeps them in step across a power cut.
        connection.execute("PRAGMA synchronous = FULL")

    event.listen(engine, "handle_error", _wait_out)
    return engine


def _reader(url: str, threads: int) -> sa.Engine:
    """An engine that the database itself keeps from writing, and that gives up soon."""
    if not is_sqlite(url):
        milliseconds = _READ_PATIENCE_SECONDS * 1000
        return sa.create_engine(
            url,
            # Several kinds of requests have so many threads each; see `pools`.
            pool_size=min(3 * threads, 10),
            max_overflow=0,
            pool_timeout=_READ_PATIENCE_SECONDS,
            # A page must not meet a connection that died with the last Postgres.
            pool_pre_ping=True,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "application_name": "widget-store-pages",
                **_KEEPALIVES,
                "options": f"-c default_transaction_read_only=on -c statement_timeout={milliseconds}",
            },
        )
    engine = _sqlite(url, pool_size=min(threads, 4), pool_timeout=_READ_PATIENCE_SECONDS)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_READ_PATIENCE_SECONDS * 1000}")
        connection.execute("PRAGMA query_only = ON")

    return engine


def _sqlite(url: str, *, pool_size: int, pool_timeout: float) -> sa.Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA busy_timeout = 30000")

    event.listen(engine, "connect", _keep_foreign_keys)
    return engine


def _keep_foreign_keys(connection: Any, _record: Any) -> None:
    # SQLite forgets them with each connection.
    connection.execute("PRAGMA foreign_keys = ON")


PASSING_SQLSTATES = ("08", "25006", "40", "53", "55P03", "57", "58")
"""Errors of Postgres that say nothing of the statement, and are gone when their cause is: classes of
SQLSTATE, or whole ones. Connection lost; read-only, as during a failover; rolled back by a conflict; out of
memory, disk or connections; lock not available in time; cancelled or shutting down; error of the system.
https://www.postgresql.org/docs/current/errcodes-appendix.html"""

PASSING_SQLITE_CODES = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
)
"""The same of SQLite, as primary result codes. That it is locked, DBOS waits out by itself.
https://www.sqlite.org/rescode.html"""


def passes(error: BaseException | None) -> bool:
    """Whether an error of a driver is one that passes by itself, so that the same again makes sense."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in PASSING_SQLITE_CODES
    if isinstance(error, psycopg.Error):
        return (error.sqlstate or "").startswith(PASSING_SQLSTATES)
    return False


def _may_come_back(error: BaseException | None) -> bool:
    """Whether what keeps a shop from opening its database may pass: it is away, locked, full or read-only."""
    if isinstance(error, sqlite3.OperationalError):
        # The one that is left out is a mistake of ours.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_ERROR
    return isinstance(error, psycopg.OperationalError) or passes(error)


def _wait_out(context: sa.ExceptionContext) -> None:
    """Have DBOS wait out what passes.

    DBOS tries again, without end, where a connection was lost, and takes every other error for a failed
    step, or for the end of the workflow. A cancelled statement, a full disk and a failover are as temporary
    as a lost connection, so this connection is given up, and the error is reported as that.
    """
    if passes(context.original_exception):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().splitlines()[0].removeprefix("connection failed: ").rstrip(".")
