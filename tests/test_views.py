"""What pages say of a state, as functions: the last seconds to pay, both guestbooks, both lanes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from store.clients.guestbook import Signature
from store.reads.greetings import Guestbooks, Line
from store.reads.records import Order
from store.stage.lanes import NaiveRun, Run
from store.vocabulary import Reason, Status
from store.web.views import PaymentPage, State

pytestmark = pytest.mark.quick
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def order(window: timedelta = timedelta(minutes=10), status: Status = Status.PENDING) -> Order:
    """One order."""
    return Order(
        order_id=1,
        product_id=1,
        has_notice=False,
        is_extended=False,
        payment_id="payment",
        status=status,
        reason=None,
        progress=0,
        price_cents=9999,
        pay_by=_NOW + window,
        created_at=_NOW,
        updated_at=_NOW,
    )


@pytest.mark.parametrize(
    ("window", "left_ms", "hurry"),
    [
        (600, 600_000, ""),
        (600, 30_001, ""),
        (600, 30_000, "soon"),
        (600, 10_001, "soon"),
        (600, 10_000, "now"),
        (600, 1, "now"),
        (600, 0, ""),
        (20, 9_000, ""),  # all of it is short: there is nothing to say that was not said
    ],
)
def test_the_last_seconds_to_pay_are_told(window: int, left_ms: int, hurry: str) -> None:
    """Half a minute before the end, and ten seconds."""
    held = order(timedelta(seconds=window))
    page = PaymentPage("payment", State.AWAITING_PAYMENT, held, left_ms, can_pay_here=True, shelf=None)
    assert page.hurry == hurry


def signed(*numbers: int) -> list[Signature]:
    """Signatures with these numbers."""
    return [Signature(number, f"name {number}") for number in numbers]


def test_both_guestbooks_are_one_list_with_holes() -> None:
    """By number, the newest first; one of ours that is just recorded was signed there meanwhile."""
    found = Guestbooks.of(signed(5, 4, 2), signed(7, 6, 5, 3, 1), "", just_recorded={5, 6})
    assert found.lines == (
        Line(7, None, "name 7"),
        Line(6, "name 6", "name 6"),
        Line(5, "name 5", "name 5"),
        Line(4, "name 4", None),
        Line(3, None, "name 3"),
        Line(2, "name 2", None),
    )
    assert Guestbooks.of([], [], "", just_recorded=set()).lines == ()


def test_of_a_guestbook_that_is_away_nothing_is_claimed() -> None:
    """Ours is shown, and theirs is unknown."""
    found = Guestbooks.of([], signed(2, 1), "It is away.", just_recorded={2})
    assert found.lines == (Line(2, None, "name 2"), Line(1, None, "name 1"))


_UNDER_WAY = NaiveRun(
    status="paid", progress=3, charged_cents=9999, signature=1, is_recorded=False, is_dead=False
)
_WHOLE = replace(_UNDER_WAY, status=Status.DISPATCHED, is_recorded=True)
_DEAD = replace(_UNDER_WAY, is_dead=True)


@pytest.mark.parametrize(
    ("naive", "status", "reason", "state"),
    [
        (_UNDER_WAY, Status.PAID, None, "running"),
        (_DEAD, Status.PAID, None, "naive_is_dead"),
        (_WHOLE, Status.PAID, None, "durable_goes_on"),
        (_UNDER_WAY, Status.CANCELLED, Reason.SOLD_OUT, "sold_out"),
        (_DEAD, Status.CANCELLED, Reason.SOLD_OUT, "sold_out"),
        (_UNDER_WAY, Status.CANCELLED, Reason.EXPIRED, "cancelled"),
        (_DEAD, Status.CANCELLED, Reason.DECLINED, "cancelled"),
    ],
)
def test_the_headline_over_both_lanes_is_true_meanwhile(
    naive: NaiveRun, status: Status, reason: Reason | None, state: str
) -> None:
    """The durable greeting is under way in each."""
    assert Run(replace(order(status=status), reason=reason), None, naive, ()).state == state
