"""`app.py executors` and `app.py adopt`, for operators: who lives, and who took up whose work."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from store.database import Databases
from store.durable import executors_table, offline
from store.durable.statements import now_ms_of_database
from store.durable.step_decorators import commit
from store.settings import Settings, is_sqlite
from store.statement_text import text

Say = Callable[[str], None]
_SHOWN = 30
_ADOPTION_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_ROWS = """
SELECT e.number, e.executor_id, e.machine, e.pid, e.started_at_ms, e.seen_at_ms, e.lease_ms, e.ended_at_ms,
    e.how_ended, e.adopted_by, e.adopted_at_ms,
    (SELECT count(*) FROM takeovers t WHERE t.left_by = e.number) AS orders_left
FROM executors e
"""


@dataclass(frozen=True)
class _Row:
    """One executor; times are ms since 1970."""

    number: int
    executor_id: str
    machine: str
    pid: int
    started_at_ms: int
    seen_at_ms: int | None
    lease_ms: int | None
    ended_at_ms: int | None
    how_ended: str | None
    adopted_by: int | None
    adopted_at_ms: int | None
    orders_left: int

    def lives(self, now_ms: int) -> bool:
        """Whether it has not ended, and its lease is good."""
        is_silent = self.lease_ms is not None and now_ms - (self.seen_at_ms or 0) > self.lease_ms
        return self.ended_at_ms is None and not is_silent

    def state(self, now_ms: int) -> str:
        """What became of it, in words."""
        if self.ended_at_ms is None:
            if self.seen_at_ms is None or self.lease_ms is None:
                return "runs, or has died and was not started again: it has the SQLite file to itself"
            silent = (now_ms - self.seen_at_ms) / 1000
            return f"{'lives' if self.lives(now_ms) else 'silent'}: last sign of life {silent:.1f} s ago"
        said = f"{self.how_ended} {_clock(self.ended_at_ms)}"
        if self.adopted_by is None:
            return f"{said}, not taken up yet"
        took = f", {self.orders_left} order{'' if self.orders_left == 1 else 's'}" if self.orders_left else ""
        if self.adopted_at_ms is None:
            return f"{said}, being taken up by {self.adopted_by}"
        return f"{said}, taken up by {self.adopted_by}{took}"


def show(settings: Settings, said: argparse.Namespace, say: Say) -> int:
    """List the executors that live, and the newest of those that have ended; 0."""
    with offline.opened(settings) as databases:
        rows, now_ms = _read(databases)
    shown = [row for index, row in enumerate(rows) if row.ended_at_ms is None or index < _SHOWN]
    if said.json:
        say(json.dumps([{**asdict(row), "state": row.state(now_ms)} for row in shown], indent=2))
        return 0
    if not shown:
        say("No server has run this shop yet.")
        return 0
    width = max(len(row.executor_id) for row in shown)
    for row in shown:
        began = f"process {row.pid:<8} since {_clock(row.started_at_ms)}"
        say(f"{row.executor_id:{width}}  {began}  {row.state(now_ms)}")
    if len(shown) < len(rows):
        say(f"And {len(rows) - len(shown)} before those.")
    return 0


def adopt(settings: Settings, said: argparse.Namespace, say: Say) -> int:
    """Count an executor as lost by hand, so that another takes up its work; 0 if one has, else 1."""
    if is_sqlite(settings.database_url):
        say("On SQLite the next server that starts takes up everything by itself: start one.")
        return 1
    with offline.opened(settings) as databases:
        rows, now_ms = _read(databases)
        row = next((row for row in rows if said.executor in {str(row.number), row.executor_id}), None)
        if row is None:
            say(f"There is no executor {said.executor}: `app.py executors` lists them.")
            return 1
        if row.lives(now_ms) and not said.force:
            say(f"Executor {row.executor_id} {row.state(now_ms)}; --force counts it as lost all the same.")
            return 1
        if row.ended_at_ms is None:
            commit(executors_table.record_lost, [row.number])
        return _wait_for_adoption(databases, row.number, say)


def _wait_for_adoption(databases: Databases, number: int, say: Say) -> int:
    deadline = time.monotonic() + _ADOPTION_SECONDS
    while True:
        rows, now_ms = _read(databases)
        [row] = [row for row in rows if row.number == number]
        if row.adopted_at_ms is not None:
            say(f"Executor {row.executor_id} {row.state(now_ms)}.")
            return 0
        if time.monotonic() > deadline:
            say(f"Executor {row.executor_id} {row.state(now_ms)}: the next server to start does that.")
            return 1
        time.sleep(_LOOK_SECONDS)


def _read(databases: Databases) -> tuple[list[_Row], int]:
    """All executors, newest first, and what time it is by the clock of their database."""
    with Session(databases.reader) as session:
        rows = session.execute(text(_ROWS + "ORDER BY e.number DESC")).mappings()
        return [_Row(**row) for row in rows], now_ms_of_database(session)


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
