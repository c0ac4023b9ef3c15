"""Finds money that is owed: a payment that was heard of, and neither shipped for nor given back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from store.repair.stuck_rules import Lateness, Stuck
from store.statement_text import text
from store.vocabulary import CHECKOUT, dispatch_id

_OWED = """
SELECT n.payment_id, o.order_id, n.received_at_ms,
    (SELECT count(*) FROM mendings m WHERE m.workflow_id = n.payment_id) AS tries
FROM payment_notices n
LEFT JOIN orders o ON o.payment_id = n.payment_id
WHERE n.outcome = 'paid' AND {which}
  AND (o.payment_id IS NULL OR (o.status = 'cancelled' AND NOT EXISTS
    (SELECT 1 FROM payments p WHERE p.payment_id = n.payment_id AND p.kind = 'refund')))
ORDER BY n.received_at_ms LIMIT 1000
"""
_OPEN = text(_OWED.format(which="n.closing IS NULL AND n.received_at_ms < :late_before_ms"))
"""No closing seals a notice of money that is owed, and what is open is little, however much was ever sold."""
_SEALED = text(_OWED.format(which="n.closing IS NOT NULL AND n.payment_id IN :ids"), "ids")
"""An earlier shop has sealed those, too; and a person may have taken a refund away."""


def find(store: sa.Connection, lateness: Lateness) -> Iterator[Stuck]:
    """All that is owed."""
    return _found(store, _OPEN, {"late_before_ms": lateness.late_before_ms})


def find_sealed(store: sa.Connection, payment_ids: Sequence[str]) -> Iterator[Stuck]:
    """Of these payments, at least one, those whose notice was sealed all the same, however late that is."""
    return _found(store, _SEALED, {"ids": payment_ids})


def _found(store: sa.Connection, statement: sa.TextClause, values: Mapping[str, Any]) -> Iterator[Stuck]:
    for notice in store.execute(statement, values):
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
