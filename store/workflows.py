"""Every change of the shop: its workflows, and the transactions that they are made of.

Read `checkout` first: it is the business of the shop on one screen. Each line of it that touches the world
is a step, whose result DBOS checkpoints. After a crash DBOS runs it again, and hands it what it has of them.

One rule holds for everything here: **every workflow may be run again from its first line, at any time,
by anybody, under any id, and changes nothing that is done.** A step that commits and dies before its
checkpoint does run again, after anything else may have happened. So each transaction is keyed by the
payment or the greeting, not by the run; it expects a state (`WHERE status = 'pending'`); and it returns
what is true *now*, on which its caller branches. Mending a stuck workflow is therefore running it again.

Contents: the business (the workflows); orders; refusals and holds; stock; payments; greetings; closings.
"""

from __future__ import annotations

import logging
import time

from dbos import DBOS, EnqueueOptions, SetWorkflowID
from sqlalchemy.orm import Session

from store import sealed_rows
from store.clients import guestbook
from store.durable import background
from store.durable.statements import change_one, execute, fetch_all, fetch_one
from store.durable.step_decorators import commit, now_ms, plain_transaction, step, transaction
from store.step_results import (
    LOST,
    REFUSED,
    GreetingNow,
    OrderLost,
    OrderNow,
    PaymentRefused,
    Signing,
    TooManyGreetings,
    change_order,
    greeting_now,
    order_now,
)
from store.terms_of_sale import terms
from store.vocabulary import (
    CHECKOUT,
    CLOSING,
    DISPATCH,
    DISPATCH_TICKS,
    GREETING,
    GREETING_TICKS,
    MENDING,
    PAYMENT_TOPIC,
    PRODUCT_ID,
    RESTOCK,
    SHELF_SIZE,
    Event,
    GreetingOutcome,
    Movement,
    Outcome,
    Payment,
    Reason,
    Status,
    StepName,
    dispatch_id,
)

_LONGEST_PAUSE_SECONDS = 30
"""Between two tries to sign the online guestbook; each is twice the one before."""
_log = logging.getLogger("store")


# --- the business ---------------------------------------------------------------------


@DBOS.workflow(name=CHECKOUT, max_recovery_attempts=None)
def checkout(payment_id: str, client: str | None = None, outcome: str | None = None) -> OrderNow:
    """One click on Buy Now, from reserving a unit to paid or cancelled; the order then."""
    order = reserve(payment_id, client, outcome)
    DBOS.set_event(Event.HELD, order["status"])
    while order["status"] == Status.PENDING:
        notice = wait_for_notice(order)
        order = settle(payment_id, notice)
    if order["status"] == REFUSED:
        return order
    if order["status"] == LOST:
        raise OrderLost(payment_id)
    if order["status"] == Status.PAID:
        with SetWorkflowID(dispatch_id(payment_id)):
            DBOS.start_workflow(dispatch, payment_id, order["updated_at_ms"])
    DBOS.set_event(Event.SETTLED, order["order_id"])
    return order


@DBOS.workflow(name=DISPATCH, max_recovery_attempts=None)
@background.in_background
def dispatch(payment_id: str, paid_at_ms: int) -> OrderNow:
    """Ten ticks from paid to dispatched, each exactly once; of an order that is not paid, none."""
    order = advance(payment_id, 1, paid_at_ms)
    while order["status"] == Status.PAID:
        order = advance(payment_id, order["progress"] + 1, order["updated_at_ms"])
    if order["status"] == LOST:
        raise OrderLost(payment_id)
    return order


@DBOS.workflow(name=RESTOCK, max_recovery_attempts=None)
def restock_shelf(cause: str, level: int = SHELF_SIZE) -> int:
    """Fill the shelf to a level, or clear it, once for each cause; returns the units that were added."""
    return fill_shelf(cause, level)


