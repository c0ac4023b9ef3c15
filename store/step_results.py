"""What steps of a workflow return, and how they fail. Plain mappings, because checkpoints are JSON."""

from __future__ import annotations

from typing import Any, TypedDict, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store.statement_text import text

REFUSED = "refused"
"""Status of a payment for which no order was made: its client held too many units that it had not paid."""
LOST = "lost"
"""Status of a payment that has neither order nor refusal, as when an older copy of the store is restored."""


class OrderNow(TypedDict):
    """A payment and its order as a transaction found or left them.

    What a workflow returns at its end, too: the receipt that its checkpoints keep, which the ledger
    compares with the tables.
    """

    order_id: int
    """0 where there is no order."""
    status: str
    """A `Status`, or REFUSED or LOST where there is no order."""
    reason: str | None
    """A `Reason`, if it is cancelled."""
    price_cents: int
    progress: int
    pay_by_ms: int
    updated_at_ms: int
    first_outcome: str | None
    """The first notice of its payment, an `Outcome`; None if there is none."""
    has_been_paid: bool
    """Whether there is a notice that it was paid, first or later."""


_OF_ITS_NOTICES = """
    (SELECT outcome FROM payment_notices n WHERE n.payment_id = o.payment_id
        ORDER BY received_at_ms LIMIT 1) AS first_outcome,
    EXISTS (SELECT 1 FROM payment_notices n WHERE n.payment_id = o.payment_id
        AND n.outcome = 'paid') AS has_been_paid
"""
_ORDER_NOW = text(
    "SELECT o.order_id, o.status, o.reason, o.price_cents, o.progress, o.pay_by_ms, o.updated_at_ms,"  # noqa: S608 - ours
    " r.refused_at_ms,"
    + _OF_ITS_NOTICES.replace("o.payment_id", "k.payment_id")
    + " FROM (SELECT CAST(:payment_id AS TEXT) AS payment_id) k"
    " LEFT JOIN orders o ON o.payment_id = k.payment_id"
    " LEFT JOIN refusals r ON r.payment_id = k.payment_id"
)
_ORDER_CHANGED = (
    " RETURNING order_id, status, reason, price_cents, progress, pay_by_ms, updated_at_ms,"
    " NULL AS refused_at_ms," + _OF_ITS_NOTICES.replace("o.payment_id", "orders.payment_id")
)


def order_now(session: Session, payment_id: str) -> OrderNow:
    """A payment and its order, as the transaction of this session sees them."""
    return _order_of(session.execute(_ORDER_NOW, {"payment_id": payment_id}).one())


def change_order(session: Session, statement: str, **values: Any) -> OrderNow | None:
    """Run an UPDATE of one order; the order then, or None where it has changed none."""
    found = session.execute(text(statement + _ORDER_CHANGED), values).one_or_none()
    return None if found is None else _order_of(found)


def _order_of(found: sa.Row[Any]) -> OrderNow:
    return OrderNow(
        order_id=found.order_id or 0,
        status=found.status or (LOST if found.refused_at_ms is None else REFUSED),
        reason=found.reason,
        price_cents=found.price_cents or 0,
        progress=found.progress or 0,
        pay_by_ms=found.pay_by_ms or 0,
        updated_at_ms=found.updated_at_ms or 0,
        first_outcome=found.first_outcome,
        has_been_paid=bool(found.has_been_paid),
    )


class GreetingNow(TypedDict):
    """A greeting as a transaction found or left it."""

    name: str
    give_up_at_ms: int
    outcome: str | None
    """A `GreetingOutcome`; None while it is under way."""
    reason: str | None
    """Why it was refused or given up, one sentence."""
    signature: int | None
    """Its number in the online guestbook, once it is written down here."""
    under_way: int
    """Greetings of all clients that have not ended."""


_GREETING_NOW = text("""
SELECT q.name, q.give_up_at_ms, q.outcome, q.reason, g.signature,
    (SELECT count(*) FROM greeting_requests WHERE outcome IS NULL) AS under_way
FROM greeting_requests q LEFT JOIN greetings g ON g.greeting_id = q.greeting_id
WHERE q.greeting_id = :id
""")


def greeting_now(session: Session, greeting_id: str) -> GreetingNow | None:
    """A greeting, as the transaction of this session sees it; None if it was not asked for."""
    found = session.execute(_GREETING_NOW, {"id": greeting_id}).one_or_none()
    return None if found is None else cast(GreetingNow, found._asdict())


class Signing(TypedDict):
    """What came of asking the online guestbook: the number of the signature, or else the trouble."""

    signature: int
    at_ms: int
    trouble: str
    may_pass: bool


class OrderLost(Exception):
    """A workflow has written a row that the store does not have: an older copy was restored."""


class PaymentRefused(Exception):
    """No order was made for this payment, and none will be."""


class TooManyGreetings(Exception):
    """The client has as many greetings under way as one may."""
