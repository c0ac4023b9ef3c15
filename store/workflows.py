"""Owns every change: the only module that writes. Imports `online`, `steps` and `vocabulary`.

Read `checkout` first: it is the business of the shop on one screen. Each line of it that
touches the world is a step, whose result DBOS checkpoints; after a crash DBOS runs the
function again, hands it the results that it has, and so goes on where it was.

A step that commits and dies before its checkpoint will run a second time. So each
transaction below is keyed by its workflow and guarded by the state that it expects
(`WHERE status = 'pending'`), which makes doing it twice the same as doing it once.
Order, stock and books change in that one transaction or not at all.
"""

from __future__ import annotations

import logging
import time
from typing import TypedDict

from dbos import DBOS, SetWorkflowID
from sqlalchemy.orm import Session

from store import online
from store.steps import commit, commit_at_once, now_ms, row, run, step, transaction
from store.vocabulary import (
    CHECKOUT,
    DISPATCH_TICKS,
    GREETING,
    GREETING_BEATS,
    PRODUCT_ID,
    RECORD_STEP,
    SHELF_SIZE,
    SIGN_STEP,
    WAIT_STEP,
    Movement,
    Outcome,
    Payment,
    Reason,
    Status,
    dispatch_id,
)

HELD = "held"
"""Event of a checkout: its order exists, holding a unit or sold out. The value is the status, or REFUSED."""
REFUSED = "refused"
"""No order was made, because the client holds too many units that it has not paid."""
SETTLED = "settled"
"""Event of a checkout: paid or cancelled. The value is the order number."""
PAYMENT = "payment"
"""Topic on which a checkout hears of its payment."""
GREETED = "greeted"
"""Event of a greeting: it has ended. The value is why it could not succeed, or nothing."""
_SHORTEST_PAUSE_MS = 1
_LONGEST_PAUSE_SECONDS = 30
"""Between two tries to sign the online guestbook; each is twice the one before."""
_log = logging.getLogger("store")


class Reserved(TypedDict):
    """What `reserve` leaves behind; all zero if it refused. A plain mapping, because checkpoints are JSON."""

    order_id: int
    status: str
    pay_by_ms: int


class Signing(TypedDict):
    """What came of asking the online guestbook: the number of the signature, or else the trouble."""

    signature: int
    at_ms: int
    trouble: str
    may_pass: bool


class Terms:
    """On what terms the shop sells. Set once, before DBOS is launched."""

    payment_window_ms = 120_000
    tick_ms = 1_000
    unpaid_per_client = 50
    """Orders that may hold units for one client; 0 for any number."""
    guestbook_url = ""
    """Where the online guestbook is; it may be elsewhere after a restart."""


# --- the business ---------------------------------------------------------------------


@DBOS.workflow(name=CHECKOUT, max_recovery_attempts=None)
def checkout(client: str | None = None) -> None:
    """One click on Buy Now, from reserving a unit to paid or cancelled."""
    payment_id = str(DBOS.workflow_id)
    order = reserve(payment_id, client)
    DBOS.set_event(HELD, order["status"])
    if order["status"] == REFUSED:
        return
    if order["status"] == Status.PENDING:
        # recv() checkpoints its own deadline the first time round, so a crash does not
        # lengthen the window, and reading the clock here does no harm to a replay.
        seconds_left = max(0.0, (order["pay_by_ms"] - now_ms()) / 1000)
        outcome = DBOS.recv(PAYMENT, timeout_seconds=seconds_left)
        if outcome == Outcome.PAID:
            paid_at_ms: int | None = charge(payment_id)
        else:
            paid_at_ms = cancel(payment_id, Reason.DECLINED if outcome == Outcome.FAILED else Reason.EXPIRED)
        if paid_at_ms is not None:
            with SetWorkflowID(dispatch_id(payment_id)):
                DBOS.start_workflow(dispatch, payment_id, paid_at_ms)
    DBOS.set_event(SETTLED, order["order_id"])


@DBOS.workflow(name="dispatch", max_recovery_attempts=None)
def dispatch(payment_id: str, paid_at_ms: int) -> None:
    """Ten ticks from paid to dispatched, each exactly once."""
    ticked_at_ms = paid_at_ms
    for tick in range(1, DISPATCH_TICKS + 1):
        ticked_at_ms = advance(payment_id, tick, ticked_at_ms)


