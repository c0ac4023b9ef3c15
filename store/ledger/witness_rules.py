"""What DBOS's workflows and the online guestbook remember of an account, compared with the store's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from store.clients.guestbook import Signature
from store.ledger.accounts import OPENING, Account, Fault
from store.money import price
from store.step_results import LOST, REFUSED
from store.vocabulary import CHECKOUT, GREETING, RESTOCK, GreetingOutcome, Movement, Outcome, Status

_CLOCK_MS = 1_000
"""On SQLite, DBOS notes the beginning of a workflow in whole seconds."""
_ALIVE = {"PENDING", "ENQUEUED", "DELAYED"}


def speaks(account: Account, workflow: Any) -> bool:
    """Whether what a workflow remembers is about what the store has now.

    A run that began before the last time that the workflow was run again has come back with an older copy of
    the checkpoints: what it made was lost with an older copy of the store, and has been made again since.
    Where the store has nothing, it has not been made again yet.
    """
    if workflow is None:
        return False
    made = ("orders", "refusals", "stock_movements", "greeting_requests", "greetings")
    is_made = any(account.of(table) for table in made)
    return not is_made or (workflow.created_at or 0) + _CLOCK_MS >= account.run_again_ms


def receipt_of(account: Account, workflow: Any) -> Mapping[str, Any]:
    """What a workflow returned at its end; nothing if it has not, or was of a shop that kept no receipts."""
    has_ended = speaks(account, workflow) and workflow.status == "SUCCESS"
    output = workflow.output if has_ended else None
    return output if isinstance(output, dict) else {}


def faults_of_order(
    account: Account, checkout: Any, dispatch: Any, receipt: Mapping[str, Any]
) -> Iterator[Fault]:
    """An order, beside the workflows of its checkout and its dispatch."""
    order = account.orders[0]
    if checkout is None and dispatch is None:
        if not account.needs_no_witness:
            yield account.fault("witnesses", f"is {order.status}, and no workflow has ever made it")
        return
    for name, words, shown in (
        ("order_id", "the number", str),
        ("price_cents", "the price", price),
        ("pay_by_ms", "to be paid by", _time),
    ):
        remembered = receipt.get(name)
        if name == "pay_by_ms" and remembered and remembered == _first_deadline(order):
            continue  # of a workflow that has not looked since its shopper was given more time
        if remembered and remembered != getattr(order, name):
            yield account.fault(
                "witnesses",
                f"has {words} {shown(getattr(order, name))}, and its workflow remembers {shown(remembered)}",
            )
    if receipt.get("has_been_paid") and Outcome.PAID not in account.notices:
        yield account.fault("notices", "was paid, as its workflow remembers, and nothing says so here")
    yield from _faults_of_ending(account, order, receipt, receipt_of(account, dispatch))
    yield from _faults_of_standstill(account, order, checkout, dispatch)


def _first_deadline(order: Any) -> int | None:
    """When the window would have closed, had it not been made longer by its own length; None if not."""
    if order.extended_at_ms is None:
        return None
    return int(order.pay_by_ms - (order.pay_by_ms - order.created_at_ms) // 2)


def _faults_of_ending(
    account: Account, order: Any, receipt: Mapping[str, Any], dispatched: Mapping[str, Any]
) -> Iterator[Fault]:
    """Whether it has ended as its workflows say."""
    status = dispatched.get("status") or receipt.get("status")
    if status in {None, LOST, REFUSED}:
        return
    was_paid = status in {Status.PAID, Status.DISPATCHED}
    is_paid = order.status in {Status.PAID, Status.DISPATCHED}
    reason = receipt.get("reason")
    if was_paid != is_paid or (order.status == Status.CANCELLED and reason and reason != order.reason):
        yield account.fault(
            "witnesses",
            f"is {order.reason or order.status}, and its workflow remembers {reason or status}",
        )
    elif status == Status.DISPATCHED and dispatched and order.status != Status.DISPATCHED:
        yield account.fault("witnesses", f"is {order.status}, and its workflow remembers dispatched")


def _faults_of_standstill(account: Account, order: Any, checkout: Any, dispatch: Any) -> Iterator[Fault]:
    """Whether something is there that moves it on, if it is under way. That it is late is no fault."""
    checkout_runs = checkout is not None and checkout.status in _ALIVE
    dispatch_runs = dispatch is not None and dispatch.status in _ALIVE
    if order.status == Status.PENDING and not checkout_runs:
        yield account.fault("moves", "is pending, and its workflow has ended")
    elif order.status == Status.PAID and not (dispatch_runs or (dispatch is None and checkout_runs)):
        yield account.fault("moves", "is paid, and no workflow dispatches it")


def faults_of_greeting(account: Account, workflow: Any, theirs: Sequence[Signature]) -> Iterator[Fault]:
    """A greeting, beside its workflow and the online guestbook's newest signatures."""
    requests, greetings = account.of("greeting_requests"), account.of("greetings")
    if workflow is None and not account.needs_no_witness and (greetings or requests[0].outcome):
        yield account.fault("greetings", "has ended, and no workflow has ever made it")
    receipt = receipt_of(account, workflow)
    numbers = {each.number for each in theirs}
    is_over_there = any(greeting.signature in numbers for greeting in greetings)
    for request in requests if receipt else ():
        yield from _faults_of_greeting_end(account, request, receipt, is_over_there=is_over_there)
    # Theirs shows its newest only. One that ends before ours is another book than we signed.
    for greeting in greetings:
        number, remembered = greeting.signature, receipt.get("signature")
        if remembered and remembered != number:
            yield account.fault(
                "greetings", f"has signature {number}, and its workflow remembers {remembered}"
            )
        if numbers and min(numbers) <= number <= max(numbers) and number not in numbers:
            yield account.fault("greetings", f"has signature {number}, which the online guestbook has not")