@DBOS.workflow(name=GREETING, max_recovery_attempts=None)
def greet(greeting_id: str, name: str) -> GreetingNow:
    """Sign the online guestbook, wait a little, and write it down here: both once, or neither."""
    greeting = begin_greeting(greeting_id, name)
    if greeting["outcome"] is None:
        signing = sign_online_guestbook(greeting_id, name, greeting["give_up_at_ms"])
        if signing["signature"]:
            at_ms = signing["at_ms"]
            for tick in range(1, GREETING_TICKS + 1):
                at_ms = wait_for_tick(tick, at_ms)
            greeting = record_greeting(greeting_id, name, signing["signature"])
        else:
            outcome = GreetingOutcome.GIVEN_UP if signing["may_pass"] else GreetingOutcome.REFUSED
            greeting = end_greeting(greeting_id, name, outcome, signing["trouble"])
    DBOS.set_event(Event.GREETED, greeting["reason"] or "")
    return greeting


@DBOS.workflow(name=MENDING, max_recovery_attempts=None)
def run_again(forgotten: list[str], wanted: EnqueueOptions, arguments: list[str]) -> None:
    """Forget what is stuck, and run it again from its first line under the same id; both, or neither."""
    DBOS.delete_workflows(forgotten)
    DBOS.enqueue_workflow_with_options(wanted, *arguments)


@DBOS.workflow(name=CLOSING, max_recovery_attempts=None)
def close_books(number: int) -> int:
    """Seal what has ended under the closing of that number, once; how many rows."""
    return close(number)


# --- orders -----------------------------------------------------------------------------


@transaction(StepName.RESERVE)
def reserve(session: Session, payment_id: str, client: str | None, outcome: str | None = None) -> OrderNow:
    """Take a unit off the shelf and create the order that holds it, or one that is sold out.

    Makes neither for a client that holds as many unpaid units as it may, and writes down that it
    refused. Of a payment that has an order or a refusal already, it changes nothing. `outcome` is what an
    earlier run knew of the payment, where the checkout is run again.
    """
    take = "UPDATE products SET on_hand = on_hand - 1 WHERE product_id = :id AND on_hand > 0"
    took_a_unit = bool(execute(session, take, id=PRODUCT_ID))
    # Row lock, against `record_notice` and another run of this checkout.
    change_one(session, "UPDATE counters SET value = value WHERE counter = 'orders'")
    _write_notice(session, payment_id, outcome)
    found = order_now(session, payment_id)
    if found["status"] != LOST:
        if took_a_unit:
            _put_back(session)
        if found["status"] == Status.CANCELLED and found["has_been_paid"]:
            _take_and_give_back(session, payment_id)
        return found
    # What is paid already is not one more that is unpaid.
    if took_a_unit and client and not found["has_been_paid"] and _holds_enough(session, client):
        _put_back(session)
        return _refuse(session, payment_id, client)
    _create_order(session, payment_id, took_a_unit=took_a_unit)
    if took_a_unit:
        _move(session, Movement.RESERVE, cause=payment_id, units=-1)
        if client:
            _hold(session, payment_id, client)
    elif found["has_been_paid"]:
        _take_and_give_back(session, payment_id)
    return order_now(session, payment_id)


def _create_order(session: Session, payment_id: str, *, took_a_unit: bool) -> None:
    at_ms = now_ms()
    count = "UPDATE counters SET value = value + 1 WHERE counter = 'orders' RETURNING value"
    counter = fetch_one(session, count)
    change_one(
        session,
        "INSERT INTO orders (payment_id, order_id, product_id, price_cents, status, reason,"
        " progress, created_at_ms, pay_by_ms, updated_at_ms)"
        " SELECT :payment_id, :order_id, product_id, price_cents, :status, :reason,"
        " 0, :at_ms, :pay_by_ms, :at_ms FROM products WHERE product_id = :product_id",
        payment_id=payment_id,
        order_id=counter.value,
        status=Status.PENDING if took_a_unit else Status.CANCELLED,
        reason=None if took_a_unit else Reason.SOLD_OUT,
        at_ms=at_ms,
        pay_by_ms=at_ms + terms().payment_window_ms,
        product_id=PRODUCT_ID,
    )


def wait_for_notice(order: OrderNow) -> str | None:
    """Wait until word of the payment has come, or the order's time is up; the `Outcome`.

    recv() checkpoints its own deadline: a crash lengthens no window, and to read the clock harms no replay.
    """
    if order["first_outcome"] is not None:
        return order["first_outcome"]
    left_seconds = max(0.0, (order["pay_by_ms"] - now_ms()) / 1000)
    outcome: str | None = DBOS.recv(PAYMENT_TOPIC, timeout_seconds=left_seconds)
    return outcome


