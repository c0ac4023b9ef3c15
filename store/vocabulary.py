"""The words of the shop: statuses, reasons, outcomes, money.

`schema.sql` repeats these words in its CHECK constraints, and a test holds the two together.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
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


class GreetingOutcome(StrEnum):
    """How a greeting ended."""

    GREETED = "greeted"
    """In both books."""
    REFUSED = "refused"
    """The online guestbook will never sign it."""
    GIVEN_UP = "given_up"
    """The online guestbook did not sign it in time."""


class PaymentState(StrEnum):
    """Where a payment and its order stand, as a page shows it."""

    RESERVING = "reserving"
    """No order yet."""
    REFUSED = "refused"
    """No order, and there will be none: the client holds too many unpaid units."""
    AWAITING_PAYMENT = "awaiting_payment"
    SETTLING = "settling"
    """There is a notice of its payment, or its time is up; the workflow decides next."""
    PAID = "paid"
    DISPATCHED = "dispatched"
    CANCELLED = "cancelled"


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


def new_key() -> str:
    """A key that nobody can guess: 128 bits."""
    return secrets.token_urlsafe(16)


CHECKOUT = "checkout"
"""Name of the workflow whose id is a payment id."""
DISPATCH = "dispatch"
"""Name of the workflow that dispatches a paid order."""
RESTOCK = "restock"
"""Name of the workflow that fills the shelf."""
MENDING = "mending"
"""Name of the workflow that runs a stuck one again."""
CLOSING = "closing"
"""Name of the workflow that closes the books."""


class StepName(StrEnum):
    """What DBOS calls the steps; those of a tick and of a wait have a number behind their name."""

    RESERVE = "reserve"
    CLOSE = "close the books"
    SETTLE = "settle"
    TICK = "tick"
    BEGIN = "begin the greeting"
    SIGN = "sign the online guestbook"
    WAIT = "wait"
    RECORD = "record the greeting"
    END = "end the greeting"


class Event(StrEnum):
    """What a workflow tells those who wait for it."""

    HELD = "held"
    """Of a checkout: what `reserve` has made of it. The value is the status."""
    SETTLED = "settled"
    """Of a checkout: paid or cancelled. The value is the order number."""
    GREETED = "greeted"
    """Of a greeting: it has ended. The value is why it could not succeed, or nothing."""


PAYMENT_TOPIC = "payment"
"""Topic of the messages that wake a checkout. `payment_notices` has what was said, and decides."""


def dispatch_id(payment_id: str) -> str:
    """The id of an order's dispatch workflow. No key contains a dot, so none can name one."""
    return f"{payment_id}.dispatch"


def order_of_dispatch(workflow_id: str) -> str:
    """The payment id of the order that a dispatch workflow of this id dispatches."""
    return workflow_id.partition(".")[0]


def restock_id(key: str) -> str:
    """The id of the restock that a key has started; with a dot, so that it is never taken for a checkout."""
    return f"{key}.restock"


def closing_id(key: str) -> str:
    """The id of a workflow that closes the books, with a dot like that of a restock."""
    return f"{key}.closing"


GREETING = "greeting"
"""Name of the workflow of one greeting."""

GREETING_TICKS = 5
"""How long a greeting waits between its two systems, in ticks: long enough to press crash."""
NAME_MAX_LENGTH = 80
# Left-to-right and right-to-left overrides and isolates: they turn round what stands after them.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def greeting_id(key: str) -> str:
    """The id of the greeting that a key has started."""
    return f"{key}.{GREETING}"


def fault_of_name(name: str) -> str | None:
    """What is wrong with a visitor's name, as one sentence; None if nothing is."""
    # Beside white space: what takes no room at all, which is no name by itself.
    if not any(unicodedata.category(ch)[0] in "LNPS" and ch != "\u3164" for ch in name):
        return "A greeting needs a name: write yours."
    if len(name) > NAME_MAX_LENGTH:
        return f"That name is too long: use at most {NAME_MAX_LENGTH} characters."
    if any(_cannot_be_shown(ch) for ch in name):
        return "That name has characters that cannot be shown: leave them out."
    if "<" in name or ">" in name:
        return "A name has no markup in it: leave out < and >."
    return None


def fit_to_show(text: str, max_length: int) -> str:
    """What somebody else's system has said, as it may be stored and shown.

    A character that cannot be is replaced by U+FFFD. A text that is too long ends in an ellipsis.
    """
    if len(text) > max_length:
        text = text[: max_length - 1] + "…"
    return "".join("\ufffd" if _cannot_be_shown(ch) else ch for ch in text)


def _cannot_be_shown(ch: str) -> bool:
    # Cc: control characters. Zl, Zp: ends of lines. Cs: halves of characters.
    return unicodedata.category(ch) in {"Cc", "Cs", "Zl", "Zp"} or ch in _TURNING
