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

_ORDERS = f"""
SELECT {ORDER_COLUMNS}, (SELECT count(*) FROM takeovers t WHERE t.payment_id = o.payment_id) AS takeovers
FROM orders o WHERE o.payment_id IN :ids
"""  # noqa: S608 - constants of ours, no input
_REFUSALS = "SELECT payment_id FROM refusals WHERE payment_id IN :ids"


@dataclass(frozen=True)
class _Payments(Orders):
    """What there was of these payments."""

    asked_for: Set[str]
    refused: Set[str]

    def of(self, payment_id: str) -> PaymentView | None:
        """One of them; None of any other."""
        if payment_id not in self.asked_for:
            return None
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

        Whoever asks for the first time is told what is there now, and whoever asks again, what was read for
        all. A click makes no new reading: what it leads to is a page, which reads for itself, and its
        first poll comes a second later.

        Raises:
            DeadlineExceeded: the database does not answer.
        """
        found = self._read_for_all.get().of(payment_id) if self._is_watched(payment_id) else None
        if found is None:  # also where it is watched only since that was read
            found = time_limit.read(lambda: self._read([payment_id])).of(payment_id)
        assert found is not None, "it was asked for"  # noqa: S101 - for the type checker
        return found

    def _is_watched(self, payment_id: str) -> bool:
        """Whether somebody has asked for it of late; from now on somebody has, if there is room for it.

        Those that are watched already keep their room: if whoever asks had that of those that were asked
        for longest ago, pages that ask in turn would always take it from the one that comes next.
        """
        now = time.monotonic()
        with self._lock:
            self._forget_until(now - _WATCHED_SECONDS)
            is_watched = self._asked_at.pop(payment_id, None) is not None
            if len(self._asked_at) < WATCHED_LIMIT:
                self._asked_at[payment_id] = now
        return is_watched

    def _forget_until(self, until: float) -> None:
        while self._asked_at and next(iter(self._asked_at.values())) <= until:
            self._asked_at.popitem(last=False)

    def _read_watched(self) -> _Payments:
        with self._lock:
            watched = list(self._asked_at)
        return self._read(watched)

    def _read(self, ids: Collection[str]) -> _Payments:
        if (
            not ids
        ):  # where the process stood still, all may be forgotten; Postgres has no type for an empty list
            return _Payments(rows={}, crashes={}, asked_for=frozenset(), refused=frozenset())
        with self._reader.connect() as connection:
            rows = {row.payment_id: row for row in connection.execute(text(_ORDERS, "ids"), {"ids": ids})}
            met = crashes.of_orders(connection, [key for key, row in rows.items() if row.takeovers])
            others = [key for key in ids if key not in rows]
            refused = connection.execute(text(_REFUSALS, "ids"), {"ids": others}).scalars() if others else ()
            return _Payments(rows=rows, crashes=met, asked_for=frozenset(ids), refused=frozenset(refused))
