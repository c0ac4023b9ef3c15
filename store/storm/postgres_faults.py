"""How faults are made on Postgres, of which the storm has one of its own.

A full disk is the one fault that is not made as nature makes it: an ordinary user cannot fill a disk for
Postgres alone, and a limit on the size of files is reported as an internal error, or ends the server. So
triggers refuse whatever is written, with the error that a full disk has.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from store.storm.faults import Again, Kind, Way
from store.storm.own_postgres import CHECKPOINTS, STORE, Cluster
from store.storm.shop_faults import Shop, restored

_CANCEL_SECONDS = 0.005
_TRIES = 20
_SCHEMAS = {STORE: "public", CHECKPOINTS: "dbos"}
_TABLES = {STORE: "public.orders", CHECKPOINTS: "dbos.workflow_status"}
"""What is locked in each database."""
_FULL = """
CREATE FUNCTION {schema}.storm_fills_the_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE SQLSTATE '53100' USING MESSAGE = 'could not extend file: No space left on device';
END $$
"""
_CANCEL = """
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
WHERE application_name LIKE 'widget-store%' AND state <> 'idle'
"""
_END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = %s AND application_name LIKE 'widget-store%%'
"""


def ways(shop: Shop, cluster: Cluster) -> tuple[dict[Kind, Way], dict[Kind, str]]:
    """How the faults are made, and of those that are not why not."""

    def older(name: str, *, of_checkpoints: bool) -> Way:
        return lambda: restored(shop, of_checkpoints=of_checkpoints, take=lambda: _copy(cluster, name))

    return {
        Kind.FULL_DISK: lambda: _full(cluster, STORE, CHECKPOINTS),
        Kind.FULL_STORE: lambda: _full(cluster, STORE),
        Kind.FULL_CHECKPOINTS: lambda: _full(cluster, CHECKPOINTS),
        Kind.READ_ONLY: lambda: _read_only(cluster, None),
        Kind.READ_ONLY_STORE: lambda: _read_only(cluster, STORE),
        Kind.READ_ONLY_CHECKPOINTS: lambda: _read_only(cluster, CHECKPOINTS),
        Kind.CANCELLED: lambda: _cancelled(cluster),
        Kind.LOCKED_STORE: lambda: _locked(cluster, STORE),
        Kind.LOCKED_CHECKPOINTS: lambda: _locked(cluster, CHECKPOINTS),
        Kind.HUNG: lambda: _hung(cluster),
        Kind.RESTARTED: lambda: _restarted(cluster),
        Kind.OLDER_STORE: older(STORE, of_checkpoints=False),
        Kind.OLDER_CHECKPOINTS: older(CHECKPOINTS, of_checkpoints=True),
    }, {}


@contextmanager
def _full(cluster: Cluster, *databases: str) -> Iterator[None]:
    """Whatever is written there is refused for want of room."""
    filled: list[str] = []
    try:
        for database in databases:
            _patiently(cluster, database, _fill)
            filled.append(database)
        yield
    finally:
        for database in filled:
            _patiently(cluster, database, _make_room)


def _fill(connection: psycopg.Connection[Any], schema: sql.Identifier) -> None:
    connection.execute(sql.SQL(_FULL).format(schema=schema))
    tables = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", [schema.as_string().strip('"')]
    ).fetchall()
    for (table,) in tables:
        connection.execute(
            sql.SQL(
                "CREATE TRIGGER storm_fills_the_disk BEFORE INSERT OR UPDATE OR DELETE ON {schema}.{table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION {schema}.storm_fills_the_disk()"
            ).format(schema=schema, table=sql.Identifier(table))
        )


def _make_room(connection: psycopg.Connection[Any], schema: sql.Identifier) -> None:
    connection.execute(sql.SQL("DROP FUNCTION {}.storm_fills_the_disk() CASCADE").format(schema))


def _patiently(
    cluster: Cluster, database: str, change: Callable[[psycopg.Connection[Any], sql.Identifier], None]
) -> None:
    """Change its tables in one transaction, again where that meets the shop's own in a deadlock."""
    for left in reversed(range(_TRIES)):
        try:
            with cluster.connect(database) as connection, connection.transaction():
                change(connection, sql.Identifier(_SCHEMAS[database]))
        except psycopg.errors.DeadlockDetected:
            if not left:
                raise
        else:
            return


@contextmanager
def _read_only(cluster: Cluster, database: str | None) -> Iterator[None]:
    """Transactions of the whole server, or of the sessions of one database from now on, may only read."""
    where = (
        sql.SQL("ALTER SYSTEM")
        if database is None
        else sql.SQL("ALTER DATABASE {}").format(sql.Identifier(database))
    )
    with cluster.connect() as connection:
        try:
            connection.execute(sql.SQL("{} SET default_transaction_read_only = on").format(where))
            connection.execute("SELECT pg_reload_conf()")
            if database is not None:
                connection.execute(_END_SESSIONS, [database])
            yield
        finally:
            # A session that has met it is given up by the shop, and the next one may write again.
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(sql.SQL("{} RESET default_transaction_read_only").format(where))
            connection.execute("SELECT pg_reload_conf()")


@contextmanager
def _cancelled(cluster: Cluster) -> Iterator[None]:
    """Whatever the shop asks is cancelled, if it takes any time at all."""
    with cluster.connect() as connection, Again(lambda: connection.execute(_CANCEL), _CANCEL_SECONDS):
        yield


@contextmanager
def _locked(cluster: Cluster, database: str) -> Iterator[None]:
    """Somebody else has a table for themselves, and takes a long time over it."""
    with cluster.connect(database) as connection, connection.transaction():
        connection.execute(
            sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(
                sql.Identifier(*_TABLES[database].split("."))
            )
        )
        yield


@contextmanager
def _hung(cluster: Cluster) -> Iterator[None]:
    """It is there, and does nothing."""
    try:
        cluster.hang()
        yield
    finally:
        cluster.go_on()


@contextmanager
def _restarted(cluster: Cluster) -> Iterator[None]:
    """It dies, and comes back."""
    cluster.stop_at_once()
    try:
        yield
    finally:
        cluster.start()


def _copy(cluster: Cluster, database: str) -> Callable[[], None]:
    """Copy a database while it is in use; what puts the copy back."""
    folder = tempfile.TemporaryDirectory(prefix="widget-copy-")
    file = Path(folder.name) / "copy"
    cluster.run("pg_dump", "-Fc", "-f", file, database)

    def put_back() -> None:
        name = sql.Identifier(database)
        with folder, cluster.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
            cluster.run("pg_restore", "-d", database, file)

    return put_back
