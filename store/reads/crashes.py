"""Reads of crashes: which server died over an order or a greeting, and which went on with it, and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from store.reads.checkpoints import as_time
from store.statement_text import text
from store.vocabulary import Status

TAKEOVERS = "(SELECT count(*) FROM takeovers t WHERE t.payment_id = o.payment_id) AS takeovers"
"""Of an order `o`: how many it met. Counted, because EXISTS has Postgres read all takeovers."""
_CRASH = """d.number AS dead, d.ended_at_ms, d.how_ended, d.adopted_at_ms,
    a.number AS adopter, a.pid AS adopter_pid
FROM executors d JOIN executors a ON a.number = d.adopted_by"""
"""Of each executor `d` that another one has adopted, or is about to, that one, `a`."""
_OF_ORDERS = f"""
SELECT t.payment_id AS met, t.progress, {_CRASH}
JOIN takeovers t ON t.left_by = d.number
WHERE t.payment_id IN :met AND t.status IN ('pending', 'paid') AND d.how_ended <> 'stopped'
ORDER BY d.ended_at_ms, d.number
"""
_OF_STORY = f"""
SELECT t.payment_id AS met, coalesce(t.progress, 0) AS progress, {_CRASH}
JOIN takeovers t ON t.left_by = d.number
WHERE t.payment_id IN :met AND d.how_ended <> 'stopped' ORDER BY d.ended_at_ms, d.number
"""
_OF_GREETINGS = f"""
SELECT t.greeting_id AS met, 0 AS progress, {_CRASH}
JOIN greeting_takeovers t ON t.left_by = d.number
WHERE t.greeting_id IN :met AND d.how_ended <> 'stopped'
ORDER BY d.ended_at_ms, d.number
"""
_BETWEEN = f"""
SELECT 0 AS progress, {_CRASH}
WHERE d.how_ended <> 'stopped' AND d.ended_at_ms BETWEEN :first_ms AND :last_ms
ORDER BY d.ended_at_ms, d.number
"""
_OF_ONE = f"SELECT 0 AS progress, {_CRASH} WHERE d.how_ended <> 'stopped' AND d.number = :number"
_LEFT = """
SELECT o.order_id, t.status, t.progress, EXISTS (SELECT 1 FROM payment_notices n
    WHERE n.payment_id = t.payment_id AND n.received_at_ms <= d.ended_at_ms) AS has_notice
