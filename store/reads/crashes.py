"""Reads of crashes: which server died over an order or a greeting, and which went on with it, and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from store.reads.checkpoints import as_time
from store.vocabulary import Status

_CRASH = """d.number AS dead, d.died_at_ms, d.adopted_at_ms, e.started_at_ms,
    a.number AS adopter, a.pid AS adopter_pid
FROM executors e
JOIN executors d ON d.number = e.number - 1
JOIN executors a ON a.number = coalesce(d.adopted_by, e.number)"""
"""Of each executor `e` the one before it, `d`, and the one that took up the work of that, `a`."""
_OF_ORDERS = f"""
SELECT r.payment_id AS met, r.progress, {_CRASH}
JOIN recoveries r ON r.executor = e.number
WHERE r.payment_id IN :met AND r.progress IS NOT NULL ORDER BY e.number
"""
_OF_GREETINGS = f"""
SELECT r.greeting_id AS met, 0 AS progress, {_CRASH}
JOIN greeting_recoveries r ON r.executor = e.number
WHERE r.greeting_id IN :met ORDER BY e.number
"""
_BETWEEN = f"""
SELECT 0 AS progress, {_CRASH}
WHERE d.stopped_at_ms IS NULL AND e.started_at_ms BETWEEN :first_ms AND :last_ms ORDER BY e.number
"""
_BEFORE = f"SELECT 0 AS progress, {_CRASH} WHERE d.stopped_at_ms IS NULL AND e.number = :number"
_LEFT = """
SELECT o.order_id, r.status, r.progress, EXISTS (SELECT 1 FROM payment_notices n
    WHERE n.payment_id = r.payment_id AND n.received_at_ms <= e.started_at_ms) AS has_notice
FROM recoveries r JOIN orders o ON o.payment_id = r.payment_id JOIN executors e ON e.number = r.executor
WHERE r.executor = :number ORDER BY r.status, o.order_id DESC
"""
"""Those that were paid before those that were pending."""
_LEFT_GREETINGS = "SELECT count(*) FROM greeting_recoveries WHERE executor = :number"


@dataclass(frozen=True)
class Crash:
    """One crash that met an order or a greeting. Times are aware, in UTC."""

    dead: int
    """The number of the server that died."""
    successor_started_at: datetime
    """When the next one started, which may have died before it had taken up anything."""
    adopter: int
    """The number of the one that took its work up, or is about to."""
    adopter_pid: int
    died_at: datetime | None
    """None where nobody saw it."""
    back_at: datetime | None
    """When the work was taken up; None while it is not."""
    progress: int
    """Ticks of the dispatch that were done by then; 0 of what is no order, or is not known to have met it."""

    @property
    def came_at(self) -> datetime:
        """When it came, as near as is known."""
        return self.died_at or self.successor_started_at

    @property
    def dark_ms(self) -> int | None:
        """How long no server was there, or none had taken the work up; None where that is not known."""
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
    """What one server has taken over from the one that died before it."""

    crash: Crash
    orders: tuple[Left, ...]
    """Those that were paid first, and of those the newest."""
    greetings: int


def of_orders(connection: sa.Connection, payment_ids: Iterable[str]) -> dict[str, tuple[Crash, ...]]:
    """The crashes that each of these orders met, oldest first; of those that met some."""
    return _read(connection, _OF_ORDERS, payment_ids)


def of_greetings(connection: sa.Connection, greeting_ids: Iterable[str]) -> dict[str, tuple[Crash, ...]]:
    """The same of greetings."""
    return _read(connection, _OF_GREETINGS, greeting_ids)


def between(connection: sa.Connection, first_ms: int, last_ms: int) -> tuple[Crash, ...]:
    """Every crash whose successor started in this time, oldest first, whatever it met."""
    rows = connection.execute(sa.text(_BETWEEN), {"first_ms": first_ms, "last_ms": last_ms})
    return tuple(map(_crash, rows))


def takeover_by(connection: sa.Connection, number: int) -> Takeover | None:
    """What the server of this number has taken over; None where the one before it did not crash."""
    found = connection.execute(sa.text(_BEFORE), {"number": number}).one_or_none()
    if found is None:
        return None
    left = connection.execute(sa.text(_LEFT), {"number": number})
    orders = tuple(Left(row.order_id, Status(row.status), row.progress, bool(row.has_notice)) for row in left)
    greetings = connection.execute(sa.text(_LEFT_GREETINGS), {"number": number}).scalar_one()
    return Takeover(_crash(found), orders, greetings)


def _read(connection: sa.Connection, statement: str, met: Iterable[str]) -> dict[str, tuple[Crash, ...]]:
    wanted = list(met)
    if not wanted:
        return {}
    select = sa.text(statement).bindparams(sa.bindparam("met", expanding=True))
    found: dict[str, tuple[Crash, ...]] = {}
    for row in connection.execute(select, {"met": wanted}):
        found[row.met] = (*found.get(row.met, ()), _crash(row))
    return found


def _crash(row: Any) -> Crash:
    return Crash(
        dead=row.dead,
        successor_started_at=as_time(row.started_at_ms),
        adopter=row.adopter,
        adopter_pid=row.adopter_pid,
        died_at=None if row.died_at_ms is None else as_time(row.died_at_ms),
        back_at=None if row.adopted_at_ms is None else as_time(row.adopted_at_ms),
        progress=row.progress,
    )
