"""Owns the naive lane: the same sale and the same greeting, written the ordinary way.

The one exception to the rule that only `workflows.py` writes: plain functions, plain SQL, tables of
its own, no DBOS. It is here to be crashed, beside the durable lane, on the presenter's page. Do not
take anything from it. Imports `online` and `vocabulary`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from store import online
from store.vocabulary import DISPATCH_TICKS, GREETING_BEATS, Status

_log = logging.getLogger("store")
PRICE_CENTS = 9999


@dataclass(frozen=True)
class Lane:
    """Where the naive lane writes and signs, and how long its ticks are."""

    engine: sa.Engine
    guestbook_url: str
    tick_seconds: float

    def begin(self, key: str, generation: int) -> int | None:
        """Write down that there will be a run; its number, or None if this key has had one."""
        begun = self.write(
            "INSERT INTO naive_runs (run, key, generation, started_at_ms)"
            " SELECT count(*) + 1, :key, :generation, :at_ms FROM naive_runs WHERE TRUE"
            " ON CONFLICT DO NOTHING RETURNING run",
            key=key,
            generation=generation,
            at_ms=time.time_ns() // 1_000_000,
        )
        return begun[0] if begun else None

    def run(self, number: int, visitor: str) -> None:
        """Run a sale and a greeting, each in a thread."""
        for work in (partial(checkout, self, number), partial(greet, self, number, visitor)):
            threading.Thread(target=self._try, args=[work], name="naive", daemon=True).start()

    def write(self, statement: str, **values: object) -> list[int]:
        """One statement, one transaction; the numbers that it returns, if it returns any."""
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(statement), values)
            return [row[0] for row in result] if result.returns_rows else []

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (online.Unavailable, online.Refused, DBAPIError) as error:
            _log.warning("the naive lane gave up: %s", str(error).splitlines()[0])


# --- the business, as `workflows.py` has it, but for what makes it durable ---------------


def checkout(lane: Lane, run: int) -> None:
    """One click on Buy Now, from reserving a unit to dispatched."""
    reserve(lane, run)
    time.sleep(lane.tick_seconds)  # the shopper pays
    charge(lane, run)
    dispatch(lane, run)


def dispatch(lane: Lane, run: int) -> None:
    """Ten ticks from paid to dispatched, each exactly once."""
    for tick in range(1, DISPATCH_TICKS + 1):
        advance(lane, run, tick)


def greet(lane: Lane, run: int, name: str) -> None:
    """Sign the online guestbook, wait a little, and write it down here: both once, or neither."""
    signature = online.sign(lane.guestbook_url, name, key=None)
    for _beat in range(1, GREETING_BEATS + 1):
        time.sleep(lane.tick_seconds)
    record_greeting(lane, run, name, signature.number)


# --- its statements -------------------------------------------------------------------


def reserve(lane: Lane, run: int) -> None:
    """Hold a unit."""
    lane.write("INSERT INTO naive_orders (run, status, progress) VALUES (:run, :status, 0)",
               run=run, status=Status.PENDING)  # fmt: skip


def charge(lane: Lane, run: int) -> None:
    """Take the money."""
    lane.write(
        "INSERT INTO naive_payments (run, amount_cents) VALUES (:run, :cents)", run=run, cents=PRICE_CENTS
    )
    lane.write("UPDATE naive_orders SET status = :status WHERE run = :run", run=run, status=Status.PAID)


def advance(lane: Lane, run: int, tick: int) -> None:
    """Wait for one tick and record it."""
    time.sleep(lane.tick_seconds)
    status = Status.DISPATCHED if tick == DISPATCH_TICKS else Status.PAID
    lane.write("UPDATE naive_orders SET progress = :tick, status = :status WHERE run = :run",
               run=run, tick=tick, status=status)  # fmt: skip


def record_greeting(lane: Lane, run: int, name: str, signature: int) -> None:
    """Write down a visitor who has signed over there."""
    lane.write("INSERT INTO naive_greetings (run, name, signature) VALUES (:run, :name, :signature)",
               run=run, name=name, signature=signature)  # fmt: skip
