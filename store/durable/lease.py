"""The lease of this process: every half second it says that it lives, and looks who does not say so any more.

On Postgres several processes share a shop, and none can see another one die. So each has a lease, which its
signs of life renew. One that has been silent for longer is counted as lost by whoever looks, and adopted. It
may only have been frozen, or cut off: it finds its row ended at its next sign of life, and ends at once. What
it did meanwhile is harmless, because every step is guarded, and a checkpoint of a workflow that was taken up
elsewhere is refused. But it must begin nothing: requests are turned away as soon as the lease is over.

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
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from store.database_errors import first_line
from store.durable import executors
from store.durable.executors import Death, Executor
from store.settings import LOST

_log = logging.getLogger("store")


class Lease:
    """The lease of one executor, renewed through an engine of its own: it must not wait for the workflows."""

    def __init__(
        self, executor: Executor, engine: sa.Engine, seconds: float, want_adoption: Callable[[], None]
    ):
        self._executor, self._engine, self._seconds = executor, engine, seconds
        self._want_adoption = want_adoption
        self._renewed_at = self._steady_since = time.monotonic()
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
        return time.monotonic() - self._renewed_at < self._seconds

    def _go_on(self) -> None:
        while True:
            began_at = time.monotonic()
            if began_at - self._renewed_at > self._seconds:
                # The database was away, or this process was frozen: others may be about to give a sign.
                self._steady_since = began_at
            try:
                # For as long as its own lease it has found the database there: so could all others.
                self._beat(may_count_others_as_lost=began_at - self._steady_since > self._seconds)
            except SQLAlchemyError as trouble:
                if self._is_heard:  # once, and not twice a second
                    _log.warning("no sign of life can be given: %s", first_line(trouble))
                self._is_heard = False
                self._steady_since = time.monotonic()
            else:
                self._is_heard = True
                self._renewed_at = began_at
            self._is_told.wait(executors.BEAT_SECONDS)
            self._is_told.clear()

    def _beat(self, *, may_count_others_as_lost: bool) -> None:
        with Session(self._engine) as session, session.begin():
            if not executors.give_sign_of_life(session, self._executor.token):
                _log.error("server %d counts as lost, or the shop was reset: it ends", self._executor.number)
                os._exit(LOST)
            deaths = list(self._deaths)
            for death in deaths:
                executors.record_death(session, death)
            if may_count_others_as_lost:
                executors.record_lost(session)
            is_anything_left = executors.is_anything_left(session, self._executor.number)
        for _ in deaths:
            self._deaths.popleft()
        if is_anything_left:
            self._want_adoption()
