"""The closings of the books: which rows one seals, what it adds up, and how its rows are told from others.

A closing takes rows that change no more, marks each with its number, and keeps the totals of all that are
sealed so far. It also keeps a digest of its rows and of the closing before it: a row that is changed
afterwards, or taken away, or put among them, gives another digest. `workflows.close` writes closings, and
`ledger.audit` works them out again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from store.vocabulary import Movement, Payment, Reason, Status

MOST_ROWS = 1_000
"""Of each table that one closing seals, so that nobody who buys waits for it for long."""
Rows = Mapping[str, Sequence[Any]]
"""By table, with the columns of `SEALED`."""


@dataclass(frozen=True)
class Table:
    """One table whose rows are sealed."""

    name: str
    key: str
    """Its columns, with commas between them."""
    others: str
    """The other columns that the digest is made of."""
    is_final: str = "TRUE"
    """Which of its rows change no more, in SQL."""

    @property
    def columns(self) -> str:
        """All that the digest is made of, with commas between them."""
        return f"{self.key}, {self.others}"

    @property
    def may_be_sealed(self) -> str:
        """Which of its rows the next closing may seal, in SQL."""
        return f"closing IS NULL AND {self.is_final}"


SEALED = (
    Table(
        "orders",
        "payment_id",
        "order_id, product_id, price_cents, status, reason, progress, created_at_ms, pay_by_ms,"
        " updated_at_ms, extended_at_ms",
        "status IN ('dispatched', 'cancelled')",
    ),
    Table("stock_movements", "kind, cause", "product_id, units, recorded_at_ms"),
    Table("payments", "kind, payment_id", "amount_cents, recorded_at_ms"),
    # One of money that is owed stays open, where it is looked for: neither shipped for, nor given back.
    Table(
        "payment_notices",
        "payment_id, outcome",
        "received_at_ms",
        "(outcome <> 'paid' OR EXISTS (SELECT 1 FROM orders o WHERE o.payment_id = payment_notices.payment_id"
        " AND (o.status = 'dispatched' OR EXISTS"
        " (SELECT 1 FROM payments p WHERE p.payment_id = o.payment_id AND p.kind = 'refund'))))",
    ),
    Table("refusals", "payment_id", "client, refused_at_ms"),
    # One that was given up may still turn out to have signed.
    Table(
        "greeting_requests",
        "greeting_id",
        "name, client, asked_at_ms, give_up_at_ms, outcome, reason",
        "outcome = 'greeted'",
    ),
    Table("greetings", "greeting_id", "name, signature, recorded_at_ms"),
)
"""In the order in which one closing seals them."""


def closing_of(number: int, before: Any, rows: Rows, closed_at_ms: int) -> dict[str, Any]:
    """The closing of that number as its row of `closings` has it.

    Args:
        number: 1 for the first.
        before: the row of the closing before it; None for the first.
        rows: what it seals.
        closed_at_ms: when, in ms since 1970.
    """
    totals = {
        name: added + (0 if before is None else int(getattr(before, name)))
        for name, added in _added_up(rows).items()
    }
    return {
        "number": number,
        "closed_at_ms": closed_at_ms,
        "rows_sealed": sum(map(len, rows.values())),
        "digest": _digest("" if before is None else before.digest, rows),
        **totals,
    }


def _added_up(rows: Rows) -> dict[str, int]:
    """What these rows add to each total; the names are columns of `closings` and figures of the ledger."""
    orders, movements, payments = rows["orders"], rows["stock_movements"], rows["payments"]
    sold = [order for order in orders if order.status == Status.DISPATCHED]
    charges = [each.amount_cents for each in payments if each.kind == Payment.CHARGE]
    refunds = [each.amount_cents for each in payments if each.kind == Payment.REFUND]
    return {
        "orders": len(orders),
        "sold": len(sold),
        "cancelled": sum(order.status == Status.CANCELLED for order in orders),
        "sold_out": sum(order.reason == Reason.SOLD_OUT for order in orders),
        "sold_cents": sum(order.price_cents for order in sold),
        "stocked": sum(each.units for each in movements if each.kind == Movement.RESTOCK),
        "reserved": sum(each.kind == Movement.RESERVE for each in movements),
        "released": sum(each.kind == Movement.RELEASE for each in movements),
        "charges": len(charges),
        "refunds": len(refunds),
        "charged_cents": sum(charges),
        "refunded_cents": sum(refunds),
        "greetings": len(rows["greetings"]),
    }


def _digest(before: str, rows: Rows) -> str:
    """SHA-256 of the digest before and of the rows, sorted by their keys, as JSON; in hexadecimal."""
    digest = sha256(before.encode())
    for table in SEALED:
        key = len(table.key.split(","))
        listed = sorted((list(row) for row in rows[table.name]), key=lambda row: row[:key])
        digest.update(json.dumps([table.name, listed], separators=(",", ":")).encode())
    return digest.hexdigest()
