"""Finds, as a server starts, what has lost its checkpoints because an older copy of them was restored.

What was made after that copy has no workflow any more, and would look to the ledger like something that
nobody has made. A workflow is recorded before what it makes. So what is newer than the newest order that
still has its own workflow, and has none, has lost it. Asked before anything new begins.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from store.database import Databases
from store.durable import mendings_table
from store.ledger.witnesses import Witnesses
from store.statement_text import text

_BATCH = 100
_log = logging.getLogger("store")
_SLACK_MS = 10_000
"""Orders that were made at about the time of the copy are not in the order of their workflows."""
_RUN_AGAIN_MS = 60_000
"""A workflow that is so much younger than its order is not the one that made it: it was run again since."""
_NOT_REMOVED = "coalesce({table}closing > (SELECT max(closing) FROM removed_checkpoints), TRUE)"
"""What was not removed because it ended long ago."""
_NEWEST_ORDERS = f"""
SELECT payment_id, order_id, created_at_ms FROM orders
WHERE order_id < :before AND {_NOT_REMOVED.format(table="")}
ORDER BY order_id DESC LIMIT :batch
"""  # noqa: S608 - constants of ours, no input
_OTHERS = f"""
SELECT cause FROM stock_movements WHERE kind = 'restock' AND cause <> 'opening'
    AND recorded_at_ms >= :since_ms AND {_NOT_REMOVED.format(table="")}
UNION ALL SELECT payment_id FROM refusals
    WHERE refused_at_ms >= :since_ms AND {_NOT_REMOVED.format(table="")}
UNION ALL SELECT q.greeting_id FROM greeting_requests q LEFT JOIN greetings g ON g.greeting_id = q.greeting_id
    WHERE q.outcome IS NOT NULL AND coalesce(g.recorded_at_ms, q.give_up_at_ms) >= :since_ms
    AND {_NOT_REMOVED.format(table="q.")}
"""  # noqa: S608 - as above


def note(databases: Databases, witnesses: Witnesses) -> None:
    """Look for lost checkpoints as a server starts, and write down what has lost them."""
    try:
        lost = record_lost_checkpoints(databases, witnesses)
    except DBAPIError as error:
        # The first start of all, when DBOS has no tables yet, or one after it has learnt new columns. To open
        # is worth more than to know.
        _log.info("did not look for lost checkpoints: %s", str(error.orig).splitlines()[0])
    else:
        if lost:
            _log.warning("%d orders, greetings or restocks have lost their checkpoints: see the books", lost)


def record_lost_checkpoints(databases: Databases, witnesses: Witnesses) -> int:
    """Write down what has lost its checkpoints; how much that is."""
    # As a writer connects, who has more time than a page.
    with databases.store.connect() as store:
        since_ms, lost = _orders(store, witnesses)
        others = list(store.execute(text(_OTHERS), {"since_ms": since_ms}).scalars())
    lost += sorted(set(others) - witnesses.begun_ms(others).keys())
    if lost:
        mendings_table.record_lost_checkpoints(lost)
    return len(lost)


def _orders(store: sa.Connection, witnesses: Witnesses) -> tuple[int, list[str]]:
    """When the newest order was made that has its own workflow; and the newer ones that have none."""
    lost: list[str] = []
    for batch in _batches(store):
        begun = witnesses.begun_ms(row.payment_id for row in batch)
        own = [
            row.created_at_ms
            for row in batch
            if begun.get(row.payment_id, row.created_at_ms + _RUN_AGAIN_MS)
            < row.created_at_ms + _RUN_AGAIN_MS
        ]
        since_ms = max(own) - _SLACK_MS if own else 0
        lost += [
            row.payment_id for row in batch if row.payment_id not in begun and row.created_at_ms >= since_ms
        ]
        if own:
            return since_ms, lost
    return 0, lost


def _batches(store: sa.Connection) -> Iterator[list[sa.Row[tuple[str, int, int]]]]:
    before = 2**31
    while batch := list(store.execute(text(_NEWEST_ORDERS), {"before": before, "batch": _BATCH})):
        yield batch
        before = batch[-1].order_id
