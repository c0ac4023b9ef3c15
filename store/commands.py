"""What a request may ask of the workflows: buy, settle, extend, greet, restock.

Each starts or wakes a workflow and returns within the request's deadline, or raises
DeadlineExceeded. The workflow goes on either way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dbos import DBOS, SetWorkflowID, error

from store import step_results, workflows
from store.durable import runtime
from store.durable.deadlines import call_with_deadline, seconds_for_an_event
from store.vocabulary import (
    PAYMENT_TOPIC,
    SHELF_SIZE,
    Event,
    Outcome,
    Status,
    fault_of_name,
    greeting_id,
    new_key,
    restock_id,
)


class KeyTaken(Exception):
    """The key names something else."""


class BadName(Exception):
    """Nobody is called that; the text is one sentence."""


class UnknownPayment(Exception):
    """No checkout that made an order has this payment id."""


class TooManyUnpaid(Exception):
    """The client holds as many unpaid units as one may, so this checkout has made no order."""


class TooManyGreetings(Exception):
    """The client has as many greetings under way as one may, so this one was not begun."""


@dataclass(frozen=True)
class EndOfGreeting:
    """How a greeting has ended."""

    trouble: str
    """Why it is in neither book, one sentence; nothing if it is in both."""


def buy(key: str, client: str) -> Status | None:
    """Start the checkout that this key names, for that client, or find it started.

    Returns the status that its order was created with, or None if that takes longer.

    Raises:
        KeyTaken: the key names a workflow of another kind.
        TooManyUnpaid: there is no order; another key may have one later.
        DeadlineExceeded: the database does not answer.
    """

    def start_and_wait() -> str | None:
        with SetWorkflowID(key):
            DBOS.start_workflow(workflows.checkout, key, _digest(client))
        status: str | None = DBOS.get_event(key, Event.HELD, timeout_seconds=seconds_for_an_event())
        return status

    try:
        status = call_with_deadline(start_and_wait)
    except error.DBOSConflictingWorkflowError as conflict:
        raise KeyTaken(key) from conflict
    if status == step_results.REFUSED:
        raise TooManyUnpaid(key)
    return Status(status) if status else None


def settle(payment_id: str, outcome: Outcome) -> int | None:
    """Tell the shop of a payment. The first outcome counts; money that comes too late is given back.

    Returns the order number once the checkout is paid or cancelled, or None if that takes longer.

    Raises:
        UnknownPayment: there is no such checkout.
        DeadlineExceeded: the database does not answer.
    """

    def record_and_wake() -> int | None:
        order = workflows.record_notice(payment_id, outcome)
        if order["status"] not in {Status.PENDING, step_results.LOST}:
            return order["order_id"]
        try:
            # One idempotency key for each checkout: the database stores one message at most,
            # no matter who sends it, and how often.
            DBOS.send(payment_id, outcome, PAYMENT_TOPIC, idempotency_key=PAYMENT_TOPIC)
        except error.DBOSNonExistentWorkflowError:
            if order["status"] == Status.PENDING:
                return None  # its checkpoints are gone; the reconciler starts it anew
            raise
        seconds = seconds_for_an_event()
        order_id: int | None = DBOS.get_event(payment_id, Event.SETTLED, timeout_seconds=seconds)
        return order_id

    try:
        return call_with_deadline(record_and_wake)
    except (error.DBOSNonExistentWorkflowError, step_results.PaymentRefused) as unknown:
        raise UnknownPayment(payment_id) from unknown


def extend(payment_id: str) -> None:
    """Give the shopper of this order more time to pay, once; changes nothing where that is too late.

    Raises:
        DeadlineExceeded: the database does not answer.
    """
    call_with_deadline(lambda: workflows.extend_window(payment_id))


def greet(key: str, name: str, client: str, *, wait: bool) -> EndOfGreeting | None:
    """Start the greeting that this key names, or find it started.

    Returns how it has ended, or None if that takes longer, or nobody is to wait for it.

    Raises:
        BadName: it is none.
        KeyTaken: the key has greeted by another name.
        TooManyGreetings: the client must wait until one of its greetings has ended.
        DeadlineExceeded: the database does not answer.
    """
    if fault := fault_of_name(name):
        raise BadName(fault)
    greeting = greeting_id(key)

    def start_and_wait() -> EndOfGreeting | None:
        found = workflows.request_greeting(greeting, name, _digest(client))
        if found["name"] != name:
            raise KeyTaken(key)
        if found["outcome"] is not None:
            return EndOfGreeting(found["reason"] or "")
        with SetWorkflowID(greeting):
            if found["under_way"] <= runtime.GREETINGS_AT_ONCE:
                DBOS.start_workflow(workflows.greet, greeting, name)
            else:
                DBOS.enqueue_workflow(runtime.GREETINGS, workflows.greet, greeting, name)
        seconds = seconds_for_an_event() if wait else 0
        trouble: str | None = DBOS.get_event(greeting, Event.GREETED, timeout_seconds=seconds)
        return None if trouble is None else EndOfGreeting(trouble)

    try:
        return call_with_deadline(start_and_wait)
    except step_results.TooManyGreetings as refusal:
        raise TooManyGreetings(client) from refusal


def restock(level: int = SHELF_SIZE) -> int:
    """Fill the shelf to a level, or clear it where that is 0; returns the units that were added.

    Raises:
        DeadlineExceeded: the database does not answer.
    """
    cause = restock_id(new_key())

    def start_and_wait() -> int:
        with SetWorkflowID(cause):
            restocking = DBOS.start_workflow(workflows.restock_shelf, cause, level)
        return restocking.get_result(polling_interval_sec=0.05)

    return call_with_deadline(start_and_wait)


def _digest(client: str) -> str:
    """What tells clients apart in tables and checkpoints, which are no place for an address.

    It does not hide an address from a person who has the database and tries them all.
    """
    return hashlib.blake2b(client.encode(), digest_size=8).hexdigest()