@transaction(StepName.SETTLE)
def settle(session: Session, payment_id: str, outcome: str | None) -> OrderNow:
    """Decide a pending order by its first notice, or by its deadline; the order then.

    What its message said counts where no notice does: an older copy of the store, restored since, has none.
    It is paid and charged, or cancelled and its unit released. A payment that came before this
    decision counts, though the time is up. Money for an order that is cancelled is given back.
    """
    _lock_order(session, payment_id)
    order = order_now(session, payment_id)
    if order["status"] == Status.PENDING and order["first_outcome"] is None:
        _write_notice(session, payment_id, outcome)
        order = order_now(session, payment_id)
    if order["status"] == Status.PENDING:
        if order["first_outcome"] == Outcome.PAID:
            _charge(session, payment_id)
        elif order["first_outcome"] == Outcome.FAILED:
            _cancel(session, payment_id, Reason.DECLINED)
        elif order["pay_by_ms"] <= now_ms():
            _cancel(session, payment_id, Reason.EXPIRED)
        order = order_now(session, payment_id)
    if order["status"] == Status.CANCELLED and order["has_been_paid"]:
        _take_and_give_back(session, payment_id)
    return order


@plain_transaction
def extend_window(session: Session, payment_id: str) -> OrderNow:
    """Make a payment window that is open longer by its length, once; the order as it is then.

    Nothing is woken: at the old deadline, the checkout finds that time is left, and waits again.
    """
    execute(  # changes no row where the order is decided or late, or was given more time before
        session,
        "UPDATE orders SET pay_by_ms = pay_by_ms + (pay_by_ms - created_at_ms), extended_at_ms = :at_ms"
        " WHERE payment_id = :id AND status = 'pending' AND extended_at_ms IS NULL AND pay_by_ms > :at_ms",
        id=payment_id,
        at_ms=now_ms(),
    )
    return order_now(session, payment_id)


def _charge(session: Session, payment_id: str) -> None:
    change_one(
        session,
        "UPDATE orders SET status = 'paid', updated_at_ms = :at_ms"
        " WHERE payment_id = :payment_id AND status = 'pending'",
        payment_id=payment_id,
        at_ms=now_ms(),
    )
    _record_payment(session, Payment.CHARGE, payment_id)
    _hold_no_longer(session, payment_id)


def _cancel(session: Session, payment_id: str, reason: Reason) -> None:
    change_one(
        session,
        "UPDATE orders SET status = 'cancelled', reason = :reason, updated_at_ms = :at_ms"
        " WHERE payment_id = :payment_id AND status = 'pending'",
        payment_id=payment_id,
        reason=reason,
        at_ms=now_ms(),
    )
    _put_back(session)
    _move(session, Movement.RELEASE, cause=payment_id, units=1)
    _hold_no_longer(session, payment_id)


def advance(payment_id: str, tick: int, previous_at_ms: int) -> OrderNow:
    """Wait for one tick and record it, as one step; the order then.

    Measured from the tick before, it does not drift; one that fell due while no server ran comes at once.
    """

    def wait_and_record() -> OrderNow:
        _wait_for_a_tick_since(previous_at_ms)
        return commit(_record_tick, payment_id, tick)

    return step(f"{StepName.TICK} {tick}", wait_and_record)


def _record_tick(session: Session, payment_id: str, tick: int) -> OrderNow:
    moved = change_order(
        session,
        "UPDATE orders SET progress = :tick, status = :status, updated_at_ms = :at_ms"
        " WHERE payment_id = :payment_id AND status = 'paid' AND progress = :tick - 1",
        payment_id=payment_id,
        tick=tick,
        status=Status.DISPATCHED if tick == DISPATCH_TICKS else Status.PAID,
        at_ms=now_ms(),
    )
    # Where this changes no row, the caller goes on from what the order is instead.
    return moved or order_now(session, payment_id)


