"""Payments that pages watch and the board does not carry: they are read together, for all who watch.

The board has the newest orders alone. Of thousands that wait, most pages show an older one, and each polls.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Collection, Set
from dataclasses import dataclass
from threading import Lock

import sqlalchemy as sa

from store.reads import crashes, time_limit
from store.reads.cached import CachedRead
from store.reads.records import ORDER_COLUMNS, Orders, PaymentView
from store.statement_text import text
from store.vocabulary import PaymentState

WATCHED_LIMIT = 5000
"""The most payments that are read together. While there are so many, others are read one by one."""
_WATCHED_SECONDS = 30.0
"""How long after a page has asked it is expected to ask again. It does so a second after it was answered, and
where thousands ask of a server that has just been started, each is answered late at first."""
_MOST_SECONDS = 0.8
"""How old a reading of very many may be: less than the second after which a page asks again, so that no page
is shown what was before that."""

_ORDERS = f"SELECT {ORDER_COLUMNS}, {crashes.TAKEOVERS} FROM orders o WHERE o.payment_id IN :ids"  # noqa: S608 - ours
_REFUSALS = "SELECT payment_id FROM refusals WHERE payment_id IN :ids"


@dataclass(frozen=True)
class _Payments(Orders):
    """What there was of these payments."""

    asked_for: Set[str]
    refused: Set[str]

    def of(self, payment_id: str) -> PaymentView:
        """One of those that were asked for."""
        state = PaymentState.REFUSED if payment_id in self.refused else PaymentState.RESERVING
        return self.view(payment_id) or PaymentView(state, None)


class WatchedPayments:
    """What pages poll, each time that it is not on the board."""

    def __init__(self, reader: sa.Engine, seconds: float) -> None:
        """`seconds` is how old a reading may be, unless very many are watched."""
        self._reader = reader
        self._lock = Lock()
        # When each was asked for last, on the monotonic clock; the latest is the last.
        self._asked_at: OrderedDict[str, float] = OrderedDict()
        self._read_for_all = CachedRead(self._read_watched, seconds, most_seconds=_MOST_SECONDS)

    def view(self, payment_id: str) -> PaymentView:
        """A payment with the crashes that its order met; RESERVING says only that there is nothing yet.

        The first poll of a payment reads it alone; those after it share one reading. A click does not renew
        that: it leads to a page, which reads for itself, and whose first poll comes a second later.

        Raises:
            DeadlineExceeded: the database does not answer.
        """
        if self._is_watched(payment_id):
            shared = self._read_for_all.get()
            if payment_id in shared.asked_for:
                return shared.of(payment_id)
        return time_limit.read(lambda: self._read([payment_id])).of(payment_id)

    def _is_watched(self, payment_id: str) -> bool:
        """Whether it was polled before, of late; from now on it was, if there is room for it.

        Payments that are watched already keep their room. If a new one replaced the one that was polled
        longest ago, pages that poll in turn would always replace the one that is polled next.
        """
        now = time.monotonic()
        with self._lock:
            while self._asked_at and next(iter(self._asked_at.values())) <= now - _WATCHED_SECONDS:
                self._asked_at.popitem(last=False)
            is_watched = self._asked_at.pop(payment_id, None) is not None
            if len(self._asked_at) < WATCHED_LIMIT:
                self._asked_at[payment_id] = now
        return is_watched

    def _read_watched(self) -> _Payments:
        with self._lock:
            watched = list(self._asked_at)
        return self._read(watched)

    def _read(self, ids: Collection[str]) -> _Payments:
        # A process that stood still has none left to read; and Postgres has no type for an empty list.
        if not ids:
            return _Payments(rows={}, crashes={}, asked_for=frozenset(), refused=frozenset())
        with self._reader.connect() as connection:
            rows = {row.payment_id: row for row in connection.execute(text(_ORDERS, "ids"), {"ids": ids})}
            met = crashes.of_rows(connection, rows.values())
            others = [key for key in ids if key not in rows]
            refused = connection.execute(text(_REFUSALS, "ids"), {"ids": others}).scalars() if others else ()
            return _Payments(rows=rows, crashes=met, asked_for=frozenset(ids), refused=frozenset(refused))
