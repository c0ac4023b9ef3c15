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
from store.ledger.invariants import Ledger, draw_up
from store.ledger.witnesses import NEWEST, WitnessAway, Witnesses
from store.reads.cached import BackgroundRead, CachedRead
from store.reads.orders import CRASHES
from store.vocabulary import PRODUCT_ID

Accounts = dict[str, tables.Account]

_ALARM_SECONDS = 10.0
"""How old it may be that the books balance, on pages that are not the ledger's."""
_SECONDS = 1.0
"""How old the ledger on a page may be: every watcher in that time is served by one reading."""
_LATE_MS = 5_000
"""What should have moved this long ago is late."""
_WINDOW = 200
"""Accounts that each reading compares, beside those that it always does."""
_NEWEST = 20
_MOST_LIVE = 500
_MOST_FAULTY = 200
"""Accounts with faults that are looked at every time; those beyond it, when it is their turn."""

_FIGURES = f"""
WITH
ended AS MATERIALIZED (
    SELECT status, reason, count(*) AS n, sum(price_cents) AS cents FROM orders GROUP BY status, reason
),
moved AS MATERIALIZED (
    SELECT kind, count(*) AS n, sum(units) AS units FROM stock_movements GROUP BY kind
),
money AS MATERIALIZED (
    SELECT kind, count(*) AS n, sum(amount_cents) AS cents FROM payments GROUP BY kind
),
due AS MATERIALIZED (
    SELECT CASE WHEN o.status = 'paid' THEN o.updated_at_ms + :tick_ms
        ELSE coalesce((SELECT min(n.received_at_ms) FROM payment_notices n
                       WHERE n.payment_id = o.payment_id AND n.received_at_ms < o.pay_by_ms), o.pay_by_ms)
        END AS at_ms
    FROM orders o WHERE o.status IN ('pending', 'paid')
),
damage AS MATERIALIZED (
    SELECT
        count(o.payment_id) FILTER (WHERE p.payment_id IS NULL) AS units_held_for_ever,
        count(p.payment_id) FILTER (WHERE o.status <> 'dispatched') AS charged_and_never_shipped,
        count(*) FILTER (WHERE r.visitor <> ''
            AND NOT EXISTS (SELECT 1 FROM naive_greetings g WHERE g.name = r.visitor))
            AS greetings_never_written_down
    FROM naive_runs r
    LEFT JOIN naive_orders o ON o.payment_id = r.key
    LEFT JOIN naive_payments p ON p.payment_id = r.key
    JOIN executors e ON e.number = r.executor
    WHERE e.ended_at_ms IS NOT NULL
)
SELECT
    (SELECT on_hand FROM products WHERE product_id = {PRODUCT_ID}) AS on_the_shelf,
    (SELECT units FROM moved WHERE kind = 'restock') AS stocked,
    (SELECT n FROM moved WHERE kind = 'reserve') AS reserved,
    (SELECT n FROM moved WHERE kind = 'release') AS released,
    (SELECT sum(n) FROM ended) AS orders,
    (SELECT n FROM ended WHERE status = 'pending') AS pending,
    (SELECT sum(n) FROM ended WHERE status IN ('paid', 'dispatched')) AS sold,
    (SELECT n FROM ended WHERE status = 'dispatched') AS dispatched,
    (SELECT sum(n) FROM ended WHERE status = 'cancelled') AS cancelled,
    (SELECT n FROM ended WHERE reason = 'sold_out') AS sold_out,
    (SELECT n FROM money WHERE kind = 'charge') AS charges,
    (SELECT n FROM money WHERE kind = 'refund') AS refunds,
    (SELECT cents FROM money WHERE kind = 'charge') AS charged_cents,
    (SELECT cents FROM money WHERE kind = 'refund') AS refunded_cents,
    (SELECT sum(cents) FROM ended WHERE status IN ('paid', 'dispatched')) AS sold_cents,
    (SELECT count(*) FROM due) AS under_way,
    (SELECT count(*) FROM due WHERE at_ms < :now_ms - {_LATE_MS}) AS late,
    (SELECT (:now_ms - min(at_ms)) / 1000 FROM due WHERE at_ms < :now_ms - {_LATE_MS}) AS late_by_seconds,
    (SELECT count(*) FROM orders WHERE (status = 'dispatched') <> (progress = 10)
        OR (status IN ('pending', 'cancelled') AND progress <> 0)) AS out_of_step,
    (SELECT value FROM counters WHERE counter = 'orders') AS numbers_given,
    (SELECT max(order_id) FROM orders) AS highest_number,
    (SELECT count(*) FROM holds) AS unpaid_units_counted,
    (SELECT count(*) FROM greetings) AS greetings,
    (SELECT count(*) FROM lost_checkpoints) AS unwitnessed,
    (SELECT count(*) FROM executors) AS servers,
    (SELECT value FROM counters WHERE counter = 'executors') AS servers_started,
    (SELECT max(number) FROM executors) AS newest_server,
    (SELECT count(DISTINCT t.payment_id) FROM takeovers t JOIN executors d ON d.number = t.left_by
        WHERE d.how_ended <> 'stopped' AND t.status IN ('pending', 'paid')) AS recovered,
    ({CRASHES}) AS crashes,
    (SELECT count(*) FROM naive_runs) AS naive_runs,
    (SELECT count(*) FROM naive_payments WHERE amount_cents > (SELECT price_cents FROM products
        WHERE product_id = {PRODUCT_ID})) AS charged_more_than_once,
    damage.*
FROM damage
"""  # noqa: S608 - constants of ours, no input
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
            self._read_alarm, _ALARM_SECONDS, (), patience=0.05
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
        # One that was given up by whoever waited for it goes on by itself: no second beside it.
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
            values = {"now_ms": now_ms(), "tick_ms": self._tick_ms}
            found = connection.execute(sa.text(_FIGURES), values).mappings().one()
            figures = {name: int(figure or 0) for name, figure in found.items()}
            missing: list[int] = []
            if figures["orders"] != figures["highest_number"]:
                last = max(figures["numbers_given"], figures["highest_number"])
                missing = list(connection.execute(sa.text(_MISSING_NUMBERS), {"last": last}).scalars())
        faults, trouble = self._compare()
        return draw_up(figures, faults, missing, trouble)

    def _compare(self) -> tuple[list[Fault], str]:
        """What is wrong with single accounts; and why the witnesses cannot be asked, if they cannot."""
        try:
            keys, self._place = self._witnesses.next_keys(self._place, _WINDOW)
            with _moment(self._reader) as store:
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
        with _moment(self._reader) as store:
            end = tables.end_of_window(store, self._after, _WINDOW)
            moving = tables.moving_and_newest(store, _MOST_LIVE, _NEWEST)
            always = {tables.OPENING, *self._faulty, *wanted, *moving}
            accounts = tables.read_accounts(store, always) | tables.read_window(store, self._after, end)
        faults = faults_of(accounts)
        if faults:
            with _moment(self._reader) as store:
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
def _moment(reader: sa.Engine) -> Iterator[sa.Connection]:
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