@DBOS.workflow(name="restock", max_recovery_attempts=None)
def restock_shelf() -> int:
    """Fill the shelf; returns the units that were added."""
    return fill_shelf(str(DBOS.workflow_id))


@DBOS.workflow(name=GREETING, max_recovery_attempts=None)
def greet(name: str) -> None:
    """Sign the online guestbook, wait a little, and write it down here: both once, or neither."""
    greeting_id = str(DBOS.workflow_id)
    signature, at_ms = sign_online_guestbook(greeting_id, name)
    if signature is None:
        return
    for beat in range(1, GREETING_BEATS + 1):
        at_ms = wait_a_beat(beat, at_ms)
    record_greeting(greeting_id, name, signature)
    DBOS.set_event(GREETED, "")


# --- its transactions -----------------------------------------------------------------


@transaction("reserve")
def reserve(session: Session, payment_id: str, client: str | None) -> Reserved:
    """Take a unit off the shelf and create the order that holds it, or one that is sold out.

    Makes neither for a client that holds as many unpaid units as it may.
    """
    found = row(
        session,
        "SELECT order_id, status, pay_by_ms FROM orders WHERE payment_id = :payment_id",
        payment_id=payment_id,
    )
    if found is not None:  # this step ran before and died before its checkpoint
        return Reserved(order_id=found.order_id, status=found.status, pay_by_ms=found.pay_by_ms)

    at_ms = now_ms()
    took_a_unit = row(
        session,
        "UPDATE products SET on_hand = on_hand - 1"
        " WHERE product_id = :product_id AND on_hand > 0 RETURNING price_cents",
        product_id=PRODUCT_ID,
    )
    if took_a_unit and client is not None and _holds_enough(session, client):
        # Whoever is hearing of its payment right now is waited for: `_hear` holds this row then. What
        # is paid already is not one more that is unpaid.
        run(session, "UPDATE counters SET value = value WHERE counter = 'orders'")
        if not _was_heard_to_be_paid(session, payment_id):
            _put_back(session)
            return Reserved(order_id=0, status=REFUSED, pay_by_ms=0)
    counter = row(session, "UPDATE counters SET value = value + 1 WHERE counter = 'orders' RETURNING value")
    order = Reserved(
        order_id=counter.value,
        status=Status.PENDING if took_a_unit else Status.CANCELLED,
        pay_by_ms=at_ms + Terms.payment_window_ms,
    )
    run(
        session,
        "INSERT INTO orders (payment_id, order_id, product_id, price_cents, status, reason,"
        " progress, created_at_ms, pay_by_ms, updated_at_ms)"
        " SELECT :payment_id, :order_id, product_id, price_cents, :status, :reason,"
        " 0, :at_ms, :pay_by_ms, :at_ms FROM products WHERE product_id = :product_id",
        **order,
        payment_id=payment_id,
        product_id=PRODUCT_ID,
        reason=None if took_a_unit else Reason.SOLD_OUT,
        at_ms=at_ms,
    )
    if took_a_unit:
        _move(session, Movement.RESERVE, cause=payment_id, units=-1)
        if client is not None:
            run(
                session,
                "INSERT INTO holds (payment_id, client) VALUES (:payment_id, :client)",
                payment_id=payment_id,
                client=client,
            )
    elif _was_heard_to_be_paid(session, payment_id):
        _take_and_give_back(session, payment_id)
    return order


@transaction("charge")
def charge(session: Session, payment_id: str) -> int:
    """Mark a pending order paid and record its charge; returns when, in ms since 1970."""
    return _charge(session, payment_id)


def _charge(session: Session, payment_id: str) -> int:
    paid = run(
        session,
        "UPDATE orders SET status = 'paid', updated_at_ms = :at_ms"
        " WHERE payment_id = :payment_id AND status = 'pending'",
        payment_id=payment_id,
        at_ms=now_ms(),
    )
    if paid:
        _record_payment(session, Payment.CHARGE, payment_id)
        _hold_no_longer(session, payment_id)
    order = row(session, "SELECT updated_at_ms FROM orders WHERE payment_id = :id", id=payment_id)
    return int(order.updated_at_ms)


