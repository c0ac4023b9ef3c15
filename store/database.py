"""The engines: how the store connects to its two databases.

Four engines, because three parties connect: DBOS keeps its checkpoints through `system`, the workflows
write through `store`, and pages read through `reader` and `system_reader`, which the databases themselves
hold to reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from store.database_errors import passes
from store.settings import Settings, is_sqlite
from store.statement_text import text

_READ_LOCK_SECONDS = 1
"""How long a page waits for a connection, and then for an answer, before it says that the shop is busy."""
_MANY_PROCESSES = 3
CONNECT_SECONDS = 2
"""How long making a connection may take: the least that Postgres's own client allows."""
WRITER = "widget-store"
"""What Postgres is told that the connections of workflows and checkpoints are of."""
_WRITE_PATIENCE_SECONDS = 3600
"""How long a workflow waits for its turn to write. It has all the time in the world; the
request that started it has not, and stops waiting by itself."""
_IDLE_MS = 60_000
_WRITER_OPTIONS = (
    f"-c statement_timeout=60000 -c lock_timeout=30000 -c idle_in_transaction_session_timeout={_IDLE_MS}"
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
_SERVER_KEEPALIVES = (
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c tcp_user_timeout=30000"
)
"""The same of Postgres, which otherwise keeps the connections of a machine that is gone, and their locks."""


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


@dataclass(frozen=True)
class Pools:
    """How many connections to Postgres a process has at most."""

    store: int
    system: int
    reader: int
    system_reader: int

    @property
    def most(self) -> int:
        """All of them, with those of the signs of life and DBOS's listener."""
        return self.store + self.system + self.reader + self.system_reader + 2


def pools_of(settings: Settings) -> Pools:
    """How many one process may have: fewer where more of them share a Postgres, which allows 100 at first."""
    # Several kinds of requests have so many threads each; see `thread_pools`.
    wanted = min(3 * settings.threads, 10)
    if settings.processes < _MANY_PROCESSES:
        return Pools(10, 18, wanted, 4)
    return Pools(5, 8, min(wanted, 5), 2)


def make_engines(settings: Settings) -> Databases:
    """The engines of both databases, none of which has connected yet."""
    pools = pools_of(settings)
    return Databases(
        store=_writer(settings.database_url, pools.store),
        reader=_reader(settings.database_url, pools.reader),
        system_reader=_reader(settings.system_database_url, pools.system_reader),
        system=_writer(settings.system_database_url, pools.system),
    )


def why_too_many(settings: Settings, engine: sa.Engine) -> str:
    """Why Postgres has too few connections for so many processes, one sentence; nothing if it has enough."""
    with engine.connect() as connection:
        allowed = connection.execute(
            text(
                "SELECT sum(CASE name WHEN 'max_connections' THEN 1 ELSE -1 END * setting::int)"
                " FROM pg_settings WHERE name IN"
                " ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"
            )
        ).scalar_one()
    each = pools_of(settings).most
    if settings.processes * each <= allowed:
        return ""
    return (
        f"STORE_PROCESSES {settings.processes} may need {settings.processes * each} connections to Postgres, "
        f"{each} each, and it allows {allowed}: lower the one, or raise max_connections of the other."
    )


def answers(engine: sa.Engine) -> bool:
    """Whether the database behind `engine` answers now. Through `reader` it takes two seconds at most."""
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except (DBAPIError, sa.exc.TimeoutError):
        return False
    return True


def for_signs_of_life(settings: Settings) -> sa.Engine:
    """An engine of one connection to Postgres, which gives up within two seconds, shared with nobody."""
    return sa.create_engine(
        settings.database_url,
        pool_size=1,
        max_overflow=0,
        hide_parameters=True,
        connect_args=_soon(),
    )


def for_a_last_word(settings: Settings) -> sa.Engine:
    """An engine for the one thing that a process writes as it ends: it gives up within two seconds."""
    if is_sqlite(settings.database_url):
        limits: dict[str, Any] = {"timeout": _READ_LOCK_SECONDS}
    else:
        limits = _soon()
    engine = sa.create_engine(
        settings.database_url, poolclass=sa.NullPool, connect_args=limits, hide_parameters=True
    )
    if is_sqlite(settings.database_url):
        event.listen(engine, "connect", _keep_foreign_keys)
    return engine


def _soon() -> dict[str, Any]:
    """What has a connection to Postgres give up within two seconds."""
    milliseconds = _READ_LOCK_SECONDS * 1000
    return {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "widget-store-executor",
        # Whoever is frozen in the middle of it holds a row that others want.
        "options": f"-c statement_timeout={milliseconds} {_SERVER_KEEPALIVES}"
        f" -c idle_in_transaction_session_timeout={2 * milliseconds}",
        **_KEEPALIVES,
    }


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
                "application_name": WRITER,
                "options": f"{_WRITER_OPTIONS} {_SERVER_KEEPALIVES}",
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


def _reader(url: str, pool_size: int) -> sa.Engine:
    """An engine that the database itself keeps from writing, and that gives up soon."""
    if not is_sqlite(url):
        milliseconds = _READ_LOCK_SECONDS * 1000
        return sa.create_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_READ_LOCK_SECONDS,
            # A page must not meet a connection that died with the last Postgres.
            pool_pre_ping=True,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            connect_args={
                "connect_timeout": CONNECT_SECONDS,
                "application_name": "widget-store-pages",
                **_KEEPALIVES,
                "options": f"-c default_transaction_read_only=on -c statement_timeout={milliseconds}"
                # SQLAlchemy asks something in a transaction as it connects.
                f" -c idle_in_transaction_session_timeout={_IDLE_MS} {_SERVER_KEEPALIVES}",
            },
        )
    engine = _sqlite(url, pool_size=min(pool_size, 4), pool_timeout=_READ_LOCK_SECONDS)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_READ_LOCK_SECONDS * 1000}")
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


def _wait_out(context: sa.ExceptionContext) -> None:
    """Have DBOS wait out what passes.

    DBOS tries again, without end, where a connection was lost, and takes every other error for a failed
    step, or for the end of the workflow. A cancelled statement, a full disk and a failover are as temporary
    as a lost connection, so this connection is given up, and the error is reported as that.
    """
    if passes(context.original_exception):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False
