"""The naive twin: the same sale and the same greeting, written the ordinary way.

Plain functions, plain SQL, tables of its own, no DBOS. It is here to be crashed beside the durable lane, on
the presenter's page, which shows the three functions of its business next to theirs. Do not copy from it.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from store.clients import guestbook
from store.process_wide import ProcessWide
from store.statement_text import text
from store.step_results import Signing
from store.vocabulary import DISPATCH_TICKS, GREETING_TICKS, Outcome, Status

PRICE_CENTS = 9999
_PAUSE_SECONDS = 1.0
"""Before a database that is away is asked again to write down that something was given up."""
_log = logging.getLogger("store")


@dataclass(frozen=True)
class Lane:
    """Where the lane writes and signs, and how long its ticks are."""

    engine: sa.Engine
    guestbook_url: str
    tick_seconds: float


lane: ProcessWide[Lane] = ProcessWide("the naive lane")


def run_once(key: str, executor: int) -> None:
    """Run a sale and a greeting, unless this key has had a run."""
    visitor = begin(key, executor)
    if visitor is not None:
        _run(key, visitor)


def begin(key: str, executor: int) -> str | None:
    """Write down that there will be a run; who is to greet in it, or None if this key has had one."""
    # Nobody else's name, so that its signature can be told from theirs.
    visitor = f"Naive visitor {secrets.token_hex(3)}"
    return visitor if _begin(key, executor, visitor) else None


def _begin(key: str, executor: int, visitor: str) -> bool:
    while True:
        begun = write(
            "INSERT INTO naive_runs (run, key, visitor, executor, started_at_ms)"
            " SELECT coalesce(max(run), 0) + 1, :key, :visitor, :executor, :at_ms"
            " FROM naive_runs WHERE TRUE ON CONFLICT DO NOTHING RETURNING run",
            key=key,
            visitor=visitor,
            executor=executor,
            at_ms=now_ms(),
        )
        if begun:
            return True
        if write("SELECT run FROM naive_runs WHERE key = :key", key=key):
            return False
        # On Postgres another key took that number at the same time, so there is a next one now.


def run_again(key: str, executor: int) -> bool:
    """Do the same once more, as somebody does who cannot tell how far it had come; False without a run."""
    visitor = "SELECT visitor FROM naive_runs WHERE key = :key"
    with lane().engine.connect() as connection:
        found = connection.execute(text(visitor), {"key": key}).scalar()
    if found is None:
        return False
    write("DELETE FROM naive_troubles WHERE key = :key", key=key)
    write("UPDATE naive_runs SET executor = :executor WHERE key = :key", key=key, executor=executor)
    _run(key, found)
    return True


def _run(key: str, visitor: str) -> None:
    """Run a sale and a greeting, each in a thread of this process."""
    _start(key, "sale", partial(checkout, key))
    _start(key, "greeting", partial(greet, visitor))


def sell(key: str, executor: int) -> None:
    """Run a sale alone, in a thread of this process, in which nobody greets; once for each key."""

    def sell_once() -> None:
        if _begin(key, executor, ""):
            checkout(key)

    _start(key, "sale", sell_once)


def _start(key: str, name: str, work: Callable[[], object]) -> None:
    threading.Thread(target=_try, args=[key, name, work], name="naive", daemon=True).start()


def _try(key: str, name: str, work: Callable[[], object]) -> None:
    try:
        work()
    except (guestbook.Unavailable, guestbook.Refused) as error:
        _give_up(key, name, str(error))
    except DBAPIError as error:
        _log.warning("the naive lane gave up: %s", str(error).splitlines()[0])
        _give_up(key, name, "The database did not take it.")


def _give_up(key: str, name: str, reason: str) -> None:
    """Write down that nothing more comes of it, for its page; as soon as the database takes that."""
    _log.warning("the naive lane gave up its %s: %s", name, reason)
    while True:
        try:
            write(
                "INSERT INTO naive_troubles (key, work, reason) SELECT key, :work, :reason FROM naive_runs"
                " WHERE key = :key ON CONFLICT DO NOTHING",
                key=key,
                work=name,
                reason=reason,
            )
        except DBAPIError:
            time.sleep(_PAUSE_SECONDS)
        else:
            return


# --- the business, as `workflows.py` has it, but for what makes it durable ---------------


def checkout(payment_id: str) -> OrderNow:
    """One click on Buy Now, from reserving a unit to paid or cancelled; the order then."""
    order = reserve(payment_id)
    while order["status"] == Status.PENDING:
        notice = wait_for_notice(order)
        order = settle(payment_id, notice)
    if order["status"] == Status.PAID:
        dispatch(payment_id, order["updated_at_ms"])
    return order


def dispatch(payment_id: str, paid_at_ms: int) -> OrderNow:
    """Ten ticks from paid to dispatched, each exactly once; of an order that is not paid, none."""
    order = advance(payment_id, 1, paid_at_ms)
    while order["status"] == Status.PAID:
        order = advance(payment_id, order["progress"] + 1, order["updated_at_ms"])
    return order


def greet(name: str) -> None:
    """Sign the online guestbook, wait a little, and write it down here: both once, or neither."""
    signing = sign_online_guestbook(name)
    at_ms = signing["at_ms"]
    for tick in range(1, GREETING_TICKS + 1):
        at_ms = wait_for_tick(tick, at_ms)
    record_greeting(name, signing["signature"])


# --- its statements -------------------------------------------------------------------


class OrderNow(TypedDict):
    """An order, as far as this process knows."""

    status: Status
    progress: int
    updated_at_ms: int


def reserve(payment_id: str) -> OrderNow:
    """Hold a unit; the order then."""
    write(
        "INSERT INTO naive_orders (payment_id, status, progress) VALUES (:payment_id, :status, 0)"
        " ON CONFLICT (payment_id) DO UPDATE SET status = excluded.status, progress = 0",
        payment_id=payment_id,
        status=Status.PENDING,
    )
    return OrderNow(status=Status.PENDING, progress=0, updated_at_ms=now_ms())


def wait_for_notice(_order: OrderNow) -> str | None:
    """Wait until the shopper has paid: on the presenter's page, all do, after one tick."""
    time.sleep(lane().tick_seconds)
    return Outcome.PAID