@transaction("cancel")
def cancel(session: Session, payment_id: str, reason: Reason) -> int | None:
    """Cancel a pending order and put its unit back on the shelf, unless it turns out to be paid.

    The payment may have come while nobody was there to hear of it. Then an order whose time is
    up is charged after all, and returns when, in ms since 1970; one that was declined first
    gets its money back.
    """
    # Holds the order against `hear`: its news is either seen here, or it sees what is done here.
    run(session, "UPDATE orders SET progress = progress WHERE payment_id = :id", id=payment_id)
    is_paid = _was_heard_to_be_paid(session, payment_id)
    if is_paid and reason is Reason.EXPIRED:
        return _charge(session, payment_id)
    cancelled = run(
        session,
        "UPDATE orders SET status = 'cancelled', reason = :reason, updated_at_ms = :at_ms"
        " WHERE payment_id = :payment_id AND status = 'pending'",
        payment_id=payment_id,
        reason=reason,
        at_ms=now_ms(),
    )
    if cancelled:
        _put_back(session)
        _move(session, Movement.RELEASE, cause=payment_id, units=1)
        _hold_no_longer(session, payment_id)
    if is_paid:
        _take_and_give_back(session, payment_id)
    return None


@transaction("fill shelf")
def fill_shelf(session: Session, cause: str) -> int:
    """Top the shelf up to `SHELF_SIZE` and record what was added; returns the units."""
    # An UPDATE that changes nothing holds the row on both databases, so that no buyer comes
    # between reading the shelf and filling it.
    shelf = row(
        session,
        "UPDATE products SET on_hand = on_hand WHERE product_id = :product_id RETURNING on_hand",
        product_id=PRODUCT_ID,
    )
    before = row(
        session,
        "SELECT units FROM stock_movements WHERE kind = :kind AND cause = :cause",
        kind=Movement.RESTOCK,
        cause=cause,
    )
    if before is not None:  # this step ran before and died before its checkpoint
        return int(before.units)
    units = max(0, SHELF_SIZE - shelf.on_hand)
    run(
        session,
        "UPDATE products SET on_hand = on_hand + :units WHERE product_id = :product_id",
        units=units,
        product_id=PRODUCT_ID,
    )
    _move(session, Movement.RESTOCK, cause=cause, units=units)
    return int(units)


def advance(payment_id: str, tick: int, previous_at_ms: int) -> int:
    """Wait for one tick and record it, as one step; returns when, in ms since 1970.

    The wait is measured from the tick before, so the beat does not drift, and a tick that
    fell due while the server was down comes at once.
    """

    def wait_and_record() -> int:
        _wait_for_a_tick_since(previous_at_ms)
        return commit(_record_tick, payment_id, tick)

    return step(f"tick {tick}", wait_and_record)


def wait_a_beat(beat: int, previous_at_ms: int) -> int:
    """Wait for one tick, as one step, and say so in the log; returns when, in ms since 1970."""

    def wait_and_say() -> int:
        _wait_for_a_tick_since(previous_at_ms)
        _log.info("a greeting has signed over there, and waits: %s of %s", beat, GREETING_BEATS)
        return now_ms()

    return step(f"{WAIT_STEP} {beat}", wait_and_say)


def _wait_for_a_tick_since(at_ms: int) -> None:
    due_in_ms = at_ms + Terms.tick_ms - now_ms()
    # One tick at most, should the machine's clock have been set back meanwhile.
    time.sleep(min(max(due_in_ms, 0), Terms.tick_ms) / 1000)


def _record_tick(session: Session, payment_id: str, tick: int) -> int:
    at_ms = now_ms()
    run(
        session,
        "UPDATE orders SET progress = :tick, status = :status, updated_at_ms = :at_ms"
        " WHERE payment_id = :payment_id AND status = 'paid' AND progress = :tick - 1",
        payment_id=payment_id,
        tick=tick,
        status=Status.DISPATCHED if tick == DISPATCH_TICKS else Status.PAID,
        at_ms=at_ms,
    )
    return at_ms


