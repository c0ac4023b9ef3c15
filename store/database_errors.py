"""Errors of the two databases: which pass by themselves, and which keep a shop from opening."""

from __future__ import annotations

import sqlite3

import psycopg


class DatabaseRefused(RuntimeError):
    """The database cannot be used as it is; the message is one sentence that says what to do."""


class DatabaseAway(DatabaseRefused):
    """It cannot be reached, or not be written to: that may pass without anybody changing the shop."""


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
        if error.sqlstate is None:
            # The driver's word: there is no server to be had, or no more. A login that is refused, or a
            # database that is missing, has none here either, and is waited for as it is at an open.
            return isinstance(error, psycopg.OperationalError)
        return error.sqlstate.startswith(PASSING_SQLSTATES)
    return False


def may_come_back(error: BaseException | None) -> bool:
    """Whether what keeps a shop from opening its database may pass: it is away, locked, full or read-only."""
    if isinstance(error, sqlite3.OperationalError):
        # The one that is left out is a mistake of ours.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_ERROR
    return isinstance(error, psycopg.OperationalError) or passes(error)


def first_line(error: BaseException | None) -> str:
    """What an error says, without its details."""
    line = str(error).strip().splitlines()[0]
    return line.removeprefix("connection failed: ").removeprefix("connection is bad: ").rstrip(".")