def _lock_order(session: Session, payment_id: str) -> bool:
    """Hold an order's row until this transaction ends; whether there is one.

    Whoever else wants it has committed by now, or has not begun and will see what is done here.
    """
    lock = "UPDATE orders SET progress = progress WHERE payment_id = :id"
    return bool(execute(session, lock, id=payment_id))


def _wait_for_a_tick_since(at_ms: int) -> None:
    due_in_ms = at_ms + terms().tick_ms - now_ms()
    # One tick at most, should the machine's clock have been set back meanwhile.
    with background.idle():
        time.sleep(min(max(due_in_ms, 0), terms().tick_ms) / 1000)


# --- refusals and holds -------------------------------------------------------------------


def _refuse(session: Session, payment_id: str, client: str) -> OrderNow:
    refuse = "INSERT INTO refusals (payment_id, client, refused_at_ms) VALUES (:payment_id, :client, :at_ms)"
    change_one(session, refuse, payment_id=payment_id, client=client, at_ms=now_ms())
    return order_now(session, payment_id)


def _holds_enough(session: Session, client: str) -> bool:
    """Whether a client may hold no more. Asked while the product's row is held, so never by two at once."""
    held = fetch_one(session, "SELECT count(*) AS units FROM holds WHERE client = :client", client=client)
    return 0 < terms().unpaid_per_client <= int(held.units)


def _hold(session: Session, payment_id: str, client: str) -> None:
    hold = "INSERT INTO holds (payment_id, client) VALUES (:payment_id, :client)"
    change_one(session, hold, payment_id=payment_id, client=client)


def _hold_no_longer(session: Session, payment_id: str) -> None:
    # No row where nobody knows the client, as of a checkout that was started to mend one.
    execute(session, "DELETE FROM holds WHERE payment_id = :payment_id", payment_id=payment_id)


# --- stock ----------------------------------------------------------------------------------


@transaction("fill shelf")
def fill_shelf(session: Session, cause: str, level: int = SHELF_SIZE) -> int:
    """Top the shelf up to a level, or clear it where that is 0; returns the units, which are recorded."""
    # Row lock, on both databases: no buyer comes between reading the shelf and filling it.
    lock = "UPDATE products SET on_hand = on_hand WHERE product_id = :id RETURNING on_hand"
    shelf = fetch_one(session, lock, id=PRODUCT_ID)
    earlier = "SELECT units FROM stock_movements WHERE kind = :kind AND cause = :cause"
    before = fetch_one(session, earlier, kind=Movement.RESTOCK, cause=cause)
    if before is not None:
        return int(before.units)
    units = max(0, level - shelf.on_hand) if level else -shelf.on_hand
    add = "UPDATE products SET on_hand = on_hand + :units WHERE product_id = :id"
    change_one(session, add, units=units, id=PRODUCT_ID)
    _move(session, Movement.RESTOCK, cause=cause, units=units)
    return int(units)


def _put_back(session: Session) -> None:
    change_one(session, "UPDATE products SET on_hand = on_hand + 1 WHERE product_id = :id", id=PRODUCT_ID)


def _move(session: Session, kind: Movement, *, cause: str, units: int) -> None:
    change_one(
        session,
        "INSERT INTO stock_movements (kind, cause, product_id, units, recorded_at_ms)"
        " VALUES (:kind, :cause, :product_id, :units, :at_ms)",
        kind=kind,
        cause=cause,
        product_id=PRODUCT_ID,
        units=units,
        at_ms=now_ms(),
    )


# --- payments -------------------------------------------------------------------------------


@plain_transaction
def record_notice(session: Session, payment_id: str, outcome: Outcome) -> OrderNow:
    """Record a notice of a payment, before any workflow is woken; its order as it is then.

    From then on nothing can lose it, and the first outcome counts. Money for an order that is cancelled
    by now is given back in the same moment.

    Raises:
        PaymentRefused: no order was made for it, and none will be.
    """
    if not _lock_order(session, payment_id):  # `reserve` holds this row while it makes an order
        change_one(session, "UPDATE counters SET value = value WHERE counter = 'orders'")
        if order_now(session, payment_id)["status"] == REFUSED:
            raise PaymentRefused(payment_id)
    _write_notice(session, payment_id, outcome)
    order = order_now(session, payment_id)
    if order["status"] == Status.CANCELLED and order["has_been_paid"]:
        _take_and_give_back(session, payment_id)
    return order


