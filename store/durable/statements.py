"""Single statements of a transaction, which looks at how many rows each has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from store.durable.step_decorators import now_ms
from store.statement_text import text


class UnexpectedRowCount(RuntimeError):
    """A statement changed another number of rows than its transaction can account for."""


def execute(session: Session, statement: str, **values: Any) -> int:
    """Run one statement; how many rows it changed."""
    result: Any = session.execute(text(statement), values)
    return int(result.rowcount)


def change_one(session: Session, statement: str, **values: Any) -> None:
    """Run a statement that must change one row, because of what its transaction has read or holds.

    Raises:
        UnexpectedRowCount: it changed none, or several; the transaction is rolled back.
    """
    changed = execute(session, statement, **values)
    if changed != 1:
        raise UnexpectedRowCount(f"{changed} rows changed instead of one: {statement}")


def fetch_one(session: Session, statement: str, **values: Any) -> Any:
    """Run one statement; the row that it returns, or None."""
    return session.execute(text(statement), values).one_or_none()


def fetch_all(session: Session, statement: str, **values: Any) -> Sequence[Any]:
    """Run one statement; the rows that it returns."""
    return session.execute(text(statement), values).all()


def now_ms_of_database(session: Session) -> int:
    """Ms since 1970 by the clock that all machines share, and that DBOS dates workflows by."""
    if session.get_bind().dialect.name == "sqlite":
        return now_ms()
    return int(fetch_one(session, "SELECT extract(epoch FROM clock_timestamp()) * 1000 AS at_ms").at_ms)