def _faults_of_greeting_end(
    account: Account, request: Any, receipt: Mapping[str, Any], *, is_over_there: bool
) -> Iterator[Fault]:
    """Whether it has ended as its workflow says."""
    if receipt["name"] != request.name:
        yield account.fault("greetings", f"is that of {receipt['name']}, as its workflow remembers")
    if receipt["outcome"] == request.outcome:
        if receipt["reason"] != request.reason:
            yield account.fault(
                "greetings", f"has ended otherwise, as its workflow remembers: {receipt['reason']}"
            )
    # Two runs may end it, one that gives it up and one that has signed: what is in both books is greeted.
    elif request.outcome != GreetingOutcome.GREETED or not is_over_there:
        yield account.fault(
            "greetings", f"is {request.outcome}, and its workflow remembers {receipt['outcome']}"
        )


def faults_of_restock(account: Account, workflow: Any) -> Iterator[Fault]:
    """A restock, beside its workflow; the opening stock has none."""
    if account.key == OPENING:
        return
    if workflow is None:
        if not account.needs_no_witness:
            yield account.fault("witnesses", "is there, and no workflow has ever made it")
        return
    units = sum(movement.units for movement in account.of("stock_movements", Movement.RESTOCK))
    if not speaks(account, workflow):
        return
    if workflow.status == "SUCCESS" and isinstance(workflow.output, int) and workflow.output != units:
        yield account.fault("witnesses", f"was {units} units, and its workflow remembers {workflow.output}")


def faults_of_nothing(account: Account, workflow: Any, receipt: Mapping[str, Any]) -> Iterator[Fault]:
    """What a workflow has made, and the store does not have."""
    if workflow is None:
        return
    key, has_ended = account.key, workflow.status == "SUCCESS"
    gone = "is remembered by its workflow, and is not here"
    if workflow.name == CHECKOUT and receipt.get("order_id"):
        yield Fault("lost", key, f"order {receipt['order_id']}", gone, receipt["order_id"])
    elif workflow.name == CHECKOUT and receipt.get("status") == REFUSED:
        yield account.fault("witnesses", "was refused, as its workflow remembers, and nothing says so here")
    elif workflow.name == GREETING and receipt.get("outcome"):
        yield Fault("greetings", key, f"the greeting of {receipt['name']}", gone)
    elif workflow.name == RESTOCK and has_ended and workflow.output:
        yield Fault("witnesses", key, f"a restock of {workflow.output} units", gone)


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(sep=" ", timespec="seconds")