def sign_online_guestbook(greeting_id: str, name: str) -> tuple[int | None, int]:
    """Ask the online guestbook until it has signed, or says that it never will.

    Returns the number of the signature, or None, and when, in ms since 1970. Each try is a step, and a
    crash after it has signed, here or there, makes it ask again, with the same key: that is one signature.
    """
    tries = 0
    while True:
        signing = _try_to_sign(greeting_id, name)
        if not signing["trouble"]:
            return signing["signature"], signing["at_ms"]
        if not signing["may_pass"]:
            DBOS.set_event(GREETED, signing["trouble"])
            return None, signing["at_ms"]
        DBOS.sleep(min(2**tries * max(Terms.tick_ms, _SHORTEST_PAUSE_MS) / 1000, _LONGEST_PAUSE_SECONDS))
        tries = min(tries + 1, 10)


def _try_to_sign(greeting_id: str, name: str) -> Signing:
    def ask() -> Signing:
        try:
            signature = online.sign(Terms.guestbook_url, name, key=greeting_id)
        except online.Unavailable as trouble:
            return Signing(signature=0, at_ms=now_ms(), trouble=str(trouble), may_pass=True)
        except online.Refused as trouble:
            return Signing(signature=0, at_ms=now_ms(), trouble=str(trouble), may_pass=False)
        return Signing(signature=signature.number, at_ms=now_ms(), trouble="", may_pass=False)

    return step(SIGN_STEP, ask)


@transaction(RECORD_STEP)
def record_greeting(session: Session, greeting_id: str, name: str, signature: int) -> None:
    """Write down a visitor who has signed over there. Once, however often this step runs."""
    run(
        session,
        "INSERT INTO greetings (greeting_id, name, signature, recorded_at_ms)"
        " VALUES (:greeting_id, :name, :signature, :at_ms) ON CONFLICT DO NOTHING",
        greeting_id=greeting_id,
        name=name,
        signature=signature,
        at_ms=now_ms(),
    )


class MessageReused(Exception):
    """A signed message was about another payment, or the other outcome, when it first came."""


def hear(payment_id: str, outcome: Outcome, message_id: str | None = None) -> tuple[int, Status] | None:
    """Write down what was heard of a payment; the number and status of its order, if there is one yet.

    One plain transaction, before any workflow is told: from then on nothing can lose the news.
    Money for an order that is cancelled by now is given back in the same moment.

    Raises:
        MessageReused: `message_id`, of the signed message that said so, has said something else before.
    """
    return commit_at_once(_hear, payment_id, outcome, message_id)


def _hear(
    session: Session, payment_id: str, outcome: Outcome, message_id: str | None
) -> tuple[int, Status] | None:
    if message_id is not None:
        _bind(session, message_id, payment_id, outcome)
    held = "UPDATE orders SET progress = progress WHERE payment_id = :id RETURNING order_id, status"
    order = row(session, held, id=payment_id)
    if order is None:  # `reserve` holds this row while it makes an order
        run(session, "UPDATE counters SET value = value WHERE counter = 'orders'")
        order = row(session, held, id=payment_id)
    run(
        session,
        "INSERT INTO payment_notices (payment_id, outcome, received_at_ms)"
        " VALUES (:payment_id, :outcome, :at_ms) ON CONFLICT DO NOTHING",
        payment_id=payment_id,
        outcome=outcome,
        at_ms=now_ms(),
    )
    if order is None:
        return None
    if outcome is Outcome.PAID and order.status == Status.CANCELLED:
        _take_and_give_back(session, payment_id)
    return int(order.order_id), Status(order.status)


def _bind(session: Session, message_id: str, payment_id: str, outcome: Outcome) -> None:
    """Let a signed message be about this and nothing else: what it signs says neither."""
    run(
        session,
        "INSERT INTO webhook_messages (message_id, payment_id, outcome, received_at_ms)"
        " VALUES (:message_id, :payment_id, :outcome, :at_ms) ON CONFLICT DO NOTHING",
        message_id=message_id,
        payment_id=payment_id,
        outcome=outcome,
        at_ms=now_ms(),
    )
    bound = row(
        session, "SELECT payment_id, outcome FROM webhook_messages WHERE message_id = :id", id=message_id
    )
    if (bound.payment_id, bound.outcome) != (payment_id, outcome):
        raise MessageReused(message_id)


def _was_heard_to_be_paid(session: Session, payment_id: str) -> bool:
    notice = row(
        session,
        "SELECT received_at_ms FROM payment_notices WHERE payment_id = :payment_id AND outcome = :outcome",
        payment_id=payment_id,
        outcome=Outcome.PAID,
    )
    return notice is not None