def _write_notice(session: Session, payment_id: str, outcome: str | None) -> None:
    if outcome is None:
        return
    # Two that come in one millisecond, or with a clock set back between them, keep their order.
    # No row changes where there is a notice of this outcome.
    execute(
        session,
        "INSERT INTO payment_notices (payment_id, outcome, received_at_ms)"
        " SELECT :payment_id, :outcome, CASE WHEN last_ms >= :at_ms THEN last_ms + 1 ELSE :at_ms END"
        " FROM (SELECT max(received_at_ms) AS last_ms FROM payment_notices"
        "  WHERE payment_id = :payment_id) AS before WHERE TRUE ON CONFLICT DO NOTHING",
        payment_id=payment_id,
        outcome=outcome,
        at_ms=now_ms(),
    )


def _take_and_give_back(session: Session, payment_id: str) -> None:
    """Record money that came too late, and its refund: both once, however often it is told."""
    _record_payment(session, Payment.CHARGE, payment_id)
    _record_payment(session, Payment.REFUND, payment_id)


def _record_payment(session: Session, kind: Payment, payment_id: str) -> None:
    # No row changes where this was recorded before.
    execute(
        session,
        "INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms)"
        " SELECT :kind, payment_id, price_cents, :at_ms FROM orders"
        " WHERE payment_id = :payment_id ON CONFLICT DO NOTHING",
        kind=kind,
        payment_id=payment_id,
        at_ms=now_ms(),
    )


# --- greetings ------------------------------------------------------------------------------


@plain_transaction
def request_greeting(session: Session, greeting_id: str, name: str, client: str = "") -> GreetingNow:
    """Write down that a greeting is wanted, before any workflow is told; the greeting as it is then.

    Without a client there is no limit, as for a greeting that is run again.

    Raises:
        TooManyGreetings: the client has as many under way as one may.
    """
    return _request_greeting(session, greeting_id, name, client)


@transaction(StepName.BEGIN)
def begin_greeting(session: Session, greeting_id: str, name: str) -> GreetingNow:
    """The greeting as it is; written down again where an older copy of the store was restored."""
    return _request_greeting(session, greeting_id, name)


def _request_greeting(session: Session, greeting_id: str, name: str, client: str = "") -> GreetingNow:
    change_one(session, "UPDATE counters SET value = value WHERE counter = 'greetings'")
    found = greeting_now(session, greeting_id)
    if found is not None:
        return found
    live = "SELECT count(*) AS n FROM greeting_requests WHERE client = :client AND outcome IS NULL"
    if client and 0 < terms().greetings_per_client <= fetch_one(session, live, client=client).n:
        raise TooManyGreetings(client)
    at_ms = now_ms()
    change_one(
        session,
        "INSERT INTO greeting_requests (greeting_id, name, client, asked_at_ms, give_up_at_ms)"
        " VALUES (:greeting_id, :name, :client, :at_ms, :give_up_at_ms)",
        greeting_id=greeting_id,
        name=name,
        client=client,
        at_ms=at_ms,
        give_up_at_ms=at_ms + terms().greeting_window_ms,
    )
    return _known_greeting(session, greeting_id)


def sign_online_guestbook(greeting_id: str, name: str, give_up_at_ms: int) -> Signing:
    """Ask the online guestbook until it has signed, says that it never will, or the time is over.

    Each try is a step, and a crash after it has signed, here or there, makes it ask again, with the
    same key: that is one signature. The first try is made though the time be over.
    """
    pause_seconds = max(terms().tick_ms, 1) / 1000
    signing = _try_to_sign(greeting_id, name)
    while signing["trouble"] and signing["may_pass"] and signing["at_ms"] < give_up_at_ms:
        DBOS.sleep(min(pause_seconds, _LONGEST_PAUSE_SECONDS))
        pause_seconds *= 2
        signing = _try_to_sign(greeting_id, name)
    return signing


