"""Owns what is noticed at a start: that an older copy of the checkpoints was restored beside the store.

Imports `database`, `executors` and `witnesses`.

Then what was made after that copy has no workflow any more, and would look to the ledger like something that
nobody has made. A workflow is written down before what it makes. So what is newer than the newest workflow
that DBOS knows, and has none, has lost it. Asked before anything new begins.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from store import executors
from store.database import Databases
from store.witnesses import Witnesses

_BATCH = 500
_NEWEST_ORDERS = """
SELECT payment_id, order_id, created_at_ms FROM orders WHERE order_id < :before
ORDER BY order_id DESC LIMIT :batch
"""
_OTHERS = """
SELECT cause AS key FROM stock_movements WHERE kind = 'restock' AND cause <> 'opening'
    AND recorded_at_ms >= :since_ms
UNION ALL SELECT payment_id FROM refusals WHERE refused_at_ms >= :since_ms
UNION ALL SELECT q.greeting_id FROM greeting_requests q LEFT JOIN greetings g ON g.greeting_id = q.greeting_id
    WHERE q.outcome IS NOT NULL AND coalesce(g.recorded_at_ms, q.give_up_at_ms) >= :since_ms
"""


def record_lost_checkpoints(databases: Databases, witnesses: Witnesses) -> int:
    """Write down what has lost its checkpoints; how much that is."""
    # As a writer connects, who has more time than a page.
    with databases.store.connect() as store:
        since_ms = witnesses.newest_ms()
        keys = [*_orders_since(store, since_ms), *_others_since(store, since_ms)]
    lost = sorted(set(keys) - witnesses.known(keys))
    if lost:
        executors.record_lost_checkpoints(lost)
    return len(lost)


def _orders_since(store: sa.Connection, since_ms: int) -> Iterator[str]:
    before = 2**31
    while True:
        rows = store.execute(sa.text(_NEWEST_ORDERS), {"before": before, "batch": _BATCH}).all()
        newer = [row for row in rows if row.created_at_ms >= since_ms]
        yield from (row.payment_id for row in newer)
        if not newer:  # those before were made before
            return
        before = rows[-1].order_id


def _others_since(store: sa.Connection, since_ms: int) -> Iterator[str]:
    yield from store.execute(sa.text(_OTHERS), {"since_ms": since_ms}).scalars()
