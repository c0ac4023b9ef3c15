"""Closings of the books of a shop that is closed, made and counted again by the very code of the shop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store import schema, workflows
from store.ledger.audit import Audit, audit
from store.ledger.ledger import one_moment
from store.sealed_rows import SEALED, Table
from store.settings import Settings
from tests.support.transactions import plain


@contextmanager
def _engine(url: str) -> Iterator[sa.Engine]:
    databases = schema.connect(Settings.from_env({"DBOS_DATABASE_URL": url}))
    try:
        yield databases.store
    finally:
        databases.close()


def close(url: str, first: int = 1) -> int:
    """Close the books until nothing is left to seal; the number of the last closing."""
    with _engine(url) as engine:
        number = first
        while True:
            with Session(engine) as session, session.begin():
                session.connection()
                if not plain(workflows.close)(session, number):
                    session.rollback()
                    return number - 1
            number += 1


def audit_of(url: str) -> Audit:
    """Everything counted again."""
    with _engine(url) as engine, one_moment(engine) as store:
        return audit(store, lambda _done, _of: None)


def sealed_rows(url: str) -> dict[str, list[Any]]:
    """What the closings are made of, as it is now."""
    with _engine(url) as engine, engine.connect() as store:
        return {table.name: sorted(store.execute(_sealed(table)), key=repr) for table in SEALED}


def _sealed(table: Table) -> sa.TextClause:
    return sa.text(f"SELECT closing, {table.columns} FROM {table.name} WHERE closing IS NOT NULL")  # noqa: S608 - ours
