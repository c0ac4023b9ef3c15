"""The rows of failed tries at the presenter's password, so that a crash forgets none of them."""

from __future__ import annotations

import time

from sqlalchemy.orm import Session

from store.durable.deadlines import call_with_deadline
from store.durable.statements import execute
from store.durable.step_decorators import now_ms, plain_transaction
from store.stage.access import Record, Wait
from store.statement_text import text


def record() -> Record:
    """Those rows, as `Access` wants them. Each call of it waits for the database, and not for ever."""
    return Record(
        read=lambda: call_with_deadline(_read),
        write=lambda who, wait: call_with_deadline(lambda: _write(who, wait)),
        forget=lambda who: call_with_deadline(lambda: _forget(who)),
    )


@plain_transaction
def _read(session: Session) -> dict[str, Wait]:
    """Rows are dated by the clock of the machine, waits by that of this process, which only goes forward."""
    every = "SELECT who, wait_seconds, failed_at_ms FROM failed_tries ORDER BY failed_at_ms"
    rows = session.execute(text(every)).all()
    now, at_ms = time.monotonic(), now_ms()
    return {row.who: Wait(row.wait_seconds, now - max(0, at_ms - row.failed_at_ms) / 1000) for row in rows}


@plain_transaction
def _write(session: Session, who: str, wait: Wait) -> None:
    execute(
        session,
        "INSERT INTO failed_tries (who, wait_seconds, failed_at_ms) VALUES (:who, :seconds, :at_ms)"
        " ON CONFLICT (who) DO UPDATE SET wait_seconds = excluded.wait_seconds,"
        " failed_at_ms = excluded.failed_at_ms",
        who=who,
        seconds=round(wait.seconds),
        at_ms=now_ms(),
    )


@plain_transaction
def _forget(session: Session, who: str) -> None:
    # No row where its write has failed.
    execute(session, "DELETE FROM failed_tries WHERE who = :who", who=who)