def _take_and_give_back(session: Session, payment_id: str) -> None:
    """Record money that came too late, and its refund: both once, however often it is heard of."""
    _record_payment(session, Payment.CHARGE, payment_id)
    _record_payment(session, Payment.REFUND, payment_id)


def _record_payment(session: Session, kind: Payment, payment_id: str) -> None:
    run(
        session,
        "INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms)"
        " SELECT :kind, payment_id, price_cents, :at_ms FROM orders"
        " WHERE payment_id = :payment_id ON CONFLICT DO NOTHING",
        kind=kind,
        payment_id=payment_id,
        at_ms=now_ms(),
    )


def _holds_enough(session: Session, client: str) -> bool:
    """Whether a client may hold no more. Asked while the product's row is held, so never by two at once."""
    held = row(session, "SELECT count(*) AS units FROM holds WHERE client = :client", client=client)
    return 0 < Terms.unpaid_per_client <= int(held.units)


def _hold_no_longer(session: Session, payment_id: str) -> None:
    run(session, "DELETE FROM holds WHERE payment_id = :payment_id", payment_id=payment_id)


def _put_back(session: Session) -> None:
    run(
        session,
        "UPDATE products SET on_hand = on_hand + 1 WHERE product_id = :product_id",
        product_id=PRODUCT_ID,
    )


def _move(session: Session, kind: Movement, *, cause: str, units: int) -> None:
    run(
        session,
        "INSERT INTO stock_movements (kind, cause, product_id, units, recorded_at_ms)"
        " VALUES (:kind, :cause, :product_id, :units, :at_ms)",
        kind=kind,
        cause=cause,
        product_id=PRODUCT_ID,
        units=units,
        at_ms=now_ms(),
    )


# --- who did it -------------------------------------------------------------------------
#
# Outside of any workflow, because these are about the process that runs them.


def record_start(executor_id: str, pid: int) -> int:
    """Record that a server process begins, before it takes up any order; its generation, 1 for the first.

    If the one before it was not stopped in good order, what that one left under way is
    recorded as recovered by this one.
    """
    return commit(_record_start, executor_id, pid)


def _record_start(session: Session, executor_id: str, pid: int) -> int:
    counter = row(
        session, "UPDATE counters SET value = value + 1 WHERE counter = 'generations' RETURNING value"
    )
    before = row(
        session,
        "SELECT started_at_ms, stopped_at_ms FROM generations WHERE executor_id = :executor_id"
        " ORDER BY generation DESC LIMIT 1",
        executor_id=executor_id,
    )
    crashed = before is not None and before.stopped_at_ms is None
    run(
        session,
        "INSERT INTO generations (generation, executor_id, pid, started_at_ms, last_sign_of_life_ms)"
        " VALUES (:generation, :executor_id, :pid, :at_ms, :last_sign_of_life_ms)",
        generation=counter.value,
        executor_id=executor_id,
        pid=pid,
        at_ms=now_ms(),
        last_sign_of_life_ms=_last_sign_of_life(session, before.started_at_ms)
        if crashed
        else before and before.stopped_at_ms,
    )
    if crashed:
        run(
            session,
            "INSERT INTO recoveries (payment_id, generation)"
            " SELECT payment_id, :generation FROM orders WHERE status IN ('pending', 'paid')",
            generation=counter.value,
        )
    return int(counter.value)


def _last_sign_of_life(session: Session, started_at_ms: int) -> int:
    """When the last change was made to an order under way or to one of the newest hundred.

    Not to any order at all: that would take an index that every tick has to keep.
    """
    last = row(
        session,
        "SELECT max(updated_at_ms) AS at_ms FROM ("
        " SELECT updated_at_ms FROM orders WHERE status IN ('pending', 'paid') UNION ALL"
        " SELECT updated_at_ms FROM (SELECT updated_at_ms FROM orders ORDER BY order_id DESC LIMIT 100)"
        " AS newest) AS signs",
    )
    return max(started_at_ms, last.at_ms or 0)


def record_stop(session: Session, generation: int) -> None:
    """Record that a server process ends in good order."""
    run(
        session,
        "UPDATE generations SET stopped_at_ms = :at_ms WHERE generation = :generation",
        at_ms=now_ms(),
        generation=generation,
    )
