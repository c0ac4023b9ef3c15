"""Single statements of a transaction, which looks at how many rows each has changed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session


class UnexpectedRowCount(RuntimeError):
    """A statement changed another number of rows than its transaction can account for."""


def execute(session: Session, statement: str, **values: Any) -> int:
    """Run one statement; how many rows it changed."""
    result: Any = session.execute(sa.text(statement), values)
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
    return session.execute(sa.text(statement), values).one_or_none()