FROM takeovers t JOIN orders o ON o.payment_id = t.payment_id JOIN executors d ON d.number = t.left_by
WHERE t.left_by = :number AND t.status IN ('pending', 'paid') ORDER BY t.status, o.order_id DESC
"""
"""Those that were paid before those that were pending."""
_LEFT_GREETINGS = "SELECT count(*) FROM greeting_takeovers WHERE left_by = :number"
_LEAVERS = """
SELECT d.number, d.started_at_ms, d.ended_at_ms, coalesce(c.digest, '') AS code
FROM executors d JOIN {takeovers} t ON t.left_by = d.number LEFT JOIN server_code c ON c.executor = d.number
WHERE t.{key} = :id ORDER BY d.ended_at_ms, d.number
"""
_RUNS_ON = """
SELECT e.number, e.started_at_ms, NULL AS ended_at_ms, coalesce(c.digest, '') AS code
FROM executors e LEFT JOIN server_code c ON c.executor = e.number WHERE e.executor_id = :id
"""


@dataclass(frozen=True)
class Crash:
    """One crash that met an order or a greeting. Times are aware, in UTC."""

    dead: int
    """The number of the server that died."""
    came_at: datetime
    """When its parent saw it die, or else when another server found that it was gone."""
    was_seen: bool
    """Whether its parent saw it."""
    adopter: int
    """The number of the one that took its work up, or is about to."""
    adopter_pid: int
    back_at: datetime | None
    """When the work was taken up; None while it is not."""
    progress: int
    """Ticks of the dispatch that were done by then; 0 of what is no order, or is not known to have met it."""

    @property
    def died_at(self) -> datetime | None:
        """None where nobody saw it."""
        return self.came_at if self.was_seen else None

    @property
    def dark_ms(self) -> int | None:
        """How long nobody had its work; None where that is not known."""
        if self.died_at is None or self.back_at is None:
            return None
        return max(0, (self.back_at - self.died_at) // timedelta(milliseconds=1))


@dataclass(frozen=True)
class Left:
    """An order as a crash left it."""

    order_id: int
    status: Status
    progress: int
    has_notice: bool
    """Whether word of its payment had come by then."""


@dataclass(frozen=True)
class Takeover:
    """What one server has taken over from one that died."""

    crash: Crash
    orders: tuple[Left, ...]
    """Those that were paid first, and of those the newest."""
    greetings: int


def of_orders(connection: sa.Connection, payment_ids: Iterable[str]) -> dict[str, tuple[Crash, ...]]:
    """The crashes that each of these orders met, oldest first; of those that met some."""
    return _read(connection, _OF_ORDERS, payment_ids)


def of_rows(connection: sa.Connection, rows: Iterable[Any]) -> dict[str, tuple[Crash, ...]]:
    """The same, of rows with the column `TAKEOVERS`."""
    return of_orders(connection, [row.payment_id for row in rows if row.takeovers])


def of_story(connection: sa.Connection, payment_id: str) -> tuple[Crash, ...]:
    """The same of one, with those that came before it was an order, or when it had only its end to record."""
    return _read(connection, _OF_STORY, [payment_id]).get(payment_id, ())


def of_greetings(connection: sa.Connection, greeting_ids: Iterable[str]) -> dict[str, tuple[Crash, ...]]:
    """The same of greetings."""
    return _read(connection, _OF_GREETINGS, greeting_ids)


def between(connection: sa.Connection, first_ms: int, last_ms: int) -> tuple[Crash, ...]:
    """Every crash that came in this time, in ms since 1970, oldest first, whatever it met."""
    rows = connection.execute(text(_BETWEEN), {"first_ms": first_ms, "last_ms": last_ms})
    return tuple(map(_crash, rows))


def takeover_from(connection: sa.Connection, number: int) -> Takeover | None:
    """What was taken over from the server of this number; None where it did not crash, or nobody has yet."""
    found = connection.execute(text(_OF_ONE), {"number": number}).one_or_none()
    if found is None:
        return None
    left = connection.execute(text(_LEFT), {"number": number})
    orders = tuple(Left(row.order_id, Status(row.status), row.progress, bool(row.has_notice)) for row in left)
    greetings = connection.execute(text(_LEFT_GREETINGS), {"number": number}).scalar_one()
    return Takeover(_crash(found), orders, greetings)


@dataclass(frozen=True)
class Start:
    """A server process, by its number, and when it began with the order or the greeting."""

    number: int
    at: datetime
    code: str = ""
    """A digest of the code that it runs; empty where that was not written down."""


def servers_of_order(connection: sa.Connection, payment_id: str, runs_on: str) -> list[Start]:
    """The servers that have had an order, in turn; the last is the one that DBOS calls `runs_on`."""
    return _servers(connection, _LEAVERS.format(takeovers="takeovers", key="payment_id"), payment_id, runs_on)


def servers_of_greeting(connection: sa.Connection, greeting_id: str, runs_on: str) -> list[Start]:
    """The same of a greeting."""
    leavers = _LEAVERS.format(takeovers="greeting_takeovers", key="greeting_id")
    return _servers(connection, leavers, greeting_id, runs_on)


def _servers(connection: sa.Connection, leavers: str, key: str, runs_on: str) -> list[Start]:
    had_it = list(connection.execute(text(leavers), {"id": key}))
    last = connection.execute(text(_RUNS_ON), {"id": runs_on})
    had_it += [row for row in last if row.number not in {leaver.number for leaver in had_it}]
    # One may have lived long before it took this up.
    began_ms = [0, *(row.ended_at_ms for row in had_it)]
    return [
        Start(row.number, as_time(max(row.started_at_ms, since_ms)), row.code)
        for row, since_ms in zip(had_it, began_ms, strict=False)
    ]


def _read(connection: sa.Connection, statement: str, met: Iterable[str]) -> dict[str, tuple[Crash, ...]]:
    wanted = list(met)
    if not wanted:
        return {}
    select = text(statement, "met")
    found: dict[str, tuple[Crash, ...]] = {}
    for row in connection.execute(select, {"met": wanted}):
        found[row.met] = (*found.get(row.met, ()), _crash(row))
    return found


def _crash(row: Any) -> Crash:
    return Crash(
        dead=row.dead,
        came_at=as_time(row.ended_at_ms),
        was_seen=row.how_ended == "died",
        adopter=row.adopter,
        adopter_pid=row.adopter_pid,
        back_at=None if row.adopted_at_ms is None else as_time(row.adopted_at_ms),
        progress=row.progress,
    )
