"""The lease of this process: every half second it says that it lives, and looks who does not say so any more.

On Postgres several processes share a shop, and none can see another one die. So each has a lease, which its
signs of life renew. One that has been silent for longer is counted as lost by the next one that looks, and
adopted. It may only have been frozen, or cut off: it finds its row ended at its next sign of life, and ends
at once. What it did meanwhile is harmless, because every step is guarded, and a checkpoint of a workflow that
was taken up elsewhere is refused. But it must begin nothing: requests are turned away as soon as the lease is
over.

A SQLite file has one process at a time, by a lock that dies with its holder: no lease there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store.durable import executors_table
from store.durable.executors_table import Death, Executor
from store.log_masking import mask
from store.settings import LOST

_log = logging.getLogger("store")


class Lease:
    """The lease of one executor, renewed through an engine of its own: it must not wait for the workflows."""

    def __init__(
        self, executor: Executor, engine: sa.Engine, seconds: float, want_adoption: Callable[[], None]
    ):
        self._executor, self._engine, self._seconds = executor, engine, seconds
        self._want_adoption = want_adoption
        self._renewed_at = self._steady_since = _now()
        self._seen_at_ms: int | None = None
        self._is_heard = True
        self._deaths: deque[Death] = deque()
        self._is_told = threading.Event()

    def begin(self) -> None:
        """Give signs of life from now on, in a thread."""
        threading.Thread(target=self._go_on, name="signs of life", daemon=True).start()

    def note(self, death: Death) -> None:
        """Record at once that another process has died, which its parent has seen."""
        self._deaths.append(death)
        self._is_told.set()

    @property
    def is_good(self) -> bool:
        """Whether nobody can have counted this process as lost yet."""
        return _now() - self._renewed_at < self._seconds

    def _go_on(self) -> None:
        while True:
            began_at = _now()
            if began_at - self._renewed_at > self._seconds:
                # The database was away, or this process was frozen: others may be about to give a sign.
                self._steady_since = began_at
            try:
                self._give_sign_of_life(began_at)
            except Exception as trouble:  # noqa: BLE001 - whatever it was, the next sign may be given
                if self._is_heard:  # once, and not twice a second
                    _log.warning("no sign of life can be given: %s", mask(str(trouble).partition("\n")[0]))
                self._is_heard = False
                # A connection that was made while the database was read-only stays so for ever.
                self._engine.dispose()
                self._steady_since = _now()
            else:
                self._is_heard = True
                self._renewed_at = began_at
            self._is_told.wait(executors_table.SIGN_OF_LIFE_SECONDS)
            self._is_told.clear()

    def _give_sign_of_life(self, began_at: float) -> None:
        deaths = list(self._deaths)
        with Session(self._engine) as session, session.begin():
            at_ms = executors_table.give_sign_of_life(session, self._executor.token)
            if at_ms is None:
                _log.error("server %d counts as lost, or the shop was reset: it ends", self._executor.number)
                os._exit(LOST)
            for death in deaths:
                executors_table.record_death(session, death)
            is_anything_left = executors_table.is_anything_left(session, self._executor.number)
        for _ in deaths:
            self._deaths.popleft()
        passed_ms, self._seen_at_ms = at_ms - (self._seen_at_ms or at_ms), at_ms
        if passed_ms > 1000 * self._seconds or _now() - began_at > executors_table.SIGN_OF_LIFE_SECONDS:
            # All machines slept, the database's clock was set, or the network stood still: so for all others.
            self._steady_since = _now()
        if _now() - self._steady_since > self._seconds:
            # For as long as its own lease it has found the database there: so could all others. In another
            # transaction, because it may wait for the row of one that is frozen.
            with Session(self._engine) as session, session.begin():
                is_anything_left = bool(executors_table.record_lost(session)) or is_anything_left
        if is_anything_left:
            self._want_adoption()


def _now() -> float:
    """Seconds, those in which the machine sleeps included where its system counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
