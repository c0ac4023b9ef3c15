"""The schema: makes the databases where they are missing, and brings the tables to this version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from store import sqlite_files
from store.database import CONNECT_SECONDS, WRITER, Databases, make_engines
from store.database_errors import DatabaseAway, DatabaseRefused, first_line, may_come_back
from store.settings import ROOT, Settings, is_sqlite
from store.sqlite_files import make_private
from store.statement_text import text

SCHEMA_VERSION = 8
_SCHEMA = ROOT / "schema.sql"
_MIGRATIONS = ROOT / "migrations"
_OLDEST = 2
"""What came before has no migration: `schema.sql` itself says what it needs."""
_KEPT = frozenset({"schema_version", "last_reset"})
"""What a shop that begins anew keeps: the version of its tables, and that it has begun anew."""
_SCHEMA_LOCK = 0x57494447
"""Any number, the same in every process: two that start together must not both create tables."""


def connect(settings: Settings) -> Databases:
    """Open both databases and apply `schema.sql`.

    Raises:
        DatabaseRefused: they cannot be reached, created or used by this version.
    """
    databases = make_engines(settings)
    prepare(databases, settings)
    return databases


def prepare(databases: Databases, settings: Settings) -> None:
    """Make both databases where they are missing, and apply `schema.sql`; may be tried again.

    Raises:
        DatabaseAway: they cannot be reached or created, which may pass.
        DatabaseRefused: they cannot be used by this version.
    """
    for variable, url, reader in (
        ("DBOS_DATABASE_URL", settings.database_url, databases.reader),
        ("DBOS_SYSTEM_DATABASE_URL", settings.system_database_url, databases.system_reader),
    ):
        try:
            _make_place(url, reader)
        except (OSError, psycopg.Error, sa.exc.SQLAlchemyError) as error:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
            raise DatabaseAway(
                f"The database that {variable} names cannot be opened or created: {first_line(cause)}."
            ) from error
    with _naming("DBOS_DATABASE_URL"):
        _apply_schema(databases.store)
    with _naming("DBOS_SYSTEM_DATABASE_URL"):
        databases.system.connect().close()


@contextmanager
def _naming(variable: str) -> Iterator[None]:
    """Refuse a database that cannot be used, by the name of its setting."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, psycopg.Error) as error:
        # `_apply_schema` speaks to the drivers themselves, too.
        cause = error.orig if isinstance(error, DBAPIError) else error
        refused = DatabaseAway if may_come_back(cause) else DatabaseRefused
        raise refused(f"The database that {variable} names cannot be used: {first_line(cause)}.") from error


def begin_anew(databases: Databases) -> None:
    """Empty every table of the store, and fill in what a new shop has; in one transaction.

    Raises:
        DatabaseRefused: the store cannot be used.
    """
    with _naming("DBOS_DATABASE_URL"):
        _apply_schema(databases.store, is_emptied=True)


def _apply_schema(engine: sa.Engine, *, is_emptied: bool = False) -> None:
    """Bring the store's tables to `SCHEMA_VERSION`, refusing those of a newer shop.

    First the migrations that they lack, in their order; then `schema.sql`, which makes what is missing.
    """
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        try:
            if isinstance(raw, sqlite3.Connection):
                _run_on_sqlite(connection, raw, _emptying(connection) if is_emptied else "")
            else:
                with connection.begin():
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _SCHEMA_LOCK})
                    raw.execute(_script_on_postgres(connection, is_emptied=is_emptied))
        except (sqlite3.Error, psycopg.Error):
            # SQLAlchemy is not told of the driver's own errors, and would keep this connection for the next
            # try. One that was made while the database was read-only stays read-only for ever.
            connection.invalidate()
            raise


def _script_on_postgres(connection: sa.Connection, *, is_emptied: bool) -> str:
    version = _version(connection)
    if is_emptied:
        return _emptying(connection) + _script(version)
    if 0 < version < SCHEMA_VERSION:
        _refuse_beside_servers(connection)
    if version == SCHEMA_VERSION:
        # Tables of this version lack nothing, and `CREATE INDEX IF NOT EXISTS` would lock each of them: a
        # command beside a running shop would wait for its orders, and they for it. Whether the database
        # takes changes is found out all the same.
        return "UPDATE schema_version SET version = version"
    return _script(version)


