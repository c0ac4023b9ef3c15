"""Owns the words of the shop: statuses, reasons, outcomes, money. Imports nothing of ours.

`schema.sql` repeats these words in its CHECK constraints, and a test holds the two together.
"""

from __future__ import annotations

import re
from enum import StrEnum

PRODUCT_ID = 1
SHELF_SIZE = 100
"""Units that a restock tops the shelf up to."""

DISPATCH_TICKS = 10
"""Ticks from paid to dispatched; `progress` counts them from 0 up."""


class Status(StrEnum):
    """Where an order stands. Written to the database as its value."""

    PENDING = "pending"
    """Holds a unit and awaits payment."""
    PAID = "paid"
    """Charged and being dispatched."""
    DISPATCHED = "dispatched"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a cancelled order was cancelled."""

    SOLD_OUT = "sold_out"
    DECLINED = "declined"
    EXPIRED = "expired"


class Outcome(StrEnum):
    """What a shopper, or their bank, says of a payment."""

    PAID = "paid"
    FAILED = "failed"


class Movement(StrEnum):
    """Why units moved: onto the shelf, or off it and back by an order."""

    RESTOCK = "restock"
    RESERVE = "reserve"
    RELEASE = "release"


class Payment(StrEnum):
    """Which way money moved."""

    CHARGE = "charge"
    REFUND = "refund"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.PAID, Status.CANCELLED}),
    Status.PAID: frozenset({Status.DISPATCHED}),
    Status.DISPATCHED: frozenset(),
    Status.CANCELLED: frozenset(),
}
"""What an order may become next. An order is born pending, or cancelled as sold out."""

LIVE = tuple(status for status, following in TRANSITIONS.items() if following)
"""Statuses in which an order still moves."""

WIRE_STATUS: dict[Status, int] = {
    Status.CANCELLED: -1,
    Status.PENDING: 0,
    Status.DISPATCHED: 1,
    Status.PAID: 2,
}
"""`order_status` in the JSON contract."""

KEY_MAX_LENGTH = 64
KEY_MIN_LENGTH_OVER_JSON = 8
_KEY = re.compile(rf"[A-Za-z0-9_-]{{1,{KEY_MAX_LENGTH}}}", re.ASCII)


def is_key(text: str) -> bool:
    """Whether `text` may name a checkout: 1 to 64 of `A-Z a-z 0-9 _ -`."""
    return _KEY.fullmatch(text) is not None


CHECKOUT = "checkout"
"""Name of the workflow whose id is a payment id."""


def dispatch_id(payment_id: str) -> str:
    """The id of an order's dispatch workflow. No key contains a dot, so none can name one."""
    return f"{payment_id}.dispatch"


def price(cents: int) -> str:
    """Integer cents as shown to a shopper: 9999 is `$99.99`."""
    return f"${cents // 100:,}.{cents % 100:02}"