def settle(payment_id: str, _notice: str | None) -> OrderNow:
    """Take the money; the order then."""
    write(
        "INSERT INTO naive_payments (payment_id, amount_cents) VALUES (:payment_id, :cents)"
        " ON CONFLICT (payment_id) DO UPDATE SET amount_cents = naive_payments.amount_cents + :cents",
        payment_id=payment_id,
        cents=PRICE_CENTS,
    )
    write(
        "UPDATE naive_orders SET status = :status WHERE payment_id = :payment_id",
        payment_id=payment_id,
        status=Status.PAID,
    )
    return OrderNow(status=Status.PAID, progress=0, updated_at_ms=now_ms())


def advance(payment_id: str, tick: int, previous_at_ms: int) -> OrderNow:
    """Wait for one tick and record it; the order then."""
    _wait_for_a_tick_since(previous_at_ms)
    status = Status.DISPATCHED if tick == DISPATCH_TICKS else Status.PAID
    write(
        "UPDATE naive_orders SET progress = :tick, status = :status WHERE payment_id = :payment_id",
        payment_id=payment_id,
        tick=tick,
        status=status,
    )
    return OrderNow(status=status, progress=tick, updated_at_ms=now_ms())


def sign_online_guestbook(name: str) -> Signing:
    """Sign over there; the number of the signature, and when."""
    number = guestbook.sign(lane().guestbook_url, name, key=None).number
    return Signing(signature=number, at_ms=now_ms(), trouble="", may_pass=False)


def wait_for_tick(_tick: int, previous_at_ms: int) -> int:
    """Wait for one tick; returns when, in ms since 1970."""
    _wait_for_a_tick_since(previous_at_ms)
    return now_ms()


def record_greeting(name: str, signature: int) -> None:
    """Write down a visitor who has signed over there."""
    write(
        "INSERT INTO naive_greetings (name, signature) VALUES (:name, :signature)",
        name=name,
        signature=signature,
    )


def write(statement: str, **values: object) -> list[int]:
    """One statement, one transaction; the numbers that it returns, if it returns any."""
    with lane().engine.begin() as connection:
        result = connection.execute(text(statement), values)
        return [row[0] for row in result] if result.returns_rows else []


def now_ms() -> int:
    """Whole milliseconds since 1970 in UTC."""
    return time.time_ns() // 1_000_000


def _wait_for_a_tick_since(at_ms: int) -> None:
    time.sleep(max(0.0, lane().tick_seconds - (now_ms() - at_ms) / 1000))