def _refuse_beside_servers(connection: sa.Connection) -> None:
    """A server of an earlier version must not meet other tables. Those that wait for this one are of ours."""
    others = connection.execute(
        text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND application_name = :name"
            " AND wait_event IS DISTINCT FROM 'advisory'"
        ),
        {"name": WRITER},
    ).scalar_one()
    if others:
        raise DatabaseRefused(
            "A server of an earlier version uses the database that DBOS_DATABASE_URL names: "
            "stop it, and then bring the database up to this version by starting again."
        )


def _emptying(connection: sa.Connection) -> str:
    """What empties every table but `_KEPT`, those that refer to others first."""
    tables = [table for table, _ in sa.inspect(connection).get_sorted_table_and_fkc_names() if table]
    return "".join(f"DELETE FROM {table};\n" for table in reversed(tables) if table not in _KEPT)  # noqa: S608


def _run_on_sqlite(connection: sa.Connection, raw: sqlite3.Connection, first: str) -> None:
    # executescript() knows nothing of the driver's transactions, so the script opens its own; whoever came
    # first has made another version of the tables meanwhile.
    before = _version(connection)
    if 0 < before < SCHEMA_VERSION:
        with _no_server_on(connection):
            raw.executescript(f"BEGIN IMMEDIATE;\n{_script(before)}\nCOMMIT;")
        return
    try:
        raw.executescript(f"BEGIN IMMEDIATE;\n{first}{_script(before)}\nCOMMIT;")
    except sqlite3.OperationalError:
        raw.rollback()
        if _version(connection) == before:
            raise
        raw.executescript(f"BEGIN IMMEDIATE;\n{_script(_version(connection))}\nCOMMIT;")


@contextmanager
def _no_server_on(connection: sa.Connection) -> Iterator[None]:
    """Keep servers from the SQLite file meanwhile: one of an earlier version must not meet other tables."""
    with sqlite_files.locked(Path(connection.engine.url.database or "")) as is_ours:
        if not is_ours:
            raise DatabaseRefused(
                "A server of an earlier version has the SQLite file that DBOS_DATABASE_URL names: "
                "stop it, and then bring the database up to this version by starting again."
            )
        yield


def _script(version: int) -> str:
    """What brings tables of that version to ours; 0 where there are none."""
    lacking = range(max(version, _OLDEST) + 1, SCHEMA_VERSION + 1) if version else ()
    scripts = [*(_MIGRATIONS / f"{number}.sql" for number in lacking), _SCHEMA]
    return "\n".join(script.read_text(encoding="utf-8") for script in scripts)


def _version(connection: sa.Connection) -> int:
    """Of the tables that are there; 0 if there are none."""
    if not sa.inspect(connection).has_table("schema_version"):
        return 0
    found = connection.execute(text("SELECT version FROM schema_version")).scalar()
    if found is not None and found > SCHEMA_VERSION:
        raise DatabaseRefused(
            f"The database is of version {found} and this shop knows version {SCHEMA_VERSION}: "
            "start the newer shop, or name another database in DBOS_DATABASE_URL."
        )
    return int(found or 0)


def _make_place(url: str, reader: sa.Engine) -> None:
    """Make a SQLite file and its folder, or the Postgres database if the server lets us.

    Whether there is one, a page's connection tells, which is kept for the first page.
    """
    parsed = sa.make_url(url)
    if is_sqlite(url):
        make_private(Path(parsed.database or ""))
        return
    address = parsed.set(drivername="postgresql")
    try:
        reader.connect().close()
    except sa.exc.OperationalError as error:
        if isinstance(error.orig, psycopg.errors.ConnectionTimeout):
            raise  # neither will another database of that server answer
        try:
            server = psycopg.connect(
                address.set(database="postgres").render_as_string(hide_password=False),
                connect_timeout=CONNECT_SECONDS,
                autocommit=True,
            )
        except psycopg.OperationalError:
            raise error from None  # it is not the database that is missing
        with server:
            _create_if_missing(server, parsed.database or "")
        reader.connect().close()  # if it was something else, this says what


def _create_if_missing(server: psycopg.Connection[Any], name: str) -> None:
    # Asked, because the words of a refusal are in the server's own language.
    if server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
        return
    # Unless another process that starts now was first.
    with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
        server.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
