"""The ledger: what must hold at any moment, whatever crashed, and whether it does.

It reads in two ways. The figures are totals, counted by index and read by one statement, so they are of one
moment. And accounts are compared row by row, with each other and with what their witnesses remember: those
that still move and the newest every time, the rest in turn, so that a reading costs the same however large
the shop has grown. A fault that was found is looked at every time until it is put right.

Late is not broken. What is due and not done is counted apart: it says that the shop is catching up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from store.durable.deadlines import DeadlineExceeded
from store.durable.step_decorators import now_ms
from store.ledger import account_rules
from store.ledger import accounts as tables
from store.ledger.accounts import Fault
from store.ledger.figures import figures_of
from store.ledger.invariants import Ledger, draw_up
from store.ledger.witnesses import WitnessAway, Witnesses
from store.reads.cached import BackgroundRead, CachedRead
from store.reads.checkpoints import NEWEST
from store.statement_text import text

Accounts = dict[str, tables.Account]

_ALARM_SECONDS = 10.0
"""How old it may be that the books balance, on pages that are not the ledger's."""
_ALARM_REST_SECONDS = 1.0
"""Between the first page of a server and its first reading, which takes several times as long as that."""
_SECONDS = 1.0
"""How old the ledger on a page may be: every watcher in that time is served by one reading."""
_WINDOW = 200
"""Accounts that each reading compares, beside those that it always does."""
_NEWEST = 20
_MOST_LIVE = 500
_MOST_FAULTY = 200
"""Accounts with faults that are looked at every time; those beyond it, when it is their turn."""

_MISSING_NUMBERS = """
SELECT o.order_id + 1 FROM orders o LEFT JOIN orders next ON next.order_id = o.order_id + 1
WHERE next.order_id IS NULL AND o.order_id < :last ORDER BY o.order_id LIMIT 5
"""


class LedgerReader:
    """Reads the ledger of one shop."""

    def __init__(self, reader: sa.Engine, tick_seconds: float, witnesses: Witnesses) -> None:
        self._reader, self._witnesses = reader, witnesses
        self._tick_ms = round(tick_seconds * 1000)
        self._ledger = CachedRead(self.read, _SECONDS)
        self._alarm: BackgroundRead[tuple[str, ...]] = BackgroundRead(
            self._read_alarm, _ALARM_SECONDS, (), wait_seconds=0.05, rest_seconds=_ALARM_REST_SECONDS
        )
        self._known_alarm: tuple[str, ...] = ()
        # How far the rows were compared, by the keys of the store and by the workflows of DBOS.
        self._after: str = ""
        self._place = NEWEST
        self._reading = threading.Lock()
        self._faulty: tuple[str, ...] = ()

    def latest(self) -> Ledger:
        """The ledger, at most a second old, however many ask.

        Raises:
            DeadlineExceeded: the database does not answer in time.
        """
        return self._ledger.get()

    def alarm(self) -> tuple[str, ...]:
        """What is wrong with the books, as far as was known a moment ago; nothing if they balance."""
        return self._alarm.get()

    def _read_alarm(self) -> tuple[str, ...]:
        # As the ledger's page does, so that neither turns the other away.
        with suppress(DeadlineExceeded, sa.exc.SQLAlchemyError):
            self.latest()
        return self._known_alarm

    def read(self) -> Ledger:
        """The ledger now, however long that takes.

        Raises:
            DeadlineExceeded: somebody else is reading them.
        """
        # One that its caller has given up goes on by itself: no second beside it.
        if not self._reading.acquire(blocking=False):
            raise DeadlineExceeded("the last reading of the ledger is still under way")
        try:
            found = self._read_now()
            self._known_alarm = found.alarm  # also where nobody waits for it any more
            return found
        finally:
            self._reading.release()

    def _read_now(self) -> Ledger:
        with self._reader.connect() as connection:
            figures = figures_of(connection, now_ms(), self._tick_ms)
            missing: list[int] = []
            if figures["orders"] != figures["highest_number"]:
                last = max(figures["numbers_given"], figures["highest_number"])
                missing = list(connection.execute(text(_MISSING_NUMBERS), {"last": last}).scalars())
        faults, trouble = self._compare()
        return draw_up(figures, faults, missing, trouble)

    def _compare(self) -> tuple[list[Fault], str]:
        """What is wrong with single accounts; and why the witnesses cannot be asked, if they cannot."""
        try:
            keys, self._place = self._witnesses.next_keys(self._place, _WINDOW)
            with one_moment(self._reader) as store:
                unknown = set(keys) - tables.known(store, keys)
            return self._look_twice(unknown, self._faults_witnessed), ""
        except WitnessAway as away:
            # What the witnesses have told of before stays in mind, to be asked again.
            faulty = self._faulty
            faults = self._look_twice(set(), self._faults_alone)
            self._faulty = tuple(dict.fromkeys((*self._faulty, *faulty)))[:_MOST_FAULTY]
            return faults, str(away)

    def _look_twice(self, wanted: set[str], faults_of: Callable[[Accounts], list[Fault]]) -> list[Fault]:
        """The faults of the window that is next, of what is always looked at, and of these keys.

        The store and its witnesses are not of one moment, so a fault is one if a second look finds it too.
        """
        with one_moment(self._reader) as store:
            end = tables.end_of_window(store, self._after, _WINDOW)
            moving = tables.moving_and_newest(store, _MOST_LIVE, _NEWEST)
            always = {tables.OPENING, *self._faulty, *wanted, *moving}
            accounts = tables.read_accounts(store, always) | tables.read_window(store, self._after, end)
        faults = faults_of(accounts)
        if faults:
            with one_moment(self._reader) as store:
                accounts = tables.read_accounts(store, {fault.key for fault in faults})
            second = {(fault.line, fault.key) for fault in faults_of(accounts)}
            faults = [fault for fault in faults if (fault.line, fault.key) in second]
        self._after = end or ""
        self._faulty = tuple(dict.fromkeys(fault.key for fault in faults))[:_MOST_FAULTY]
        return sorted(faults, key=lambda fault: (fault.order_id or 0, fault.key))

    def _faults_witnessed(self, accounts: Accounts) -> list[Fault]:
        return [*self._faults_alone(accounts), *self._witnesses.testify(accounts)]

    def _faults_alone(self, accounts: Accounts) -> list[Fault]:
        return [fault for account in accounts.values() for fault in account_rules.faults_of(account)]


@contextmanager
def one_moment(reader: sa.Engine) -> Iterator[sa.Connection]:
    """A connection whose every read is of one moment. It holds up nobody: readers do not block writers."""
    with reader.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
            try:
                yield connection
            finally:
                connection.exec_driver_sql("ROLLBACK")
        else:
            yield connection.execution_options(isolation_level="REPEATABLE READ")
