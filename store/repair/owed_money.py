"""Finds money that is owed: a payment that was heard of, and neither sold for nor given back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from store.repair.stuck_rules import BATCH, Lateness, Stuck
from store.vocabulary import CHECKOUT, dispatch_id

_RECENT_CLOSINGS = 5
"""Some thousand payments, which are looked at in some hundredths of a second; a million take seconds."""
_RECENT = """
SELECT payment_id FROM payment_notices
WHERE outcome = 'paid' AND received_at_ms < :late_before_ms AND (closing IS NULL OR closing > :last_old)
"""
_OWED = """
SELECT n.payment_id, o.order_id, n.received_at_ms,
    (SELECT count(*) FROM mendings m WHERE m.workflow_id = n.payment_id) AS tries
FROM payment_notices n
LEFT JOIN orders o ON o.payment_id = n.payment_id
WHERE n.outcome = 'paid' AND n.payment_id IN :ids AND coalesce(n.closing, :open) <= :last_closing
  AND (o.payment_id IS NULL OR (o.status = 'cancelled' AND NOT EXISTS
    (SELECT 1 FROM payments p WHERE p.payment_id = n.payment_id AND p.kind = 'refund')))
ORDER BY n.received_at_ms
"""
_OPEN = 2**31 - 1
"""A number that no closing has."""


def find_recent(store: sa.Connection, lateness: Lateness) -> Iterator[Stuck]:
    """Of the payments in the open books, and in the newest of those that are closed."""
    values = {"late_before_ms": lateness.late_before_ms, "last_old": _last_old_closing(store)}
    recent = store.execute(sa.text(_RECENT), values).scalars().all()
    # Some at a time: to join all of them at once, Postgres may read all orders.
    for first in range(0, len(recent), BATCH):
        yield from _owed(store, recent[first : first + BATCH])


def find_old(store: sa.Connection, payment_ids: Sequence[str]) -> Iterator[Stuck]:
    """Of these payments, at least one: those in older books."""
    return _owed(store, payment_ids, _last_old_closing(store))


def _owed(store: sa.Connection, payment_ids: Sequence[str], last_closing: int = _OPEN) -> Iterator[Stuck]:
    values = {"ids": payment_ids, "open": _OPEN, "last_closing": last_closing}
    for notice in store.execute(sa.text(_OWED).bindparams(sa.bindparam("ids", expanding=True)), values):
        has_order = notice.order_id is not None
        yield Stuck(
            workflow_id=notice.payment_id,
            workflow_name=CHECKOUT,
            arguments=(notice.payment_id, None),
            order_id=notice.order_id,
            subject=f"the payment of order {notice.order_id}" if has_order else "a payment without an order",
            since_ms=notice.received_at_ms,
            why="It was paid after it was cancelled, and not refunded."
            if has_order
            else "It was paid, and there is no order for it.",
            tries=notice.tries,
            with_it=(dispatch_id(notice.payment_id),),
        )


def _last_old_closing(store: sa.Connection) -> int:
    # Asked first: Postgres takes a third of all rows to be above a number that it has yet to find out.
    return int(store.execute(sa.text("SELECT max(number) FROM closings")).scalar() or 0) - _RECENT_CLOSINGS


def _stuck(notices: sa.CursorResult[tuple[str, int | None, int, int]]) -> Iterator[Stuck]:
    for notice in notices:
        has_order = notice.order_id is not None
        yield Stuck(
            workflow_id=notice.payment_id,
            workflow_name=CHECKOUT,
            arguments=(notice.payment_id, None),
            order_id=notice.order_id,
            subject=f"the payment of order {notice.order_id}" if has_order else "a payment without an order",
            since_ms=notice.received_at_ms,
            why="It was paid after it was cancelled, and not refunded."
            if has_order
            else "It was paid, and there is no order for it.",
            tries=notice.tries,
            with_it=(dispatch_id(notice.payment_id),),
        )
