"""Whether the shop is well: both databases can be written, workflows run, and how much is stuck.

That a database answers a question proves little: it may be full, or read-only after a failover. So a row is
written and committed in each, in a table of this module's own, once a second at most however many ask.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import BoundedSemaphore

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from store.database import Databases, answers
from store.durable import runtime
from store.durable.deadlines import DeadlineExceeded, call_with_deadline
from store.durable.step_decorators import now_ms
from store.statement_text import text

_SECONDS = 1.0
_WRITE_SECONDS = 1.2
_READ_SECONDS = 0.5
"""Together less than a page may take."""
OK = "ok"


@dataclass(frozen=True)
class Report:
    """How each part is: `ok`, `cannot be written` or `down`."""

    database: str
    checkpoints: str
    workflows: str
    """`ok` or `down`."""
    stuck: int
    """Workflows that were found stuck and are not mended yet. The shop serves on: see `app.py stuck`."""

    @property
    def is_well(self) -> bool:
        """Whether orders can be taken and moved."""
        return (self.database, self.checkpoints, self.workflows) == (OK, OK, OK)


@dataclass
class _Part:
    """One database: how it is written, and how read."""

    writer: sa.Engine
    reader: sa.Engine
    schema: str = ""
    writing: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(1))
    """One at a time: a database that hangs holds one thread, and not one for each look."""
    has_table: bool = False

    def state(self) -> str:
        try:
            call_with_deadline(self._write, _WRITE_SECONDS, slots=self.writing)
        except (DBAPIError, sa.exc.TimeoutError, DeadlineExceeded):
            return "cannot be written" if self._answers() else "down"
        return OK

    def _write(self) -> None:
        with self.writer.begin() as connection:
            if not self.has_table:
                connection.execute(
                    text(
                        f"CREATE TABLE IF NOT EXISTS {self.schema}pulses"
                        " (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), at_ms BIGINT NOT NULL)"
                    )
                )
            # Another value each time: SQLite writes nothing where nothing changes.
            connection.execute(
                text(
                    f"INSERT INTO {self.schema}pulses (only_row, at_ms) VALUES (1, :at_ms)"  # noqa: S608 - ours
                    " ON CONFLICT (only_row) DO UPDATE SET at_ms = excluded.at_ms"
                ),
                {"at_ms": now_ms()},
            )
        self.has_table = True

    def _answers(self) -> bool:
        try:
            return call_with_deadline(lambda: answers(self.reader), _READ_SECONDS)
        except DeadlineExceeded:
            return False


class Health:
    """How one shop is."""

    def __init__(self, databases: Databases, count_stuck: Callable[[], int]) -> None:
        # Beside DBOS's own tables, where its user may make some for sure.
        schema = "" if databases.system.dialect.name == "sqlite" else "dbos."
        self._parts = (
            _Part(databases.store, databases.reader),
            _Part(databases.system, databases.system_reader, schema),
        )
        self._count_stuck = count_stuck
        self._lock = threading.Lock()
        self._report, self._looked_at = Report("down", "down", "down", 0), float("-inf")

    def report(self) -> Report:
        """How it is, at most a second ago. Whoever comes meanwhile waits two seconds at most."""
        with self._lock:
            if time.monotonic() - self._looked_at >= _SECONDS:
                self._report, self._looked_at = self._look(), time.monotonic()
            return self._report

    def _look(self) -> Report:
        with ThreadPoolExecutor(len(self._parts)) as pool:
            database, checkpoints = pool.map(_Part.state, self._parts)
        runs = runtime.is_launched() and (database, checkpoints) == (OK, OK)
        return Report(database, checkpoints, OK if runs else "down", self._count_stuck())
