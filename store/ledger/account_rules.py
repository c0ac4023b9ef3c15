"""The comparison of an account's rows with each other: what the store alone can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from store.ledger.accounts import OPENING, Account, Fault
from store.money import price
from store.vocabulary import (
    DISPATCH_TICKS,
    PRODUCT_ID,
    SHELF_SIZE,
    GreetingOutcome,
    Movement,
    Outcome,
    Payment,
    Reason,
    Status,
)


def faults_of(account: Account) -> Iterator[Fault]:
    """Everything that is wrong with one account, as the store alone can tell."""
    if not account.orders:
        yield from _faults_of_nobody(account)
    elif len(account.orders) > 1:
        yield account.fault("numbers", f"has its key {len(account.orders)} times")
    else:
        order = account.orders[0]
        yield from _faults_of_progress(account, order)
        yield from _faults_of_stock(account, order)
        yield from _faults_of_money(account, order)
        yield from _faults_of_notices(account, order)
        if account.of("holds") and order.status != Status.PENDING:
            yield account.fault("holds", f"is {order.status}, and still counts as an unpaid unit")
        if account.of("refusals"):
            yield account.fault("witnesses", "was refused, and is there")
    yield from _faults_of_restock(account)
    yield from _faults_of_greeting(account)


def _faults_of_nobody(account: Account) -> Iterator[Fault]:
    """What belongs to an order that does not exist."""
    for row in account.of("payments"):
        yield account.fault("charges", f"has a {row.kind} of {_money(row.amount_cents)}, and no order")
    for kind in (Movement.RESERVE, Movement.RELEASE):
        for row in account.of("stock_movements", kind):
            yield account.fault("reserves", f"has a {kind} of {abs(row.units)}, and no order")
    if account.of("holds"):
        yield account.fault("holds", "counts as an unpaid unit, and has no order")


def _faults_of_progress(account: Account, order: Any) -> Iterator[Fault]:
    is_right = {
        Status.PENDING: order.progress == 0,
        Status.PAID: 0 <= order.progress < DISPATCH_TICKS,
        Status.DISPATCHED: order.progress == DISPATCH_TICKS,
        Status.CANCELLED: order.progress == 0,
    }
    if not is_right.get(order.status, False):
        yield account.fault("progress", f"is {order.status}, with {order.progress} of {DISPATCH_TICKS}")
    if order.product_id != PRODUCT_ID:
        yield account.fault("reserves", f"is of product {order.product_id}, which the shop does not sell")


def _faults_of_stock(account: Account, order: Any) -> Iterator[Fault]:
    is_sold_out = order.reason == Reason.SOLD_OUT
    taken = [-units for units in _units(account, Movement.RESERVE)]
    expected = [] if is_sold_out else [1]
    if taken != expected:
        yield account.fault("reserves", f"took {_amount(taken)}, and should have taken {_amount(expected)}")
    given_back = _units(account, Movement.RELEASE)
    expected = [1] if order.status == Status.CANCELLED and not is_sold_out else []
    if given_back != expected:
        yield account.fault(
            "releases", f"gave {_amount(given_back)} back, and should have given {_amount(expected)}"
        )


def _faults_of_money(account: Account, order: Any) -> Iterator[Fault]:
    charges, refunds = account.amounts(Payment.CHARGE), account.amounts(Payment.REFUND)
    says = f"is charged {_money(*charges)}, refunded {_money(*refunds)}, and costs {price(order.price_cents)}"
    if order.status in {Status.PAID, Status.DISPATCHED}:
        if (charges, refunds) != ([order.price_cents], []):
            yield account.fault("charges", f"is {order.status}, {says}")
    elif order.status == Status.PENDING:
        if charges or refunds:
            yield account.fault("unpaid", f"is not paid yet, {says}")
    elif charges != refunds or charges not in ([], [order.price_cents]):
        yield account.fault("refunds", f"is cancelled, {says}")


def _faults_of_notices(account: Account, order: Any) -> Iterator[Fault]:
    notices = account.notices
    first = notices[0] if notices else "missing"
    if order.status in {Status.PAID, Status.DISPATCHED} and first != Outcome.PAID:
        yield account.fault("notices", f"is {order.status}, and the first word of its payment is {first}")
    if order.reason == Reason.DECLINED and first != Outcome.FAILED:
        yield account.fault("notices", f"is declined, and the first word of its payment is {first}")
    was_paid, is_charged = Outcome.PAID in notices, bool(account.amounts(Payment.CHARGE))
    if order.status == Status.CANCELLED and was_paid and not is_charged:
        yield account.fault("notices", "is cancelled, was paid too late, and the money is nowhere")
    if order.status == Status.CANCELLED and is_charged and not was_paid:
        yield account.fault("notices", "is cancelled and charged, and nobody has said that it was paid")


def _faults_of_restock(account: Account) -> Iterator[Fault]:
    for movement in account.of("stock_movements", Movement.RESTOCK):
        if movement.product_id != PRODUCT_ID:
            yield account.fault("shelf", f"is of product {movement.product_id}, which the shop does not sell")
        if account.key == OPENING and movement.units != SHELF_SIZE:
            yield account.fault("stock", f"was {movement.units} units, and a shop opens with {SHELF_SIZE}")


def _faults_of_greeting(account: Account) -> Iterator[Fault]:
    requests, greetings = account.of("greeting_requests"), account.of("greetings")
    wanted = sum(request.outcome == GreetingOutcome.GREETED for request in requests)
    if len(greetings) != wanted:
        yield account.fault(
            "greetings", f"is written down {len(greetings)} times, and should be {wanted} times"
        )
    for greeting in greetings:
        if any(greeting.name != request.name for request in requests):
            yield account.fault("greetings", f"is written down as that of {greeting.name}")


def _units(account: Account, kind: str) -> list[int]:
    return [row.units for row in account.of("stock_movements", kind) if row.product_id == PRODUCT_ID]


def _amount(units: list[int]) -> str:
    return "no unit" if not units else "1 unit" if sum(units) == 1 else f"{sum(units)} units"


def _money(*cents: int) -> str:
    return " and ".join(f"-{price(-each)}" if each < 0 else price(each) for each in cents) or "nothing"
