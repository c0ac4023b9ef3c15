"""Owns what a request may ask for: buy, settle, greet, restock.

Imports `workflows`, `patience` and `vocabulary`.

Each starts or tells a workflow and returns within the request's time, or raises TooSlow. The
workflow goes on either way.
"""

from __future__ import annotations

import hashlib

from dbos import DBOS, SetWorkflowID, error

from store import workflows
from store.patience import promptly, seconds_for_an_event
from store.vocabulary import Outcome, Status, fault_of_name, greeting_id


class KeyTaken(Exception):
    """The key names something else."""


class BadName(Exception):
    """Nobody is called that; the text is one sentence."""


class UnknownPayment(Exception):
    """No checkout that made an order has this payment id."""


class MessageReused(Exception):
    """A signed message was about something else when it first came."""


class TooManyUnpaid(Exception):
    """The client holds as many unpaid units as one may, so this checkout has made no order."""


def buy(key: str, client: str) -> Status | None:
    """Start the checkout that this key names, for that client, or find it started.

    Returns the status that its order was created with, or None if that takes longer.

    Raises:
        KeyTaken: the key names a workflow of another kind.
        TooManyUnpaid: there is no order; another key may have one later.
    """
    # Checkpoints outlive the visit, and are no place for an address. A digest tells clients apart; it
    # does not hide an address from whoever has the database and tries them all.
    digest = hashlib.blake2b(client.encode(), digest_size=8).hexdigest()

    def start_and_wait() -> str | None:
        with SetWorkflowID(key):
            DBOS.start_workflow(workflows.checkout, digest)
        status: str | None = DBOS.get_event(key, workflows.HELD, timeout_seconds=seconds)
        return status

    seconds = seconds_for_an_event()
    try:
        status = promptly(start_and_wait)
    except error.DBOSConflictingWorkflowError as conflict:
        raise KeyTaken(key) from conflict
    if status == workflows.REFUSED:
        raise TooManyUnpaid(key)
    return Status(status) if status else None


def was_refused(key: str) -> bool:
    """Whether the checkout of this key ended in TooManyUnpaid."""
    event = promptly(lambda: DBOS.get_event(key, workflows.HELD, timeout_seconds=0))
    return bool(event == workflows.REFUSED)


def settle(payment_id: str, outcome: Outcome, message_id: str | None = None) -> int | None:
    """Tell the shop of a payment, and of the signed message that says so, if one does.

    The first outcome counts; money that comes too late is given back.

    Returns the order number once the checkout is paid or cancelled, or None if that takes longer.

    Raises:
        UnknownPayment: there is no such checkout.
        MessageReused: the same signed message has said something else before.
    """

    def send_and_wait() -> int | None:
        order = workflows.hear(payment_id, outcome, message_id)
        if order is not None and order[1] is not Status.PENDING:
            return order[0]
        # One idempotency key for each checkout: the database stores one message at most,
        # whoever sends it, however often.
        DBOS.send(payment_id, outcome, workflows.PAYMENT, idempotency_key=workflows.PAYMENT)
        order_id: int | None = DBOS.get_event(payment_id, workflows.SETTLED, timeout_seconds=seconds)
        if order_id is None and order is None and was_refused(payment_id):
            raise UnknownPayment(payment_id)
        return order_id

    seconds = seconds_for_an_event()
    try:
        return promptly(send_and_wait)
    except error.DBOSNonExistentWorkflowError as unknown:
        raise UnknownPayment(payment_id) from unknown
    except workflows.MessageReused as reused:
        raise MessageReused(message_id) from reused


def greet(key: str, name: str, *, wait: bool) -> str | None:
    """Start the greeting that this key names, or find it started.

    Returns nothing once both books are signed, the reason once it cannot succeed, or None if either
    takes longer, or nobody is to wait for it.

    Raises:
        BadName: it is none.
        KeyTaken: the key has greeted by another name.
    """
    if fault := fault_of_name(name):
        raise BadName(fault)
    greeting = greeting_id(key)

    def start_and_wait() -> str | None:
        with SetWorkflowID(greeting):
            DBOS.start_workflow(workflows.greet, name)
        status = DBOS.get_workflow_status(greeting)
        if status is None or status.input is None or tuple(status.input["args"]) != (name,):
            raise KeyTaken(key)
        ended: str | None = DBOS.get_event(greeting, workflows.GREETED, timeout_seconds=seconds)
        return ended

    seconds = seconds_for_an_event() if wait else 0
    return promptly(start_and_wait)


def restock() -> int:
    """Fill the shelf; returns the units that were added."""
    return promptly(
        lambda: DBOS.start_workflow(workflows.restock_shelf).get_result(polling_interval_sec=0.05)
    )
