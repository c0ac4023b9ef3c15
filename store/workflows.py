"""Owns every change: the only module that writes. Imports `vocabulary`, `patience` and DBOS.

Read `checkout` first: it is the business of the shop on one screen. Each line of it that
touches the world is a step, whose result DBOS checkpoints; after a crash DBOS runs the
function again, hands it the results that it has, and so goes on where it was.

A step that commits and dies before its checkpoint will run a second time. So each
transaction below is keyed by its workflow and guarded by the state that it expects
(`WHERE status = 'pending'`), which makes doing it twice the same as doing it once.
Order, stock and books change in that one transaction or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypedDict, TypeVar

import sqlalchemy as sa
from dbos import DBOS, SetWorkflowID, SQLAlchemyDatasource, StepOptions, error
from sqlalchemy.orm import Session

from store.patience import PAGE_SECONDS, promptly
from store.vocabulary import (
    DISPATCH_TICKS,
    PRODUCT_ID,
    SHELF_SIZE,
    Movement,
    Outcome,
    Payment,
    Reason,
    Status,
)

P = ParamSpec("P")
R = TypeVar("R")

HELD = "held"
"""Event of a checkout: its order exists, holding a unit or sold out. The value is the status."""
SETTLED = "settled"
"""Event of a checkout: paid or cancelled. The value is the order number."""
PAYMENT = "payment"
"""Topic on which a checkout hears of its payment."""


class Reserved(TypedDict):
    """What `reserve` leaves behind. A plain mapping, because checkpoints are JSON."""

    order_id: int
    status: str
    pay_by_ms: int


class KeyTaken(Exception):
    """The key names a workflow that is not a checkout."""


class UnknownPayment(Exception):
    """No checkout has this payment id."""


class _Shop:
    """What the steps need and cannot have at import: given once, by `bind`."""

    datasource: SQLAlchemyDatasource
    isolation_level: Any
    payment_window_ms: int
    tick_ms: int


def bind(
    datasource: SQLAlchemyDatasource, *, payment_window_seconds: float, dispatch_tick_seconds: float
) -> None:
    """Give the steps the database to write to and their durations, before DBOS is launched."""
    _Shop.datasource = datasource
    # Buyers meet on one product row. A guarded one-statement UPDATE is right under READ
    # COMMITTED and does not make them retry; SQLite has one writer and knows only SERIALIZABLE.
    on_sqlite = datasource.engine.dialect.name == "sqlite"
    _Shop.isolation_level = "SERIALIZABLE" if on_sqlite else "READ COMMITTED"
    _Shop.payment_window_ms = round(payment_window_seconds * 1000)
    _Shop.tick_ms = round(dispatch_tick_seconds * 1000)


def transaction(
    name: str,
) -> Callable[[Callable[Concatenate[Session, P], R]], Callable[P, R]]:
    """Make a function of a session into a step of that name, which runs it as one transaction.

    The step is checkpointed by DBOS; the transaction itself is a plain one, three database
    transactions in all where DBOS's own checkpointed kind takes five. What that gives up,
    and why it is safe, is said at the top of this file.
    """

    def decorate(change: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
        @wraps(change)
        def step(*args: P.args, **kwargs: P.kwargs) -> R:
            return DBOS.run_step(_patient(name), _commit, change, *args, **kwargs)

        return step

    return decorate


def _commit(change: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    datasource = _Shop.datasource
    return datasource.run_tx_step(
        {"isolation_level": _Shop.isolation_level},
        lambda: change(datasource.sql_session(), *args, **kwargs),
    )


def _patient(name: str) -> StepOptions:
    """Options of a step. DBOS waits out a lost database; other errors it tries for some minutes."""
    return {
        "name": name,
        "retries_allowed": True,
        "interval_seconds": 0.1,
        "backoff_rate": 2.0,
        "max_attempts": 12,
    }


# --- the business ---------------------------------------------------------------------


@DBOS.workflow(name="checkout", max_recovery_attempts=None)
def checkout() -> None:
    """One click on Buy Now, from reserving a unit to paid or cancelled."""
    payment_id = str(DBOS.workflow_id)
    order = reserve(payment_id)
    DBOS.set_event(HELD, order["status"])
    if order["status"] == Status.PENDING:
        # recv() checkpoints its own deadline the first time round, so a crash does not
        # lengthen the window, and reading the clock here does no harm to a replay.
        seconds_left = max(0.0, (order["pay_by_ms"] - _now_ms()) / 1000)
        outcome = DBOS.recv(PAYMENT, timeout_seconds=seconds_left)
        if outcome == Outcome.PAID:
            paid_at_ms = charge(payment_id)
            with SetWorkflowID(f"{payment_id}.dispatch"):  # no key contains a dot
                DBOS.start_workflow(dispatch, payment_id, paid_at_ms)
        else:
            cancel(payment_id, Reason.DECLINED if outcome == Outcome.FAILED else Reason.EXPIRED)
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


# --- its transactions -----------------------------------------------------------------


@transaction("reserve")
def reserve(session: Session, payment_id: str) -> Reserved:
    """Take a unit off the shelf and create the order that holds it, or one that is sold out."""
    found = _row(
        session,
        "SELECT order_id, status, pay_by_ms FROM orders WHERE payment_id = :payment_id",
        payment_id=payment_id,
    )
    if found is not None:  # this step ran before and died before its checkpoint
        return Reserved(order_id=found.order_id, status=found.status, pay_by_ms=found.pay_by_ms)

    now_ms = _now_ms()
    took_a_unit = _row(
        session,
        "UPDATE products SET on_hand = on_hand - 1"
        " WHERE product_id = :product_id AND on_hand > 0 RETURNING price_cents",
        product_id=PRODUCT_ID,
    )
    counter = _row(session, "UPDATE counters SET value = value + 1 WHERE counter = 'orders' RETURNING value")
    order = Reserved(
        order_id=counter.value,
        status=Status.PENDING if took_a_unit else Status.CANCELLED,
        pay_by_ms=now_ms + _Shop.payment_window_ms,
    )
    _run(
        session,
        "INSERT INTO orders (payment_id, order_id, product_id, price_cents, status, reason,"
        " progress, created_at_ms, pay_by_ms, updated_at_ms)"
        " SELECT :payment_id, :order_id, product_id, price_cents, :status, :reason,"
        " 0, :now_ms, :pay_by_ms, :now_ms FROM products WHERE product_id = :product_id",
        **order,
        payment_id=payment_id,
        product_id=PRODUCT_ID,
        reason=None if took_a_unit else Reason.SOLD_OUT,
        now_ms=now_ms,
    )
    if took_a_unit:
        _move(session, Movement.RESERVE, cause=payment_id, units=-1)
    return order


@transaction("charge")
def charge(session: Session, payment_id: str) -> int:
    """Mark a pending order paid and record its charge; returns when, in ms since 1970."""
    paid = _run(
        session,
        "UPDATE orders SET status = 'paid', updated_at_ms = :now_ms"
        " WHERE payment_id = :payment_id AND status = 'pending'",
        payment_id=payment_id,
        now_ms=_now_ms(),
    )
    if paid:
        _run(
            session,
            "INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms)"
            " SELECT :kind, payment_id, price_cents, updated_at_ms FROM orders"
            " WHERE payment_id = :payment_id",
            kind=Payment.CHARGE,
            payment_id=payment_id,
        )
    order = _row(session, "SELECT updated_at_ms FROM orders WHERE payment_id = :id", id=payment_id)
    return int(order.updated_at_ms)


@transaction("cancel")
def cancel(session: Session, payment_id: str, reason: Reason) -> None:
    """Cancel a pending order and put its unit back on the shelf."""
    cancelled = _run(
        session,
        "UPDATE orders SET status = 'cancelled', reason = :reason, updated_at_ms = :now_ms"
        " WHERE payment_id = :payment_id AND status = 'pending'",
        payment_id=payment_id,
        reason=reason,
        now_ms=_now_ms(),
    )
    if cancelled:
        _run(
            session,
            "UPDATE products SET on_hand = on_hand + 1 WHERE product_id = :product_id",
            product_id=PRODUCT_ID,
        )
        _move(session, Movement.RELEASE, cause=payment_id, units=1)


@transaction("fill shelf")
def fill_shelf(session: Session, cause: str) -> int:
    """Top the shelf up to `SHELF_SIZE` and record what was added; returns the units."""
    # An UPDATE that changes nothing holds the row on both databases, so that no buyer comes
    # between reading the shelf and filling it.
    shelf = _row(
        session,
        "UPDATE products SET on_hand = on_hand WHERE product_id = :product_id RETURNING on_hand",
        product_id=PRODUCT_ID,
    )
    before = _row(
        session,
        "SELECT units FROM stock_movements WHERE kind = :kind AND cause = :cause",
        kind=Movement.RESTOCK,
        cause=cause,
    )
    if before is not None:  # this step ran before and died before its checkpoint
        return int(before.units)
    units = max(0, SHELF_SIZE - shelf.on_hand)
    _run(
        session,
        "UPDATE products SET on_hand = on_hand + :units WHERE product_id = :product_id",
        units=units,
        product_id=PRODUCT_ID,
    )
    _move(session, Movement.RESTOCK, cause=cause, units=units)
    return units


def advance(payment_id: str, tick: int, previous_at_ms: int) -> int:
    """Wait for one tick and record it, as one step; returns when, in ms since 1970.

    The wait is measured from the tick before, so the beat does not drift, and a tick that
    fell due while the server was down comes at once.
    """

    def wait_and_record() -> int:
        due_in_ms = previous_at_ms + _Shop.tick_ms - _now_ms()
        # One tick at most, should the machine's clock have been set back meanwhile.
        time.sleep(min(max(due_in_ms, 0), _Shop.tick_ms) / 1000)
        return _commit(_record_tick, payment_id, tick)

    return DBOS.run_step(_patient(f"tick {tick}"), wait_and_record)


def _record_tick(session: Session, payment_id: str, tick: int) -> int:
    now_ms = _now_ms()
    _run(
        session,
        "UPDATE orders SET progress = :tick, status = :status, updated_at_ms = :now_ms"
        " WHERE payment_id = :payment_id AND status = 'paid' AND progress = :tick - 1",
        payment_id=payment_id,
        tick=tick,
        status=Status.DISPATCHED if tick == DISPATCH_TICKS else Status.PAID,
        now_ms=now_ms,
    )
    return now_ms


def _move(session: Session, kind: Movement, *, cause: str, units: int) -> None:
    _run(
        session,
        "INSERT INTO stock_movements (kind, cause, product_id, units, recorded_at_ms)"
        " VALUES (:kind, :cause, :product_id, :units, :now_ms)",
        kind=kind,
        cause=cause,
        product_id=PRODUCT_ID,
        units=units,
        now_ms=_now_ms(),
    )


def _run(session: Session, statement: str, **values: Any) -> bool:
    """Run one statement; whether it changed a row."""
    result: Any = session.execute(sa.text(statement), values)
    return bool(result.rowcount)


def _row(session: Session, statement: str, **values: Any) -> Any:
    """Run one statement; the row that it returns, or None."""
    return session.execute(sa.text(statement), values).one_or_none()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- what a request may ask for ---------------------------------------------------------
#
# Each returns within its time or raises TooSlow. The workflow goes on either way.


def start_checkout(key: str) -> None:
    """Start the checkout that this key names, or find it started.

    Raises:
        KeyTaken: the key names a workflow of another kind.
    """

    def start() -> None:
        with SetWorkflowID(key):
            DBOS.start_workflow(checkout)

    try:
        promptly(start)
    except error.DBOSConflictingWorkflowError as conflict:
        raise KeyTaken(key) from conflict


def wait_until_held(payment_id: str, seconds: float) -> Status | None:
    """The status that the order was created with, or None if it is not created in time."""
    status = _event(payment_id, HELD, seconds)
    return Status(status) if status else None


def settle(payment_id: str, outcome: Outcome) -> None:
    """Tell a checkout of its payment. The first outcome counts; later ones change nothing.

    Raises:
        UnknownPayment: there is no such checkout.
    """
    try:
        # One idempotency key for each checkout: the database stores one message at most,
        # whoever sends it, however often.
        promptly(lambda: DBOS.send(payment_id, outcome, PAYMENT, idempotency_key=PAYMENT))
    except error.DBOSNonExistentWorkflowError as unknown:
        raise UnknownPayment(payment_id) from unknown


def wait_until_settled(payment_id: str, seconds: float) -> int | None:
    """The order number once its checkout is paid or cancelled, or None if that takes longer."""
    number = _event(payment_id, SETTLED, seconds)
    return int(number) if number else None


def restock() -> int:
    """Fill the shelf; returns the units that were added."""
    return promptly(lambda: int(DBOS.start_workflow(restock_shelf).get_result(polling_interval_sec=0.05)))


def _event(payment_id: str, name: str, seconds: float) -> Any:
    # The time for the event, and a page's patience for the database that holds it.
    return promptly(
        lambda: DBOS.get_event(payment_id, name, timeout_seconds=seconds), seconds + PAGE_SECONDS
    )