def _try_to_sign(greeting_id: str, name: str) -> Signing:
    def ask() -> Signing:
        try:
            signature = guestbook.sign(terms().guestbook_url, name, key=greeting_id)
        except guestbook.Unavailable as trouble:
            return Signing(signature=0, at_ms=now_ms(), trouble=str(trouble), may_pass=True)
        except guestbook.Refused as trouble:
            return Signing(signature=0, at_ms=now_ms(), trouble=str(trouble), may_pass=False)
        return Signing(signature=signature.number, at_ms=now_ms(), trouble="", may_pass=False)

    return step(StepName.SIGN, ask)


def wait_for_tick(tick: int, previous_at_ms: int) -> int:
    """Wait for one tick, as one step, and say so in the log; returns when, in ms since 1970."""

    def wait_and_say() -> int:
        _wait_for_a_tick_since(previous_at_ms)
        _log.info("a greeting has signed over there, and waits: %s of %s", tick, GREETING_TICKS)
        return now_ms()

    return step(f"{StepName.WAIT} {tick}", wait_and_say)


@transaction(StepName.RECORD)
def record_greeting(session: Session, greeting_id: str, name: str, signature: int) -> GreetingNow:
    """Write down a visitor who has signed over there. Once, however often this step runs."""
    # An older copy of the store may have been restored since the greeting began.
    _request_greeting(session, greeting_id, name)
    execute(
        session,
        "INSERT INTO greetings (greeting_id, name, signature, recorded_at_ms)"
        " VALUES (:greeting_id, :name, :signature, :at_ms) ON CONFLICT DO NOTHING",
        greeting_id=greeting_id,
        name=name,
        signature=signature,
        at_ms=now_ms(),
    )
    return _end_greeting(session, greeting_id, GreetingOutcome.GREETED, reason=None)


@transaction(StepName.END)
def end_greeting(
    session: Session, greeting_id: str, name: str, outcome: GreetingOutcome, reason: str
) -> GreetingNow:
    """Close a greeting that was refused or given up, unless another run has ended it."""
    _request_greeting(session, greeting_id, name)  # as above
    return _end_greeting(session, greeting_id, outcome, reason)


def _end_greeting(
    session: Session, greeting_id: str, outcome: GreetingOutcome, reason: str | None
) -> GreetingNow:
    # What is in both books is greeted, whichever run says what. No row changes where it has ended.
    execute(
        session,
        "UPDATE greeting_requests SET outcome = :outcome, reason = :reason WHERE greeting_id = :id"
        " AND (outcome IS NULL OR :outcome = 'greeted')",
        id=greeting_id,
        outcome=outcome,
        reason=reason,
    )
    return _known_greeting(session, greeting_id)


def _known_greeting(session: Session, greeting_id: str) -> GreetingNow:
    """A greeting whose row a step before this one has found or written."""
    found = greeting_now(session, greeting_id)
    if found is None:
        raise OrderLost(greeting_id)
    return found


# --- closings -------------------------------------------------------------------------------


@transaction(StepName.CLOSE)
def close(session: Session, number: int) -> int:
    """Seal rows that change no more, if that number is the next closing's; how many rows."""
    # Row lock, against another run of this closing.
    lock = "UPDATE counters SET value = value WHERE counter = 'closings' RETURNING value"
    if number != fetch_one(session, lock).value + 1:
        return 0
    rows = {
        table.name: fetch_all(
            session,
            f"UPDATE {table.name} SET closing = :number WHERE ({table.key}) IN"  # noqa: S608 - ours
            f" (SELECT {table.key} FROM {table.name} WHERE {table.may_be_sealed} LIMIT :most)"
            f" RETURNING {table.columns}",
            number=number,
            most=sealed_rows.MOST_ROWS,
        )
        for table in sealed_rows.SEALED
    }
    before = fetch_one(session, "SELECT * FROM closings WHERE number = :before", before=number - 1)
    closing = sealed_rows.closing_of(number, before, rows, now_ms())
    columns, values = ", ".join(closing), ", :".join(closing)
    change_one(session, f"INSERT INTO closings ({columns}) VALUES (:{values})", **closing)  # noqa: S608 - ours
    change_one(session, "UPDATE counters SET value = :number WHERE counter = 'closings'", number=number)
    return int(closing["rows_sealed"])
