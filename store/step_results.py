"""What steps of a workflow return: plain mappings, because checkpoints are JSON; and how they fail."""

from __future__ import annotations

from typing import TypedDict

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
